#!/usr/bin/env bash
# Tests of the charts: lint, what the templates render in each mode, bad values that the schema must refuse.
# With KUBECONFIG set, a server-side dry run of everything against that API server too: it changes nothing there.
# HELM   helm, 4 or 3 (default: helm)
set -euo pipefail
cd "$(dirname "$0")/.."

HELM=${HELM:-helm}
command -v "$HELM" >/dev/null || { echo "test-charts.sh: helm is not there: install it, or set HELM" >&2; exit 1; }
operator=charts/dfs-operator cluster=charts/dfs-cluster
work=$(mktemp -d "${TMPDIR:-/tmp}/dfs-charts.XXXXXX")
trap 'rm -rf "$work"' EXIT
checks=0 failures=0

fail() { failures=$((failures + 1)); printf 'FAILED: %s\n' "$*" >&2; }
# check WHAT COMMAND...: the command must succeed.
check() {
    local what=$1; shift
    checks=$((checks + 1))
    "$@" >"$work/told" 2>&1 || { fail "$what"; sed 's/^/    /' "$work/told" | tail -n 15 >&2; }
}
render() { "$HELM" template store "$@" --namespace shop; }
# The documents of one kind, of what was rendered last.
kind() { awk -v kind="$1" 'BEGIN { RS = "---\n" } $0 ~ "(^|\n)kind: " kind "\n" { print "---"; print }' "$work/out"; }
has() { grep -Eq -- "$1" "$work/part"; }
# expect KIND PATTERN / never KIND PATTERN, on the last rendering; KIND `any` is all of it.
select_kind() { if [ "$1" = any ]; then cp "$work/out" "$work/part"; else kind "$1" >"$work/part"; fi; }
expect() { select_kind "$1"; check "$rendered: $1 has no /$2/" has "$2"; }
never() { select_kind "$1"; check "$rendered: $1 has /$2/" lacks "$2"; }
lacks() { ! has "$1"; }
count() { select_kind "$1"; check "$rendered: not $2 of $1" [ "$(grep -c '^kind: ' "$work/part" || true)" = "$2" ]; }
# rendering WHAT CHART ARGS...: what the following expectations look at.
rendering() {
    rendered=$1; shift
    check "$rendered renders" render "$@"
    cp "$work/told" "$work/out"
}
# The schema, and no template, must refuse it and name the value.
refused() {
    local chart=$1 value=$2; shift 2
    checks=$((checks + 1))
    if render "$chart" "$@" >"$work/told" 2>&1; then
        fail "$chart takes $*"
    elif ! grep -q "values don't meet the specifications of the schema" "$work/told" || ! grep -q "$value" "$work/told"; then
        fail "$chart refuses $* for another reason than its schema's word on $value"; sed 's/^/    /' "$work/told" | tail -n 8 >&2
    fi
}

lint() {
    local version
    version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
    for chart in $operator $cluster; do
        check "helm lint $chart" "$HELM" lint --strict --quiet "$chart"
        check "$chart is for dfs $version" grep -qx "appVersion: $version" "$chart/Chart.yaml"
    done
    check "README.md of the charts" scripts/charts-readme.sh --check
    check "deploy/operator.yaml is the operator's chart" scripts/manifests.sh --check
    check "the chart's CRD is deploy/crd.yaml" cmp deploy/crd.yaml $operator/files/crd.yaml
}

