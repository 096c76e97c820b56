#!/bin/bash
# Sink machine, or the VTEP's own: prints what a device received and sent, and what was lost.
#
#   ./count.sh DEVICE [SECONDS]       one line a second, until SECONDS are over (default 10)
#
# Packets per second in, out and dropped, and the share of all processors at work.
set -euo pipefail

[ $# -ge 1 ] || { echo "usage: count.sh DEVICE [SECONDS]" >&2; exit 1; }
device=$1 seconds=${2:-10}
counters=/sys/class/net/$device/statistics
[ -d "$counters" ] || { echo "count.sh: no device $device" >&2; exit 1; }

read_all() {
    received=$(<"$counters/rx_packets") transmitted=$(<"$counters/tx_packets")
    lost=$(($(<"$counters/rx_dropped") + $(<"$counters/rx_missed_errors") + $(<"$counters/tx_dropped")))
    # user nice system idle iowait irq softirq steal: busy is all but idle, iowait and steal.
    read -r _ user nice system idle iowait irq softirq steal _ < /proc/stat
    busy=$((user + nice + system + irq + softirq)) all=$((busy + idle + iowait + steal))
}

printf '%12s %12s %12s %8s\n' 'in/s' 'out/s' 'lost/s' 'busy %'
read_all
for ((i = 0; i < seconds; i++)); do
    r=$received t=$transmitted l=$lost b=$busy a=$all
    sleep 1
    read_all
    span=$((all - a)); [ "$span" -gt 0 ] || span=1
    printf '%12d %12d %12d %8d\n' $((received - r)) $((transmitted - t)) $((lost - l)) $((100 * (busy - b) / span))
done
