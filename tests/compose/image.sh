#!/usr/bin/env bash
# image.sh BINARY IMAGE: imports an image of the binary, a busybox, iperf3 and nft, from files of this machine alone.
# No registry is asked. DOCKER_HOST picks the engine.
set -euo pipefail
binary=$1 image=$2

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{bin,etc,proc,sys,dev,run,tmp,var/lib}

# copy FILE TARGET: the file, its shared libraries and their loader, at the paths the loader looks for
copy() {
    install -D -m 755 "$1" "$root$2"
    for library in $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+'); do
        install -D -m 755 "$library" "$root$library"
    done
}

copy "$binary" /bin/weft
copy "$(command -v iperf3)" /bin/iperf3
nft=$(command -v nft || ls /usr/sbin/nft 2>/dev/null || true)
[ -z "$nft" ] || copy "$nft" /bin/nft
busybox=$(command -v busybox)
copy "$busybox" /bin/busybox
"$busybox" --list | grep -vxF busybox | while read -r applet; do ln -s busybox "$root/bin/$applet"; done
# names of hosts are resolved by libc through its own plug-ins
for plugin in libnss_dns.so.2 libnss_files.so.2 libresolv.so.2; do
    library=$(ldconfig -p | awk -v name="$plugin" '$1 == name && /x86-64|AArch64/ && !seen++ { print $NF }')
    [ -z "$library" ] || install -D -m 755 "$library" "$root$library"
done
echo 'root:x:0:0:root:/:/bin/sh' >"$root/etc/passwd"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

tar -C "$root" -c . | docker import --change 'ENTRYPOINT ["/bin/weft"]' --change 'CMD ["agent"]' - "$image" >/dev/null
