"""ADBC's low-level interface, without the DB-API layer."""

import threading

import adbc_driver_flightsql
import adbc_driver_manager
import pyarrow
import pytest


@pytest.fixture
def low_level(server):
    with adbc_driver_flightsql.connect(server.uri) as database:
        with adbc_driver_manager.AdbcConnection(database) as connection:
            yield connection


def rows(statement):
    handle, _ = statement.execute_query()
    return pyarrow.RecordBatchReader._import_from_c(handle.address).read_all().to_pylist()


def test_a_statement_is_executed_without_preparing_it(low_level):
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query("SELECT 6 * 7 AS answer")
        assert rows(statement) == [{"answer": 42}]


def test_a_prepared_statement_is_bound_and_executed_again(low_level, table):
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
        statement.execute_update()
        statement.set_sql_query(f"INSERT INTO {table} VALUES ($1, $2)")
        statement.prepare()
        for identifier, name in [(1, "one"), (2, "two")]:
            statement.bind(pyarrow.record_batch([pyarrow.array([identifier]), pyarrow.array([name])], names=["a", "b"]))
            assert statement.execute_update() == 1
        statement.set_sql_query(f"SELECT name FROM {table} ORDER BY id")
        assert rows(statement) == [{"name": "one"}, {"name": "two"}]


def test_ingest_through_statement_options(low_level, table):
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_options(
            **{
                adbc_driver_manager.INGEST_OPTION_TARGET_TABLE: table,
                adbc_driver_manager.INGEST_OPTION_MODE: adbc_driver_manager.INGEST_OPTION_MODE_CREATE,
            }
        )
        statement.bind(pyarrow.record_batch({"id": [1, 2, 3]}))
        assert statement.execute_update() == 3
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query(f"SELECT sum(id) AS total FROM {table}")
        assert rows(statement) == [{"total": 6}]


def test_the_schema_of_a_query_without_running_it(low_level):
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query("SELECT 1 / 0 AS never")
        # The handle must live until its content was taken over.
        handle = statement.execute_schema()
        assert pyarrow.Schema._import_from_c(handle.address).names == ["never"]


def test_a_running_query_can_be_cancelled(low_level):
    endless = "SELECT count(*) FROM generate_series(1, 1000000000000) AS s(value) WHERE value % 7 = 1"
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query(endless)
        outcome = []

        def execute():
            try:
                outcome.append(rows(statement))
            except (adbc_driver_manager.Error, pyarrow.ArrowException, OSError) as error:
                outcome.append(error)

        running = threading.Thread(target=execute)
        running.start()
        # The first call may come before the query has started, so it is repeated until the query has ended.
        while running.is_alive():
            statement.cancel()
            running.join(0.1)
        assert isinstance(outcome[0], Exception), outcome
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query("SELECT 2 AS two")
        assert rows(statement) == [{"two": 2}]