operator_templates() {
    rendering "operator" $operator
    count ClusterRole 4; count ClusterRoleBinding 2; count Role 1; count RoleBinding 1; count PodDisruptionBudget 0
    kind CustomResourceDefinition | awk '/^[a-z]/ { top = $1 } /^  [a-z]/ { key = $1 } top == "metadata:" && key == "annotations:"' >"$work/part"
    check "the CRD is kept by an annotation" has '^    helm.sh/resource-policy: keep$'
    expect CustomResourceDefinition '^  name: dfsclusters.dfs.io$'
    expect Deployment 'image: docker.io/library/dfs:[0-9]'
    expect Deployment 'imagePullPolicy: IfNotPresent'
    never Deployment 'watch-namespaces'
    for line in 'runAsNonRoot: true' 'type: RuntimeDefault' 'allowPrivilegeEscalation: false' 'readOnlyRootFilesystem: true' 'drop: \[ALL\]'; do
        expect Deployment "$line"
    done
    expect NetworkPolicy 'namespaceSelector: \{\}'

    rendering "operator in two namespaces" $operator --set 'watchNamespaces={a,b}'
    count ClusterRole 3; count Role 3; count RoleBinding 3
    expect Role '^  namespace: a$'; expect Role '^  namespace: b$'
    never ClusterRole 'secrets|statefulsets'
    expect Deployment '--watch-namespaces=a,b$'
    expect NetworkPolicy 'values:'

    rendering "operator in one namespace with the least" $operator --set 'watchNamespaces={a},rbac.readNodes=false,rbac.aggregate=false'
    count ClusterRole 0; count ClusterRoleBinding 0; count Role 2

    rendering "operator without RBAC" $operator --set rbac.create=false,serviceAccount.create=false,serviceAccount.name=mine
    count ClusterRole 0; count Role 0; count ServiceAccount 0
    expect Deployment 'serviceAccountName: mine'

    rendering "operator without CRD" $operator --set crds.install=false
    count CustomResourceDefinition 0
    rendering "operator whose CRD goes with it" $operator --set crds.keep=false
    count CustomResourceDefinition 1; never CustomResourceDefinition 'resource-policy'

    rendering "two operators" $operator --set replicas=2,priorityClassName=high
    count PodDisruptionBudget 1; expect Deployment 'replicas: 2'; expect Deployment 'priorityClassName: high'

    local digest; digest=sha256:$(printf '%064d' 7)
    rendering "operator by digest" $operator --set image.repository=mirror.example:5000/dfs,image.tag=x,image.digest="$digest" --set 'imagePullSecrets[0].name=pull'
    expect Deployment "image: mirror.example:5000/dfs@$digest"; expect Deployment "--image=mirror.example:5000/dfs@$digest"; expect Deployment 'name: pull'

    rendering "names and labels" $operator --set fullnameOverride=keeper,commonLabels.team=storage --set 'extraObjects[0]=apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-extra"}'
    expect Deployment '^  name: keeper$'; expect ConfigMap 'store-extra'
    check "every object has the common labels" [ "$(grep -c '^    team: storage$' "$work/out")" = "$(($(grep -c '^kind: ' "$work/out") - 1))" ]

    rendering "operator without observability" $operator
    count PrometheusRule 0; count PodMonitor 0; never any 'grafana_dashboard'
    rendering "alerts" $operator --set rules.enabled=true,rules.labels.release=prometheus,rules.runbooks=https://wiki.example/dfs/
    count PrometheusRule 1
    expect PrometheusRule '^    release: prometheus$'
    expect PrometheusRule 'runbook_url: https://wiki.example/dfs/DfsChunksMissing.md$'
    expect PrometheusRule '> 14.4 \* \(1 - 99.9 / 100\)'
    never PrometheusRule '\$(threshold|window|readBudget|writeBudget)'
    check "every alert of the source is rendered" [ "$(grep -c '^    - alert: ' "$work/out")" = "$(grep -c '^ *- alert: ' $operator/files/rules.yaml)" ]
    check "the schema knows every alert and no other" diff <(sed -n 's/^ *- alert: //p' $operator/files/rules.yaml | sort) \
        <(sed -n '/"propertyNames"/,/\]/p' $operator/values.schema.json | grep -oE '"Dfs[A-Za-z0-9]+"' | tr -d '"' | sort)
    rendering "dashboards" $operator --set dashboards.enabled=true,rules.runbooks=https://wiki.example/dfs
    count ConfigMap "$(find $operator/files/dashboards -name '*.json' | wc -l)"
    check "every dashboard is found by the sidecar" [ "$(grep -c '^    grafana_dashboard: "1"$' "$work/out")" = "$(grep -c '^kind: ConfigMap' "$work/out")" ]
    expect ConfigMap 'https://wiki.example/dfs/DfsChunksMissing.md'; never ConfigMap 'docs/runbooks'
    rendering "monitors" $operator --set 'watchNamespaces={a},metrics.podMonitor.enabled=true,metrics.podMonitor.interval=30s,metrics.podMonitor.labels.release=prometheus'
    count PodMonitor 2
    expect PodMonitor 'interval: 30s$'; expect PodMonitor '^    release: prometheus$'; expect PodMonitor '^      - a$'
    rendering "tuned alerts" $operator --set rules.enabled=true,rules.objectives.reads=99.5,rules.alerts.DfsSafeMode.enabled=false \
        --set rules.alerts.DfsDatanodeDown.for=1h,rules.alerts.DfsDatanodeDown.keepFiringFor=5m,rules.alerts.DfsDatanodeDown.threshold=2 \
        --set rules.alerts.DfsDatanodeDown.severity=info,rules.alerts.DfsDatanodeDown.labels.team=storage
    never PrometheusRule 'alert: DfsSafeMode$'
    expect PrometheusRule '> 14.4 \* \(1 - 99.5 / 100\)'
    awk '/^    - alert: /{ this = $3 } this == "DfsDatanodeDown"' "$work/out" >"$work/part"
    for line in 'liveness="dead"\}\) > 2$' 'for: 1h$' 'keep_firing_for: 5m$' 'severity: info$' 'team: storage$'; do
        check "a tuned alert lacks /$line/" has "$line"
    done

    # What the operator must never be able to do, in any mode.
    for args in crds.keep=true 'watchNamespaces={a}'; do
        rendering "rules with $args" $operator --set "$args"
        { kind ClusterRole; kind Role; } | awk '/resources:/ { guarded = /pods|persistentvolumeclaims|nodes|secrets|statefulsets/ } guarded && /- delete/ && !/pvcRetention.whenScaled|made anew around its pods|gave up by its uuid/' >"$work/part"
        check "no rule deletes data but the claim of a removed or given up datanode ($args)" lacks .
        { kind ClusterRole; kind Role; } | grep -E '^ +- [a-z]+' | grep -Ev '#|apiGroups:|kind:|name:' >"$work/part" || true
        check "every verb has its reason ($args)" lacks .
        never any "verbs: \[|'\*'|\"\*\""
    done
}

