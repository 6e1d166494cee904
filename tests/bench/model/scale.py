#!/usr/bin/env python3
"""What one memory node gives on more cores and faster networks than are at hand.

    scale.py measure --bin build/release/bin --out costs.json    # a node and two clients, on this machine
    scale.py predict costs.json                                  # rows/s by cores and network

measure runs a node with transport.workers 1, then 2, each loaded by two engram-load processes (TCP, every row's check
verified by the client), and turns these legs for --rounds. Cores are shared between node and clients, so it counts
processor time, not seconds: the costs of a row in the node and in a client, per row, are medians of the rounds.

predict: n data threads, one a core, give

    rows/s = n / (s1 (1 + k (n - 1))),    k = max(0, s2 / s1 - 1)

with s1 and s2 the node's processor time a row with one and with two data threads. k is what each further thread adds
to the cost of a row: fitted to two points, so it is an extrapolation, and the table says so. A network of G Gb/s
carries G 10^9 / 8 x 0.94 bytes/s of TCP in frames of 1,500 bytes. The node gives the lesser of the two.
"""
import argparse
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

GOAL_ROWS_PER_S = 45e6  # verified rows of one node
TCP_SHARE = 0.94  # of a network's bytes that are payload
CORES = (8, 16, 64)
NETWORKS_GBIT = (100, 200, 400)


@dataclasses.dataclass(frozen=True)
class Costs:
    node_us: float  # processor time of the node a row, one data thread
    node_us_two: float  # the same, two data threads
    client_us: float  # processor time of a client a row, waiting included
    wire_bytes: float  # to the client, a row

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{field.name} is {value!r}; it must be a number above 0")


def contention(costs):
    return max(0.0, costs.node_us_two / costs.node_us - 1)


def rows_by_cores(costs, cores):
    return cores / (costs.node_us * 1e-6 * (1 + contention(costs) * (cores - 1)))


def rows_by_network(costs, gbit):
    return gbit * 1e9 / 8 * TCP_SHARE / costs.wire_bytes


def table(costs):
    """Lines of text: one a number of cores."""
    lines = [
        f"node {costs.node_us:.4f} us a row, {costs.node_us_two:.4f} with two data threads "
        f"(k = {contention(costs):.3f}); client {costs.client_us:.4f} us; {costs.wire_bytes:.1f} bytes",
        "M rows/s of a node (extrapolated from one and two data threads)",
        "cores  processors  " + "  ".join(f"{g:>4} Gb/s" for g in NETWORKS_GBIT) + "  clients' cores to ask that much",
    ]
    for cores in CORES:
        own = rows_by_cores(costs, cores)
        cells = []
        for gbit in NETWORKS_GBIT:
            network = rows_by_network(costs, gbit)
            cells.append(f"{min(own, network) / 1e6:7.1f} {'n' if network < own else 'p'}")
        lines.append(f"{cores:5}  {own / 1e6:10.1f}  " + "  ".join(cells) + f"  {own * costs.client_us * 1e-6:8.1f}")
    lines.append("p: bound by processors, n: by the network")
    best = max(min(rows_by_cores(costs, c), rows_by_network(costs, g)) for c in CORES for g in NETWORKS_GBIT)
    met = "reached" if best >= GOAL_ROWS_PER_S else "missed"
    lines.append(f"goal {GOAL_ROWS_PER_S / 1e6:.0f} M verified rows/s a node: {met} in this model, best {best / 1e6:.1f} M")
    return lines


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def node(options, workers):
    command = [
        f"{options.bin}/engram-memnode",
        "--set", "procedural.layout=v41", "--set", f"procedural.rows_scale={options.rows_scale}",
        "--set", "control.listen=127.0.0.1:0", "--set", "http.listen=127.0.0.1:0",
        "--set", f"transport.workers={workers}",
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            ready = process.stdout.readline()
            if not ready.startswith("ready "):
                process.kill()
                process.wait()
                errors.seek(0)
                raise RuntimeError(f"engram-memnode did not start: {errors.read()[-500:]}")
            yield process.pid, dict(part.split("=", 1) for part in ready.split()[1:])["control"]
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def load(options, workers, clients=2):
    """One leg: processor time a row of the node and of the clients, and bytes a row."""
    with node(options, workers) as (pid, control), tempfile.TemporaryDirectory() as folder:
        before = processor_seconds(pid)
        running = []
        for client in range(clients):
            command = [
                f"{options.bin}/engram-load", "--procedural", "v41", "--rows-scale", str(options.rows_scale),
                "--memnodes", control, "--tokens", "64", "--lookup-path", "gather",
                "--verify", "0", "--depth", "2", "--seed", str(client + 1), "--warm-up", "0.2",
                "--seconds", str(options.seconds), "--json", f"{folder}/{client}.json",
            ]  # fmt: skip
            running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        for process in running:
            _, errors = process.communicate(timeout=options.seconds + 60)
            if process.returncode != 0:
                raise RuntimeError(f"engram-load ended with {process.returncode}: {errors[-500:]}")
        spent = processor_seconds(pid) - before
        reports = []
        for client in range(clients):
            with open(f"{folder}/{client}.json", encoding="utf-8") as file:
                reports.append(json.load(file))
    rows = sum(sum(report["rows_by_path"].values()) for report in reports)
    return {
        "node_us": spent / rows * 1e6,
        "client_us": statistics.mean(report["client_cpu_us_per_row"] for report in reports),
        "wire_bytes": statistics.mean(report["wire_bytes_per_row"] for report in reports),
        "rows_per_s": sum(report["rows_per_s"] for report in reports),
    }


def measure(options):
    legs = {1: [], 2: []}
    for number in range(options.rounds):
        for workers in (1, 2) if number % 2 == 0 else (2, 1):
            legs[workers].append(load(options, workers))
    def middle(workers, figure):
        return statistics.median(leg[figure] for leg in legs[workers])
    costs = Costs(middle(1, "node_us"), middle(2, "node_us"), middle(1, "client_us"), middle(1, "wire_bytes"))
    for workers, runs in legs.items():
        for figure in ("node_us", "client_us", "rows_per_s"):
            values = [run[figure] for run in runs]
            print(f"workers {workers}  {figure:10}  {statistics.median(values):.4f}  {min(values):.4f}..{max(values):.4f}")
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump({"costs": dataclasses.asdict(costs), "legs": legs, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
                  file, indent=1)
    return costs


def read_costs(path):
    with open(path, encoding="utf-8") as file:
        return Costs(**json.load(file)["costs"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="costs of a row on this machine")
    measuring.add_argument("--bin", default="build/release/bin")
    measuring.add_argument("--out", required=True)
    measuring.add_argument("--rows-scale", type=float, default=0.01)
    measuring.add_argument("--seconds", type=float, default=2)
    measuring.add_argument("--rounds", type=int, default=5)
    commands.add_parser("predict", help="rows/s by cores and network").add_argument("costs")
    options = parser.parse_args()
    try:
        costs = measure(options) if options.command == "measure" else read_costs(options.costs)
    except (RuntimeError, ValueError, KeyError, TypeError, OSError, subprocess.TimeoutExpired) as error:
        sys.exit(f"scale.py {options.command}: {error}")
    print("\n".join(table(costs)))


if __name__ == "__main__":
    main()
