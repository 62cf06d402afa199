#!/usr/bin/env bash
# Measures what deciding and translating cost in the demo's private networks: one TCP stream to a host by its name, which filters let
# pass and the gateway translates, against the same by its address, where nothing is looked at but the network. Pairs of runs, one
# right after the other and in turns which is first, so that what else the machine does falls on both.
#
# Needs root, a release build (or CONNLIB), and iperf3, python3. Prints one row per direction. Takes about two minutes.
set -euo pipefail
cd "$(dirname "$0")/../../.."
connlib=${CONNLIB:-$(realpath "${CARGO_TARGET_DIR:-target}")/release/connlib}
pairs=${PAIRS:-9}
seconds=${SECONDS_EACH:-3}
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
filters = ["icmp", "udp/53", "tcp/22", "tcp/80", "tcp/443", "tcp/5201"]
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
client=$(of client)
resource=$(of resource)
inside() { nsenter -t "$1" -n "${@:2}"; }

# It has been seen to end by itself.
(
    trap 'kill "$!"; exit' TERM
    while :; do
        nsenter -t "$resource" -n iperf3 -s >/dev/null 2>&1 &
        wait "$!" || true
    done
) &
server=$!
until inside "$client" iperf3 -c 10.20.0.10 -n 1K >/dev/null 2>&1; do sleep 0.2; done

# The client answers at this address whatever the machine's settings say.
proxy=$(inside "$client" python3 - <<'PY'
import socket
name = b"".join(bytes([len(label)]) + label for label in b"host.corp.test".split(b".")) + b"\0"
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(5)
asking.sendto(b"\0\1\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1", ("100.100.111.1", 53))
print(socket.inet_ntoa(asking.recv(1500)[-4:]))
PY
)
[[ $proxy == 100.* ]] || { echo "host.corp.test has no address that stands for it, but $proxy"; exit 1; }

rate() { # of one stream, in Gb/s
    # The server takes one at a time, and may not be done with the one before.
    until inside "$client" iperf3 -c "$1" -t "$seconds" --json ${2:-} >"$work/rate" && grep -q sum_received "$work/rate"; do
        sleep 0.2
    done
    python3 -c 'import json,sys; print(json.load(sys.stdin)["end"]["sum_received"]["bits_per_second"] / 1e9)' <"$work/rate"
}
rate "$proxy" >/dev/null
for direction in "" -R; do
    for ((pair = 0; pair < pairs; pair++)); do
        if ((pair % 2)); then
            rate 10.20.0.10 $direction >>"$work/address$direction"
            rate "$proxy" $direction >>"$work/name$direction"
        else
            rate "$proxy" $direction >>"$work/name$direction"
            rate 10.20.0.10 $direction >>"$work/address$direction"
        fi
    done
    python3 - "$work/name$direction" "$work/address$direction" "${direction:-up}" <<'PY'
import statistics, sys
name, address = ([float(line) for line in open(path)] for path in sys.argv[1:3])
decided, plain = statistics.median(name), statistics.median(address)
pairs = sorted(a / b for a, b in zip(name, address))
direction = {"up": "up", "-R": "down"}[sys.argv[3]]
print(
    f"one stream {direction}: by name with filters {decided:.2f}, by address without {plain:.2f} Gb/s, "
    f"ratio of medians {decided / plain:.2f} (goal 0.95; {len(pairs)} pairs, each {pairs[0]:.2f} to {pairs[-1]:.2f})"
)
PY
done
grep -E 'WARN|ERROR' "$work/log" || echo "no warning in the log"
