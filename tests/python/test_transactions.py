"""Transactions through ADBC's own calls and through SQL text."""

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pytest

import flight_sql
import grpc_wire


@pytest.fixture
def connect(server):
    """Opens connections whose transactions the test ends itself."""
    opened = []

    def connect(autocommit=False):
        opened.append(adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=autocommit))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def execute(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def count(connection, table):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]


@pytest.fixture
def accounts(connection, table):
    execute(connection, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, balance INTEGER)")
    execute(connection, f"INSERT INTO {table} VALUES (1, 100), (2, 100)")
    return table


def test_others_see_a_transaction_only_once_it_is_committed(connect, connection, accounts):
    writer = connect()
    execute(writer, f"INSERT INTO {accounts} VALUES (3, 100)")
    assert count(writer, accounts) == 3
    assert count(connection, accounts) == 2
    writer.commit()
    assert count(connection, accounts) == 3


def test_rollback_undoes_everything(connect, connection, accounts):
    writer = connect()
    execute(writer, f"DELETE FROM {accounts} WHERE id = 1")
    execute(writer, f"UPDATE {accounts} SET balance = 0")
    writer.rollback()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {accounts} ORDER BY id")
        assert cursor.fetchall() == [(1, 100), (2, 100)]


def test_the_next_transaction_begins_by_itself(connect, connection, accounts):
    writer = connect()
    for identifier in (3, 4):
        execute(writer, f"INSERT INTO {accounts} VALUES (?, 0)", (identifier,))
        writer.commit()
    assert count(connection, accounts) == 4


def test_one_cursor_goes_on_over_commits_and_rollbacks(connect, connection, accounts):
    writer = connect()
    with writer.cursor() as cursor:
        for identifier in (3, 4):
            cursor.execute(f"INSERT INTO {accounts} VALUES (?, 0)", (identifier,))
            writer.commit()
        cursor.execute(f"INSERT INTO {accounts} VALUES (?, 0)", (5,))
        writer.rollback()
        cursor.executemany(f"INSERT INTO {accounts} VALUES (?, 0)", [(5,), (6,)])
        writer.commit()
        cursor.executemany(f"INSERT INTO {accounts} VALUES (?, 0)", [(7,), (8,)])
        writer.commit()
        for end in (writer.commit, writer.rollback, writer.commit):
            cursor.execute(f"SELECT count(*) FROM {accounts}")
            assert cursor.fetchone() == (8,)
            end()
    assert count(connection, accounts) == 8


def test_closing_without_commit_is_a_rollback(connect, connection, accounts):
    writer = connect()
    execute(writer, f"DELETE FROM {accounts}")
    writer.close()
    assert count(connection, accounts) == 2


def test_a_transaction_reads_one_snapshot(connect, connection, accounts):
    reader = connect()
    assert count(reader, accounts) == 2
    execute(connection, f"INSERT INTO {accounts} VALUES (3, 100)")
    assert count(reader, accounts) == 2
    reader.commit()
    assert count(reader, accounts) == 3


def test_the_second_writer_of_a_row_is_told_to_try_again(connect, connection, accounts):
    first, second = connect(), connect()
    assert count(first, accounts) == count(second, accounts) == 2
    execute(first, f"UPDATE {accounts} SET balance = balance - 10 WHERE id = 1")
    first.commit()
    with pytest.raises(adbc_driver_manager.Error, match="40001"):
        execute(second, f"UPDATE {accounts} SET balance = balance - 20 WHERE id = 1")
        second.commit()
    # The driver has no way back from a failed commit, so the transaction is tried again on a new connection.
    third = connect()
    execute(third, f"UPDATE {accounts} SET balance = balance - 20 WHERE id = 1")
    third.commit()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT balance FROM {accounts} WHERE id = 1")
        assert cursor.fetchone() == (70,)


def test_after_an_error_a_transaction_only_listens_to_its_end(connect, connection, accounts):
    writer = connect()
    execute(writer, f"INSERT INTO {accounts} VALUES (3, 100)")
    with pytest.raises(adbc_driver_manager.Error, match="23505"):
        execute(writer, f"INSERT INTO {accounts} VALUES (3, 100)")
    with pytest.raises(adbc_driver_manager.Error, match="25P02"):
        count(writer, accounts)
    writer.rollback()
    assert count(writer, accounts) == 2


def test_autocommit_can_be_switched(connect, connection, accounts):
    writer = connect(autocommit=True)
    execute(writer, f"INSERT INTO {accounts} VALUES (3, 100)")
    assert count(connection, accounts) == 3
    writer.adbc_connection.set_autocommit(False)
    execute(writer, f"INSERT INTO {accounts} VALUES (4, 100)")
    assert count(connection, accounts) == 3
    writer.rollback()
    assert count(connection, accounts) == 3


USER = {"username": "anyone", "password": "anything"}


@pytest.fixture
def logged_in(server):
    """A connection with a session, whose transactions the test ends itself."""
    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=USER) as connection:
        yield connection


