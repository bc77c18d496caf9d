#!/usr/bin/env bash
# Packs the release binary into a container image, without any engine: the binary, the shared libraries that
# it needs, CA certificates, and nothing else. The same inputs give the same bytes.
#
#   scripts/image.sh [--binary FILE] [--out FILE]   an OCI layout in one tar (default target/image/dfs.tar)
#   scripts/image.sh [--binary FILE] --root DIR     only the image's files, into DIR (deploy/Containerfile, tests)
#
# REVISION   commit, when this is no git checkout
set -euo pipefail
cd "$(dirname "$0")/.."

binary=target/release/dfs
out=target/image/dfs.tar
root=
while [ $# -gt 0 ]; do
    case $1 in
        --binary) binary=$2 ;;
        --out) out=$2 ;;
        --root) root=$2 ;;
        *) echo "image.sh: what is $1? See the top of the script" >&2; exit 2 ;;
    esac
    shift 2
done
[ -x "$binary" ] || { echo "image.sh: $binary is not there: run \`make image\`, or cargo build --release --bin dfs" >&2; exit 1; }

# --- the image's files ------------------------------------------------------------------------------------

# Copies a file to the same path in the image. Links become what they point to.
keep() { install -D -m "$1" "$2" "$3$2"; }

# The loader and the libraries, as the loader itself finds them.
libraries_of() {
    ldd "$1" | awk '/not found/ { print "image.sh: " $1 " is missing" > "/dev/stderr"; exit 1 }
        $2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }'
}

# Before glibc 2.34, files and DNS were plug-ins that the resolver opens by name: ldd does not show them.
resolver_plugins() {
    local libc
    libc=$(libraries_of "$1" | grep '/libc\.so' || true)
    [ -n "$libc" ] || return 0
    for name in libnss_files.so.2 libnss_dns.so.2 libresolv.so.2; do
        [ ! -e "$(dirname "$libc")/$name" ] || echo "$(dirname "$libc")/$name"
    done
}

lay_out() {
    local to=$1 library certificates=
    mkdir -p "$to"
    # Function names stay for backtraces; line tables would be most of the image.
    if command -v strip >/dev/null; then
        strip --strip-debug -o "$to/dfs" "$binary"
    else
        cp "$binary" "$to/dfs"
    fi
    chmod 755 "$to/dfs"
    { libraries_of "$binary"; resolver_plugins "$binary"; } | sort -u | while read -r library; do
        keep 755 "$library" "$to"
    done
    for certificates in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem; do
        [ ! -s "$certificates" ] || break
    done
    [ -s "$certificates" ] || { echo "image.sh: no CA certificates here: install ca-certificates" >&2; exit 1; }
    install -D -m 644 "$certificates" "$to/etc/ssl/certs/ca-certificates.crt"
    # The resolver reads /etc/hosts first, then asks DNS; both files are mounted by whoever runs the image.
    printf 'hosts: files dns\npasswd: files\ngroup: files\n' >"$to/etc/nsswitch.conf"
    printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:dfs:/:/sbin/nologin\n' >"$to/etc/passwd"
    printf 'root:x:0:\nnonroot:x:65532:\n' >"$to/etc/group"
    chmod 644 "$to"/etc/nsswitch.conf "$to"/etc/passwd "$to"/etc/group
    install -D -m 644 LICENSE "$to/usr/share/licenses/dfs/LICENSE"
    mkdir -p "$to/tmp"
    find "$to" -type d -exec chmod 755 {} +
    chmod 1777 "$to/tmp"
}

if [ -n "$root" ]; then
    lay_out "$root"
    exit 0
fi

# --- the archive ------------------------------------------------------------------------------------------

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
revision=${REVISION:-$(git rev-parse HEAD 2>/dev/null || echo unknown)}
[ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision-dirty
# The commit's time, so that building again gives the same image.
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
reference=docker.io/library/dfs:$version
case $(uname -m) in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) architecture=$(uname -m) ;;
esac

work=$(mktemp -d "${TMPDIR:-/tmp}/dfs-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
lay_out "$work/root"
blobs=$work/layout/blobs/sha256
mkdir -p "$blobs"

# tar that depends on nothing but names, modes and bytes.
pack() { tar --create --format=ustar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --file="$1" --directory="$2" -- $(ls "$2"); }
digest() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }
# Files a blob under its digest, and prints the digest.
blob() { local name; name=$(digest "$1"); mv "$1" "$blobs/$name"; echo "$name"; }

pack "$work/layer.tar" "$work/root"
diff_id=$(digest "$work/layer.tar")
unpacked=$(size "$work/layer.tar")
gzip -9 --no-name "$work/layer.tar"
layer=$(blob "$work/layer.tar.gz")

labels='"org.opencontainers.image.title":"dfs"'
labels+=',"org.opencontainers.image.description":"A replicated file store for Kubernetes: tracker, datanode, gateway, operator and client verbs"'
labels+=",\"org.opencontainers.image.version\":\"$version\",\"org.opencontainers.image.revision\":\"$revision\""
labels+=",\"org.opencontainers.image.created\":\"$created\",\"org.opencontainers.image.licenses\":\"Apache-2.0\""
printf '{"created":"%s","architecture":"%s","os":"linux","config":{"User":"65532:65532","Entrypoint":["/dfs"],"WorkingDir":"/","Env":["PATH=/","SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],"Labels":{%s}},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"%s","created_by":"scripts/image.sh"}]}' \
    "$created" "$architecture" "$labels" "$diff_id" "$created" >"$work/config.json"
config=$(blob "$work/config.json")

oci=application/vnd.oci.image
printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"%s.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}],"annotations":{%s}}' \
    "$oci" "$oci" "$config" "$(size "$blobs/$config")" "$oci" "$layer" "$(size "$blobs/$layer")" "$labels" >"$work/manifest.json"
manifest=$(blob "$work/manifest.json")

printf '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
printf '{"schemaVersion":2,"mediaType":"%s.index.v1+json","manifests":[{"mediaType":"%s.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"%s","io.containerd.image.name":"%s"}}]}' \
    "$oci" "$oci" "$manifest" "$(size "$blobs/$manifest")" "$architecture" "$version" "$reference" >"$work/layout/index.json"
# `docker load` before version 25 and `kind load image-archive` look for this one.
printf '[{"Config":"blobs/sha256/%s","RepoTags":["%s"],"Layers":["blobs/sha256/%s"]}]' "$config" "$reference" "$layer" >"$work/layout/manifest.json"

mkdir -p "$(dirname "$out")"
pack "$out.new" "$work/layout"
mv "$out.new" "$out"
mib() { awk -v bytes="$1" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'; }
echo "$out: $reference, $(mib "$(size "$out")"), $(mib "$unpacked") unpacked, sha256:$manifest"
