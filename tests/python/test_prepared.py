"""Prepared statements with parameters: single values, many rows, Arrow batches."""

import datetime
import decimal

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pyarrow.flight
import pytest

import flight_sql


@pytest.fixture
def goods(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT, price DECIMAL(10, 2), since DATE)")
    return table


@pytest.mark.parametrize("placeholder", ["?", "$1"])
def test_a_query_takes_a_parameter(cursor, goods, placeholder):
    cursor.execute(f"INSERT INTO {goods} VALUES (1, 'pen', 1.50, NULL), (2, 'ink', 20.00, NULL)")
    cursor.execute(f"SELECT name FROM {goods} WHERE id = {placeholder}", (2,))
    assert cursor.fetchall() == [("ink",)]
    # The same statement again with another value: prepared once, executed twice.
    cursor.execute(f"SELECT name FROM {goods} WHERE id = {placeholder}", (1,))
    assert cursor.fetchall() == [("pen",)]


def test_an_insert_takes_parameters_of_each_type(cursor, goods):
    row = (1, "Zoë's pen", decimal.Decimal("1.50"), datetime.date(2026, 11, 20))
    cursor.execute(f"INSERT INTO {goods} VALUES (?, ?, ?, ?)", row)
    cursor.execute(f"INSERT INTO {goods} VALUES (?, ?, ?, ?)", (2, None, None, None))
    cursor.execute(f"SELECT * FROM {goods} ORDER BY id")
    assert cursor.fetchall() == [row, (2, None, None, None)]


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("bytea", {r"\x01ff": r"\x01ff", r"a\001": r"\x6101"}),
        ("interval", {"7": "00:00:07", "1 01:30": "1 day 01:30:00", "P1D": "1 day"}),
        ("numeric(8, 2)", {"1.5e3": "1500.00", "2": "2.00", " -1E-1 ": "-0.10"}),
    ],
)
def test_a_text_is_read_as_a_constant_of_its_columns_type(cursor, table, kind, read):
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, v {kind})")
    # More than once: what has been executed before goes another way.
    for identifier, text in enumerate([*read] * 3):
        cursor.execute(f"INSERT INTO {table} VALUES (?, ?)", (identifier, text))
    cursor.execute(f"SELECT v::text FROM {table} ORDER BY id")
    assert [text for (text,) in cursor.fetchall()] == [*read.values()] * 3
    for text in read:
        cursor.execute(f"SELECT count(*) FROM {table} WHERE v = ?", (text,))
        assert cursor.fetchone()[0] >= 3


def test_executemany_runs_once_per_row(cursor, goods):
    rows = [(number, f"thing {number}", decimal.Decimal(number) / 4, None) for number in range(1, 101)]
    cursor.executemany(f"INSERT INTO {goods} VALUES (?, ?, ?, ?)", rows)
    assert cursor.rowcount == 100
    cursor.execute(f"SELECT count(*), sum(price) FROM {goods}")
    assert cursor.fetchone() == (100, decimal.Decimal("1262.50"))


def test_executemany_is_all_or_nothing(cursor, goods):
    with pytest.raises(adbc_driver_manager.Error, match="23505"):
        cursor.executemany(f"INSERT INTO {goods} (id) VALUES (?)", [(1,), (2,), (1,)])
    cursor.execute(f"SELECT count(*) FROM {goods}")
    assert cursor.fetchone() == (0,)


def test_updates_and_deletes_take_batches_of_parameters(cursor, goods):
    cursor.executemany(f"INSERT INTO {goods} (id, name) VALUES (?, ?)", [(1, "a"), (2, "b"), (3, "c")])
    cursor.executemany(f"UPDATE {goods} SET name = ? WHERE id = ?", [("x", 1), ("y", 2)])
    assert cursor.rowcount == 2
    cursor.executemany(f"DELETE FROM {goods} WHERE id = ?", [(3,), (4,)])
    assert cursor.rowcount == 1
    cursor.execute(f"SELECT id, name FROM {goods} ORDER BY id")
    assert cursor.fetchall() == [(1, "x"), (2, "y")]


def test_an_arrow_batch_is_a_list_of_parameters(cursor, goods):
    batch = pyarrow.RecordBatch.from_pydict({"1": pyarrow.array([1, 2], pyarrow.int32()), "2": ["a", None]})
    cursor.executemany(f"INSERT INTO {goods} (id, name) VALUES (?, ?)", batch)
    cursor.execute(f"SELECT id, name FROM {goods} ORDER BY id")
    assert cursor.fetchall() == [(1, "a"), (2, None)]


def test_preparing_tells_the_types_of_the_parameters(cursor, goods):
    schema = cursor.adbc_prepare(f"SELECT name FROM {goods} WHERE id = $1 AND price > $2")
    assert schema.types == [pyarrow.int32(), pyarrow.decimal128(10, 2)]


def test_preparing_reports_errors_at_once(cursor, goods):
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="42703"):
        cursor.adbc_prepare(f"SELECT nmae FROM {goods}")


def test_a_statement_with_parameters_that_is_not_supported_says_so(cursor, goods):
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="0A000.*SAMPLE"):
        cursor.execute(f"SELECT * FROM {goods} TABLESAMPLE SYSTEM (10) WHERE id = ?", (1,))


def test_too_few_parameters_are_an_error(cursor, goods):
    with pytest.raises(adbc_driver_manager.Error):
        cursor.execute(f"SELECT name FROM {goods} WHERE id = ? AND name = ?", (1,))


