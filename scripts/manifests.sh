#!/usr/bin/env bash
# What those who use no helm get, rendered from the operator's chart with its defaults: deploy/operator.yaml, and the
# alerts as a plain rules file, deploy/observability/rules.yaml.
#   scripts/manifests.sh            writes them
#   scripts/manifests.sh --check    ends with 1 when a committed file differs
# HELM   helm, 4 or 3 (default: helm)
set -euo pipefail
cd "$(dirname "$0")/.."

manifest() {
    cat <<'HEAD'
# Made by `make generate` from charts/dfs-operator: do not edit. The resource first, then this:
#   kubectl apply --server-side -f deploy/crd.yaml -f deploy/operator.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: dfs-system
  labels:
    pod-security.kubernetes.io/enforce: restricted
HEAD
    # Without what says that helm looks after it.
    "${HELM:-helm}" template dfs-operator charts/dfs-operator --namespace dfs-system --set crds.install=false |
        grep -Ev '^# Source:|helm.sh/chart:|app.kubernetes.io/managed-by: Helm'
}

rules() {
    echo '# Made by `make generate` from charts/dfs-operator/files/rules.yaml: do not edit.'
    "${HELM:-helm}" template dfs-operator charts/dfs-operator --set rules.enabled=true --show-only templates/prometheusrule.yaml |
        sed '1,/^spec:$/d; s/^  //'
}

check() { diff "$1" - || { echo "$1 is not what the chart says: run make generate" >&2; exit 1; }; }

case ${1:-} in
    '') manifest >deploy/operator.yaml; rules >deploy/observability/rules.yaml ;;
    --check) manifest | check deploy/operator.yaml; rules | check deploy/observability/rules.yaml ;;
    *) echo "usage: scripts/manifests.sh [--check]" >&2; exit 2 ;;
esac
