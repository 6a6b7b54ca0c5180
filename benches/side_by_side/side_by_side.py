#!/usr/bin/env python3
"""TPC-H on RustyDB and on DuckDB: the same rows, the same texts, one after the other in one run.

    python3 benches/side_by_side/side_by_side.py                     scale 1, about two minutes after the builds
    python3 benches/side_by_side/side_by_side.py --scale 10 --json sf10.json
    python3 benches/side_by_side/side_by_side.py --queries 1,6,18 --rounds 5

The command makes its own Python environment and builds what it needs (release). It exports the rows that RustyDB loads as
Parquet, loads them into DuckDB's own storage, and then measures in rounds: in each round both engines run every query, the
one that goes first changing from round to round, so that a noisy minute of a shared machine hits both. Within a round a
query runs once to warm up and then --runs times; the times of all rounds count. A time is from the query's text to the
last Arrow batch, planning included, for both.

Every answer is checked: RustyDB checks its own against tpch/answers, and DuckDB's must be those files, too (its doubles to
twelve digits, for the last ones depend on the order in which its threads happen to add up).
Exit status: 0, or 1 if an answer is wrong.
"""

import argparse
import csv
import io
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ANSWERS = ROOT / "tpch" / "answers"
ALL_QUERIES = "1-22"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="1", help="scale factor: one of those in tpch/answers (default: 1)")
    parser.add_argument("--queries", default=ALL_QUERIES, help="such as 1,6,18-21 (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the engines take turns (default: 3)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of a query in a round (default: 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="DuckDB's threads (default: all cores)")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "side-by-side", help="where data and stores are kept")
    parser.add_argument("--rustydb", type=Path, help="the rustydb binary (default: build it)")
    parser.add_argument("--parquet", type=Path, help="directory with the exported tables (default: export them)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    chosen = parser.parse_args()
    if not (ANSWERS / f"sf{chosen.scale}").is_dir():
        known = ", ".join(sorted(path.name.removeprefix("sf") for path in ANSWERS.glob("sf*")))
        parser.error(f"there are no reference answers at scale {chosen.scale}, only at {known}")
    if chosen.rounds < 1 or chosen.runs < 1:
        parser.error("--rounds and --runs are at least 1")
    return chosen


def enter_environment(work: Path) -> None:
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


def build(*target: str) -> None:
    subprocess.run(["cargo", "build", "--release", *target], cwd=ROOT, check=True)


def export(scale: str, directory: Path) -> Path:
    """The rows that RustyDB loads, as Parquet files; LINEITEM is written last."""
    if not (directory / "lineitem.parquet").is_file():
        build("-p", "rustydb-tpch", "--example", "export_parquet")
        exporter = ROOT / "target" / "release" / "examples" / "export_parquet"
        subprocess.run([exporter, "--scale", scale, directory], check=True, stdout=subprocess.DEVNULL)
    return directory


class RustyDB:
    """Runs `rustydb tpch`, which loads on its first start and verifies every answer."""

    def __init__(self, binary: Path, chosen: argparse.Namespace):
        self.binary, self.chosen = binary, chosen
        self.load_seconds = None
        self.peak_memory_bytes = 0

    def run(self) -> dict[int, list[float]]:
        report_file = self.chosen.work / "rustydb.json"
        report_file.unlink(missing_ok=True)
        data = self.chosen.work / f"rustydb-sf{self.chosen.scale}"
        command = [self.binary, "tpch", "--scale", self.chosen.scale, "--data", data, "--queries", self.chosen.queries]
        command += ["--runs", str(self.chosen.runs + 1), "--json", report_file]
        status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if not report_file.is_file() or not report_file.stat().st_size:
            sys.exit(f"rustydb tpch ended with status {status} and left no report")
        report = json.loads(report_file.read_text())
        for query in report["queries"]:
            if query["verified"] is not True:
                sys.exit(f"RustyDB's answer to q{query['query']} is wrong: {query['failure']}")
        if report["load"]["reused_rows"] == 0:
            self.load_seconds = report["load"]["seconds"]
        self.peak_memory_bytes = max(self.peak_memory_bytes, report["peak_memory_bytes"] or 0)
        return {query["query"]: query["times_ms"][1:] for query in report["queries"]}


def comparable(answer: str) -> list[list[str]]:
    """An answer's cells, its doubles rounded to twelve digits."""
    rows = list(csv.reader(io.StringIO(answer)))
    is_double = [kind == "double" for kind in rows[1]]
    shorten = [lambda cell: f"{float(cell):.12g}" if cell != "\\N" else cell, str]
    return rows[:3] + [[shorten[not double](cell) for cell, double in zip(row, is_double)] for row in rows[3:]]


class DuckDB:
    """Runs the queries on DuckDB's own storage, in this process."""

    def __init__(self, parquet: Path, chosen: argparse.Namespace):
        import duckdb

        # DuckDB warns that Arrow output of execute() copies the rows once; its alternative plans each query twice, which
        # costs more on every one of these (measured, up to a millisecond).
        warnings.filterwarnings("ignore", message="Arrow output on a DB-API result")
        sys.path.insert(0, str(ANSWERS))
        import make_answers

        self.kit, self.chosen = make_answers, chosen
        self.load_seconds = None
        store = chosen.work / f"duckdb-sf{chosen.scale}.db"
        loaded = store.is_file()
        # Loaded under another name, so that an interrupted load is not taken for a whole one.
        unfinished = store.with_suffix(".part")
        if not loaded:
            unfinished.unlink(missing_ok=True)
            started = time.perf_counter()
            with duckdb.connect(unfinished, config={"threads": chosen.threads}) as connection:
                for table in make_answers.TABLES:
                    connection.execute(f"CREATE TABLE {table} AS SELECT * FROM '{parquet}/{table}.parquet'")
            self.load_seconds = time.perf_counter() - started
            unfinished.rename(store)
        self.connection = duckdb.connect(store, read_only=True, config={"threads": chosen.threads})

    def check(self, number: int, text: str) -> None:
        expected = (ANSWERS / f"sf{self.chosen.scale}" / f"q{number}.csv").read_text()
        if comparable(self.kit.answer(self.connection, text)) != comparable(expected):
            sys.exit(f"DuckDB's answer to q{number} is not the one in tpch/answers: is the data the same?")

    def run(self, queries: list[int]) -> dict[int, list[float]]:
        times = {}
        for number in queries:
            text = self.kit.query_text(number, float(self.chosen.scale))
            self.check(number, text)
            times[number] = [self.milliseconds(text) for _ in range(self.chosen.runs + 1)][1:]
        return times

    def milliseconds(self, text: str) -> float:
        started = time.perf_counter()
        self.connection.execute(text).to_arrow_reader().read_all()
        return (time.perf_counter() - started) * 1e3


def measure(rustydb: RustyDB, duckdb: DuckDB, rounds: int) -> dict[int, dict[str, list[float]]]:
    """All times in milliseconds, by query and engine."""
    # The first start loads; its times are thrown away, and it says which queries there are.
    queries = list(rustydb.run())
    times = {number: {"rustydb": [], "duckdb": []} for number in queries}
    for turn in range(rounds):
        engines = [("rustydb", rustydb.run), ("duckdb", lambda: duckdb.run(queries))]
        for name, run in engines if turn % 2 == 0 else reversed(engines):
            print(f"round {turn + 1} of {rounds}: {name}", file=sys.stderr)
            for number, measured in run().items():
                times[number][name] += measured
    return times


def figures(times: dict[int, dict[str, list[float]]]) -> dict:
    """Minimum and median by query and engine, ratios of the minima, geometric means and totals."""
    queries = {}
    for number, by_engine in times.items():
        entry = {name: {"min_ms": min(runs), "median_ms": statistics.median(runs)} for name, runs in by_engine.items()}
        entry["ratio"] = entry["rustydb"]["min_ms"] / entry["duckdb"]["min_ms"]
        entry["median_ratio"] = entry["rustydb"]["median_ms"] / entry["duckdb"]["median_ms"]
        queries[number] = entry

    def over_all(reduce) -> dict:
        reduced = {name: reduce([entry[name]["min_ms"] for entry in queries.values()]) for name in ("rustydb", "duckdb")}
        return {**{f"{name}_ms": value for name, value in reduced.items()}, "ratio": reduced["rustydb"] / reduced["duckdb"]}

    return {"queries": queries, "geomean": over_all(statistics.geometric_mean), "total": over_all(sum)}


def table(result: dict) -> str:
    """What people read; a ratio below 1 means that RustyDB is faster."""
    lines = [
        "            RustyDB ms          DuckDB ms       RustyDB/",
        "query      min    median      min    median       DuckDB",
        "-" * 56,
    ]
    for number, entry in result["queries"].items():
        ours, theirs = entry["rustydb"], entry["duckdb"]
        lines.append(
            f"q{number:<4} {ours['min_ms']:9.2f} {ours['median_ms']:9.2f} "
            f"{theirs['min_ms']:8.2f} {theirs['median_ms']:9.2f} {entry['ratio']:10.2f}x"
        )
    lines.append("-" * 56)
    for name in ("geomean", "total"):
        entry = result[name]
        lines.append(f"{name:8} {entry['rustydb_ms']:6.2f} {'':9} {entry['duckdb_ms']:8.2f} {'':9} {entry['ratio']:10.2f}x")
    for name, seconds in result["load_seconds"].items():
        lines.append(f"load {name}: " + ("reused" if seconds is None else f"{seconds:.2f} s"))
    lines.append(f"peak memory of rustydb: {result['rustydb_peak_memory_bytes'] / 2**20:.0f} MiB")
    return "\n".join(lines)


def main() -> None:
    chosen = arguments()
    chosen.work = chosen.work.resolve()
    chosen.work.mkdir(parents=True, exist_ok=True)
    enter_environment(chosen.work)

    binary = chosen.rustydb
    if binary is None:
        build("-p", "rustydb")
        binary = ROOT / "target" / "release" / "rustydb"
    parquet = chosen.parquet or export(chosen.scale, chosen.work / f"parquet-sf{chosen.scale}")
    rustydb, duckdb = RustyDB(binary.resolve(), chosen), DuckDB(parquet.resolve(), chosen)
    result = figures(measure(rustydb, duckdb, chosen.rounds))
    result = {
        "scale": float(chosen.scale),
        "rounds": chosen.rounds,
        "runs_per_round": chosen.runs,
        "threads": chosen.threads,
        # Null when an earlier start of this command had loaded already.
        "load_seconds": {"rustydb": rustydb.load_seconds, "duckdb": duckdb.load_seconds},
        "rustydb_peak_memory_bytes": rustydb.peak_memory_bytes,
        **result,
    }
    print(table(result))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
