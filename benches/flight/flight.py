#!/usr/bin/env python3
"""How fast the Flight SQL server is, beside what is possible on the same machine in the same minutes.

    python3 benches/flight/flight.py --json flight.json                 TPC-H at scale 1: a quarter of an hour
    python3 benches/flight/flight.py --scale 0.01 --rounds 2 --seconds 1 --idle 200 --work /tmp/small    to try it
    python3 benches/flight/flight.py --only fetch,tls --rounds 9

| measurement | beside |
|---|---|
| fetch: DoGet of lineitem, all columns, to pyarrow | a pyarrow Flight server in a process of its own that sends the same batches from memory |
| ingest: bulk ingest of lineitem by ADBC into a table with its key, durable | DuckDB's insert of the same Arrow table into a file, in this process, with and without the key |
| points: prepared query of a row by its key, 1 and 8 connections: by calls, as drivers make them, on one stream | a server of the same transport (tonic, h2) that answers the same calls with ready-made messages and does nothing else (client and server share the cores) |
| updates: prepared, durable change of a row by its key, 1 and 8 connections | a write and a sync of 4 KiB on the same disk |
| idle: 10,000 connections that have logged in and queried, in plain text and over TLS | the server's memory before |
| tls: DoGet of lineitem over TLS | the same in plain text |
| cancel: cancelling a join without end | processor time of the server in the second after |

The command makes its own Python environment, builds what it needs (release), and makes the tables. What is compared takes
turns, round by round, the one that goes first changing from round to round, so that a noisy minute of a shared machine
hits both; the median counts.

Every answer is checked: rows that are fetched or ingested by their number and by sums over every column, against those of the
replaying server or of DuckDB; rows by key by the client that asked for them; ingested and updated rows once more after kill -9.
Exit status: 0, or 1 if an answer is wrong.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MEASUREMENTS = ("fetch", "ingest", "points", "updates", "idle", "tls", "cancel")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="1", help="scale factor of lineitem and customer (default: 1)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: 5)")
    parser.add_argument("--seconds", type=float, default=5, help="of points and updates, per round (default: 5)")
    parser.add_argument("--idle", type=int, default=10_000, help="idle connections (default: 10000)")
    parser.add_argument("--only", default=",".join(MEASUREMENTS), help=f"of {', '.join(MEASUREMENTS)} (default: all)")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "flight-bench", help="where data and stores are kept")
    parser.add_argument("--rustydb", type=Path, help="the rustydb binary (default: build it)")
    parser.add_argument("--client", type=Path, help="the example load_client of the crate flight (default: build it)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    chosen = parser.parse_args()
    chosen.only = set(chosen.only.split(","))
    if unknown := chosen.only - set(MEASUREMENTS):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    if chosen.rounds < 1:
        parser.error("--rounds is at least 1")
    return chosen


def enter_environment(work):
    """Goes on in an environment of our own, made when missing or when the requirements have changed."""
    requirements = (HERE / "requirements.txt").read_text()
    environment = work / "venv"
    python, stamp = environment / "bin" / "python", environment / "requirements.txt"
    if not stamp.is_file() or stamp.read_text() != requirements:
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True)
        stamp.write_text(requirements)
    if Path(sys.prefix).resolve() != environment.resolve():
        sys.stdout.flush()
        os.execv(python, [str(python), "-B", str(Path(__file__).resolve()), *sys.argv[1:]])


def build(*target):
    subprocess.run(["cargo", "build", "--release", *target], cwd=ROOT, check=True)


def table(figures):
    """What people read (Markdown)."""
    lines = ["| | measured | must | goal |", "|---|---|---|---|"]

    def line(*cells):
        lines.append("| " + " | ".join(cells) + " |")

    if fetch := figures.get("fetch"):
        share = f"{100 * fetch['share_of_replay']:.0f} % ({fetch['mib_per_s']:.0f} MiB/s)"
        line("DoGet of lineitem to pyarrow, of a replay from memory", share, "60 %", "90 %")
    if ingest := figures.get("ingest"):
        rates = ingest["rows_per_s"]
        line("ingest of lineitem, durable, with its key", f"{rates['rustydb']:,.0f} rows/s", "", "")
        line("of DuckDB's insert into a table without a key", f"{ingest['share_of_duckdb']:.2f}x", "0.5x", "1x")
        line("of DuckDB's insert into one with the same key", f"{ingest['share_of_duckdb_with_key']:.2f}x", "", "")
    goals = {"1": ("4,000", "10,000"), "8": ("12,000", "30,000")}
    titles = {
        "points": "prepared point query (bind, fetch)",
        "points-nothing": "the same calls to a server that does nothing",
        "driver": "prepared point query with GetFlightInfo between, as drivers do",
        "driver-nothing": "the same calls to a server that does nothing",
        "exchange": "prepared point query on one stream (DoExchange)",
        "updates": "prepared update of a row, durable",
    }
    for kind in ("points", "updates"):
        for name, own in figures.get(kind, {}).get("medians", {}).items():
            mode, connections = name.split("_")
            measured = f"{own['per_s']:,.0f} per s, p50 {own['p50_us']:.0f} µs, p99 {own['p99_us']:.0f} µs"
            asked = goals[connections] if mode in ("points", "exchange") else ("", "")
            line(f"{titles[mode]}, {connections} connections", measured, *asked)
        for name, share in figures.get(kind, {}).get("share_of_nothing", {}).items():
            mode, connections = name.split("_")
            line(f"{titles[mode]}, {connections} connections, of the transport's rate", f"{100 * share:.0f} %", "", "")
    if updates := figures.get("updates"):
        line("a write and sync of 4 KiB on that disk", f"{updates['sync_us']:.0f} µs", "", "")
    if idle := figures.get("idle"):
        for name in ("plain", "tls"):
            own = idle[name]
            measured = f"{own['after_mib']:.0f} MiB ({own['kib_each']:.0f} KiB each)"
            line(f"{idle['connections']:,} idle authenticated connections, {name}", measured, "2 GB", "1 GB")
    if tls := figures.get("tls"):
        line("TLS on bulk transfer", f"{100 * tls['slower']:.0f} % slower", "20 %", "10 %")
        for side, each in tls["processor_s"].items():
            line(f"processor time of the {side}, plain / TLS", f"{each['plain']:.2f} / {each['tls']:.2f} s", "", "")
        line("TLS on the replay from memory", f"{100 * tls['replay_slower']:.0f} % slower", "", "")
    if cancel := figures.get("cancel"):
        waits, busy = (statistics.median(cancel[name]) for name in ("client_waits_ms", "server_busy_afterwards_ms"))
        line("cancelling a join without end", f"{waits:.0f} ms, then {busy:.0f} ms of processor time", "", "")
    return "\n".join(lines)


def main():
    chosen = arguments()
    chosen.work = chosen.work.resolve()
    chosen.work.mkdir(parents=True, exist_ok=True)
    enter_environment(chosen.work)
    if chosen.rustydb is None:
        build("-p", "rustydb")
        chosen.rustydb = ROOT / "target" / "release" / "rustydb"
    if chosen.client is None:
        build("-p", "rustydb-flight", "--example", "load_client")
        chosen.client = ROOT / "target" / "release" / "examples" / "load_client"
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    # Not fork: gRPC does not survive it.
    multiprocessing.set_start_method("spawn")
    # In the environment, which has what it imports.
    from measure import Bench

    bench = Bench(chosen)
    figures = {"scale": chosen.scale, "rounds": chosen.rounds, "cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    for name in MEASUREMENTS:
        if name in chosen.only:
            print(f"measuring {name}", file=sys.stderr)
            figures[name] = getattr(bench, f"measure_{name}")()
            if chosen.json:
                chosen.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(table(figures))


if __name__ == "__main__":
    main()
