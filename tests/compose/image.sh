#!/usr/bin/env bash
# image.sh BINARY IMAGE: imports an image of the binary, nft, a busybox and iperf3, from files of this machine alone.
# No registry is asked. DOCKER_HOST picks the engine.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
"$here/../../packaging/rootfs" "$1" "$root" busybox iperf3
busybox --list | grep -vxF busybox | while read -r applet; do ln -s busybox "$root/bin/$applet"; done

tar -C "$root" -c . | docker import --change 'ENTRYPOINT ["/bin/weft"]' --change 'CMD ["agent"]' - "$2" >/dev/null
