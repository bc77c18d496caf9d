#!/usr/bin/env bash
# Alerts, recorded numbers and dashboards: their syntax, and for each alert that it fires and that it does not
# (deploy/observability/tests). What needs no promtool is looked at in any case: every alert has its tests and its page,
# and dashboards are what their source says. Whether every metric that is asked for exists is the business of dfs-metrics
# (docs/metrics.md; make lint, and a test).
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
echo "$(printf '%s\n' "$alerts" | wc -l) alerts, $failures failures"
[ "$failures" = 0 ]