cluster_templates() {
    rendering "cluster" $cluster
    count DfsCluster 1
    expect DfsCluster '^  name: store$'; expect DfsCluster 'repository: docker.io/library/dfs'; expect DfsCluster 'pullPolicy: IfNotPresent'
    never DfsCluster 'gateway:|storageClassName'
    expect Pod 'helm.sh/hook: test'; expect Pod 'value: http://store-gateway.shop.svc:80'
    for line in 'runAsNonRoot: true' 'type: RuntimeDefault' 'allowPrivilegeEscalation: false' 'readOnlyRootFilesystem: true' 'drop: \[ALL\]' 'automountServiceAccountToken: false'; do
        expect Pod "$line"
    done
    rendering "cluster with doors" $cluster --set ingress.enabled=true,ingress.host=files.example,ingress.className=traefik,httpRoute.enabled=true \
        --set 'httpRoute.parentRefs[0].name=public,httpRoute.hostnames={files.example}'
    expect DfsCluster 'host: files.example'; expect DfsCluster 'className: traefik'; expect DfsCluster 'name: public'
    rendering "cluster with more spec" $cluster --set spec.repairDelay=30s,spec.dataNodes.replicas=5,nameOverride=other,test.networkPolicy=false
    expect DfsCluster 'repairDelay: 30s'; expect DfsCluster 'replicas: 5'; expect DfsCluster 'size: 10Gi'; expect DfsCluster '^  name: other$'
    expect Pod 'value: http://other-gateway'; count NetworkPolicy 0
    checks=$((checks + 1))
    ! "$HELM" template "$(printf 'a%.0s' $(seq 41))" $cluster >"$work/told" 2>&1 && grep -q 'at most 40 characters' "$work/told" || fail "a long name is not refused with its reason"
}

