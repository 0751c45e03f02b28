# Two commands matter: `make run` starts the decision point, `make test` checks everything. `make help` lists the rest.
# What they install goes to .venv and .tools; a stamp there says what is installed, so nothing runs twice.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# Tools in Go are pinned here; everything in Python is pinned, with hashes, in requirements.lock and requirements-dev.lock.
OPA_VERSION := v1.22.2
GHZ_VERSION := v0.93.0
GRPC_GO_VERSION := v1.85.0
K6_VERSION := v1.8.1
# The last one that can be named by a version: later ones have a go.mod that does not say v2.
H2SPEC_VERSION := v2.2.1+incompatible
HELM_VERSION := v3.22.0
KUBECONFORM_VERSION := v0.8.0
BUF_VERSION := v1.75.0
# These two write what tests/sdk/go/go.mod runs on: change them together.
PROTOC_GEN_GO_VERSION := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2
# What OPA_VERSION asks for in its go.mod.
GO_NEEDED := 1.26

PYTHON ?= python3.11 python3.12 python3.13 python3.14 python3
GO ?= $(firstword $(shell command -v go) $(wildcard /usr/local/go/bin/go))
CARGO ?= $(shell command -v cargo)
ARGS ?=

BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
LOCKED := --require-hashes --no-deps --only-binary :all:
OPA := .tools/bin/opa
KUBERNETES := tests/kubernetes/apiserver
PROMETHEUS := tests/prometheus/server
FRONT := $(wildcard front/Cargo.* front/src/*.rs front/src/*/*.rs)
# The packed bundle lies among its sources.
POLICIES := --ignore '*.tar.gz' policies

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: run
run: .venv/.run ## Start the decision point on the default bundle; ARGS="--set key=value" goes to `sark-pdp serve`
	@exec $(BIN)/sark-pdp serve $(ARGS)

.PHONY: demo
demo: .venv/.dev ## Start an MCP server, Envoy and the sidecar, and walk through six requests
	@$(BIN)/python -m tests.demo

.PHONY: test
test: MAY_INSTALL := yes
test: .venv/.dev tools curl h2load postgres redis kubernetes lint front policies ## Install the tools, then check everything; ARGS="-k name" goes to pytest
	$(BIN)/python -m pytest --hypothesis-profile repeatable $(ARGS)
	TEST_TRANSPORT=grpcio $(BIN)/python -m pytest --hypothesis-profile repeatable -m carried tests/contract $(ARGS) $(if $(ARGS),|| [ $$? = 5 ])

.PHONY: tools
tools: .tools/opa-$(OPA_VERSION) .tools/ghz-$(GHZ_VERSION) .tools/h2spec-$(H2SPEC_VERSION)
tools: .tools/buf-$(BUF_VERSION) .tools/protoc-gen-go-$(PROTOC_GEN_GO_VERSION)
tools: .tools/protoc-gen-go-grpc-$(PROTOC_GEN_GO_GRPC_VERSION) .tools/typescript/.installed
tools: .tools/k6-$(K6_VERSION) .tools/grpc-client-$(GRPC_GO_VERSION) ## Build the pinned tools that are written in Go; install those for Node, where it is

.PHONY: kubernetes
kubernetes: .tools/kubernetes .tools/helm-$(HELM_VERSION) .tools/kubeconform-$(KUBECONFORM_VERSION) ## Build etcd, the Kubernetes API server, kubectl, helm, kubeconform; 8 minutes

.PHONY: prometheus
prometheus: .tools/prometheus ## Build Prometheus and promtool, with which `make test` tries alerts and dashboard; 15 minutes

