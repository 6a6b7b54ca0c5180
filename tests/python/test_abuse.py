"""The real binary under clients that mean no good: nothing is left behind, and the others are served."""

import contextlib
import os
import pathlib
import socket
import ssl
import struct
import subprocess
import sys
import time

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi
import pyarrow.flight
import pytest

import flight_sql
import grpc_wire
import rustydb_server

# As many as a debug binary takes in seconds. RUSTYDB_TEST_ATTEMPTS=100000 takes minutes.
ATTEMPTS = int(os.environ.get("RUSTYDB_TEST_ATTEMPTS", "5000"))
# A connection that is reset leaves no trace at the client either; closed in order, they would use up its ports.
RESET = struct.pack("ii", 1, 0)


def open_files(server):
    return len(os.listdir(f"/proc/{server.process_id}/fd"))


def resident_mib(server):
    status = pathlib.Path(f"/proc/{server.process_id}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) // 1024


def answer(server, authority=None):
    """What a query answers; over TLS if there is an authority to trust."""
    uri, options = server.uri, {}
    if authority is not None:
        uri = f"grpc+tls://localhost:{server.port}"
        options[adbc_driver_flightsql.DatabaseOptions.TLS_ROOT_CERTS.value] = authority.read_text()
    with adbc_driver_flightsql.dbapi.connect(uri, db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 42")
            return cursor.fetchone()[0]


def open_socket(server):
    connection = socket.create_connection((server.host, server.port), timeout=60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return connection


def attempt(server, hello):
    with open_socket(server) as connection:
        connection.sendall(hello)


def nothing_is_left(server, files, memory, ask=answer):
    for _ in range(100):
        # Closing the last ones takes the server a moment, which a query gives it.
        assert ask(server) == 42
        if open_files(server) <= files + 8:
            break
    assert open_files(server) <= files + 8
    assert resident_mib(server) < memory + 128
    assert server.stop() == 0, server.output


def test_thousands_of_connections_leave_nothing_behind(start):
    server = start()
    assert answer(server) == 42
    files, memory = open_files(server), resident_mib(server)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    greetings = [b"", b"GET / HTTP/1.1\r\n\r\n", preface, b"\x16\x03\x01\x00\x00", b"\0" * 64]
    for number in range(ATTEMPTS):
        attempt(server, greetings[number % len(greetings)])
        if number % 1_000 == 0:
            assert answer(server) == 42, "others are served meanwhile"
    nothing_is_left(server, files, memory)


def begin_tls():
    """The client's side of a handshake, what it reads and what it writes; the ClientHello is written already."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return client, incoming, outgoing


def shake_hands(server):
    """A whole handshake, and not a byte of HTTP/2 after it."""
    client, incoming, outgoing = begin_tls()
    with open_socket(server) as connection:
        while True:
            connection.sendall(outgoing.read())
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(1 << 16))
        connection.sendall(outgoing.read())


def answer_garbage(server, hello):
    """Garbage, but only where the client's last words of the handshake belong."""
    with open_socket(server) as connection:
        connection.sendall(hello)
        assert connection.recv(1)[:1] == b"\x16", "the server's part of the handshake"
        connection.sendall(b"\x17\x03\x03\x00\x40" + b"\x5a" * 64)


def wait_until_closed(connection):
    """Reads what the server says until it ends the connection; a timeout is an error."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1 << 16):
            pass


def test_thousands_of_tls_connections_leave_nothing_behind(start, tmp_path):
    made = rustydb_server.run("init", "--data", tmp_path / "made", "--host", "localhost")
    assert made.returncode == 0, made.stderr
    tls = tmp_path / "made" / "tls"
    # With the certificate and without the users, whose passwords would take the time.
    (tmp_path / "tls.toml").write_text(
        f"[flight]\ntls_certificate = '{tls / 'server.pem'}'\ntls_key = '{tls / 'server.key'}'\n"
    )
    server = start("--config", tmp_path / "tls.toml")

    def ask(server):
        return answer(server, tls / "ca.pem")

    assert ask(server) == 42
    files, memory = open_files(server), resident_mib(server)
    hello = begin_tls()[2].read()
    # These keep their connections, and say no more: the server ends them when the time for a handshake is up.
    waiting = [open_socket(server) for _ in range(60)]
    for number, connection in enumerate(waiting):
        connection.sendall([b"", hello[: len(hello) // 2], hello][number % 3])
    ways = [
        lambda: attempt(server, hello),
        lambda: attempt(server, hello[: len(hello) // 2]),
        lambda: attempt(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 64),
        lambda: attempt(server, b"\x16\x03\x01\xff\xff" + b"\x5a" * 1000),
        lambda: attempt(server, b"\x15\x03\x03\x00\x02\x02\x28"),
        lambda: answer_garbage(server, hello),
        lambda: attempt(server, b""),
        lambda: shake_hands(server),
    ]
    for number in range(ATTEMPTS):
        ways[number % len(ways)]()
        if number % 1_000 == 0:
            assert ask(server) == 42, "others are served meanwhile"
    for connection in waiting:
        with connection:
            wait_until_closed(connection)
    nothing_is_left(server, files, memory, ask)


# Sends a million rows and then neither more nor the end.
ENDLESS_INGEST = """
import sys, time
import pyarrow.flight
import flight_sql

schema = pyarrow.schema([("id", pyarrow.int64())])
command = flight_sql.command("CommandStatementIngest", {1: flight_sql.message({1: 2, 2: 2}), 2: "t"})
writer, _ = pyarrow.flight.connect(sys.argv[1]).do_put(command, schema)
for start in range(0, 1_000_000, 10_000):
    writer.write_batch(pyarrow.record_batch([pyarrow.array(range(start, start + 10_000))], schema=schema))
print("sent", flush=True)
time.sleep(600)
"""


def test_a_client_killed_in_mid_ingest_leaves_no_row(start):
    server = start()
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (id BIGINT PRIMARY KEY)")
    here = pathlib.Path(__file__).parent
    client = subprocess.Popen([sys.executable, "-c", ENDLESS_INGEST, server.uri], cwd=here, stdout=subprocess.PIPE)
    assert client.stdout.readline() == b"sent\n"
    client.kill()
    client.wait()
    client.stdout.close()
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        assert cursor.fetchone() == (0,)
        assert cursor.adbc_ingest("t", pyarrow.table({"id": [1, 2]}), mode="append") == 2, "no key is taken"
    assert server.stop() == 0, server.output


def test_a_statement_longer_than_a_message_is_refused_before_it_takes_memory(start):
    server = start()
    assert answer(server) == 42
    memory = resident_mib(server)
    with pyarrow.flight.connect(server.uri) as client:
        # The length comes first, so that a gigabyte takes no more than this.
        command = flight_sql.command("CommandStatementQuery", {1: b"SELECT '" + b"x" * (80 << 20) + b"'"})
        with pytest.raises(pyarrow.ArrowException, match="54000.*the limit is 67108864"):
            client.get_flight_info(command)
        assert flight_sql.query(client, "SELECT 42 AS n").to_pylist() == [{"n": 42}], "the connection goes on"
        # One that a message can hold is refused by the statements' own limit.
        command = flight_sql.command("CommandStatementQuery", {1: b"SELECT '" + b"x" * (17 << 20) + b"'"})
        with pytest.raises(pyarrow.ArrowException, match="54000.*the limit is 16777216"):
            client.get_flight_info(command)
    assert resident_mib(server) < memory + 200
    assert server.stop() == 0, server.output


def test_a_client_that_stops_reading_costs_no_memory_and_keeps_nobody_waiting(start):
    server = start("--memory-limit", "256MiB")
    assert answer(server) == 42
    memory = resident_mib(server)
    # Ten gigabytes.
    sql = "SELECT value, repeat('x', 1000) AS filling FROM generate_series(1, 10000000) AS s (value)"
    with pyarrow.flight.connect(server.uri) as client:
        readers = []
        for _ in range(4):
            info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: sql}))
            readers.append(client.do_get(info.endpoints[0].ticket))
            assert readers[-1].read_chunk().data.num_rows > 0
        for _ in range(50):
            assert answer(server) == 42
        assert resident_mib(server) < memory + 400
        for reader in readers:
            reader.cancel()
    assert answer(server) == 42
    assert server.stop() == 0, server.output


def test_connections_beyond_the_limit_keep_nobody_out_for_long(start, tmp_path):
    (tmp_path / "few.toml").write_text("[flight]\nconnections = 20\n")
    server = start("--config", str(tmp_path / "few.toml"))
    assert answer(server) == 42
    files = open_files(server)
    greedy = []
    for _ in range(60):
        connection = socket.create_connection((server.host, server.port))
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        greedy.append(connection)
    assert open_files(server) < files + 40
    for connection in greedy:
        connection.close()
    assert answer(server) == 42
    assert server.stop() == 0, server.output


def test_garbage_in_every_call_is_answered_and_forgotten(client):
    for length in (0, 1, 7, 64, 4096):
        garbage = bytes((7 * index + length) % 256 for index in range(length))
        descriptor = pyarrow.flight.FlightDescriptor.for_command(garbage)
        calls = [
            lambda: client.get_flight_info(descriptor),
            lambda: client.get_schema(descriptor),
            lambda: client.do_get(pyarrow.flight.Ticket(garbage)).read_all(),
            lambda: list(client.do_action(pyarrow.flight.Action("BeginTransaction", garbage))),
            lambda: list(client.do_action(pyarrow.flight.Action("CancelFlightInfo", garbage))),
        ]
        for call in calls:
            # Nothing at all is a message too: of a transaction to begin, for instance.
            if length:
                with pytest.raises((pyarrow.ArrowException, pyarrow.ArrowInvalid)):
                    call()
    assert flight_sql.query(client, "SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_parameters_that_never_end_take_no_more_memory_than_there_is_for_all(start, tmp_path):
    (tmp_path / "small.toml").write_text("[flight]\nparameter_size = '1MiB'\nparameter_size_total = '1MiB'\n")
    server = start("--config", str(tmp_path / "small.toml"))
    rows = pyarrow.record_batch({"p": [b"x" * 600_000]})
    with pyarrow.flight.connect(server.uri) as client, grpc_wire.Connection(server) as wire:
        request = "ActionCreatePreparedStatementRequest"
        handles = [
            flight_sql.action(client, "CreatePreparedStatement", {1: "SELECT $1 AS v"}, any_type=request)[1] for _ in range(2)
        ]

        def begin_to_bind(handle):
            call = wire.call("DoPut")
            descriptor = grpc_wire.descriptor("CommandPreparedStatementQuery", {1: handle})
            call.send(grpc_wire.flight_data(grpc_wire.ipc(rows.schema.serialize()), descriptor))
            call.send(grpc_wire.flight_data(grpc_wire.ipc(rows.serialize())))
            return call

        first = begin_to_bind(handles[0])
        # One of them has the room, and both are heard; which one is refused is the server's affair.
        second = begin_to_bind(handles[1])
        deadline = time.monotonic() + grpc_wire.WAIT_SECONDS_MAX
        while not (first.is_over or second.is_over):
            assert time.monotonic() < deadline, "both have the room"
            wire.read_frame()
        refused, waiting = (first, second) if first.is_over else (second, first)
        with pytest.raises(grpc_wire.Refused, match=r"\[53200\]"):
            refused.answers()
        waiting.end()
        assert len(waiting.answers()) == 1
        # Those that are bound now have the room, until their statement is closed.
        handle = handles[0 if waiting is first else 1]
        closing = "ActionClosePreparedStatementRequest"
        flight_sql.action(client, "ClosePreparedStatement", {1: handle}, any_type=closing)
        last = begin_to_bind(handles[1 if waiting is first else 0])
        last.end()
        assert len(last.answers()) == 1
