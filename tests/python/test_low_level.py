"""ADBC's low-level interface, without the DB-API layer."""

import threading

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pytest


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


ENDLESS = "SELECT count(*) FROM generate_series(1, 1000000000000) AS s(value) WHERE value % 7 = 1"


def outcome_when_cancelled(execute, cancel):
    """What a call in another thread ends with."""
    outcome = []

    def run():
        try:
            outcome.append(execute())
        except (adbc_driver_manager.Error, pyarrow.ArrowException, OSError) as error:
            outcome.append(error)

    running = threading.Thread(target=run)
    running.start()
    # The first call may come before the query has started, so it is repeated until the query has ended.
    while running.is_alive():
        cancel()
        running.join(0.1)
    return outcome[0]


def test_a_running_query_can_be_cancelled(low_level):
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query(ENDLESS)
        outcome = outcome_when_cancelled(lambda: rows(statement), statement.cancel)
        assert isinstance(outcome, Exception), outcome
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query("SELECT 2 AS two")
        assert rows(statement) == [{"two": 2}]


def test_a_cursor_can_be_cancelled_from_another_thread(server):
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:

        def execute():
            cursor.execute(ENDLESS)
            return cursor.fetchall()

        outcome = outcome_when_cancelled(execute, cursor.adbc_cancel)
        assert isinstance(outcome, Exception), outcome
        with connection.cursor() as other:
            other.execute("SELECT 2 AS two")
            assert other.fetchall() == [(2,)]


def test_a_transaction_ends_as_it_is_told_to(low_level, table):
    def count():
        with adbc_driver_manager.AdbcStatement(low_level) as statement:
            statement.set_sql_query(f"SELECT count(*) AS n FROM {table}")
            return rows(statement)

    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
        statement.execute_update()
        low_level.set_autocommit(False)
        for end, left in [(low_level.rollback, 0), (low_level.commit, 2)]:
            statement.set_sql_query(f"INSERT INTO {table} VALUES (1), (2)")
            assert statement.execute_update() == 2
            assert count() == [{"n": 2}]
            end()
            assert count() == [{"n": left}]
        low_level.commit()
        low_level.set_autocommit(True)
    assert count() == [{"n": 2}]


def test_metadata_is_asked_for_without_sql(low_level, table):
    def read(handle):
        return pyarrow.RecordBatchReader._import_from_c(handle.address).read_all().to_pylist()

    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
        statement.execute_update()
    assert {"table_type": "TABLE"} in read(low_level.get_table_types())
    names = {entry["info_name"]: entry["info_value"] for entry in read(low_level.get_info())}
    assert names[0] == "RustyDB"
    (catalog,) = read(low_level.get_objects(adbc_driver_manager.GetObjectsDepth.ALL, table_name=table))
    (found,) = [each for schema in catalog["catalog_db_schemas"] for each in schema["db_schema_tables"]]
    assert [column["column_name"] for column in found["table_columns"]] == ["id", "name"]
    handle = low_level.get_table_schema(None, None, table)
    assert pyarrow.Schema._import_from_c(handle.address).names == ["id", "name"]


def test_errors_have_their_sqlstate(low_level):
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query("SELECT * FROM no_such_table")
        with pytest.raises(adbc_driver_manager.Error, match="42P01"):
            rows(statement)
        statement.set_sql_query("SELECT 1 / 0 AS never")
        with pytest.raises((adbc_driver_manager.Error, pyarrow.ArrowException, OSError), match="22012"):
            rows(statement)


def test_a_connection_without_the_token_is_refused(start, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-for-this-test-only\n")
    server = start("--token-file", tokens)
    header = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value

    def ask(options):
        with adbc_driver_flightsql.connect(server.uri, db_kwargs=options) as database:
            with adbc_driver_manager.AdbcConnection(database) as connection:
                with adbc_driver_manager.AdbcStatement(connection) as statement:
                    statement.set_sql_query("SELECT 1 AS one")
                    return rows(statement)

    for options in [{}, {header: "Bearer another"}]:
        with pytest.raises(adbc_driver_manager.Error, match=r"\[28(000|P01)\]"):
            ask(options)
    assert ask({header: "Bearer a-token-for-this-test-only"}) == [{"one": 1}]
