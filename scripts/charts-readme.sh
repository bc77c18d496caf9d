#!/bin/sh
# Writes charts/*/README.md from Chart.yaml and from the comments of values.yaml that start with `# --`.
#   scripts/charts-readme.sh           writes them (part of `make generate`)
#   scripts/charts-readme.sh --check   says which differ, and ends with 1 (part of `make lint`)
set -eu
cd "$(dirname "$0")/.."

# One row for each value, its path by indentation. Defaults stand on one line; every value is described.
rows() {
    awk -v file="$1/values.yaml" '
    /^ *# -- / { sub(/^ *# -- /, ""); text = $0; next }
    /^ *# / && text != "" { sub(/^ *# /, ""); text = text " " $0; next }
    /^ *#/ || /^ *$/ { next }
    {
        match($0, /^ */); depth = RLENGTH / 2
        line = substr($0, RLENGTH + 1)
        key[depth] = line; sub(/:.*/, "", key[depth])
        value = line; sub(/^[^:]*: */, "", value)
        path = key[0]; for (i = 1; i <= depth; i++) path = path "." key[i]
        if ((text == "") != (value == "")) {
            print file ": " path (text == "" ? " has no description" : " is described, but its default is not on the same line") >"/dev/stderr"
            exit 1
        }
        if (text != "") printf "| `%s` | %s | `%s` |\n", path, text, value
        text = ""
    }' "$1/values.yaml"
}

field() { sed -n "s/^$2: *//p" "$1/Chart.yaml" | tr -d '"'; }

page() {
    name=$(field "$1" name)
    cat <<PAGE
# $name

$(field "$1" description). Chart $(field "$1" version), for dfs $(field "$1" appVersion); Kubernetes $(field "$1" kubeVersion | tr -d '>=' | sed 's/-0$//') or later, Helm 4 or 3.

\`\`\`sh
$(cat "$1/files/install.txt")
\`\`\`

| Value | Meaning | Default |
|---|---|---|
PAGE
    rows "$1"
    cat <<'PAGE'

Unknown values and values of the wrong kind are refused (`values.schema.json`). This page is written from `values.yaml` by `make generate`.
PAGE
}

bad=0
for chart in charts/*/; do
    chart=${chart%/}
    if [ "${1:-}" = --check ]; then
        page "$chart" | cmp -s - "$chart/README.md" || { echo "$chart/README.md is not what values.yaml says: run \`make generate\`" >&2; bad=1; }
    else
        page "$chart" >"$chart/README.md"
    fi
done
exit "$bad"
