"""Errors over the wire: the class a program can catch, the SQLSTATE, and words that help."""

import adbc_driver_manager
import pyarrow.flight
import pytest

import flight_sql


@pytest.fixture
def customers(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, first_name TEXT NOT NULL)")
    cursor.execute(f"INSERT INTO {table} VALUES (1, 'Ada')")
    return table


CASES = [
    ("SELEC 1", "42601", adbc_driver_manager.ProgrammingError),
    ("SELECT * FROM no_such_table", "42P01", adbc_driver_manager.ProgrammingError),
    ("SELECT frist_name FROM {customers}", "42703", adbc_driver_manager.ProgrammingError),
    ("SELECT no_such_function(1)", "42883", adbc_driver_manager.ProgrammingError),
    ("CREATE TABLE {customers} (id INTEGER)", "42P07", adbc_driver_manager.ProgrammingError),
    ("INSERT INTO {customers} VALUES (1, 'Bob')", "23505", adbc_driver_manager.ProgrammingError),
    ("INSERT INTO {customers} VALUES (2, NULL)", "23502", adbc_driver_manager.OperationalError),
    ("INSERT INTO {customers} VALUES ('two', 'Bob')", "22P02", adbc_driver_manager.ProgrammingError),
    ("SELECT 1 / 0", "22012", adbc_driver_manager.ProgrammingError),
    ("SELECT * FROM {customers} TABLESAMPLE SYSTEM (10)", "0A000", adbc_driver_manager.NotSupportedError),
]


@pytest.mark.parametrize(("sql", "sqlstate", "error"), CASES, ids=[case[1] for case in CASES])
def test_adbc_raises_the_right_class_with_the_sqlstate(cursor, customers, sql, sqlstate, error):
    with pytest.raises(error) as raised:
        cursor.execute(sql.format(customers=customers))
        cursor.fetchall()
    assert sqlstate in str(raised.value)


@pytest.mark.parametrize(("sql", "sqlstate", "_error"), CASES, ids=[case[1] for case in CASES])
def test_pyarrow_raises_with_the_sqlstate(client, customers, sql, sqlstate, _error):
    with pytest.raises((pyarrow.flight.FlightError, pyarrow.ArrowException)) as raised:
        flight_sql.query(client, sql.format(customers=customers))
    assert f"[{sqlstate}]" in str(raised.value)


def test_an_unknown_column_comes_with_its_place_and_its_neighbour(cursor, customers):
    with pytest.raises(adbc_driver_manager.ProgrammingError) as raised:
        cursor.execute(f"SELECT id,\n  frist_name FROM {customers}")
    assert "line 2, column 3" in str(raised.value)
    assert "first_name" in str(raised.value)


def test_a_duplicate_key_is_named_with_its_value(cursor, customers):
    with pytest.raises(adbc_driver_manager.ProgrammingError) as raised:
        cursor.execute(f"INSERT INTO {customers} VALUES (1, 'Bob')")
    assert "id" in str(raised.value) and "1" in str(raised.value)


def test_a_connection_survives_its_errors(cursor, customers):
    for _ in range(20):
        with pytest.raises(adbc_driver_manager.Error):
            cursor.execute("SELECT * FROM no_such_table")
    cursor.execute(f"SELECT first_name FROM {customers}")
    assert cursor.fetchall() == [("Ada",)]


def test_a_query_that_fails_on_the_way_says_so(cursor, customers):
    with pytest.raises(adbc_driver_manager.Error, match="22012"):
        cursor.execute("SELECT 1 / (value - 150000) FROM generate_series(1, 200000) AS s(value)")
        cursor.fetchall()


def test_nothing_answers_on_another_port(server):
    with pytest.raises(adbc_driver_manager.Error):
        with adbc_driver_manager.dbapi.connect(
            driver="adbc_driver_flightsql", db_kwargs={"uri": "grpc://127.0.0.1:1"}, autocommit=True
        ) as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
