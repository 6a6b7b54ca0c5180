#!/usr/bin/env python3
"""Write the reference answers of the 22 TPC-H queries, as DuckDB gives them on the data that RustyDB loads.

    python3 -m venv /tmp/answers && /tmp/answers/bin/pip install duckdb==2.0.0
    cargo run --release -p rustydb-tpch --example export_parquet -- --scale 1 /tmp/tpch-sf1
    /tmp/answers/bin/python tpch/answers/make_answers.py --scale 1 --data /tmp/tpch-sf1

One file per query, `answers/sf<scale>/q<n>.csv`; the format is described in answers/README.md. The script refuses to
write an answer that is not unique: a LIMIT that cuts through rows equal in the ORDER BY columns.
"""

import argparse
import csv
import datetime
import decimal
import io
import re
import sys
from pathlib import Path

import duckdb

DUCKDB_VERSION = "2.0.0"
TABLES = ("region", "nation", "part", "supplier", "partsupp", "customer", "orders", "lineitem")
QUERIES = range(1, 23)
HERE = Path(__file__).resolve().parent
QUERY_DIRECTORY = HERE.parent / "src" / "tpch" / "queries"

# A cell that is NULL. A backslash inside a string is doubled, so no string can be mistaken for it.
NULL = r"\N"

REFERENCE_TYPES = {
    "TINYINT": "integer",
    "SMALLINT": "integer",
    "INTEGER": "integer",
    "BIGINT": "integer",
    "HUGEINT": "integer",
    "DOUBLE": "double",
    "VARCHAR": "text",
    "DATE": "date",
    "BOOLEAN": "boolean",
}


def query_text(number: int, scale: float) -> str:
    text = (QUERY_DIRECTORY / f"q{number}.sql").read_text()
    if number == 11:
        # The specification divides Q11's FRACTION by the scale factor.
        text = text.replace("0.0001", f"{0.0001 / scale:.10f}".rstrip("0"))
    return text


def order_columns(sql: str) -> list[str]:
    """The column names of the outermost ORDER BY; the query files put each on a line of its own."""
    found = re.search(r"^order by\n((?:    \S.*\n)+)", sql, re.MULTILINE)
    if not found:
        return []
    return [line.strip().rstrip(",").removesuffix(" desc") for line in found.group(1).splitlines()]


def reference_type(duckdb_type: str) -> str:
    if duckdb_type.startswith("DECIMAL("):
        return duckdb_type.lower()
    return REFERENCE_TYPES[duckdb_type]


def cell(value: object) -> str:
    match value:
        case None:
            return NULL
        case bool():
            return "true" if value else "false"
        case int() | datetime.date():
            return str(value)
        case decimal.Decimal():
            return format(value, "f")
        case float():
            # The shortest digits that name this double, without an exponent.
            return format(decimal.Decimal(repr(value)), "f")
        case str():
            return value.replace("\\", "\\\\")
    raise TypeError(f"no text form for {value!r}")


def check_limit_is_unambiguous(connection: duckdb.DuckDBPyConnection, sql: str, order: list[str]) -> None:
    limited = re.search(r"^limit (\d+)\s*\Z", sql, re.MULTILINE)
    if not limited:
        return
    limit = int(limited.group(1))
    result = connection.execute(sql[: limited.start()])
    names = [column[0] for column in result.description]
    keys = [[row[names.index(name)] for name in order] for row in result.fetchmany(limit + 1)]
    if len(keys) > limit and keys[limit - 1] == keys[limit]:
        raise ValueError(f"the limit of {limit} cuts through rows that are equal in {order}: the answer is not unique")


def answer(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The reference answer of one query, as the text of its CSV file."""
    order = order_columns(sql)
    check_limit_is_unambiguous(connection, sql, order)
    result = connection.execute(sql)
    names = [column[0] for column in result.description]
    types = [reference_type(str(column[1])) for column in result.description]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerow(types)
    writer.writerow([str(order.index(name) + 1) if name in order else "-" for name in names])
    for row in result.fetchall():
        writer.writerow([cell(value) for value in row])
    return text.getvalue()


def connect_to_parquet(data: Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for table in TABLES:
        path = data / f"{table}.parquet"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: export the tables first, see --help")
        connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{path}')")
    return connection


def check_scale(connection: duckdb.DuckDBPyConnection, scale: float) -> None:
    (parts,) = connection.execute("SELECT count(*) FROM part").fetchone()
    if parts != int(200_000 * scale):
        raise ValueError(f"the data has {parts} parts, which is scale {parts / 200_000:g}, not {scale:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, required=True, help="scale factor of the data, e.g. 0.01")
    parser.add_argument("--data", type=Path, required=True, help="directory with <table>.parquet from export_parquet")
    parser.add_argument("--out", type=Path, help="directory to write to (default: sf<scale> beside this script)")
    arguments = parser.parse_args()
    if duckdb.__version__ != DUCKDB_VERSION:
        sys.exit(f"the answers are made with duckdb {DUCKDB_VERSION}; this environment has {duckdb.__version__}")

    out = arguments.out or HERE / f"sf{arguments.scale:g}"
    out.mkdir(parents=True, exist_ok=True)
    connection = connect_to_parquet(arguments.data)
    check_scale(connection, arguments.scale)
    for number in QUERIES:
        text = answer(connection, query_text(number, arguments.scale))
        (out / f"q{number}.csv").write_text(text)
        print(f"q{number}: {len(text):,} bytes")


if __name__ == "__main__":
    main()
