# The inference server. Build it in the repository's root; see docs/containers.md.
#
#   docker build -f deploy/service.Dockerfile -t convvae .
#
#   COMPUTE     cpu (default) or gpu: ONNX Runtime with CUDA, which also runs without a GPU and is some GB larger
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

# The server's dependencies. This layer changes only with pyproject.toml or constraints.txt.
FROM environment AS dependencies
ARG COMPUTE=cpu
ARG WHEELS=
# Copied and not mounted: buildah --layers does not see changes in mounts.
COPY pyproject.toml constraints.txt deploy/requirements.py /src/
RUN --mount=type=bind,source=deploy/wheels,target=/src/deploy/wheels \
    --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/etc/pip-ca.crt \
    case "${COMPUTE}" in cpu|gpu) ;; *) echo "COMPUTE is '${COMPUTE}': cpu or gpu" >&2; exit 2 ;; esac \
 && if [ -n "${WHEELS}" ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS="/src/${WHEELS}"; fi \
 && if [ -s /etc/pip-ca.crt ]; then export PIP_CERT=/etc/pip-ca.crt; fi \
 && /opt/build/bin/python /src/requirements.py /src/pyproject.toml service native "${COMPUTE}" > /opt/build/requirements.txt \
 && /opt/build/bin/pip --python /opt/convvae/bin/python install --only-binary :all: \
      --constraint /src/constraints.txt --requirement /opt/build/requirements.txt

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
LABEL org.opencontainers.image.title="convvae" \
      org.opencontainers.image.description="Serves convolutional VAEs over gRPC with ONNX Runtime (${COMPUTE})." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/convvae/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1
COPY --from=dependencies /opt/convvae /opt/convvae
COPY --from=project /project/ /
# The model repository is mounted here, read-only.
WORKDIR /models
# A number, so that Kubernetes can verify that it is not root.
USER 10001:10001
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["convvae", "health", "--target", "127.0.0.1:50051", "--timeout", "4"]
ENTRYPOINT ["convvae-serve"]
CMD ["run", "--models", "/models", "--address", "0.0.0.0:50051", "--metrics-address", "0.0.0.0:9464"]
