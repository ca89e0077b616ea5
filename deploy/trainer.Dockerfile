# The trainer: fits models and publishes them into a mounted repository. Build it in the repository's root; see
# docs/containers.md.
#
#   docker build -f deploy/trainer.Dockerfile -t convvae-trainer .
#
#   COMPUTE     cpu (default) or gpu: CUDA for PyTorch and ONNX Runtime
#   TORCH_INDEX with cpu: a package index with PyTorch's CPU builds. Without one, PyTorch is the build of the usual
#               index, which on x86_64 brings CUDA, runs on a CPU too, and is some GB larger
#   BASE_IMAGE  any image with glibc, Python 3.11 or newer and its venv module
#   WHEELS      a folder under deploy/wheels with every wheel; then nothing is downloaded (see deploy/build-image)
#   VERSION, REVISION   labels of the image
#
# Secrets, both optional: `pip` is a pip.conf (another package index), `ca` the certificates it needs.
ARG BASE_IMAGE=python:3.11-slim-bookworm

# pip, which only builds, and the image's environment, still empty.
FROM ${BASE_IMAGE} AS environment
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/build && python3 -m venv --without-pip /opt/convvae

# The trainer's dependencies. This layer changes only with pyproject.toml or constraints.txt.
FROM environment AS dependencies
ARG COMPUTE=cpu
ARG TORCH_INDEX=
ARG WHEELS=
# Copied and not mounted: buildah --layers does not see changes in mounts.
COPY pyproject.toml constraints.txt deploy/requirements.py /src/
RUN --mount=type=bind,source=deploy/wheels,target=/src/deploy/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/pip-ca.crt \
    case "${COMPUTE}" in cpu|gpu) ;; *) echo "COMPUTE is '${COMPUTE}': cpu or gpu" >&2; exit 2 ;; esac \
 && if [ -n "${WHEELS}" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS="/src/${WHEELS}"; fi \
 && if [ -s /etc/pip-ca.crt ]; then export PIP_CERT=/etc/pip-ca.crt; fi \
 && cp /src/constraints.txt /opt/build/constraints.txt \
 && if [ "${COMPUTE}" = cpu ] && [ -n "${TORCH_INDEX}" ]; then \
      sed -i -E 's/^(torch|torchvision)===(.*)/\1==\2+cpu/' /opt/build/constraints.txt \
   && grep -E '^(torch|torchvision)==' /opt/build/constraints.txt > /opt/build/torch.txt \
   && /opt/build/bin/pip --python /opt/convvae/bin/python install --only-binary :all: --index-url "${TORCH_INDEX}" \
        --requirement /opt/build/torch.txt; fi \
 && /opt/build/bin/python /src/requirements.py /src/pyproject.toml trainer "${COMPUTE}" > /opt/build/requirements.txt \
 && /opt/build/bin/pip --python /opt/convvae/bin/python install --only-binary :all: \
      --constraint /opt/build/constraints.txt --requirement /opt/build/requirements.txt

# The project itself: a wheel, unpacked in its final place, as a small layer of its own.
FROM environment AS project
ARG WHEELS=
COPY pyproject.toml README.md LICENSE /src/
COPY protos /src/protos
COPY trainer /src/trainer
COPY service /src/service
RUN --mount=type=bind,source=deploy/wheels,target=/src/deploy/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/pip-ca.crt \
    if [ -n "${WHEELS}" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS="/src/${WHEELS}"; fi \
 && if [ -s /etc/pip-ca.crt ]; then export PIP_CERT=/etc/pip-ca.crt; fi \
 && /opt/build/bin/pip wheel --no-deps --wheel-dir /opt/build/project /src \
 && /opt/build/bin/pip --python /opt/convvae/bin/python install --no-deps --no-index --no-warn-script-location \
      --root /project /opt/build/project/*.whl

FROM ${BASE_IMAGE}
ARG COMPUTE=cpu
ARG VERSION=
ARG REVISION=
LABEL org.opencontainers.image.title="convvae-trainer" \
      org.opencontainers.image.description="Trains convolutional VAEs and publishes them for the server (${COMPUTE})." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# matplotlib keeps its fonts beside other temporary files: nothing else of the root is written.
ENV PATH=/opt/convvae/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    MPLCONFIGDIR=/tmp/matplotlib
COPY --from=dependencies /opt/convvae /opt/convvae
COPY --from=project /project/ /
# New volumes at these paths get this owner: run folders, and the model repository.
RUN install --directory --owner 10001 --group 10001 /runs /models
WORKDIR /runs
# The server's user.
USER 10001:10001
# A run that is stopped keeps its last checkpoint: `fit --resume`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["convvae-train"]
CMD ["--help"]
