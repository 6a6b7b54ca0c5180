"""Clients that stop in the middle of a DoPut or DoExchange, or leave: nothing is kept by half, no lock outlives them,
and nobody else is kept waiting.
"""

import contextlib
import pathlib
import subprocess
import sys
import time

import adbc_driver_manager
import pyarrow
import pyarrow.flight
import pytest

import flight_sql
import grpc_wire
import rustydb_server
from test_abuse import open_files, resident_mib
from test_flight import COMMIT, ROLLBACK, begin, end
from test_low_level import outcome_when_cancelled
from test_malformed import MODES

ERRORS = pyarrow.ArrowException
# Every idle time after which a server lets go by itself is far longer.
PROMPTLY = "20s"
SECONDS_MAX = 60

SCHEMA = pyarrow.schema([("id", pyarrow.int64()), ("v", pyarrow.int64())])
PARAMETER = pyarrow.schema([("p", pyarrow.int64())])

WAYS_TO_LEAVE = {
    "reset": lambda wire, call: wire.vanish(),
    "closed": lambda wire, call: wire.close(),
    "cancelled": lambda wire, call: call.cancel(),
}


@pytest.fixture
def wire(server):
    with grpc_wire.Connection(server) as connection:
        yield connection


def log_in(client, **settings):
    """What a call needs to belong to a session of its own."""
    options = pyarrow.flight.FlightCallOptions(headers=[client.authenticate_basic_token("anyone", "anything")])
    for name, value in settings.items():
        flight_sql.update(client, f"SET {name} = '{value}'", options)
    return options


@pytest.fixture
def others(client):
    """Somebody else's session, which waits for locks, but not for long."""
    return log_in(client, lock_timeout=PROMPTLY)


@pytest.fixture
def accounts(client, table):
    """Ten rows, and a procedure that changes the first and never ends."""
    flight_sql.update(client, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v BIGINT)")
    flight_sql.update(client, f"INSERT INTO {table} SELECT value, 0 FROM generate_series(1, 10) AS s (value)")
    body = f"BEGIN UPDATE {table} SET v = v + amount WHERE id = 1; LOOP PERFORM 1; END LOOP; END"
    flight_sql.update(client, f"CREATE PROCEDURE {table}_stall (amount BIGINT) LANGUAGE plpgsql AS $$ {body} $$")
    return table


