#!/usr/bin/env bash
# Alerts, recorded numbers and dashboards: their syntax, and for each alert that it fires and that it does not
# (deploy/observability/tests). What needs no promtool is looked at in any case: every alert has its tests and its page,
# dashboards are what their source says, and every metric that is asked for is in the source of the roles.
# PROMTOOL   promtool (default: promtool; Debian has it in the package `prometheus`)
set -euo pipefail
cd "$(dirname "$0")/.."

PROMTOOL=${PROMTOOL:-promtool}
rules=deploy/observability/rules.yaml
failures=0
fail() { failures=$((failures + 1)); printf 'FAILED: %s\n' "$*" >&2; }

alerts=$(sed -n 's/^ *- alert: \(.*\)$/\1/p' charts/dfs-operator/files/rules.yaml)
for alert in $alerts; do
    # Firing: with what it says. Not firing: no expected alert at all.
    awk -v alert="$alert" '
        $1 == "alertname:" || $2 == "alertname:" { this = $NF }
        this == alert && $1 == "exp_alerts:" { if ($2 == "[]") calm = 1; else fires = 1 }
        END { exit !(calm && fires) }' deploy/observability/tests/*.yaml || fail "$alert has no test that it fires, or none that it does not"
    page=$(awk -v alert="$alert" '$2 == "alert:" { this = $3 } this == alert && $1 == "runbook:" { print $2 }' charts/dfs-operator/files/rules.yaml)
    [ -f "docs/runbooks/${page:-$alert}.md" ] || fail "$alert has no page in docs/runbooks"
done

if python3 -c "import tomllib" 2>/dev/null; then
    scripts/dashboards.py --check || fail "a dashboard is not what its source says"
else
    echo "python3 is not installed, or is older than 3.11: dashboards are not compared with their source"
fi
for page in $(grep -rhoE 'docs/runbooks/[A-Za-z]+\.md' charts/dfs-operator/files/dashboards | sort -u); do
    [ -f "$page" ] || fail "a dashboard links to $page, which is not there"
done

# Names as they stand in the source; a datanode's and a gateway's are put together from a prefix.
known=$({
    grep -rhoE '"(dfs|process)_[a-z0-9_]+"' --include='*.rs' tracker datanode gateway operator runtime | tr -d '"'
    grep -hoE '"[a-z][a-z0-9_]+"' datanode/src/metrics.rs | tr -d '"' | sed 's/^/dfs_datanode_/'
    grep -hoE '"[a-z][a-z0-9_]+"' gateway/src/metrics.rs | tr -d '"' | sed 's/^/dfs_gateway_/'
} | sort -u)
used=$(find charts/dfs-operator/files -name rules.yaml -o -name '*.json' | xargs cat | grep -v '^ *#' |
    grep -oE '[a-z_:]*\b(dfs|process)_[a-z0-9_]+' | grep -v ':' | sed -E 's/_bucket$|_sum$|_count$//' | sort -u)
unknown=$(comm -13 <(printf '%s\n' "$known") <(printf '%s\n' "$used"))
[ -z "$unknown" ] || fail "rules or dashboards ask for metrics that nobody has:" $unknown

if command -v "$PROMTOOL" >/dev/null; then
    "$PROMTOOL" check rules $rules || fail "promtool finds fault with $rules"
    expressions=$(mktemp "${TMPDIR:-/tmp}/dfs-dashboards.XXXXXX")
    trap 'rm -f "$expressions"' EXIT
    { ! python3 -c "import tomllib" 2>/dev/null || scripts/dashboards.py --rules; } >"$expressions"
    "$PROMTOOL" check rules "$expressions" || fail "promtool finds fault with an expression of a dashboard"
    "$PROMTOOL" test rules deploy/observability/tests/*.yaml || fail "an alert does not do what its test says"
else
    echo "$PROMTOOL is not installed: rules are not evaluated"
fi
echo "$(printf '%s\n' "$alerts" | wc -l) alerts, $(printf '%s\n' "$used" | wc -l) metrics in use, $failures failures"
[ "$failures" = 0 ]
