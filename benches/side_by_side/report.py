#!/usr/bin/env python3
"""Writes docs/benchmarks.md from what side_by_side.py measured:

    python3 benches/side_by_side/report.py [--note TEXT] sf1.json sf10.json > docs/benchmarks.md
"""

import argparse
import json

HEAD = """\
# Benchmarks: analytics

TPC-H through SQL on transactional tables with all their keys, beside DuckDB and Hyper on their own storage and without keys:
same rows, same texts, same machine, one after the other in rounds. `benches/side_by_side/report.py` writes this page from the
figures of `benches/side_by_side/side_by_side.py`, which says how it measures; every answer was verified in every run. A ratio
below 1 means that RustyDB is faster. Transactions are in [a page of their own](guide/benchmarks-transactions.md), and so is
[the Flight SQL server](guide/benchmarks-flight.md): `python3 benches/flight/flight.py --json flight.json`.

Times are the fastest of all runs; they depend on what else the machine did. Processor time (all threads together) hardly does.
"""


def ratio(value):
    return f"{value:.2f}x"


def section(result):
    peers = [name for name in result["total"] if name in ("duckdb", "hyper", "datafusion")]
    lines = [f"## Scale {result['scale']:g}", ""]
    runs = result["rounds"] * result["runs_per_round"]
    memory = f", memory limit {result['memory_limit']}" if result["memory_limit"] else ""
    lines += [f"{result['threads']} threads{memory}; {runs} runs of each query in {result['rounds']} rounds.", ""]
    lines += ["| | " + " | ".join(peers) + " |", "|---|" + "---:|" * len(peers)]

    def row(title, figure):
        lines.append(f"| {title} | " + " | ".join(figure(name) for name in peers) + " |")

    for kind in ("geomean", "total"):
        row(f"{kind}, hot", lambda name: ratio(result[kind][name]["ratio"]))
        row(f"{kind}, processor time", lambda name: ratio(result[kind][name]["cpu_ratio"]))
    worst = {name: max(result["queries"].items(), key=lambda query: query[1][name]["ratio"]) for name in peers}
    row("slowest query", lambda name: f"{ratio(worst[name][1][name]['ratio'])} (q{worst[name][0]})")
    row("total of first runs, cold", lambda name: ratio(result["total"][name]["first_ratio"]))
    load = result["load_seconds"]
    if load["rustydb"]:
        row("load from Parquet", lambda name: ratio(load["rustydb"] / load[name]) if load.get(name) else "–")
    lines.append("")
    for name, what in (("updated", "With 1 % of LINEITEM updated"), ("one-core", "On one core")):
        if name in result["total"]:
            total, processor = 1 / result["total"][name]["ratio"], 1 / result["total"][name]["cpu_ratio"]
            lines.append(f"{what}, the total is {total:.2f} times the plain run's, in processor time {processor:.2f} times.")
    peak = ", ".join(f"{name} {bytes_ / 2**20:.0f} MiB" for name, bytes_ in result["peak_memory_bytes"].items())
    lines += [f"Peak memory: {peak}.", ""]
    lines += ["| query | RustyDB ms | CPU ms | " + " | ".join(f"{name} ms | ratio | CPU ratio" for name in peers) + " |"]
    lines += ["|---|" + "---:|" * (2 + 3 * len(peers))]
    for number, entry in [*result["queries"].items(), ("geomean", result["geomean"]), ("total", result["total"])]:
        own = entry["rustydb"]
        cells = [f"q{number}" if number.isdigit() else number, f"{own['min_ms']:.1f}", f"{own['cpu_ms']:.1f}"]
        for name in peers:
            other = entry[name]
            cells += [f"{other['min_ms']:.1f}", ratio(other["ratio"]), ratio(other["cpu_ratio"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--note", help="what a reader has to know of this run: the commit, the machine")
    parser.add_argument("results", nargs="+", help="what side_by_side.py --json wrote")
    chosen = parser.parse_args()
    results = []
    for path in chosen.results:
        with open(path) as file:
            results.append(json.load(file))
    notes = [chosen.note + "\n"] if chosen.note else []
    print("\n".join([HEAD, *notes, *map(section, results)]), end="")


if __name__ == "__main__":
    main()