@pytest.fixture
def impatient(start, tmp_path):
    """Starts a server with these settings of `[flight]` and a table of one row, and yields connections to it."""

    @contextlib.contextmanager
    def connect(settings):
        (tmp_path / "impatient.toml").write_text(f"[flight]\n{settings}\n")
        server = start("--config", tmp_path / "impatient.toml")
        with pyarrow.flight.connect(server.uri) as client:
            flight_sql.update(client, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
            flight_sql.update(client, "INSERT INTO t VALUES (1, 0)")
            yield server, client

    return connect


def until(what):
    """Asks again until it is so."""
    deadline = time.monotonic() + SECONDS_MAX
    while not what():
        assert time.monotonic() < deadline, "it takes too long"


def is_locked(client, table, identifier=1):
    try:
        flight_sql.query(client, f"SELECT id FROM {table} WHERE id = {identifier} FOR UPDATE NOWAIT")
        return False
    except ERRORS as error:
        assert "[55P03]" in str(error)
        return True


def total(client, table):
    (row,) = flight_sql.query(client, f"SELECT count(*) AS n, sum(v) AS v FROM {table}").to_pylist()
    return row["n"], row["v"]


def add_one(client, others, table, identifier=1):
    assert flight_sql.update(client, f"UPDATE {table} SET v = v + 1 WHERE id = {identifier}", others) == 1


def ipc_rows(schema, *columns):
    columns = [pyarrow.array(column, pyarrow.int64()) for column in columns]
    return grpc_wire.flight_data(grpc_wire.ipc(pyarrow.record_batch(columns, schema=schema).serialize()))


def messages(name, fields, schema):
    """The first message of a DoPut or DoExchange."""
    return grpc_wire.flight_data(grpc_wire.ipc(schema.serialize()), grpc_wire.descriptor(name, fields))


def begin_ingest(wire, table, mode=MODES["append"], transaction=None, rows=600_000):
    """Sends rows from 1,000 on: more than the server takes unread, so that it is in the middle of them."""
    call = wire.call("DoPut")
    of_transaction = {6: transaction} if transaction else {}
    command = {1: flight_sql.message(mode), 2: table, **of_transaction}
    call.send(messages("CommandStatementIngest", command, SCHEMA))
    for start in range(1_000, 1_000 + rows, 50_000):
        call.send(ipc_rows(SCHEMA, range(start, start + 50_000), [1] * 50_000))
    return call


def half_of(message):
    whole = len(message).to_bytes(5, "big") + message
    return whole[: len(whole) // 2], whole[len(whole) // 2 :]


def begin_update(wire, sql, transaction=None, headers=()):
    call = wire.call("DoPut", headers)
    fields = {1: sql, **({2: transaction} if transaction else {})}
    call.send(grpc_wire.flight_data(descriptor=grpc_wire.descriptor("CommandStatementUpdate", fields)))
    call.end()
    return call


def prepare(client, sql, options=None):
    request = "ActionCreatePreparedStatementRequest"
    return flight_sql.action(client, "CreatePreparedStatement", {1: sql}, any_type=request, options=options)[1]


def begin_exchange(wire, client, sql, headers=()):
    """A DoExchange of a prepared statement with one parameter, before its first row."""
    handle = prepare(client, sql, pyarrow.flight.FlightCallOptions(headers=list(headers)))
    call = wire.call("DoExchange", headers)
    call.send(messages("CommandPreparedStatementUpdate", {1: handle}, PARAMETER))
    return call


def changed(answer):
    """The number of rows that an execution of an exchange has changed."""
    return flight_sql.read_fields(flight_sql.read_fields(answer)[3])[1]


# Ingest.


def test_an_ingest_that_stops_keeps_nobody_waiting_and_may_go_on(client, wire, others, accounts):
    call = begin_ingest(wire, accounts)
    first, rest = half_of(ipc_rows(SCHEMA, [1_000_000], [1]))
    call.send_bytes(first)
    add_one(client, others, accounts)
    assert flight_sql.update(client, f"INSERT INTO {accounts} VALUES (11, 0)", others) == 1
    assert total(client, accounts) == (11, 1), "nothing of it is seen"
    call.send_bytes(rest)
    call.end()
    call.answers()
    assert total(client, accounts) == (600_012, 600_002)


def test_an_ingest_that_stops_learns_that_another_client_has_taken_its_key(client, wire, others, accounts):
    call = begin_ingest(wire, accounts)
    assert flight_sql.update(client, f"INSERT INTO {accounts} VALUES (1000, 7)", others) == 1
    call.end()
    with pytest.raises(grpc_wire.Refused) as refused:
        call.answers()
    assert (refused.value.code, refused.value.sqlstate) == (grpc_wire.ALREADY_EXISTS, "23505")
    assert total(client, accounts) == (11, 7)


@pytest.mark.parametrize("change", ["ALTER TABLE {} ADD COLUMN w BIGINT", "TRUNCATE {}", "DROP TABLE {}"])
def test_an_ingest_that_stops_does_not_keep_its_table_from_being_changed(client, wire, others, accounts, change):
    call = begin_ingest(wire, accounts)
    flight_sql.update(client, change.format(accounts), others)
    call.end()
    with pytest.raises(grpc_wire.Refused) as refused:
        call.answers()
    assert (refused.value.code, refused.value.sqlstate) == (grpc_wire.ABORTED, "40001")
    if not change.startswith("DROP"):
        assert total(client, accounts)[0] == (0 if change.startswith("TRUNCATE") else 10)


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
@pytest.mark.parametrize("mode", MODES)
def test_who_leaves_in_mid_ingest_leaves_the_table_as_it_was(server, client, others, table, mode, leave):
    if mode != "create":
        flight_sql.update(client, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v BIGINT)")
        flight_sql.update(client, f"INSERT INTO {table} VALUES (1, 0)")
    with grpc_wire.Connection(server) as wire:
        call = begin_ingest(wire, table, MODES[mode])
        call.send_bytes(half_of(ipc_rows(SCHEMA, [1_000_000], [1]))[0])
        assert not call.is_over, "it has not been refused"
        WAYS_TO_LEAVE[leave](wire, call)
        if mode == "create":
            with pytest.raises(ERRORS, match=r"\[42P01\]"):
                total(client, table)
            flight_sql.update(client, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v BIGINT)", others)
            flight_sql.update(client, f"INSERT INTO {table} VALUES (1, 0)")
        assert total(client, table) == (1, 0)
        assert flight_sql.update(client, f"INSERT INTO {table} VALUES (1000, 2)", others) == 1, "its keys are free"
        assert total(client, table) == (2, 2)


def test_what_an_ingest_has_written_goes_when_its_client_leaves(start):
    server = start()

    def written():
        return sorted(path.name for path in server.data.glob("segments/*/*"))

    with pyarrow.flight.connect(server.uri) as client:
        flight_sql.update(client, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
        files, memory = open_files(server), resident_mib(server)
        # Each leaves while a file is being written, as far as that can be seen from outside.
        for leave in [*WAYS_TO_LEAVE.values()] * 4:
            with grpc_wire.Connection(server) as wire:
                call = begin_ingest(wire, "t", rows=1_100_000)
                until(written)
                leave(wire, call)
                until(lambda: not written())
                assert taken_by(client, "loads and compactions") == 0
        assert total(client, "t") == (0, None)
        until(lambda: open_files(server) <= files + 2)
        assert resident_mib(server) < memory + 300
    assert server.stop() == 0, server.output
    checked = rustydb_server.run("check", "--data", server.data)
    assert checked.returncode == 0, checked.stdout


def taken_by(client, part):
    """Memory that a part of the server counts, in bytes."""
    (row,) = flight_sql.query(client, f"SELECT bytes FROM rustydb_memory WHERE part = '{part}'").to_pylist()
    return row["bytes"]


def test_who_leaves_in_mid_ingest_has_failed_its_transaction(server, client, others, accounts):
    transaction = begin(client)
    with grpc_wire.Connection(server) as wire:
        begin_update(wire, f"UPDATE {accounts} SET v = 100 WHERE id = 1", transaction).answers()
        begin_ingest(wire, accounts, transaction=transaction)
        assert is_locked(client, accounts)
        wire.vanish()
    add_one(client, others, accounts)
    with grpc_wire.Connection(server) as wire:
        with pytest.raises(grpc_wire.Refused) as refused:
            begin_update(wire, f"UPDATE {accounts} SET v = 100 WHERE id = 2", transaction).answers()
    assert (refused.value.code, refused.value.sqlstate) == (grpc_wire.FAILED_PRECONDITION, "25P02")
    with pytest.raises(ERRORS, match=r"\[25P02\]"):
        end(client, transaction, COMMIT)
    assert total(client, accounts) == (10, 1)


# Updates.

# What never ends by itself, and takes memory that the server counts as that of queries.
ENDLESS = """
UPDATE {table} SET v = x.n
FROM (
    SELECT a.id, sum(a.v * s.value % 7) AS n
    FROM {table} AS a, generate_series(1, 1000000000000) AS s (value)
    GROUP BY a.id
) AS x
WHERE x.id = {table}.id"""


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
def test_an_update_whose_client_leaves_is_stopped(server, client, others, accounts, leave):
    with grpc_wire.Connection(server) as wire:
        call = begin_update(wire, ENDLESS.format(table=accounts))
        until(lambda: taken_by(client, "queries") > 0)
        WAYS_TO_LEAVE[leave](wire, call)
        until(lambda: taken_by(client, "queries") == 0)
    add_one(client, others, accounts)
    assert total(client, accounts) == (10, 1)


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
def test_an_update_whose_client_leaves_is_rolled_back_with_its_locks(server, client, others, accounts, leave):
    with grpc_wire.Connection(server) as wire:
        call = begin_update(wire, f"CALL {accounts}_stall(100)")
        until(lambda: is_locked(client, accounts))
        WAYS_TO_LEAVE[leave](wire, call)
        add_one(client, others, accounts)
    assert total(client, accounts) == (10, 1)


ADBC_UPDATE = """
import sys
import adbc_driver_flightsql, adbc_driver_manager

with adbc_driver_flightsql.connect(sys.argv[1]) as database, adbc_driver_manager.AdbcConnection(database) as connection:
    with adbc_driver_manager.AdbcStatement(connection) as statement:
        statement.set_sql_query(sys.argv[2])
        statement.execute_update()
"""


@pytest.mark.parametrize("sql", ["CALL {table}_stall(100)", ENDLESS], ids=["with locks", "at work"])
def test_an_update_of_adbc_ends_with_its_process(server, client, others, accounts, sql):
    program = [sys.executable, "-c", ADBC_UPDATE, server.uri, sql.format(table=accounts)]
    running = subprocess.Popen(program, cwd=pathlib.Path(__file__).parent)
    try:
        if sql is ENDLESS:
            until(lambda: taken_by(client, "queries") > 0)
        else:
            until(lambda: is_locked(client, accounts))
        assert running.poll() is None, "it is not done"
    finally:
        running.kill()
        running.wait()
    add_one(client, others, accounts)
    until(lambda: taken_by(client, "queries") == 0)
    assert total(client, accounts) == (10, 1)


def test_an_update_that_adbc_cancels_is_rolled_back(low_level, client, others, accounts):
    with adbc_driver_manager.AdbcStatement(low_level) as statement:
        statement.set_sql_query(f"CALL {accounts}_stall(100)")

        def cancel():
            if is_locked(client, accounts):
                statement.cancel()

        outcome = outcome_when_cancelled(statement.execute_update, cancel)
        assert isinstance(outcome, adbc_driver_manager.Error), outcome
        assert outcome.status_code == adbc_driver_manager.AdbcStatusCode.CANCELLED
    add_one(client, others, accounts)
    assert total(client, accounts) == (10, 1)


def test_an_update_whose_client_waits_no_longer_ends_as_a_timeout(client, wire, others, accounts):
    # A client of gRPC gives up by itself, too: here it is seen what the server says.
    call = begin_update(wire, f"CALL {accounts}_stall(100)", headers=[("grpc-timeout", "300m")])
    with pytest.raises(grpc_wire.Refused) as refused:
        call.answers()
    assert (refused.value.code, refused.value.sqlstate) == (grpc_wire.DEADLINE_EXCEEDED, "57014")
    add_one(client, others, accounts)
    assert total(client, accounts) == (10, 1)


def test_an_update_whose_client_is_silent_for_good_is_rolled_back(impatient):
    """As if its machine were gone: nothing comes of it any more, not even the answer to a ping or the connection's end."""
    with impatient("keepalive_interval = '500ms'\nkeepalive_timeout = '500ms'") as (server, client):
        body = "BEGIN UPDATE t SET v = 100; LOOP PERFORM 1; END LOOP; END"
        flight_sql.update(client, f"CREATE PROCEDURE stall () LANGUAGE plpgsql AS $$ {body} $$")
        with grpc_wire.Connection(server) as wire:
            begin_update(wire, "CALL stall()")
            until(lambda: is_locked(client, "t"))
            add_one(client, log_in(client, lock_timeout=PROMPTLY), "t")
        assert total(client, "t") == (1, 1)


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
def test_a_prepared_update_executes_nothing_of_parameters_that_break_off(server, client, others, accounts, leave):
    sql = f"UPDATE {accounts} SET v = v + 100 WHERE id = $1"
    handle = prepare(client, sql)
    with grpc_wire.Connection(server) as wire:
        call = wire.call("DoPut")
        call.send(messages("CommandPreparedStatementUpdate", {1: handle}, PARAMETER))
        for _ in range(20):
            call.send(ipc_rows(PARAMETER, range(1, 50_001)))
        WAYS_TO_LEAVE[leave](wire, call)
        add_one(client, others, accounts)
        assert total(client, accounts) == (10, 1)
    with grpc_wire.Connection(server) as wire:
        call = wire.call("DoPut")
        call.send(messages("CommandPreparedStatementUpdate", {1: handle}, PARAMETER))
        call.send(ipc_rows(PARAMETER, [1, 2, 11]))
        call.end()
        call.answers()
    assert total(client, accounts) == (10, 201), "the statement is still there, and so is nothing of what broke off"


# Transactions whose client is gone. They belong to no connection: an id or a token is all that it takes to go on.


def test_a_transaction_outlives_its_connection_and_anyone_with_its_id_ends_it(server, client, others, accounts):
    transaction = begin(client)
    with grpc_wire.Connection(server) as wire:
        begin_update(wire, f"UPDATE {accounts} SET v = 100 WHERE id = 1", transaction).answers()
        wire.vanish()
    assert is_locked(client, accounts)
    end(client, transaction, ROLLBACK)
    add_one(client, others, accounts)
    assert total(client, accounts) == (10, 1)


def test_a_transaction_whose_client_is_gone_ends_with_its_idle_time(impatient):
    with impatient("transaction_idle = '2s'") as (server, client):
        transaction = begin(client)
        with grpc_wire.Connection(server) as wire:
            begin_update(wire, "UPDATE t SET v = 100 WHERE id = 1", transaction).answers()
            wire.vanish()
        # Waits for the lock.
        add_one(client, log_in(client, lock_timeout=PROMPTLY), "t")
        with pytest.raises(ERRORS, match=r"\[25P01\]"):
            end(client, transaction, COMMIT)
        assert total(client, "t") == (1, 1)


# Exchanges.


def test_an_exchange_that_stops_keeps_nobody_waiting_and_may_go_on(client, wire, others, accounts):
    call = begin_exchange(wire, client, f"UPDATE {accounts} SET v = v + 100 WHERE id = $1")
    call.send(ipc_rows(PARAMETER, [1]))
    assert changed(call.next_answer()) == 1
    first, rest = half_of(ipc_rows(PARAMETER, [2]))
    call.send_bytes(first)
    for identifier in (1, 2):
        add_one(client, others, accounts, identifier)
    assert total(client, accounts) == (10, 102), "the half is not executed"
    call.send_bytes(rest)
    assert changed(call.next_answer()) == 1
    call.end()
    assert call.answers() == []
    assert total(client, accounts) == (10, 202)


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
def test_an_exchange_whose_client_leaves_has_executed_what_it_answered(server, client, others, accounts, leave):
    with grpc_wire.Connection(server) as wire:
        call = begin_exchange(wire, client, f"UPDATE {accounts} SET v = v + 100 WHERE id = $1")
        call.send(ipc_rows(PARAMETER, [1]))
        assert changed(call.next_answer()) == 1
        call.send_bytes(half_of(ipc_rows(PARAMETER, [2]))[0])
        WAYS_TO_LEAVE[leave](wire, call)
        add_one(client, others, accounts, 2)
    assert total(client, accounts) == (10, 101)


@pytest.mark.parametrize("leave", WAYS_TO_LEAVE)
def test_what_an_exchange_is_executing_is_rolled_back_when_its_client_leaves(server, client, others, accounts, leave):
    with grpc_wire.Connection(server) as wire:
        call = begin_exchange(wire, client, f"CALL {accounts}_stall($1)")
        call.send(ipc_rows(PARAMETER, [100]))
        until(lambda: is_locked(client, accounts))
        WAYS_TO_LEAVE[leave](wire, call)
        add_one(client, others, accounts)
    assert total(client, accounts) == (10, 1)


@pytest.mark.parametrize("ends_by", ["ROLLBACK", "CloseSession", "idle time"])
def test_an_exchange_does_not_end_the_transaction_of_its_session(server, client, others, accounts, ends_by):
    header = client.authenticate_basic_token("anyone", "anything")
    session = pyarrow.flight.FlightCallOptions(headers=[header])
    if ends_by == "idle time":
        flight_sql.update(client, "SET idle_in_transaction_session_timeout = '2s'", session)
    flight_sql.update(client, "BEGIN", session)
    with grpc_wire.Connection(server) as wire:
        call = begin_exchange(wire, client, f"UPDATE {accounts} SET v = v + $1 WHERE id = 1", [header])
        call.send(ipc_rows(PARAMETER, [100]))
        assert changed(call.next_answer()) == 1
        wire.vanish()
    if ends_by == "ROLLBACK":
        assert is_locked(client, accounts)
        flight_sql.update(client, "ROLLBACK", session)
    elif ends_by == "CloseSession":
        assert is_locked(client, accounts)
        list(client.do_action(pyarrow.flight.Action("CloseSession", b""), session))
    add_one(client, others, accounts)
    assert total(client, accounts) == (10, 1)
