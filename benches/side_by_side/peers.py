#!/usr/bin/env python3
"""The engines RustyDB is measured beside, each in a process of its own: load its store, or run queries once round.

Started by side_by_side.py, which reads one JSON object from standard output:
    peers.py duckdb|hyper|datafusion load|run '{"store": …, "parquet": …, "threads": …, "queries": {"1": "select …"}, …}'

load: {"seconds": …}.  run: {"first_ms": {"1": …}, "times_ms": {"1": […]}, "cpu_ms": {"1": […]},
"answers": {"1": [[cell, …], …]}, "peak_memory_bytes": …}. A query runs once to warm up, and then as often as asked; the
warm-up's rows are the answer.
"""

import json
import resource
import sys
import time
from pathlib import Path

TABLES = ("region", "nation", "part", "supplier", "partsupp", "customer", "orders", "lineitem")


class DuckDB:
    """DuckDB on its own storage."""

    def __init__(self, task: dict):
        import duckdb

        self.duckdb, self.task = duckdb, task
        self.connection = None

    def load(self) -> None:
        store = Path(self.task["store"])
        # Loaded under another name, so that an interrupted load is not taken for a whole one.
        unfinished = store.with_suffix(".part")
        unfinished.unlink(missing_ok=True)
        with self.duckdb.connect(unfinished, config={"threads": self.task["threads"]}) as connection:
            for table in TABLES:
                connection.execute(f"CREATE TABLE {table} AS SELECT * FROM '{self.task['parquet']}/{table}.parquet'")
        unfinished.rename(store)

    def open(self) -> None:
        config = {"threads": self.task["threads"]}
        if self.task.get("memory_limit"):
            config["memory_limit"] = self.task["memory_limit"]
        self.connection = self.duckdb.connect(self.task["store"], read_only=True, config=config)

    def query(self, text: str):
        return self.connection.execute(text).to_arrow_table()

    def rows(self, table) -> list[tuple]:
        return list(zip(*(column.to_pylist() for column in table.columns))) if table.num_columns else []


class DataFusion:
    """DataFusion on Parquet files: RustyDB's own query engine without RustyDB."""

    def __init__(self, task: dict):
        import datafusion

        self.datafusion, self.task = datafusion, task
        self.context = None

    def load(self) -> None:
        Path(self.task["store"]).touch()

    def open(self) -> None:
        config = self.datafusion.SessionConfig().with_target_partitions(self.task["threads"])
        self.context = self.datafusion.SessionContext(config)
        for table in TABLES:
            self.context.register_parquet(table, f"{self.task['parquet']}/{table}.parquet")

    def query(self, text: str):
        return self.context.sql(text).collect()

    def rows(self, batches) -> list[tuple]:
        return [row for batch in batches for row in zip(*(column.to_pylist() for column in batch.columns))]


class Hyper:
    """Tableau's Hyper on its own storage."""

    def __init__(self, task: dict):
        import tableauhyperapi

        self.api, self.task = tableauhyperapi, task
        self.process = self.connection = None

    def _start(self, mode) -> None:
        parameters = {"log_config": "", "max_query_size": "10000000", "hard_concurrent_query_thread_limit": str(self.task["threads"])}
        self.process = self.api.HyperProcess(self.api.Telemetry.DO_NOT_SEND_USAGE_DATA_TO_TABLEAU, parameters=parameters)
        self.connection = self.api.Connection(self.process.endpoint, self.task["store"], mode)

    def load(self) -> None:
        self._start(self.api.CreateMode.CREATE_AND_REPLACE)
        for table in TABLES:
            source = f"{self.task['parquet']}/{table}.parquet"
            self.connection.execute_command(f"CREATE TABLE {table} AS (SELECT * FROM external('{source}'))")
        self.connection.close()
        self.process.close()

    def open(self) -> None:
        self._start(self.api.CreateMode.NONE)

    def query(self, text: str):
        return self.connection.execute_list_query(text)

    def rows(self, rows) -> list[tuple]:
        # Dates and decimals are of types of its own; both read well as text.
        return [tuple(str(cell) if type(cell).__module__.startswith("tableauhyperapi") else cell for cell in row) for row in rows]


ENGINES = {"duckdb": DuckDB, "datafusion": DataFusion, "hyper": Hyper}


def child_processor_seconds() -> float:
    """Of Hyper's server, which is another process."""
    total = 0.0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / 100
    return total


def peak_memory() -> int:
    total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            for line in Path(f"/proc/{child}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
    return total


def run(engine, task: dict) -> dict:
    engine.open()
    first, times, processor, answers = {}, {}, {}, {}
    for number, text in task["queries"].items():
        started = time.perf_counter()
        result = engine.query(text)
        first[number] = (time.perf_counter() - started) * 1e3
        answers[number] = [[None if cell is None else str(cell) for cell in row] for row in engine.rows(result)]
        times[number], processor[number] = [], []
        for _ in range(task["runs"]):
            started, used = time.perf_counter(), time.process_time() + child_processor_seconds()
            engine.query(text)
            times[number].append((time.perf_counter() - started) * 1e3)
            processor[number].append((time.process_time() + child_processor_seconds() - used) * 1e3)
    return {"first_ms": first, "times_ms": times, "cpu_ms": processor, "answers": answers, "peak_memory_bytes": peak_memory()}


def main() -> None:
    name, action, task = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    engine = ENGINES[name](task)
    if action == "load":
        started = time.perf_counter()
        engine.load()
        result = {"seconds": time.perf_counter() - started}
    else:
        result = run(engine, task)
    json.dump(result, sys.stdout)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