bad_values() {
    refused $operator replicas --set replicas=3
    refused $operator replicas --set-string replicas=1
    refused $operator digest --set image.digest=sha256:1
    refused $operator pullPolicy --set image.pullPolicy=Sometimes
    refused $operator repository --set image.repository=dfs:latest
    refused $operator watchNamespaces --set 'watchNamespaces={Not_A_Name}'
    refused $operator watchNamespaces --set 'watchNamespaces={a,a}'
    refused $operator crds --set crds.instal=true
    refused $operator resources --set resources.limits.memory=much
    refused $operator port --set metrics.service.port=70000
    refused $operator DfsNoSuchAlert --set rules.alerts.DfsNoSuchAlert.enabled=false
    refused $operator for --set rules.alerts.DfsSafeMode.for=soon
    refused $operator threshold --set rules.alerts.DfsSafeMode.threshold=-1
    refused $operator severity --set rules.alerts.DfsSafeMode.severity=bad
    refused $operator reads --set rules.objectives.reads=100
    refused $operator interval --set metrics.podMonitor.interval=soon
    refused $cluster factor --set replication.factor=8
    refused $cluster factor --set-string replication.factor=3
    refused $cluster replicas --set dataNodes.replicas=-1
    refused $cluster size --set dataNodes.storage.size=ten
    refused $cluster host --set ingress.enabled=true
    refused $cluster host --set ingress.enabled=true,ingress.host=Not_A_Host
    refused $cluster parentRefs --set httpRoute.enabled=true
    refused $cluster dataNodes --set dataNodes.replica=3
    refused $cluster nameOverride --set nameOverride=Upper
    # Every object of the values takes known keys only.
    for key in x image.x crds.x rbac.x serviceAccount.x resources.x metrics.x metrics.service.x metrics.podMonitor.x rules.x rules.objectives.x rules.alerts.DfsSafeMode.x dashboards.x networkPolicy.x; do refused $operator x --set $key=1; done
    for key in x image.x replication.x dataNodes.x dataNodes.storage.x ingress.x httpRoute.x test.x test.resources.x; do refused $cluster x --set $key=1; done
}

dry_run() {
    local namespace=default kubectl=(kubectl apply --dry-run=server --server-side --force-conflicts --field-manager=dfs-test-charts -f -)
    # The API server knows a DfsCluster only once the CRD is there: its objects are tried where it is.
    for args in crds.keep=true 'watchNamespaces={default}' replicas=2; do
        checks=$((checks + 1))
        "$HELM" template dry-run $operator --namespace $namespace --set "$args" | "${kubectl[@]}" >"$work/told" 2>&1 || { fail "the API server refuses the operator's objects with $args"; cat "$work/told" >&2; }
    done
    if kubectl get crd dfsclusters.dfs.io >/dev/null 2>&1; then
        for args in test.networkPolicy=true ingress.enabled=true,ingress.host=files.example; do
            checks=$((checks + 1))
            "$HELM" template dry-run $cluster --namespace $namespace --set "$args" | "${kubectl[@]}" >"$work/told" 2>&1 || { fail "the API server refuses the cluster's objects with $args"; cat "$work/told" >&2; }
        done
    else
        echo "the API server has no DfsCluster resource: objects of $cluster were not tried there"
    fi
}

lint
operator_templates
cluster_templates
bad_values
if [ -n "${KUBECONFIG:-}" ]; then dry_run; else echo "KUBECONFIG is not set: no dry run against an API server"; fi
echo "$checks checks of the charts, $failures failed ($("$HELM" version --short 2>/dev/null))"
[ "$failures" = 0 ]
