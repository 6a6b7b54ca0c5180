"""Clients that are stopped for good in the middle of what they do (SIGSTOP, and nobody continues them): their connections
stay, and nothing more comes of them. When its idle times are over the server lets go of all that they hold; the others go on.
"""

import contextlib
import os
import pathlib
import signal
import ssl
import subprocess
import sys
import time

import pyarrow
import pyarrow.flight
import pytest

import flight_sql
import grpc_wire
import rustydb_server
from test_broken_off import ERRORS, PROMPTLY, add_one, begin_ingest, begin_update, is_locked, log_in, taken_by, total, until
from test_flight import begin

DEADLINE_EXCEEDED = 4
# Found by HTTP/2's pings after a second.
QUICK = {"keepalive_interval": "500ms", "keepalive_timeout": "500ms"}
# Ten gigabytes, and as many rows in messages that are shorter than a frame.
LARGE = "SELECT value, repeat('x', 1000) AS filling FROM generate_series(1, 10000000) AS s (value)"
NARROW = "SELECT value % 7 = 0 AND sqrt(value) > 3 AS few FROM generate_series(1, 100000000) AS s (value)"

# What they do; as soon as one has said "now" it is stopped.
INGEST = """
import itertools, sys
import pyarrow
import adbc_driver_flightsql.dbapi

uri, mode, table, autocommit = sys.argv[1:]
schema = pyarrow.schema([("id", pyarrow.int64()), ("v", pyarrow.int64())])

def endless():
    for start in itertools.count(1_000, 10_000):
        if start > 200_000:
            print("now", flush=True)
        ids = pyarrow.array(range(start, start + 10_000))
        yield pyarrow.record_batch([ids, pyarrow.array([1] * 10_000)], schema=schema)

with adbc_driver_flightsql.dbapi.connect(uri, autocommit=autocommit == "True") as connection:
    with connection.cursor() as cursor:
        if autocommit != "True":
            cursor.execute("UPDATE t SET v = 100 WHERE id = 1")
        cursor.adbc_ingest(table, pyarrow.RecordBatchReader.from_batches(schema, endless()), mode=mode)
"""

READ = """
import sys
import pyarrow.flight
import flight_sql

uri, sql, *authority = sys.argv[1:]
ticket = pyarrow.flight.Ticket(flight_sql.packed("CommandStatementQuery", {1: sql}))
options = {"tls_root_certs": open(authority[0], "rb").read()} if authority else {}
with pyarrow.flight.connect(uri, **options) as client:
    for chunk in client.do_get(ticket):
        print("now", flush=True)
"""

LOCK_IN_A_TRANSACTION = """
import sys, time
import adbc_driver_flightsql.dbapi

with adbc_driver_flightsql.dbapi.connect(sys.argv[1]) as connection, connection.cursor() as cursor:
    cursor.execute("UPDATE t SET v = 100 WHERE id = 1")
    print("now", flush=True)
    time.sleep(600)
"""