def value(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def set_option(connection, name, value):
    connection.adbc_connection.set_options(**{f"adbc.flight.sql.session.option.{name}": value})


def test_options_of_the_session_hold_in_its_transactions(logged_in, connection, table):
    execute(connection, f"CREATE SCHEMA {table}")
    # The driver has begun a transaction when it connected, before these.
    logged_in.adbc_current_db_schema = table
    set_option(logged_in, "timezone", "Asia/Tokyo")
    assert value(logged_in, "SHOW search_path") == table
    assert value(logged_in, "SHOW timezone") == "Asia/Tokyo"
    # And now it has statements.
    set_option(logged_in, "timezone", "Europe/Rome")
    logged_in.adbc_current_db_schema = "public"
    assert value(logged_in, "SHOW timezone") == "Europe/Rome"
    assert value(logged_in, "SHOW search_path") == "public"
    assert logged_in.adbc_current_db_schema == "public"
    logged_in.rollback()
    assert value(logged_in, "SHOW timezone") == "Europe/Rome"
    logged_in.adbc_current_db_schema = table
    execute(logged_in, "CREATE TABLE there (a INTEGER)")
    logged_in.commit()
    assert count(connection, f"{table}.there") == 0


def test_what_a_transaction_sets_lasts_if_it_is_committed(logged_in):
    execute(logged_in, "SET TIME ZONE 'Asia/Tokyo'")
    assert value(logged_in, "SHOW timezone") == "Asia/Tokyo"
    logged_in.commit()
    execute(logged_in, "SET LOCAL lock_timeout = '3s'")
    assert value(logged_in, "SHOW timezone") == "Asia/Tokyo"
    logged_in.commit()
    assert value(logged_in, "SHOW lock_timeout") == "0"
    execute(logged_in, "SET TIME ZONE 'Europe/Rome'")
    logged_in.rollback()
    assert value(logged_in, "SHOW timezone") == "Asia/Tokyo"
    logged_in.adbc_connection.set_autocommit(True)
    assert value(logged_in, "SHOW timezone") == "Asia/Tokyo"


def test_a_session_remembers_statements_and_sequences_over_its_transactions(logged_in, table):
    execute(logged_in, f"PREPARE {table} AS SELECT 7")
    execute(logged_in, f"CREATE SEQUENCE {table}_s")
    assert value(logged_in, f"SELECT nextval('{table}_s')") == 1
    logged_in.commit()
    assert value(logged_in, f"EXECUTE {table}") == 7
    assert value(logged_in, f"SELECT currval('{table}_s')") == 1
    logged_in.rollback()


def test_transactions_without_a_session_have_no_settings_in_common(connect):
    connection = connect()
    execute(connection, "SET TIME ZONE 'Asia/Tokyo'")
    connection.commit()
    assert value(connection, "SHOW timezone") == "UTC"
    connection.rollback()


def test_an_option_of_the_session_is_no_change_of_the_transaction(logged_in):
    assert value(logged_in, "SHOW lock_timeout") == "0"
    set_option(logged_in, "lock_timeout", "3s")
    execute(logged_in, "RESET ALL")
    logged_in.commit()
    assert value(logged_in, "SHOW lock_timeout") == "0"
    logged_in.rollback()


def test_what_a_transaction_resets_is_reset_in_its_session(logged_in):
    execute(logged_in, "SET app.user = 'ann'")
    logged_in.commit()
    assert value(logged_in, "SHOW app.user") == "ann"
    set_option(logged_in, "application_name", "meanwhile")
    execute(logged_in, "RESET ALL")
    logged_in.commit()
    with pytest.raises(adbc_driver_manager.Error, match="app.user"):
        value(logged_in, "SHOW app.user")
    logged_in.rollback()


def test_two_logins_on_one_connection_have_nothing_in_common(server, client, table):
    # As a proxy has one for many clients.
    ann, bob = (
        [client.authenticate_basic_token(name, "anything"), ("user-agent", "ADBC Flight SQL Driver v1")]
        for name in ("ann", "bob")
    )
    with grpc_wire.Connection(server) as wire:

        def act(headers, name, body):
            call = wire.call("DoAction", headers)
            call.send(flight_sql.message({1: name, 2: body}))
            call.end()
            return call.answers()

        def update(sql):
            call = wire.call("DoPut", ann)
            asked = grpc_wire.descriptor("CommandStatementUpdate", {1: sql, 2: transaction})
            call.send(grpc_wire.flight_data(grpc_wire.ipc(pyarrow.schema([]).serialize()), asked))
            call.end()
            call.answers()

        def read(headers, name, fields):
            info = wire.ask("GetFlightInfo", grpc_wire.descriptor(name, fields), headers)
            call = wire.call("DoGet", headers)
            call.send(flight_sql.read_fields(flight_sql.read_fields(info)[3])[1])
            call.end()
            return b"".join(call.answers())

        begun = act(ann, "BeginTransaction", flight_sql.packed("ActionBeginTransactionRequest", {}))
        transaction = flight_sql.read_fields(flight_sql.read_fields(flight_sql.read_fields(begun[0])[1])[2])[1]
        update(f"CREATE TABLE {table}_made (a INTEGER)")
        update(f"CREATE TEMPORARY TABLE {table}_own (a INTEGER)")
        tables = [read(headers, "CommandGetTables", {3: f"{table}%", 5: True}) for headers in (ann, bob)]
        assert [[f"{table}{name}".encode() in found for name in ("_made", "_own")] for found in tables] == [
            [True, True],
            [False, False],
        ]
        option = flight_sql.message({1: "timezone", 2: flight_sql.message({1: "Asia/Tokyo"})})
        act(bob, "SetSessionOptions", flight_sql.message({1: option}))
        assert b"Asia/Tokyo" not in read(ann, "CommandStatementQuery", {1: "SHOW timezone", 2: transaction})
        ending = flight_sql.packed("ActionEndTransactionRequest", {1: transaction, 2: 2})
        act(ann, "EndTransaction", ending)
