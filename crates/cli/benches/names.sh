#!/usr/bin/env bash
# Measures names in the demo's private networks: questions per second and their latency, idle and beside four TCP streams,
# memory for 100,000 names, and throughput by name against throughput by address.
#
# Needs root, a release build, and dnsperf, iperf3, python3. Prints one row per figure. Takes about three minutes.
set -euo pipefail
cd "$(dirname "$0")/../../.."
connlib=$(realpath "${CARGO_TARGET_DIR:-target}")/release/connlib
runs=${RUNS:-7}
seconds=${SECONDS_EACH:-4}
work=$(mktemp -d)
demo=
server=
stop() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    [[ -z $demo ]] || { kill -INT "$demo" 2>/dev/null || true; wait "$demo" 2>/dev/null || true; }
    rm -rf "$work"
}
trap stop EXIT

cat >"$work/topology.toml" <<'TOML'
[[site]]
name = "office"
[[actor]]
name = "alice"
groups = ["staff"]
[[resource]]
name = "office lan"
address = "10.20.0.0/16"
sites = ["office"]
[[resource]]
name = "names"
address = "*.corp.test"
sites = ["office"]
[[policy]]
group = "staff"
resource = "office lan"
[[policy]]
group = "staff"
resource = "names"
TOML
"$connlib" demo --json --keep --size 1 --topology "$work/topology.toml" >"$work/report" 2>"$work/log" &
demo=$!
until python3 -c 'import json,sys; json.load(open(sys.argv[1]))' "$work/report" 2>/dev/null; do
    kill -0 "$demo" 2>/dev/null || { tail -n 5 "$work/log"; exit 1; }
    sleep 0.2
done
of() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["namespaces"][sys.argv[2]])' "$work/report" "$1"; }
inside() { nsenter -t "$(of "$1")" -n "${@:2}"; }
scratch=$(tr '\0' '\n' <"/proc/$(pgrep -P "$demo" -f 'connlib client' | head -n 1)/cmdline" | sed -n 's/^--resolv-conf=//p' | xargs dirname)
sentinel=$(awk '/^nameserver/ {print $2; exit}' "$scratch/client.resolv.conf")
client=$(pgrep -P "$demo" -f 'connlib client' | head -n 1)
rss() { awk '/^VmRSS/ {printf "%.1f", $2 / 1024}' "/proc/$client/status"; }
cpu() { awk '{print $14 + $15}' "/proc/$client/stat"; }

seq -f 'n%.0f.corp.test A' 100 >"$work/few"
seq -f 'm%.0f.corp.test A' 100000 >"$work/many"
perf() { inside client dnsperf -s "$sentinel" -T 1 -c "${CLIENTS:-8}" "$@" 2>/dev/null; }
figures() { # from dnsperf's output: sent, lost, rate, average and greatest latency
    awk '/Queries sent/ {sent=$3} /Queries lost/ {lost=$3} /Queries per second/ {rate=$4} /Average Latency/ {avg=$4; max=$8}
         END {printf "%.0f q/s, lost %d of %d, latency average %.2f ms", rate, lost, sent, avg * 1000}'
}
p99() { # of dnsperf's verbose log of each answer
    awk '$1 == ">" {print $NF}' | sort -n | awk '{all[NR] = $1} END {printf "p50 %.2f ms, p99 %.2f ms of %d", all[int(NR * .5)] * 1000, all[int(NR * .99)] * 1000, NR}'
}

echo "client at rest: $(rss) MB"
before=$(rss)
perf -d "$work/many" -n 1 -q 100 >"$work/out"
after=$(rss)
echo "100,000 names: $(figures <"$work/out"); $(awk -v a="$before" -v b="$after" 'BEGIN {printf "%.1f MB more", b - a}')"

for ((run = 0; run < 3; run++)); do
    ticks=$(cpu)
    perf -d "$work/few" -l "$seconds" -q 48 -v >"$work/out"
    echo "answers from the client itself: $(p99 <"$work/out"); $(figures <"$work/out"), $(awk -v t=$(($(cpu) - ticks)) -v s="$seconds" 'BEGIN {printf "%.0f %% of a core", t / s}')"
done
perf -d "$work/few" -l "$seconds" -q 20 -c 1 -Q 1000 -v >"$work/out"
echo "1,000 q/s, idle: $(p99 <"$work/out"); $(figures <"$work/out")"

# It has been seen to end by itself.
(
    trap 'kill "$!"; exit' TERM
    while :; do
        nsenter -t "$(of resource)" -n iperf3 -s >/dev/null 2>&1 &
        wait "$!" || true
    done
) &
server=$!
until inside client iperf3 -c 10.20.0.10 -n 1K >/dev/null 2>&1; do sleep 0.2; done
for direction in "" -R; do
    inside client iperf3 -c 10.20.0.10 -P 4 -t $((seconds + 2)) $direction >/dev/null 2>&1 &
    load=$!
    sleep 1
    perf -d "$work/few" -l "$seconds" -q 20 -c 1 -Q 100 -v >"$work/out"
    wait "$load"
    echo "100 q/s beside four streams ${direction:-up}: $(p99 <"$work/out"); $(figures <"$work/out")"
done

proxy=$(inside client dig +short @"$sentinel" host.corp.test A 2>/dev/null | head -n 1)
[[ -n $proxy ]] || proxy=$(inside client python3 - "$sentinel" <<'PY'
import socket, sys
name = b"".join(bytes([len(l)]) + l for l in b"host.corp.test".split(b".")) + b"\0"
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3)
s.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1", (sys.argv[1], 53))
print(socket.inet_ntoa(s.recv(1500)[-4:]))
PY
)
rate() {
    # The server takes one at a time, and may not be done with the one before.
    until inside client iperf3 -c "$1" -t 2 --json ${2:-} >"$work/rate" && grep -q sum_received "$work/rate"; do
        sleep 0.2
    done
    python3 -c 'import json,sys; print(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e9)' <"$work/rate"
}
for direction in "" -R; do
    for ((run = 0; run < runs; run++)); do
        rate "$proxy" $direction >>"$work/name$direction"
        rate 10.20.0.10 $direction >>"$work/address$direction"
    done
    python3 - "$work/name$direction" "$work/address$direction" "${direction:-up}" <<'PY'
import statistics, sys
name, address = ([float(x) for x in open(p)] for p in sys.argv[1:3])
a, b = statistics.median(name), statistics.median(address)
print(f"one stream {sys.argv[3]}: by name {a:.2f}, by address {b:.2f} Gb/s, ratio {a / b:.2f} (medians of {len(name)})")
PY
done
grep -E 'WARN|ERROR' "$work/log" || echo "no warning in the log"
