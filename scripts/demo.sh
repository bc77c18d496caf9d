#!/usr/bin/env bash
# A real tree of files through five datanodes, one of which is killed and wiped while it goes on.
# Everything it makes lies in one directory of its own, which it removes at the end.
set -euo pipefail
cd "$(dirname "$0")/.."

DFS=$PWD/target/release/dfs
SOURCE=${DEMO_SOURCE:-$(rustc --print sysroot)}
WORK=$(mktemp -d "${TMPDIR:-/tmp}/dfs-demo.XXXXXX")
PORT=${DEMO_PORT:-16000}
export DFS_TRACKER=http://127.0.0.1:$PORT
declare -A PIDS=()

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
show() { printf '$ %s\n' "$*"; "$@"; }

cleanup() {
    for pid in "${PIDS[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$WORK"
}
trap cleanup EXIT

start_datanode() {
    local n=$1
    "$DFS" datanode --port $((PORT + n)) --tracker "$DFS_TRACKER" --dir "$WORK/datanode-$n" \
        >"$WORK/datanode-$n.log" 2>&1 &
    PIDS[$n]=$!
}

# Waits for a condition, at most ten minutes.
until_true() {
    local what=$1 deadline=$((SECONDS + 600))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "gave up waiting until $what" >&2; exit 1; }
        sleep 1
    done
}
live_datanodes() { [ "$("$DFS" nodes -o json 2>/dev/null | grep -o '"liveness": *"live"' | wc -l)" -ge "$1" ]; }
clean() { "$DFS" fsck -o json >"$WORK/fsck.json" 2>&1; }
dead_datanode() { "$DFS" nodes -o json | grep -q '"liveness": *"dead"'; }

say "A tracker and five datanodes, each a process with a directory of its own"
"$DFS" tracker --port "$PORT" --dir "$WORK/tracker" --repair-delay 5s >"$WORK/tracker.log" 2>&1 &
PIDS[0]=$!
for n in 1 2 3 4 5; do start_datanode "$n"; done
until_true "five datanodes are registered" live_datanodes 5
show "$DFS" nodes

say "What goes in: $(find -L "$SOURCE" -type f | wc -l) files, $(du -shL "$SOURCE" | cut -f1), from $(basename "$SOURCE")"
printf '$ dfs put -r %s toolchain &\n' "$(basename "$SOURCE")"
start=$SECONDS
"$DFS" put -r "$SOURCE" toolchain >"$WORK/put.log" 2>&1 &
put=$!

stored_enough() { [ "$(du -sm "$WORK/datanode-3" | cut -f1)" -ge "${DEMO_KILL_AFTER_MB:-200}" ] || ! kill -0 "$put" 2>/dev/null; }
until_true "datanode 3 holds something" stored_enough
kill -0 "$put" 2>/dev/null || { echo "the upload ended before the kill: raise DEMO_KILL_AFTER_MB" >&2; exit 1; }

say "Datanode 3 is killed with -9 while it is being written to, and its disk is wiped"
kill -9 "${PIDS[3]}"
unset 'PIDS[3]'
rm -rf "$WORK/datanode-3"

wait "$put" || { echo "the upload failed:" >&2; tail -20 "$WORK/put.log" >&2; exit 1; }
say "The upload went on without it and ended after $((SECONDS - start)) s"
tail -3 "$WORK/put.log"
show "$DFS" status

say "The tracker gives the dead datanode its repair delay (5 s here), then copies what it held, most endangered first"
until_true "datanode 3 is found dead" dead_datanode
for _ in 1 2 3; do sleep 3; "$DFS" status || true; done
until_true "fsck is clean" clean
show "$DFS" status

say "Everything is fetched back and compared, file by file"
start=$SECONDS
show "$DFS" get -r toolchain "$WORK/back"
echo "fetched in $((SECONDS - start)) s"
count=0
while IFS= read -r -d '' file; do
    cmp "$SOURCE/$file" "$WORK/back/$file"
    count=$((count + 1))
done < <(cd "$SOURCE" && find -L . -type f -print0)
echo "$count files are equal"
[ "$count" = "$(find "$WORK/back" -type f | wc -l)" ] || { echo "the number of files differs" >&2; exit 1; }

say "And the last word is fsck's"
show "$DFS" fsck