def test_a_parameter_is_a_value_and_never_sql(cursor, goods):
    nasty = f"'; DROP TABLE {goods}; --"
    cursor.execute(f"INSERT INTO {goods} (id, name) VALUES (1, ?)", (nasty,))
    cursor.execute(f"SELECT name FROM {goods} WHERE name = ?", (nasty,))
    assert cursor.fetchall() == [(nasty,)]


@pytest.mark.parametrize("condition", ["", " WHERE k = ?"])
@pytest.mark.parametrize(
    ("before", "value", "after", "new", "read"),
    [
        ("boolean", "true", "bigint", "42", 42),
        ("integer", "7", "double precision", "3.75", 3.75),
        ("numeric(10, 2)", "1.25", "double precision", "3.14159", 3.14159),
        ("date", "'2024-01-01'", "timestamp", "'2024-05-05 13:14:15'", datetime.datetime(2024, 5, 5, 13, 14, 15)),
        ("integer", "7", "date", "'2024-01-01'", datetime.date(2024, 1, 1)),
        ("integer", "7", "text", "'abc'", "abc"),
    ],
)
def test_a_table_made_anew_is_read_in_its_new_type(connection, cursor, table, condition, before, value, after, new, read):
    # The driver keeps the statement prepared as long as the cursor executes the same text.
    query, parameters = f"SELECT v FROM {table}{condition}", (1,) if condition else None
    with connection.cursor() as other:
        other.execute(f"CREATE TABLE {table} (k INTEGER, v {before})")
        other.execute(f"INSERT INTO {table} VALUES (1, {value})")
        cursor.execute(query, parameters)
        assert len(cursor.fetchall()) == 1
        other.execute(f"DROP TABLE {table}")
        other.execute(f"CREATE TABLE {table} (k INTEGER, v {after})")
        other.execute(f"INSERT INTO {table} VALUES (1, {new})")
    cursor.execute(query, parameters)
    assert cursor.fetchall() == [(read,)]


@pytest.mark.parametrize("autocommit", [True, False])
def test_columns_that_come_and_go_are_seen_by_a_kept_statement(server, table, autocommit):
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=autocommit) as connection:
        with connection.cursor() as cursor, connection.cursor() as other:

            def read():
                cursor.execute(f"SELECT * FROM {table}")
                rows = cursor.fetchall()
                return [column[0] for column in cursor.description], rows

            other.execute(f"CREATE TABLE {table} (a INTEGER, b TEXT)")
            other.execute(f"INSERT INTO {table} VALUES (1, 'x')")
            assert read() == (["a", "b"], [(1, "x")])
            other.execute(f"ALTER TABLE {table} ADD COLUMN c INTEGER DEFAULT 5")
            assert read() == (["a", "b", "c"], [(1, "x", 5)])
            other.execute(f"ALTER TABLE {table} DROP COLUMN b")
            assert read() == (["a", "c"], [(1, 5)])
            other.execute(f"ALTER TABLE {table} RENAME COLUMN a TO z")
            assert read() == (["z", "c"], [(1, 5)])
            for rows in ({"n": [1.5]}, {"m": ["text"], "n": [True]}):
                other.adbc_ingest(table, pyarrow.table(rows), mode="replace")
                assert read() == (list(rows), list(zip(*rows.values())))
            other.execute(f"DROP TABLE {table}")
            with pytest.raises(adbc_driver_manager.ProgrammingError, match="42P01"):
                read()
            if not autocommit:
                connection.rollback()


def test_rows_returned_by_a_change_are_announced_anew_too(connection, cursor, table):
    insert = f"INSERT INTO {table} DEFAULT VALUES RETURNING *"
    with connection.cursor() as other:
        other.execute(f"CREATE TABLE {table} (v INTEGER DEFAULT 1)")
        cursor.execute(insert)
        assert cursor.fetchall() == [(1,)]
        other.execute(f"DROP TABLE {table}")
        other.execute(f"CREATE TABLE {table} (v DOUBLE PRECISION DEFAULT 2.5, w TEXT)")
    cursor.execute(insert)
    assert cursor.fetchall() == [(2.5, None)]


def test_a_change_is_not_made_if_its_rows_cannot_be_sent(client, table):
    flight_sql.update(client, f"CREATE TABLE {table} (a INTEGER)")
    insert = f"INSERT INTO {table} VALUES (1) RETURNING *"
    info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: insert}))
    flight_sql.update(client, f"ALTER TABLE {table} ADD COLUMN b INTEGER")
    with pytest.raises(pyarrow.ArrowException, match="cached plan must not change result type"):
        client.do_get(info.endpoints[0].ticket).read_all()
    assert flight_sql.query(client, f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 0}]
    # Another table is no reason.
    info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: insert}))
    flight_sql.update(client, f"CREATE TABLE {table}_other (a INTEGER)")
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"a": 1, "b": None}]


def test_a_name_that_is_prepared_anew_does_not_answer_as_the_old_one(client, table):
    options = pyarrow.flight.FlightCallOptions(headers=[client.authenticate_basic_token("anyone", "anything")])
    flight_sql.update(client, f"PREPARE {table} AS SELECT 1 AS one", options)
    info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: f"EXECUTE {table}"}), options)
    flight_sql.update(client, f"DEALLOCATE {table}", options)
    flight_sql.update(client, f"PREPARE {table} AS SELECT '42'::text AS two", options)
    with pytest.raises(pyarrow.ArrowException, match="cached plan must not change result type"):
        client.do_get(info.endpoints[0].ticket, options).read_all()
    assert flight_sql.query(client, f"EXECUTE {table}", options).to_pylist() == [{"two": "42"}]
