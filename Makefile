.PHONY: run test test-root planted image generate charts e2e bench demo fuzz lint fmt count

CARGO ?= cargo
E2E_JOBS ?= 3
# Tests wait more than they compute: more at once than cores.
TEST_JOBS ?= $(shell expr 3 '*' $$(getconf _NPROCESSORS_ONLN))
# How the image's binary is built: `release`, or the quicker `ci`.
IMAGE_PROFILE ?= release

# The whole store on this machine: a tracker and three datanodes in one process, data in ./dfs-data.
run:
	$(CARGO) run --quiet --release --bin dfs -- dev

# No root, no network service, no Kubernetes. The tests that start real processes need the binaries.
test:
	$(CARGO) build --workspace --bins
	RUST_TEST_THREADS=$(TEST_JOBS) $(CARGO) test --workspace --no-fail-fast
	@scripts/count-tests.sh

# What needs root: small file systems that really fill up, resource limits.
test-root:
	$(CARGO) build --workspace --bins
	$(CARGO) test -p dfs-e2e -- --ignored root_

# Shows that the tests can fail: plants the bugs of docs/planted-bugs.md, one at a time.
planted:
	scripts/planted-bugs.sh

# The Rust toolchain's own directory through five datanodes, one of which dies on the way.
demo:
	$(CARGO) build --release --bin dfs
	scripts/demo.sh

# Ratios of one interleaved run; FULL=1 for every row.
bench:
	$(CARGO) build --release --bins
	scripts/bench.sh

# The running store against its own OpenAPI document. Needs Python and, once, PyPI; FUZZ_SEED repeats a run.
fuzz:
	$(CARGO) build --release --bin dfs
	scripts/fuzz-openapi.sh

# The container image, without any engine: target/image/dfs.tar, docker.io/library/dfs:VERSION.
image:
	$(CARGO) build --profile $(IMAGE_PROFILE) --bin dfs
	scripts/image.sh --binary target/$(IMAGE_PROFILE)/dfs

# Files that are made from others: the resource from its types, the charts' pages from their values, the plain
# manifests and the plain rules file from the operator's chart, the dashboards from their source, the page of metrics
# from the registries and from who uses them. Commit them: `make lint` fails while they differ.
generate:
	$(CARGO) run --quiet -p dfs-operator --bin dfs-crd > target/crd.yaml
	mv target/crd.yaml deploy/crd.yaml
	cp deploy/crd.yaml charts/dfs-operator/files/crd.yaml
	scripts/charts-readme.sh
	scripts/dashboards.py
	$(CARGO) run --quiet -p dfs-cli --bin dfs-metrics > target/metrics.md
	mv target/metrics.md docs/metrics.md
	@if command -v helm >/dev/null; then scripts/manifests.sh; else echo "helm is not installed: deploy/operator.yaml and deploy/observability/rules.yaml are left as they are"; fi

# The charts: lint, templates, bad values; with KUBECONFIG also a dry run against that API server.
charts:
	scripts/test-charts.sh

# The whole product on a real cluster: any KUBECONFIG whose nodes have the image (docs/kubernetes-tests.md).
# INGRESS: address of an ingress controller; E2E: only the scenarios whose name holds it; E2E_JOBS: how many at once.
e2e:
	DFS_KUBE_TESTS=1 $(CARGO) test -p dfs-operator --test cel $(E2E)
	DFS_KUBE_TESTS=1 $(CARGO) test -p dfs-e2e --test kube -- --test-threads=$(E2E_JOBS) --show-output $(E2E)

lint:
	$(CARGO) fmt --all --check
	@$(CARGO) run --quiet -p dfs-operator --bin dfs-crd | diff deploy/crd.yaml - \
		|| { echo "deploy/crd.yaml is not what the types say: run make generate" >&2; exit 1; }
	@$(CARGO) run --quiet -p dfs-cli --bin dfs-metrics | diff docs/metrics.md - \
		|| { echo "docs/metrics.md is not what the registries say: run make generate" >&2; exit 1; }
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check bans licenses sources; else echo "cargo-deny is not installed: skipped"; fi
	@if command -v helm >/dev/null; then scripts/test-charts.sh; else echo "helm is not installed: charts not tested"; scripts/charts-readme.sh --check; fi
	scripts/test-rules.sh

fmt:
	$(CARGO) fmt --all

# Named tests for each invariant, fault and bad input of the contract.
count:
	@scripts/count-tests.sh
