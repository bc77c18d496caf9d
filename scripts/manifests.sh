#!/usr/bin/env bash
# deploy/operator.yaml: the operator for those who use no helm, rendered from its chart's defaults.
#   scripts/manifests.sh            writes it
#   scripts/manifests.sh --check    ends with 1 when the committed file differs
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

case ${1:-} in
    '') manifest >deploy/operator.yaml ;;
    --check) manifest | diff deploy/operator.yaml - || { echo "deploy/operator.yaml is not what the chart says: run make generate" >&2; exit 1; } ;;
    *) echo "usage: scripts/manifests.sh [--check]" >&2; exit 2 ;;
esac
