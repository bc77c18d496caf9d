#!/usr/bin/env bash
# Starts what `make bench` measures. DFS_BENCH_DIR: where data goes (its file system is measured);
# DFS_BENCH_ONLY: some of dev,write,read,small,memory; FULL=1: larger files, more rounds' worth.
set -euo pipefail
cd "$(dirname "$0")/.."
exec target/release/dfs-bench
