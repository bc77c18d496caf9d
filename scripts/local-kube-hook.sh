#!/bin/sh
# DFS_KUBE_HOOK for the local cluster (docs/kubernetes-tests.md): takes pieces of it away, and brings them back.
# LOCAL_KUBE: where its programs are (default ../shared/kube).
set -eu
kube=${LOCAL_KUBE:-$(dirname "$0")/../../shared/kube}
case ${1:-} in
    node-kill) exec "$kube/node" kill "${2#node-}" ;;
    node-start) exec "$kube/node" start "${2#node-}" ;;
    apiserver-stop) exec "$kube/apiserver" stop ;;
    apiserver-start) exec "$kube/apiserver" start ;;
    *) echo "usage: local-kube-hook.sh node-kill NODE | node-start NODE | apiserver-stop | apiserver-start" >&2; exit 2 ;;
esac
