#!/bin/sh
# Fuzzes the running store through its own OpenAPI document: no crash, no 5xx that is not
# documented, no answer whose status, content type or body the document does not describe.
#
# FUZZ_EXAMPLES  test cases per operation and phase (default 100)
# FUZZ_SEED      repeats a run
# DFS            binary (default target/release/dfs)
# PYTHON         to make the virtual environment with (default python3)
set -eu
cd "$(dirname "$0")/.."

VERSION=4.32.5
EXAMPLES=${FUZZ_EXAMPLES:-100}
SEED=${FUZZ_SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
DFS=${DFS:-target/release/dfs}
VENV=target/fuzz-venv

if [ ! -x "$VENV/bin/st" ] || ! "$VENV/bin/st" --version | grep -q "$VERSION"; then
    ${PYTHON:-python3} -m venv "$VENV"
    "$VENV/bin/pip" install --quiet --disable-pip-version-check "schemathesis==$VERSION"
fi
ST=$PWD/$VENV/bin/st
CONFIG=$PWD/scripts/fuzz-openapi.toml

WORK=$(mktemp -d)
PID=
stop() {
    if [ -n "$PID" ]; then
        kill "$PID" 2>/dev/null || true
        wait "$PID" 2>/dev/null || true
        PID=
    fi
}
trap 'stop; rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM

# A fresh store on a free port; its address is in $HOST afterwards.
start() {
    "$DFS" dev --port 0 --dir "$WORK/$1" >"$WORK/$1.out" 2>"$WORK/$1.err" &
    PID=$!
    HOST=
    for _ in $(seq 300); do
        HOST=$(grep -o '127\.0\.0\.1:[0-9]*' "$WORK/$1.out" | head -n 1) || true
        [ -n "$HOST" ] && return
        kill -0 "$PID" 2>/dev/null || break
        sleep 0.1
    done
    echo "the store did not start:" >&2
    cat "$WORK/$1.err" >&2
    exit 1
}

# Still there, whole, and without a panic.
check_alive() {
    curl -sS -f "http://$HOST/metrics" >"$WORK/metrics"
    if awk '/^dfs_http_handler_panics_total/ && $NF != 0 { bad = 1 } END { exit !bad }' "$WORK/metrics" ||
        grep -q panicked "$WORK/$1.err"; then
        echo "a handler panicked" >&2
        cat "$WORK/$1.err" >&2
        exit 1
    fi
    # The fuzzer may have emptied datanodes or sent them away: what it ordered is taken back, as a person would.
    for id in $(curl -sS -f "http://$HOST/nodes" | grep -o '"id": *"[0-9a-f]\{32\}"' | grep -o '[0-9a-f]\{32\}'); do
        curl -sS -o "$WORK/told" -X POST "http://$HOST/nodes/$id/recommission"
        curl -sS -o "$WORK/told" -X DELETE "http://$HOST/nodes/$id/maintenance"
    done
    echo "the store is whole" >"$WORK/file"
    tries=0
    until curl -sS --fail-with-body -o "$WORK/told" -T "$WORK/file" "http://$HOST/files/after-the-fuzz"; do
        tries=$((tries + 1))
        [ "$tries" -lt 60 ] || { echo "no file is taken any more:" >&2; cat "$WORK/told" >&2; curl -sS "http://$HOST/nodes" >&2; exit 1; }
        sleep 1
    done
    curl -sS -f "http://$HOST/files/after-the-fuzz" | cmp - "$WORK/file"
    curl -sS -f "http://$HOST/fsck" | tail -n 1
}

# One part of the document: name, checks to leave out, then which operations. `-m all`: also
# requests that break the document, which must be refused with a documented answer.
fuzz() {
    NAME=$1
    shift
    start "$NAME"
    echo "== $NAME: $EXAMPLES examples an operation, seed $SEED"
    (cd "$WORK" && "$ST" --config-file "$CONFIG" run "http://$HOST/openapi.json" --checks all \
        --mode all --phases "$PHASES" --max-examples "$EXAMPLES" --seed "$SEED" \
        --request-timeout 20 --workers 2 --continue-on-failure --no-color \
        ${LEFT_OUT:+--exclude-checks "$LEFT_OUT"} --warnings off "$@") || FAILED="$FAILED $NAME"
    echo "== $NAME: afterwards"
    check_alive "$NAME"
    stop
}

FAILED=
PHASES=examples,coverage,fuzzing,stateful
LEFT_OUT=${FUZZ_LEFT_OUT-positive_data_acceptance}
FILES='^/($|upload|download|files|status|openapi)'
fuzz public --include-path-regex "$FILES"
# A datanode that speaks of a later tracker stops this one, as it must: no fuzzer's play. The stream of events does not
# end, and the fuzzer waits for ends: it has tests of its own.
fuzz admin --exclude-path-regex "$FILES|^/events" --exclude-operation-id register
if [ -n "$FAILED" ]; then
    echo "the document and the server disagree:$FAILED" >&2
    exit 1
fi
