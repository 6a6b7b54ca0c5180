"""Queries through ADBC: every type arrives as itself."""

import datetime
import decimal

import pyarrow
import pytest


def test_a_row_of_each_type_arrives_as_itself(cursor, table):
    cursor.execute(
        f"""CREATE TABLE {table} (
            id INTEGER PRIMARY KEY, small SMALLINT, large BIGINT, price DECIMAL(15, 2), ratio DOUBLE PRECISION,
            name TEXT, day DATE, at TIMESTAMP, flag BOOLEAN)"""
    )
    cursor.execute(
        f"""INSERT INTO {table} VALUES
            (1, 7, 9223372036854775807, 1234567890123.45, 0.5, 'Zoë', '2026-11-20', '2026-11-20 13:14:15.5', true),
            (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"""
    )
    cursor.execute(f"SELECT * FROM {table} ORDER BY id")
    assert cursor.fetchall() == [
        (
            1,
            7,
            9223372036854775807,
            decimal.Decimal("1234567890123.45"),
            0.5,
            "Zoë",
            datetime.date(2026, 11, 20),
            datetime.datetime(2026, 11, 20, 13, 14, 15, 500000),
            True,
        ),
        (2,) + (None,) * 8,
    ]


def test_arrow_types_are_those_of_the_declaration(cursor, table):
    cursor.execute(
        f"CREATE TABLE {table} (id INTEGER, small SMALLINT, large BIGINT, price DECIMAL(15, 2), name VARCHAR, day DATE)"
    )
    cursor.execute(f"SELECT * FROM {table}")
    schema = cursor.fetch_arrow_table().schema
    assert schema.names == ["id", "small", "large", "price", "name", "day"]
    assert schema.types == [
        pyarrow.int32(),
        pyarrow.int16(),
        pyarrow.int64(),
        pyarrow.decimal128(15, 2),
        # Not string_view, which many clients cannot read.
        pyarrow.string(),
        pyarrow.date32(),
    ]


def test_an_empty_result_still_has_its_columns(cursor):
    cursor.execute("SELECT 1 AS one, 'x' AS letter WHERE false")
    result = cursor.fetch_arrow_table()
    assert (result.num_rows, result.schema.names) == (0, ["one", "letter"])


def test_the_description_names_the_columns(cursor):
    cursor.execute("SELECT 1 AS first, 'two' AS second")
    assert [column[0] for column in cursor.description] == ["first", "second"]


def test_decimal_sums_are_exact(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (price DECIMAL(10, 2))")
    cursor.execute(f"INSERT INTO {table} VALUES (0.10), (0.20)")
    cursor.execute(f"SELECT sum(price) FROM {table}")
    assert cursor.fetchone()[0] == decimal.Decimal("0.30")


def test_updates_report_how_many_rows_they_changed(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, v INTEGER)")
    assert cursor.adbc_statement is not None
    for sql, changed in [
        (f"INSERT INTO {table} VALUES (1, 1), (2, 2), (3, 3)", 3),
        (f"UPDATE {table} SET v = v * 10 WHERE id >= 2", 2),
        (f"DELETE FROM {table} WHERE v = 30", 1),
        (f"DELETE FROM {table} WHERE false", 0),
    ]:
        cursor.adbc_statement.set_sql_query(sql)
        assert cursor.adbc_statement.execute_update() == changed, sql
    cursor.execute(f"SELECT * FROM {table} ORDER BY id")
    assert cursor.fetchall() == [(1, 1), (2, 20)]


@pytest.mark.parametrize("rows", [200_000])
def test_a_large_result_arrives_whole_and_in_order(cursor, table, rows):
    cursor.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, note TEXT)")
    cursor.execute(f"INSERT INTO {table} SELECT value, 'row ' || value FROM generate_series(1, {rows}) AS s(value)")
    cursor.execute(f"SELECT id, note FROM {table} ORDER BY id")
    result = cursor.fetch_arrow_table()
    assert result["id"].to_pylist() == list(range(1, rows + 1))
    assert result["note"][rows - 1].as_py() == f"row {rows}"


def test_a_result_that_is_not_read_to_its_end_does_no_harm(connection, server):
    with connection.cursor() as cursor:
        cursor.execute("SELECT value FROM generate_series(1, 5000000) AS s(value)")
        assert cursor.fetchone() is not None
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
    assert server.is_running()


def test_joins_and_aggregates_over_the_wire(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, parent INTEGER, weight INTEGER)")
    cursor.execute(f"INSERT INTO {table} VALUES (1, NULL, 5), (2, 1, 7), (3, 1, 8)")
    cursor.execute(
        f"SELECT p.id, count(*), sum(c.weight) FROM {table} p JOIN {table} c ON c.parent = p.id GROUP BY p.id"
    )
    assert cursor.fetchall() == [(1, 2, 15)]


def test_the_time_of_now_is_a_datetime(cursor):
    cursor.execute("SELECT now(), current_timestamp, current_date")
    now, current, today = cursor.fetchone()
    assert isinstance(now, datetime.datetime) and now == current
    assert abs(datetime.datetime.now(datetime.timezone.utc) - now) < datetime.timedelta(hours=1)
    assert isinstance(today, datetime.date)
