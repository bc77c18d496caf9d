.PHONY: run test e2e bench demo lint fmt

CARGO ?= cargo

# The whole store on this machine: a tracker and three datanodes in one process, data in ./dfs-data.
run:
	$(CARGO) run --quiet --release --bin dfs -- dev

test:
	$(CARGO) test --workspace

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt:
	$(CARGO) fmt --all