.PHONY: h2load
h2load: ## Install h2load, which only Debian's packages have, for `make test`
	@if command -v h2load > /dev/null; then exit; fi
	if [ "$(MAY_INSTALL)" = yes ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends nghttp2-client > /dev/null
	else
		echo "h2load, which calls the front, is not on PATH; on Debian and Ubuntu: apt-get install nghttp2-client" >&2
		exit 1
	fi

.PHONY: curl
curl: ## Install curl, with which the pages of docs ask, for `make test`
	@if command -v curl > /dev/null; then exit; fi
	if [ "$(MAY_INSTALL)" = yes ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends curl > /dev/null
	else
		echo "curl, with which the pages of docs ask, is not on PATH; on Debian and Ubuntu: apt-get install curl" >&2
		exit 1
	fi

.PHONY: postgres
postgres: ## Install PostgreSQL, which tests start servers of, for `make test`; no service is set up
	@shopt -s nullglob
	found=(/usr/lib/postgresql/*/bin/initdb)
	if (($${#found[@]})) || [ -n "$${POSTGRES_BIN:-}" ] || command -v initdb > /dev/null; then exit; fi
	if [ "$(MAY_INSTALL)" = yes ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
		apt-get update -qq
		export DEBIAN_FRONTEND=noninteractive
		apt-get install --yes -qq --no-install-recommends postgresql-common > /dev/null
		# Without this a cluster would be made and started as the package is configured.
		mkdir -p /etc/postgresql-common
		settings=/etc/postgresql-common/createcluster.conf
		sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' "$$settings"
		apt-get install --yes -qq --no-install-recommends postgresql > /dev/null
	else
		echo "PostgreSQL's programs are neither in /usr/lib/postgresql nor on PATH; on Debian and Ubuntu:" \
			"apt-get install postgresql; elsewhere name their folder with POSTGRES_BIN" >&2
		exit 1
	fi

.PHONY: redis
redis: ## Install Redis, which tests start servers of, for `make test`; no service is set up
	@if command -v redis-server redis-check-rdb > /dev/null; then exit; fi
	if [ "$(MAY_INSTALL)" = yes ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
		apt-get update -qq
		# The server is in this package, under another name; the package redis-server would start one.
		DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends redis-tools > /dev/null
	else
		echo "redis-server is not on PATH; on Debian and Ubuntu it is in redis-tools: apt-get install redis-tools" >&2
		exit 1
	fi

.PHONY: test-timescale
test-timescale: .venv/.dev ## The tests of the stored audit trail on a server with TimescaleDB: PG_CONFIG=/path/to/its/pg_config
	POSTGRES_BIN=$$($(or $(PG_CONFIG),pg_config) --bindir) POSTGRES_PRELOAD=timescaledb $(BIN)/python -m pytest \
		tests/contract/test_audit_store.py tests/contract/test_audit_store_days.py tests/contract/test_audit_stores.py \
		tests/contract/test_audit_questions.py \
		tests/integration/test_audit_verify_stored.py tests/integration/test_audit_writer.py tests/e2e/test_audit_to_database.py $(ARGS)

.PHONY: lint
lint: .venv/.dev ## Check style, types and the direction of imports
	@set -x
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: front
front: ## Check and test the front, where cargo is
	@if [ -z "$(CARGO)" ]; then echo "no cargo: the front is not checked"; exit; fi
	set -x
	cd front
	$(CARGO) fmt --check
	$(CARGO) clippy --quiet --locked --all-targets -- --deny warnings
	# Without Python, which a test program would have to be linked with.
	$(CARGO) test --quiet --locked --no-default-features

.PHONY: interop
interop: .venv/.dev tools h2load ## Let clients call the front that nobody here wrote: grpc-go's, grpcio's, h2spec, h2load
	$(BIN)/python -m pytest tests/interop $(ARGS)

.PHONY: fuzz
fuzz: ## Send nonsense to the front until something breaks; ARGS="-max_total_time=SECONDS" ends it (cargo-fuzz, nightly Rust)
	@cd front
	$(CARGO) +nightly fuzz run connection -- -max_len=4096 -len_control=0 $(ARGS)

.PHONY: wheel
wheel: .venv/.run ## Build the wheel, with the front in it, into dist/
	@if [ -z "$(CARGO)" ]; then echo "cargo is needed; see https://rustup.rs" >&2; exit 1; fi
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-index --no-build-isolation --wheel-dir dist .
	ls dist

.PHONY: wheel-check
wheel-check: .venv/.dev wheel ## Install the wheel where there is no cargo, and have it answer a call
	SARK_WHEEL=$$(ls --sort=time $(CURDIR)/dist/*-abi3-*.whl | head --lines 1) $(BIN)/python -m pytest tests/e2e/test_wheel.py $(ARGS)

.PHONY: policies
policies: tools ## Check and test the policies
	@set -x
	$(OPA) fmt --fail --list policies
	$(OPA) check --strict $(POLICIES)
	$(OPA) test --fail-on-empty $(POLICIES)

.PHONY: bundle
bundle: .venv/.dev tools ## Pack policies/ as the default bundle
	$(BIN)/sark-pdp bundle build policies --opa $(OPA) --output policies/default.tar.gz

.PHONY: format
format: .venv/.dev tools ## Rewrite code and policies in the project's style
	@set -x
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(OPA) fmt --write policies

.PHONY: conformance
conformance: .venv/.dev tools ## Run OPA's own test cases through the engine; the first time takes 15 minutes and 1.5 GB of .tools
	$(BIN)/python -m tests.conformance $(ARGS)

.PHONY: chaos
chaos: .venv/.dev postgres ## Kill, cut and fill for 5 minutes whatever the audit trail runs on, and compare; ARGS="--seed N" repeats a run
	$(BIN)/python -m tests.chaos $(ARGS)

.PHONY: soak
soak: .venv/.dev ## Kill and stop a process among 100,000 decisions and compare its audit trail; call the front a million times
	SARK_SOAK_DECISIONS=100000 $(BIN)/python -m pytest -rP tests/integration/test_crash.py $(ARGS)
	SARK_SOAK_CALLS=1000000 $(BIN)/python -m pytest -rP tests/integration/test_front_soak.py $(ARGS)
	$(BIN)/python -m bench.activation soak

.PHONY: proto
proto: .venv/.dev ## Generate sark_pdp/_proto from proto/
	$(BIN)/python proto/generate.py

.PHONY: proto-released
proto-released: .venv/.dev tools ## At a release: what callers are built from now on, and changes must not break
	@mkdir -p build
	$(BIN)/python proto/generate.py --describe build/proto.binpb
	.tools/bin/buf build build/proto.binpb --config proto/buf.yaml --path sark --exclude-source-info --output proto/released.binpb

.PHONY: bench
bench: .venv/.dev tools ## Measure speed and memory, on an otherwise idle machine; ARGS="--opa-envoy PATH" adds a peer (bench/README.md)
	@status=0
	set -x
	$(BIN)/python -m bench $(ARGS) || status=1
	$(BIN)/python -m bench.engine || status=1
	$(BIN)/python -m bench.batch || status=1
	$(BIN)/python -m bench.memory || status=1
	$(BIN)/python -m bench.memory --transport grpcio || status=1
	exit $$status

.PHONY: bench-quick
bench-quick: .venv/.dev tools ## The load runs alone and in short, within 3 minutes; takes the same ARGS
	@$(BIN)/python -m bench --quick --output build/bench $(ARGS)

.PHONY: lock
lock: .venv/.dev ## Pin the newest versions that pyproject.toml allows; ARGS="--upgrade-package NAME" for one, ARGS=--upgrade for all
	export UV_CUSTOM_COMPILE_COMMAND="make lock"
	compile="$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes"
	# What bundles and settings may ask for is there: the image has no other way to get it.
	$$compile $(ARGS) pyproject.toml --extra regex --extra tracing --group build --output-file requirements.lock
	$$compile $(ARGS) pyproject.toml --group build --group dev --constraint requirements.lock --output-file requirements-dev.lock

.PHONY: clean
clean: ## Remove what was installed and built
	rm -rf .venv .tools build dist front/target sark_pdp/_front*.so ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.run: .venv/pyvenv.cfg requirements.lock pyproject.toml $(FRONT)
	@echo "installing what runs, from requirements.lock; the first time takes a minute or two"
	$(PIP_INSTALL) $(LOCKED) --requirement requirements.lock
	$(PIP_INSTALL) --no-deps --no-index --no-build-isolation --editable .
	if ! $(BIN)/python -c 'import sark_pdp._front' 2> /dev/null; then
		if ! command -v cargo > /dev/null; then why="no cargo is here"; else why="cargo could not build it (why: cd front && cargo build --locked)"; fi
		echo "no front, for $$why: grpcio carries the calls, many times slower"
	fi
	touch $@

.venv/.dev: .venv/.run requirements-dev.lock
	@echo "installing what checks, from requirements-dev.lock"
	$(PIP_INSTALL) $(LOCKED) --requirement requirements-dev.lock
	touch $@

# The first Python that is new enough and can make an environment. Debian keeps the latter in a package of its own.
.venv/pyvenv.cfg:
	@usable= incomplete=
	for candidate in $(PYTHON); do
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || continue
		if "$$candidate" -c 'import ensurepip, venv' 2> /dev/null; then usable=$$candidate; break; fi
		incomplete=$${incomplete:-$$candidate}
	done
	if [ -z "$$usable$$incomplete" ]; then
		echo "Python 3.11 or newer is needed; none of these is: $(PYTHON). Name one with: make PYTHON=/path/to/python3" >&2
		exit 1
	fi
	if [ -z "$$usable" ]; then
		package=$$("$$incomplete" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
		if [ "$(MAY_INSTALL)" = yes ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
			apt-get update -qq
			DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq --no-install-recommends "$$package" > /dev/null
			usable=$$incomplete
		else
			echo "$$incomplete has no venv module; on Debian and Ubuntu it is in a package: apt-get install $$package" >&2
			exit 1
		fi
	fi
	"$$usable" -m venv --clear .venv

.tools/opa-%:
	@$(call go-install,opa,github.com/open-policy-agent/opa@$*)

.tools/ghz-%:
	@$(call go-install,ghz,github.com/bojand/ghz/cmd/ghz@$*)

.tools/h2spec-%:
	@$(call go-install,h2spec,github.com/summerwind/h2spec/cmd/h2spec@$*)

.tools/buf-%:
	@$(call go-install,buf,github.com/bufbuild/buf/cmd/buf@$*)

.tools/protoc-gen-go-v%:
	@$(call go-install,protoc-gen-go,google.golang.org/protobuf/cmd/protoc-gen-go@v$*)

.tools/protoc-gen-go-grpc-v%:
	@$(call go-install,protoc-gen-go-grpc,google.golang.org/grpc/cmd/protoc-gen-go-grpc@v$*)

.tools/typescript/.installed: $(wildcard tests/sdk/typescript/package*.json)
	@mkdir -p $(@D)
	cp $^ $(@D)
	if command -v node npm > /dev/null; then
		echo "installing what a client in TypeScript is built with, from tests/sdk/typescript/package-lock.json"
		npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund --loglevel=error
	else
		echo "no node and npm: the client in TypeScript is not checked"
	fi
	touch $@

.tools/k6-%:
	@$(call go-install,k6,go.k6.io/k6@$*)

.tools/grpc-client-%:
	@$(call go-install,grpc-client,google.golang.org/grpc/interop/client@$*)
	mv .tools/bin/client .tools/bin/grpc-client

.tools/helm-%:
	@$(call go-install,helm,helm.sh/helm/v3/cmd/helm@$*)

.tools/kubeconform-%:
	@$(call go-install,kubeconform,github.com/yannh/kubeconform/cmd/kubeconform@$*)

# Versions are those of go.mod. Helm asks the server for its own, which Kubernetes' own build would put in.
.tools/kubernetes: $(wildcard $(KUBERNETES)/go.*)
	@$(call go-needed,kube-apiserver)
	export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off GOBIN="$(CURDIR)/.tools/bin"
	cd $(KUBERNETES)
	version=$$($(GO) list -m -f '{{.Version}}' k8s.io/kubernetes)
	echo "building Kubernetes $$version"
	rm -f "$(CURDIR)/$@"
	mkdir -p "$$GOBIN"
	IFS=. read -r major minor _ <<< "$${version#v}"
	told=k8s.io/component-base/version
	nice $(GO) install -ldflags "-s -w -X $$told.gitVersion=$$version -X $$told.gitMajor=$$major -X $$told.gitMinor=$$minor" \
		k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl go.etcd.io/etcd/server/v3
	mv "$$GOBIN/server" "$$GOBIN/etcd"
	touch "$(CURDIR)/$@"

# A module of its own: Prometheus' go.mod replaces modules, which `go install` of a version refuses.
.tools/prometheus: $(wildcard $(PROMETHEUS)/go.*)
	@$(call go-needed,prometheus)
	export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off GOBIN="$(CURDIR)/.tools/bin"
	cd $(PROMETHEUS)
	echo "building Prometheus $$($(GO) list -m -f '{{.Version}}' github.com/prometheus/prometheus)"
	rm -f "$(CURDIR)/$@"
	mkdir -p "$$GOBIN"
	nice $(GO) install -ldflags "-s -w" \
		github.com/prometheus/prometheus/cmd/prometheus github.com/prometheus/prometheus/cmd/promtool
	touch "$(CURDIR)/$@"

# A value in GOFLAGS, even a needless one, replaces what the machine has set, such as -mod=vendor.
define go-install
$(call go-needed,$(1))
echo "building $(2)"
rm -f .tools/$(1)-v*
mkdir -p .tools/bin
env CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off GOBIN="$(CURDIR)/.tools/bin" $(GO) install "$(2)"
touch $@
endef

define go-needed
missing="$(1) is built from source with Go $(GO_NEEDED) or newer; see https://go.dev/doc/install"
if [ -z "$(GO)" ]; then
	echo "$$missing (no go on PATH or in /usr/local/go)" >&2
	exit 1
fi
version=$$($(GO) env GOVERSION)
newest=$$(printf '%s\n' "go$(GO_NEEDED)" "$$version" | sort --version-sort | tail --lines 1)
# From 1.21 on, Go gets the version that a module asks for, unless it is told to stay local.
if [ "$$newest" != "$$version" ] && [[ "$$($(GO) env GOTOOLCHAIN)" != *auto ]]; then
	echo "$$missing ($(GO) is $$version)" >&2
	exit 1
fi
endef
