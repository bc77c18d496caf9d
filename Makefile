.PHONY: run test test-root planted e2e bench demo fuzz generate lint fmt count

CARGO ?= cargo

# The whole store on this machine: a tracker and three datanodes in one process, data in ./dfs-data.
run:
	$(CARGO) run --quiet --release --bin dfs -- dev

# No root, no network service, no Kubernetes. The tests that start real processes need the binaries.
test:
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace
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

# Files that are made from code. Commit them: `make lint` fails while they differ.
generate:
	$(CARGO) run --quiet -p dfs-operator --bin dfs-crd > target/crd.yaml
	mv target/crd.yaml deploy/crd.yaml

lint:
	$(CARGO) fmt --all --check
	@$(CARGO) run --quiet -p dfs-operator --bin dfs-crd | diff deploy/crd.yaml - \
		|| { echo "deploy/crd.yaml is not what the types say: run make generate" >&2; exit 1; }
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check bans licenses sources; else echo "cargo-deny is not installed: skipped"; fi

fmt:
	$(CARGO) fmt --all

# Named tests for each invariant, fault and bad input of the contract.
count:
	@scripts/count-tests.sh
