#!/usr/bin/env bash
# Starts what `make bench` measures, keeps what it printed in target/bench.txt and draws it in target/bench-plots.
# DFS_BENCH_DIR: where data goes (its file system is measured); DFS_BENCH_ONLY: some of dev, write, read, small, lookup,
# names, list, repair, hedged, mixed, herd, catalog, sight, synced, memory; FULL=1: everything, other stores included where scripts/bench-peers.sh
# installed them. The rest: docs/performance.md.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
target/release/dfs-bench | tee target/bench.txt || failed=$?
# A group that failed leaves the figures of the others.
if command -v python3 >/dev/null; then scripts/bench-plots.py target/bench.txt target/bench-plots; fi
exit "$failed"
