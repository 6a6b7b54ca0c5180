#!/usr/bin/env python3
"""TPC-H on RustyDB and its peers: the same rows, the same texts, one after the other in one run.

    python3 benches/side_by_side/side_by_side.py                     scale 1, beside DuckDB
    python3 benches/side_by_side/side_by_side.py --peers duckdb,hyper,datafusion
    python3 benches/side_by_side/side_by_side.py --scale 10 --json sf10.json --memory-limit 4GiB
    python3 benches/side_by_side/side_by_side.py --queries 1,6,18 --rounds 5
    python3 benches/side_by_side/side_by_side.py --variants updated,one-core

The command makes its own Python environment and builds what it needs (release). It exports TPC-H's rows as Parquet files,
loads these into RustyDB, with all keys enforced, and into the peers' own storage (DataFusion reads the files), and then
measures in rounds: in each round all engines run every query, the one that goes first changing from round to round, so that
a noisy minute of a shared machine hits all. An engine is started anew for each round, its files dropped from the page cache
before; a query runs once to warm up, which is the figure for a cold start, and then --runs times; the times of all rounds
count. A time is from the query's text to the last row, planning included. Processor time (all threads) is measured beside
it: it hardly depends on what else the machine does.

Variants are RustyDB once more, measured in the same rounds: `updated` on a copy of the tables in which one row of LINEITEM in
a hundred was updated (to the same values, so that the answers stay), `one-core` with one processor.

Every answer is checked: RustyDB checks its own against tpch/answers, and the peers' are compared with the same files here
(doubles to ten digits, for the last ones depend on the order in which threads happen to add up).
Exit status: 0, or 1 if an answer is wrong.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
ANSWERS = ROOT / "tpch" / "answers"
SCHEMA = ROOT / "tpch" / "src" / "tpch" / "schema"
# In the order of their foreign keys.
TABLES = ("region", "nation", "part", "supplier", "partsupp", "customer", "orders", "lineitem")
ALL_QUERIES = "1-22"
# A cell that is NULL in tpch/answers.
NULL = r"\N"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="1", help="scale factor: one of those in tpch/answers (default: 1)")
    parser.add_argument("--queries", default=ALL_QUERIES, help="such as 1,6,18-21 (default: all)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the engines take turns (default: 3)")
    parser.add_argument("--runs", type=int, default=3, help="measured runs of a query in a round (default: 3)")
    parser.add_argument("--peers", default="duckdb", help="of duckdb, hyper, datafusion (default: duckdb)")
    parser.add_argument("--variants", default="", help="of updated, one-core (default: none)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="the peers' threads (default: all cores)")
    parser.add_argument("--memory-limit", help="for RustyDB and DuckDB, such as 4GiB (default: each engine's own)")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "side-by-side", help="where data and stores are kept")
    parser.add_argument("--rustydb", type=Path, help="the rustydb binary (default: build it)")
    parser.add_argument("--parquet", type=Path, help="directory with the exported tables (default: export them)")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    chosen = parser.parse_args()
    ranges = (part.partition("-")[::2] for part in chosen.queries.split(","))
    chosen.queries = [number for low, high in ranges for number in range(int(low), int(high or low) + 1)]
    chosen.peers = [name for name in chosen.peers.split(",") if name]
    if unknown := set(chosen.peers) - {"duckdb", "hyper", "datafusion"}:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    chosen.variants = [name for name in chosen.variants.split(",") if name]
    if unknown := set(chosen.variants) - {"updated", "one-core"}:
        parser.error(f"no such variant: {', '.join(sorted(unknown))}")
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


def forget(path: Path) -> None:
    """Drops the pages of a store from the page cache, so that the next start is a cold one."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        if file.is_file():
            with open(file, "rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class RustyDB:
    """Runs `rustydb tpch` on tables that `rustydb sql` loaded; it verifies every answer."""

    name = "rustydb"

    def __init__(self, binary: Path, parquet: Path, chosen: argparse.Namespace):
        self.binary, self.chosen = binary, chosen
        self.data = chosen.work / f"rustydb-sf{chosen.scale}"
        self.load_seconds = None
        self.peak_memory_bytes = 0
        self.command = [self.binary]
        if not self.data.is_dir():
            self.load(parquet)

    def sql(self, data: Path, script: str) -> None:
        command = [self.binary, "sql", "--data", data]
        subprocess.run(command, input=script, text=True, check=True, stdout=subprocess.DEVNULL)

    def load(self, parquet: Path) -> None:
        # Loaded under another name, so that an interrupted load is not taken for a whole one.
        unfinished = self.data.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        schema = "\n".join((SCHEMA / f"{table}.sql").read_text() for table in TABLES)
        copies = "\n".join(f"COPY {table} FROM '{parquet}/{table}.parquet';" for table in TABLES)
        started = time.perf_counter()
        self.sql(unfinished, f"{schema}\n{copies}\n")
        self.load_seconds = time.perf_counter() - started
        unfinished.rename(self.data)

    def run(self, queries: dict[int, str]) -> dict[int, dict[str, list[float]]]:
        report_file = self.chosen.work / "rustydb.json"
        report_file.unlink(missing_ok=True)
        forget(self.data)
        command = [*self.command, "tpch", "--scale", self.chosen.scale, "--data", self.data]
        command += ["--queries", ",".join(map(str, queries)), "--runs", str(self.chosen.runs + 1), "--json", report_file]
        if self.chosen.memory_limit:
            command += ["--memory-limit", self.chosen.memory_limit]
        status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if not report_file.is_file() or not report_file.stat().st_size:
            sys.exit(f"rustydb tpch ended with status {status} and left no report")
        report = json.loads(report_file.read_text())
        for query in report["queries"]:
            if query["verified"] is not True:
                sys.exit(f"RustyDB's answer to q{query['query']} is wrong: {query['failure']}")
        self.peak_memory_bytes = max(self.peak_memory_bytes, report["peak_memory_bytes"] or 0)
        return {
            query["query"]: {"ms": query["times_ms"][1:], "cpu_ms": query["cpu_ms"][1:], "first_ms": query["times_ms"][:1]}
            for query in report["queries"]
        }


class Updated(RustyDB):
    """The same after an update of one row of LINEITEM in a hundred."""

    name = "updated"

    def __init__(self, original: RustyDB):
        self.__dict__.update(original.__dict__)
        self.load_seconds, self.peak_memory_bytes = None, 0
        self.data = self.chosen.work / f"rustydb-sf{self.chosen.scale}-updated"
        if not self.data.is_dir():
            unfinished = self.data.with_suffix(".part")
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(original.data, unfinished)
            self.sql(unfinished, "UPDATE lineitem SET l_tax = l_tax WHERE (l_orderkey * 7 + l_linenumber) % 100 = 3;")
            unfinished.rename(self.data)


class OneCore(RustyDB):
    """The same on one processor."""

    name = "one-core"

    def __init__(self, original: RustyDB):
        self.__dict__.update(original.__dict__)
        self.load_seconds, self.peak_memory_bytes = None, 0
        self.command = ["taskset", "--cpu-list", str(max(os.sched_getaffinity(0))), self.binary]


VARIANTS = {"updated": Updated, "one-core": OneCore}


class Peer:
    """Another engine, run by peers.py in a process of its own."""

    def __init__(self, name: str, parquet: Path, chosen: argparse.Namespace):
        self.name, self.chosen = name, chosen
        self.peak_memory_bytes = 0
        self.store = store = chosen.work / f"{name}-sf{chosen.scale}.db"
        self.task = {
            "store": str(store),
            "parquet": str(parquet),
            "threads": chosen.threads,
            "runs": chosen.runs,
            "memory_limit": chosen.memory_limit,
        }
        self.load_seconds = None
        if not store.is_file():
            seconds = self.start("load", {})["seconds"]
            self.load_seconds = None if name == "datafusion" else seconds

    def start(self, action: str, queries: dict[int, str]) -> dict:
        task = json.dumps({**self.task, "queries": queries})
        command = [sys.executable, "-B", "-W", "ignore", HERE / "peers.py", self.name, action, task]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    def run(self, queries: dict[int, str]) -> dict[int, dict[str, list[float]]]:
        forget(self.store)
        result = self.start("run", queries)
        self.peak_memory_bytes = max(self.peak_memory_bytes, result["peak_memory_bytes"])
        for number in queries:
            if difference := self.difference(number, result["answers"][str(number)]):
                sys.exit(f"{self.name}'s answer to q{number} is not the one in tpch/answers: {difference}")
        return {
            number: {
                "ms": result["times_ms"][str(number)],
                "cpu_ms": result["cpu_ms"][str(number)],
                "first_ms": [result["first_ms"][str(number)]],
            }
            for number in queries
        }

    def difference(self, number: int, rows: list[list[str | None]]) -> str | None:
        with open(ANSWERS / f"sf{self.chosen.scale}" / f"q{number}.csv", newline="") as file:
            _names, types, _order, *expected = csv.reader(file)
        if len(rows) != len(expected):
            return f"{len(rows)} rows instead of {len(expected)}"
        # Engines give ties and unordered results in orders of their own, so rows are compared as sets.
        ours = sorted(normalized(row, types) for row in rows)
        theirs = sorted(normalized([None if cell == NULL else cell for cell in row], types) for row in expected)
        for row, other in zip(ours, theirs):
            if row != other:
                return f"{row} instead of {other}"
        return None


def normalized(row: list[str | None], types: list[str]) -> tuple[str, ...]:
    """Cells as text that does not depend on how an engine prints a number or what type it gives an average."""

    def cell(value: str | None, kind: str) -> str:
        if value is None:
            return NULL
        if kind in ("double", "integer") or kind.startswith("decimal"):
            # An average may be an exact decimal of few digits elsewhere.
            return f"{float(value):.5g}" if kind == "double" else f"{float(value):.12g}"
        return value.rstrip().replace("\\\\", "\\")

    return tuple(cell(value, kind) for value, kind in zip(row, types))


def measure(engines: list, queries: dict[int, str], rounds: int) -> dict[int, dict[str, dict[str, list[float]]]]:
    """All times in milliseconds, by query and engine."""
    times = {number: {engine.name: {} for engine in engines} for number in queries}
    for turn in range(rounds):
        first = turn % len(engines)
        for engine in engines[first:] + engines[:first]:
            print(f"round {turn + 1} of {rounds}: {engine.name}", file=sys.stderr)
            for number, measured in engine.run(queries).items():
                for kind, values in measured.items():
                    times[number][engine.name].setdefault(kind, []).extend(values)
    return times


def figures(times: dict, engines: list) -> dict:
    """Minimum and median by query and engine, RustyDB's ratios to each peer, geometric means and totals."""
    names = [engine.name for engine in engines]
    queries = {}
    for number, by_engine in times.items():
        entry = {
            name: {
                "min_ms": min(runs["ms"]),
                "median_ms": statistics.median(runs["ms"]),
                "cpu_ms": min(runs["cpu_ms"]),
                "first_ms": min(runs["first_ms"]),
            }
            for name, runs in by_engine.items()
        }
        for name in names[1:]:
            entry[name]["ratio"] = entry["rustydb"]["min_ms"] / entry[name]["min_ms"]
            entry[name]["median_ratio"] = entry["rustydb"]["median_ms"] / entry[name]["median_ms"]
            entry[name]["cpu_ratio"] = entry["rustydb"]["cpu_ms"] / max(entry[name]["cpu_ms"], 0.01)
        queries[number] = entry

    def over_all(reduce) -> dict:
        kinds = ("min_ms", "median_ms", "cpu_ms", "first_ms")
        reduced = {
            name: {kind: reduce([max(entry[name][kind], 0.01) for entry in queries.values()]) for kind in kinds}
            for name in names
        }
        for name in names[1:]:
            for ratio, kind in (("ratio", "min_ms"), ("median_ratio", "median_ms"), ("cpu_ratio", "cpu_ms"), ("first_ratio", "first_ms")):
                reduced[name][ratio] = reduced["rustydb"][kind] / reduced[name][kind]
        return reduced

    return {"queries": queries, "geomean": over_all(statistics.geometric_mean), "total": over_all(sum)}


def table(result: dict, engines: list) -> str:
    """What people read (Markdown); a ratio below 1 means that RustyDB is faster."""
    peers = [engine.name for engine in engines[1:] if engine.name not in VARIANTS]
    header = ["query", "RustyDB ms", "median", "CPU ms"]
    for name in peers:
        header += [f"{name} ms", "median", "CPU ms", "ratio", "CPU ratio"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---:|" * len(header)]

    def line(title: str, entry: dict) -> str:
        def times(one: dict) -> list[str]:
            return [f"{one['min_ms']:.1f}", f"{one['median_ms']:.1f}" if "median_ms" in one else "", f"{one['cpu_ms']:.1f}"]

        cells = [title] + times(entry["rustydb"])
        for name in peers:
            cells += times(entry[name]) + [f"{entry[name]['ratio']:.2f}x", f"{entry[name]['cpu_ratio']:.2f}x"]
        return "| " + " | ".join(cells) + " |"

    lines += [line(f"q{number}", entry) for number, entry in result["queries"].items()]
    lines += [line(name, result[name]) for name in ("geomean", "total")]
    lines.append("")
    for name in peers:
        lines.append(f"first run after a cold start, total: {result['total'][name]['first_ratio']:.2f}x {name}")
    for name in (engine.name for engine in engines[1:] if engine.name in VARIANTS):
        ratios = {kind: 1 / result[kind][name]["ratio"] for kind in ("geomean", "total")}
        lines.append(f"{name}: {ratios['total']:.3f}x of the plain run's total, {ratios['geomean']:.3f}x of its geomean")
    for name, seconds in result["load_seconds"].items():
        lines.append(f"load {name}: " + ("reused" if seconds is None else f"{seconds:.2f} s"))
    for name, memory in result["peak_memory_bytes"].items():
        lines.append(f"peak memory {name}: {memory / 2**20:.0f} MiB")
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
    sys.path.insert(0, str(ANSWERS))
    from make_answers import query_text

    rustydb = RustyDB(binary.resolve(), parquet.resolve(), chosen)
    engines = [rustydb] + [Peer(name, parquet.resolve(), chosen) for name in chosen.peers]
    engines += [VARIANTS[name](rustydb) for name in chosen.variants]
    queries = {number: query_text(number, float(chosen.scale)) for number in chosen.queries}
    result = figures(measure(engines, queries, chosen.rounds), engines)
    result = {
        "scale": float(chosen.scale),
        "rounds": chosen.rounds,
        "runs_per_round": chosen.runs,
        "threads": chosen.threads,
        "memory_limit": chosen.memory_limit,
        # Null when an earlier start of this command had loaded already.
        "load_seconds": {engine.name: engine.load_seconds for engine in engines},
        "peak_memory_bytes": {engine.name: engine.peak_memory_bytes for engine in engines},
        **result,
    }
    print(table(result, engines))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
