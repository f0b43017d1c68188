#!/usr/bin/env bash
# run.sh [TURNS [SECONDS]]: weft as Docker's driver beside Swarm's overlay, in one run: two hosts (network namespaces) with a real
# engine each, one swarm, one cluster of weft, and by turns a container on the one host that another on the other host finds.
# Prints medians and least–most. Wants root, dockerd, iperf3, busybox-static and target/release/weft (or $WEFT).
set -euo pipefail
cd "$(dirname "$0")/../.."
turns=${1:-9} seconds=${2:-3}
weft=$(realpath "${WEFT:-target/release/weft}")
work=$(mktemp -d /tmp/weft-swarm.XXXXXX)
tag=weft-swarm-$$
hosts=(a b)
declare -A address=([a]=192.0.2.1 [b]=192.0.2.2)

host() { ip netns exec "$tag-$1" "${@:2}"; }
engine() { docker -H "unix://$work/$1/docker.sock" "${@:2}"; }
agent() { "$weft" --socket "$work/$1/run/weft.sock" "${@:2}"; }
inside() { nsenter -t "$(engine "$1" inspect -f '{{.State.Pid}}' "$2")" -n "${@:3}"; }
keeper() { cat "$work/$1/keeper"; }

# Ends what was started, by the mount namespaces that only it has, and whatever that started.
clean() {
    for h in "${hosts[@]}"; do
        for c in $(engine "$h" ps -aq 2>/dev/null); do engine "$h" rm -f "$c" >/dev/null 2>&1 || true; done
        [ -e "$work/$h/keeper" ] || continue
        mine=$(readlink "/proc/$(keeper "$h")/ns/mnt" || true)
        for p in /proc/[0-9]*; do
            [ -n "$mine" ] && [ "$(readlink "$p/ns/mnt" 2>/dev/null)" = "$mine" ] && kill -9 "${p#/proc/}" 2>/dev/null || true
        done
        ip netns del "$tag-$h" 2>/dev/null || true
    done
    sleep 1
    rm -rf "$work"
}
trap clean EXIT

await() { for _ in $(seq 150); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.2; done; echo "swarm: $1 in 30 s" >&2; exit 1; }

start() {
    local h=$1
    mkdir -p "$work/$h"/{etc,lib,run,state}
    # shellcheck disable=SC2016
    setsid nsenter --net="/run/netns/$tag-$h" unshare -m --propagation private bash -c '
        mkdir -p /run/docker /run/containerd /etc/docker
        mount -t tmpfs own /run/docker && mount -t tmpfs own /run/containerd && mount --bind "$1/etc" /etc/docker
        mkdir -p /run/docker/plugins
        echo $$ > "$1/keeper"; exec sleep infinity' keeper "$work/$h" </dev/null >/dev/null 2>&1 &
    disown
    await "no namespace of host $h" test -s "$work/$h/keeper"
    setsid nsenter -t "$(keeper "$h")" -m -n dockerd --data-root "$work/$h/lib" --exec-root /run/docker/x \
        --pidfile "$work/$h/pid" --host "unix://$work/$h/docker.sock" --ip6tables=false --userland-proxy=false \
        </dev/null >"$work/$h/engine.log" 2>&1 &
    disown
    await "no engine on host $h" engine "$h" version
    DOCKER_HOST=unix://$work/$h/docker.sock tests/compose/busybox.sh bb:1 >/dev/null
}

# An agent in the engine's mount namespace; the other words are how it becomes a member.
member() {
    local h=$1
    setsid nsenter -t "$(keeper "$h")" -m -n "$weft" --socket "$work/$h/run/weft.sock" agent --name "$h" \
        --advertise "${address[$h]}" --state-dir "$work/$h/state" --run-dir "$work/$h/run" \
        --docker "unix://$work/$h/docker.sock" --docker-plugin-dir /run/docker/plugins "${@:2}" \
        </dev/null >"$work/$h/agent.log" 2>&1 &
    disown
    await "no agent on host $h" agent "$h" status
}

milliseconds() { echo $(($(date +%s%N) / 1000)); }
took() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.1f", (to - from) / 1000 }'; }
keep() { echo "$2" >>"$work/figures.$1"; }
median() {
    sort -g "$work/figures.$1" 2>/dev/null |
        awk '{ a[NR] = $1 } END { if (NR) printf "%.1f (%.1f–%.1f)", a[int(NR / 2) + 1], a[1], a[NR]; else printf "nothing passes" }'
}

