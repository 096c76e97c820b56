#!/bin/bash
# Generator machine: floods a VTEP with pktgen, plain frames (encap) or VXLAN frames (decap).
#
#   sudo ./generate.sh DEVICE PEER_MAC PEER_IP [options]
#
#   -s BYTES    frame length without FCS (default 60, the smallest there is)
#   -f FLOWS    source ports, hence flows and receive queues (default 1)
#   -t THREADS  processors that send, each on a transmit queue of its own (default 1)
#   -d SECONDS  how long (default 10)
#   -r PPS      packets per second and thread (default: as many as possible)
#   -p PORT     UDP destination port: 9 for plain frames, 4789 to hit a VTEP (default 9)
#
# Prints frames sent and packets per second for each thread. Needs CONFIG_NET_PKTGEN.
# pktgen writes its own payload (a magic number, a sequence, a time), so with -p 4789 the frames
# reach the VTEP and are refused by their VXLAN flags: that measures how fast refusals are. For
# decapsulation of good frames, let this machine run a VTEP itself and send plain frames into it.
set -euo pipefail

die() { echo "generate.sh: $*" >&2; exit 1; }

[ $# -ge 3 ] || die "usage: generate.sh DEVICE PEER_MAC PEER_IP [-s -f -t -d -r -p]"
device=$1 mac=$2 address=$3
shift 3
size=60 flows=1 threads=1 seconds=10 rate=0 port=9
while getopts s:f:t:d:r:p: option; do
    case $option in
        s) size=$OPTARG ;; f) flows=$OPTARG ;; t) threads=$OPTARG ;;
        d) seconds=$OPTARG ;; r) rate=$OPTARG ;; p) port=$OPTARG ;;
        *) die "unknown option" ;;
    esac
done

[ "$(id -u)" = 0 ] || die "run this as root"
[ -e "/sys/class/net/$device" ] || die "no device $device"
modprobe pktgen 2>/dev/null || true
control=/proc/net/pktgen
[ -d $control ] || die "this kernel has no pktgen (CONFIG_NET_PKTGEN)"

source_address=$(ip -4 -o address show dev "$device" | awk '{ split($4, a, "/"); print a[1]; exit }')
[ -n "$source_address" ] || die "$device has no IPv4 address"

# One command for each write, and pktgen says on the Result line what it thought of it.
tell() { echo "$2" > "$control/$1" || die "pktgen refused '$2': $(grep Result "$control/$1")"; }

clear_up() { for thread in "$control"/kpktgend_*; do echo rem_device_all > "$thread" || true; done; }
trap clear_up EXIT
clear_up

for ((i = 0; i < threads; i++)); do
    name="$device@$i"
    tell "kpktgend_$i" "add_device $name"
    tell "$name" "count 0"
    tell "$name" "clone_skb 0"
    tell "$name" "burst 32"
    tell "$name" "pkt_size $size"
    tell "$name" "queue_map_min $i"
    tell "$name" "queue_map_max $i"
    tell "$name" "dst_mac $mac"
    tell "$name" "dst_min $address"
    tell "$name" "dst_max $address"
    tell "$name" "src_min $source_address"
    tell "$name" "src_max $source_address"
    tell "$name" "udp_src_min 10000"
    tell "$name" "udp_src_max $((10000 + flows - 1))"
    tell "$name" "udp_dst_min $port"
    tell "$name" "udp_dst_max $port"
    if [ "$rate" -gt 0 ]; then tell "$name" "ratep $rate"; else tell "$name" "delay 0"; fi
done

# `start` returns only when sending has ended.
(sleep "$seconds"; echo stop > $control/pgctrl) &
echo start > $control/pgctrl
wait

for ((i = 0; i < threads; i++)); do
    sed -n 's/.*pkts-sofar: \([0-9]*\).*/sent \1/p; s/^ *\([0-9]*pps\).*/\1/p' "$control/$device@$i" | paste -sd' '
done