LOCK_IN_A_SESSION = """
import sys, time
import pyarrow.flight
import flight_sql

with pyarrow.flight.connect(sys.argv[1]) as client:
    options = pyarrow.flight.FlightCallOptions(headers=[client.authenticate_basic_token("anyone", "anything")])
    flight_sql.update(client, "BEGIN", options)
    flight_sql.update(client, "UPDATE t SET v = 100 WHERE id = 1", options)
    print("now", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def frozen(program, *arguments):
    """A client that is stopped in the middle of this, until the end of the test."""
    here = pathlib.Path(__file__).parent
    command = [sys.executable, "-c", program, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"now\n"
        process.send_signal(signal.SIGSTOP)
        yield
        assert process.poll() is None, "it is still there"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def authority(tmp_path):
    """Whom clients trust. What `rustydb init` makes, without the users."""
    made = rustydb_server.run("init", "--data", tmp_path / "made", "--host", "localhost")
    assert made.returncode == 0, made.stderr
    return tmp_path / "made" / "tls" / "ca.pem"


def uri(server, authority):
    return server.uri if authority is None else f"grpc+tls://localhost:{server.port}"


@pytest.fixture
def serve(start, tmp_path):
    """Starts a server with these settings of `[flight]` and a table of two rows; over TLS, if there is an authority."""

    @contextlib.contextmanager
    def serve(authority=None, **settings):
        options = {}
        if authority is not None:
            tls = authority.parent
            settings.update(tls_certificate=str(tls / "server.pem"), tls_key=str(tls / "server.key"))
            options["tls_root_certs"] = authority.read_bytes()
        lines = [f"{name} = {value!r}\n" for name, value in settings.items()]
        (tmp_path / "frozen.toml").write_text("[flight]\n" + "".join(lines))
        server = start("--config", tmp_path / "frozen.toml")
        with pyarrow.flight.connect(uri(server, authority), **options) as client:
            flight_sql.update(client, "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)")
            flight_sql.update(client, "INSERT INTO t VALUES (1, 0), (2, 0)")
            yield server, client

    return serve


def sockets(server):
    """How many the server has: one for each connection, and its own."""
    directory, found = pathlib.Path(f"/proc/{server.process_id}/fd"), 0
    for name in os.listdir(directory):
        # It may have been closed since.
        with contextlib.suppress(FileNotFoundError):
            found += os.readlink(directory / name).startswith("socket:")
    return found


def succeeds(call, *arguments):
    try:
        call(*arguments)
        return True
    except ERRORS as error:
        assert "[53300]" in str(error), error
        return False


@pytest.mark.parametrize("autocommit", [True, False], ids=["autocommit", "transaction"])
@pytest.mark.parametrize("mode", ["create", "append", "replace", "create_append"])
def test_a_client_frozen_in_mid_ingest_leaves_nothing(serve, mode, autocommit):
    # With room for one transaction, beginning another shows when the frozen one is gone.
    with serve(transactions=1, transaction_idle="2s", **QUICK) as (server, client):
        others, before = log_in(client, lock_timeout=PROMPTLY), sockets(server)
        table = "made" if mode == "create" else "t"
        with frozen(INGEST, server.uri, mode, table, autocommit):
            if not autocommit:
                assert is_locked(client, "t")
            assert total(client, "t") == (2, 0), "others read meanwhile"
            add_one(client, others, "t", 2)
            # Waits for the lock.
            add_one(client, others, "t")
            until(lambda: sockets(server) == before)
            until(lambda: succeeds(begin, client))
            assert total(client, "t") == (2, 2)
            if mode == "create":
                with pytest.raises(ERRORS, match=r"\[42P01\]"):
                    total(client, table)
            assert flight_sql.update(client, "INSERT INTO t VALUES (1000, 7)", others) == 1, "its keys are free"
            until(lambda: taken_by(client, "loads and compactions") == 0)
        assert server.stop() == 0, server.output


def ask_and_do_not_read(server, authority=None, sql=LARGE, window=None):
    """On a bare socket: the server has more to send than the system, or that window, takes. The answer has begun."""
    tls = None
    if authority is not None:
        tls = ssl.create_default_context(cafile=authority)
        tls.set_alpn_protocols(["h2"])
    wire = grpc_wire.Connection(server, tls)
    if window is not None:
        wire.set_window(window)
    call = wire.call("DoGet")
    call.send(flight_sql.message({1: flight_sql.packed("CommandStatementQuery", {1: sql})}))
    call.end()
    assert call.next_answer() is not None
    return wire, call


@contextlib.contextmanager
def stops_reading(server, authority=None):
    wire, _ = ask_and_do_not_read(server, authority)
    with wire:
        yield


def freezes(server, authority=None):
    return frozen(READ, uri(server, authority), LARGE, *([] if authority is None else [authority]))


READERS = {"pyarrow": freezes, "a bare socket": stops_reading}


def leaves_nothing(served, authority, reader):
    """Reads a result, of which there may be one, and stops: the next query shows when that of the frozen client is gone."""
    with served as (server, client):
        before = sockets(server)
        with READERS[reader](server, authority):
            until(lambda: sockets(server) > before)
            until(lambda: succeeds(total, client, "t"))
            until(lambda: sockets(server) == before)
            until(lambda: taken_by(client, "queries") == 0)
        assert server.stop() == 0, server.output


@pytest.mark.parametrize("reader", READERS)
def test_a_client_frozen_in_a_large_result_leaves_nothing(serve, reader):
    leaves_nothing(serve(result_streams=1, **QUICK), None, reader)


@pytest.mark.parametrize("reader", READERS)
def test_over_tls_a_client_frozen_in_a_large_result_leaves_nothing(serve, authority, reader):
    """What encrypts is between HTTP/2 and the connection, whose writes have the limit; it has last words of its own."""
    leaves_nothing(serve(authority, result_streams=1, **QUICK), authority, reader)


@pytest.mark.parametrize(
    "program, limit",
    [
        (LOCK_IN_A_TRANSACTION, "transaction_idle"),
        (LOCK_IN_A_SESSION, "transaction_idle"),
        (LOCK_IN_A_SESSION, "session_idle"),
    ],
    ids=["transaction", "session", "session by its own limit"],
)
def test_a_client_frozen_with_locks_loses_them(serve, program, limit):
    with serve(**QUICK, **{limit: "4s"}) as (server, client):
        before = sockets(server)
        with frozen(program, server.uri):
            assert is_locked(client, "t")
            others = log_in(client, lock_timeout=PROMPTLY)
            add_one(client, others, "t", 2)
            # Waits for the lock.
            add_one(client, others, "t")
            until(lambda: sockets(server) == before)
            assert total(client, "t") == (2, 2)
        assert server.stop() == 0, server.output


def test_a_frozen_client_does_not_keep_the_server_from_stopping(serve):
    # Its pings come far too late to help.
    with serve(shutdown_grace="1s") as (server, client):
        with stops_reading(server):
            until(lambda: sockets(server) > 2)
            # As long as it takes until the system has no room any more for what the client does not read.
            time.sleep(3)
            assert total(client, "t") == (2, 0)
            assert server.stop() == 0, server.output


# A client whose program is stopped, but not its transport, answers pings.


def test_an_ingest_that_nothing_more_comes_of_ends(serve):
    with serve(transfer_idle="1s") as (server, client), grpc_wire.Connection(server) as wire:
        others, transaction = log_in(client, lock_timeout=PROMPTLY), begin(client)
        begin_update(wire, "UPDATE t SET v = 100 WHERE id = 1", transaction).answers()
        call = begin_ingest(wire, "t", transaction=transaction)
        # Waits for the lock.
        add_one(client, others, "t")
        assert total(client, "t") == (2, 1)
        with pytest.raises(grpc_wire.Refused) as refused:
            call.answers()
        assert (refused.value.code, refused.value.sqlstate) == (DEADLINE_EXCEEDED, "57014")
        assert "flight.transfer_idle" in refused.value.message


@pytest.mark.parametrize("sql, window", [(LARGE, None), (NARROW, 1 << 14)], ids=["as large as it gets", "in small frames"])
def test_a_result_that_nobody_reads_ends(serve, sql, window):
    with serve(transfer_idle="1s", result_streams=1) as (server, client):
        wire, call = ask_and_do_not_read(server, sql=sql, window=window)
        with wire:
            assert not succeeds(total, client, "t")
            until(lambda: succeeds(total, client, "t"))
            # The status stands behind what is on its way.
            wire.set_window(1 << 30)
            with pytest.raises(grpc_wire.Refused) as refused:
                call.answers()
            assert (refused.value.code, refused.value.sqlstate) == (DEADLINE_EXCEEDED, "57014")
            assert "flight.transfer_idle" in refused.value.message