# A container on host a, until one on host b has resolved its name, and until it has an answer of it.
turn() {
    local net=$1 name=$1-$2 from done found answered far
    far=$(engine b inspect -f '{{.State.Pid}}' "$net-far")
    from=$(milliseconds)
    engine a run -d --name "$name" --network "$net" bb:1 sleep 3600 >/dev/null
    done=$(milliseconds)
    nsenter -t "$far" -n -m busybox sh -c "until nslookup $name 127.0.0.11 >/dev/null 2>&1; do :; done" &
    wait $!
    found=$(milliseconds)
    timeout 5 nsenter -t "$far" -n -m busybox sh -c "until ping -c 1 -W 1 $name >/dev/null 2>&1; do :; done" || return 0
    answered=$(milliseconds)
    keep "$net.run" "$(took "$from" "$done")"
    keep "$net.name" "$(took "$done" "$found")"
    keep "$net.reach" "$(took "$done" "$answered")"
}

throughput() {
    local net=$1 ip out
    ip=$(engine b inspect -f "{{(index .NetworkSettings.Networks \"$net\").IPAddress}}" "$net-far")
    inside b "$net-far" iperf3 -s -1 -D >/dev/null
    out=$(timeout $((seconds + 10)) nsenter -t "$(engine a inspect -f '{{.State.Pid}}' "$net-1")" -n \
        iperf3 -c "$ip" -t "$seconds" -J --connect-timeout 2000) || return 0
    out=$(awk -F'[:,]' '/"bits_per_second"/ { last = $2 } END { printf "%.2f", last / 1e9 }' <<<"$out")
    [ "$out" = 0.00 ] || keep "$net.tcp" "$out"
}

removal() {
    local net=$1 from
    engine a network create $2 "$net-gone" >/dev/null
    engine a run --rm --network "$net-gone" bb:1 sh -c : >/dev/null
    from=$(milliseconds)
    engine a network rm "$net-gone" >/dev/null
    keep "$net.rm" "$(took "$from" "$(milliseconds)")"
}

for h in "${hosts[@]}"; do ip netns add "$tag-$h"; ip -n "$tag-$h" link set lo up; done
ip link add eth0 netns "$tag-a" type veth peer name eth0 netns "$tag-b"
for h in "${hosts[@]}"; do
    ip -n "$tag-$h" addr add "${address[$h]}/24" dev eth0
    ip -n "$tag-$h" link set eth0 up
    start "$h"
done
# Swarm has the usual ports.
ports=(--data-port 4790 --gossip-port 7947)
member a --init --token-file "$work/token" "${ports[@]}"
member b --token-file "$work/token" "${ports[@]}"
engine a swarm init --advertise-addr "${address[a]}" --data-path-port 4789 >/dev/null
engine b swarm join --token "$(engine a swarm join-token -q worker)" "${address[a]}:2377" >/dev/null

declare -A make=([swarm]="-d overlay --attachable" [weft]="-d weft" [sealed]="-d weft -o encrypted" [swarm-encrypted]="-d overlay --attachable --opt encrypted")
nets=(swarm weft sealed swarm-encrypted)
for net in "${nets[@]}"; do
    # shellcheck disable=SC2086
    engine a network create ${make[$net]} "$net" >/dev/null
    # Swarm shows a network on a worker only with its first container there.
    await "no network $net on host b" engine b run -d --name "$net-far" --network "$net" bb:1 sleep 3600
done
echo "engine $(engine a version -f '{{.Server.Version}}'), $("$weft" --version), Linux $(uname -r), $(nproc) processors, $(date -I); $turns turns" >&2
for i in $(seq "$turns"); do
    for net in "${nets[@]}"; do
        [ "$net" = swarm-encrypted ] && [ "$i" -gt 1 ] || turn "$net" "$i"
        [ "$net" = swarm-encrypted ] && [ "$i" -gt 1 ] || throughput "$net"
        [ "$net" = swarm-encrypted ] || removal "$net" "${make[$net]}"
    done
    echo "turn $i of $turns" >&2
done
echo "| | weft | weft, sealed | Swarm | Swarm, encrypted |"
echo "|---|---|---|---|---|"
row() { echo "| $1 | $(median "weft.$2") | $(median "sealed.$2") | $(median "swarm.$2") | $(median "swarm-encrypted.$2") |"; }
row "docker run, ms" run
row "then until its name resolves on the other host, ms" name
row "then until it answers from there, ms" reach
row "TCP, 1 stream, Gbit/s" tcp
row "docker network rm, ms" rm
