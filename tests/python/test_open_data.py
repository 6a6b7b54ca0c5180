"""A table's files are plain Parquet: other tools read them as they lie."""

import datetime
import decimal
import time

import adbc_driver_flightsql.dbapi
import duckdb
import pyarrow
import pyarrow.parquet


def execute(server, *statements):
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)


def segments(tmp_path):
    return sorted((tmp_path / "data" / "segments").rglob("*.parquet"))


def test_a_flushed_table_is_read_by_pyarrow_as_it_lies(start, tmp_path):
    server = start()
    execute(
        server,
        "CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT, price DECIMAL(15, 2), day DATE, seen TIMESTAMP)",
        "INSERT INTO t SELECT i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'name ' || i END, i / 4.0, "
        "DATE '2026-01-01', TIMESTAMP '2026-01-01 12:00:00' FROM generate_series(20000, 1, -1) AS s(i)",
        "CHECKPOINT",
    )
    files = segments(tmp_path)
    assert len(files) == 1
    table = pyarrow.parquet.read_table(files[0])
    assert table.num_rows == 20000
    assert table.column("id").to_pylist() == list(range(1, 20001)), "in key order"
    assert table.column("name").null_count == 20000 // 7
    assert table.column("name")[0].as_py() == "name 1"
    assert table.column("price")[2].as_py() == decimal.Decimal("0.75")
    assert pyarrow.types.is_date(table.schema.field("day").type)
    assert pyarrow.types.is_timestamp(table.schema.field("seen").type)
    metadata = pyarrow.parquet.ParquetFile(files[0]).metadata
    assert metadata.num_row_groups == 1
    identifier = metadata.row_group(0).column(0)
    assert (identifier.statistics.min, identifier.statistics.max) == (1, 20000)
    assert identifier.has_offset_index and identifier.has_column_index, "pages can be skipped"
    assert "rustydb" in metadata.created_by
    with duckdb.connect() as other:
        found = other.execute(
            "SELECT count(*), count(name), sum(price), min(day), max(seen), min(name) FILTER (id = 20000) "
            "FROM read_parquet($file) WHERE id > 10000",
            {"file": str(files[0])},
        ).fetchone()
    expected_sum = decimal.Decimal(sum(range(10001, 20001))) / 4
    names = sum(1 for i in range(10001, 20001) if i % 7 != 0)
    assert found[:3] == (10000, names, expected_sum)
    assert found[3:] == (datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, 12), "name 20000")


def test_vacuum_leaves_files_without_dead_rows(start, tmp_path):
    server = start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, v TEXT)")
    for part in range(5):
        rows = f"SELECT i, 'old' FROM generate_series({part * 1000}, {part * 1000 + 999}) AS s(i)"
        execute(server, f"INSERT INTO t {rows}", "CHECKPOINT")
    execute(server, "DELETE FROM t WHERE id % 2 = 1", "UPDATE t SET v = 'new' WHERE id < 10", "VACUUM")
    deadline = time.monotonic() + 30  # replaced files go in the background
    while len(segments(tmp_path)) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    tables = [pyarrow.parquet.read_table(file) for file in segments(tmp_path)]
    rows = sorted(row for table in tables for row in zip(*(column.to_pylist() for column in table.columns)))
    assert rows == [(i, "new" if i < 10 else "old") for i in range(0, 5000, 2)]
