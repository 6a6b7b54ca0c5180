"""What Flight SQL has beyond queries: session options, savepoints, polling, plain Flight; and what may not be sent."""

import socket
import struct
import subprocess
import sys
import time

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pyarrow.flight
import pytest

import flight_sql
from test_flight import begin, end, COMMIT

ERRORS = (pyarrow.flight.FlightError, pyarrow.ArrowException)
ENDLESS = "SELECT a.value FROM generate_series(1, 100000) AS a(value), generate_series(1, 100000) AS b(value)"


def test_adbc_knows_catalog_and_schema(connection):
    assert connection.adbc_current_catalog == "rustydb"
    assert connection.adbc_current_db_schema == "public"


def test_session_options_last_with_a_login(server):
    options = {"username": "anyone", "password": "anything"}
    name = "adbc.flight.sql.session.option.statement_timeout"
    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options, autocommit=True) as connection:
        connection.adbc_connection.set_options(**{name: "1500"})
        assert connection.adbc_connection.get_option(name) == "1500ms"
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("1500ms",)
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_connection.set_options(**{"adbc.flight.sql.session.option.no_such_option": "1"})
    # Without a login there is no session in which an option could last.
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
        with pytest.raises(adbc_driver_manager.Error):
            connection.adbc_connection.set_options(**{name: "1500"})


def test_savepoints(client, table):
    flight_sql.update(client, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    transaction = begin(client)

    def insert(identifier):
        sql = f"INSERT INTO {table} VALUES ({identifier})"
        descriptor = flight_sql.command("CommandStatementUpdate", {1: sql, 2: transaction})
        writer, reader = client.do_put(descriptor, pyarrow.schema([]))
        with writer:
            writer.done_writing()
            reader.read()

    insert(1)
    request = {1: transaction, 2: "before the second"}
    savepoint = flight_sql.action(client, "BeginSavepoint", request, any_type="ActionBeginSavepointRequest")[1]
    insert(2)
    flight_sql.action(client, "EndSavepoint", {1: savepoint, 2: 2}, any_type="ActionEndSavepointRequest")
    insert(3)
    end(client, transaction, COMMIT)
    rows = flight_sql.query(client, f"SELECT id FROM {table} ORDER BY id").to_pylist()
    assert rows == [{"id": 1}, {"id": 3}]


def test_adbc_executes_incrementally(server):
    """PollFlightInfo, through the driver that uses it."""
    with adbc_driver_flightsql.connect(server.uri) as database, adbc_driver_manager.AdbcConnection(database) as connection:
        with adbc_driver_manager.AdbcStatement(connection) as statement:
            statement.set_options(**{adbc_driver_manager.StatementOptions.INCREMENTAL.value: "true"})
            statement.set_sql_query("SELECT sum(value) AS total FROM generate_series(1, 1000000) AS s(value)")
            found = []
            while True:
                partitions, schema, _ = statement.execute_partitions()
                if not partitions:
                    break
                for partition in partitions:
                    stream = connection.read_partition(partition)
                    found += pyarrow.RecordBatchReader._import_from_c(stream.address).read_all().to_pylist()
            assert found == [{"total": 500000500000}]


def test_plain_flight_lists_tables_and_reads_them(client, table):
    flight_sql.update(client, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    flight_sql.update(client, f"INSERT INTO {table} VALUES (1), (2)")
    listed = {tuple(info.descriptor.path): info for info in client.list_flights()}
    info = listed[(b"public", table.encode())]
    assert info.schema.names == ["id"]
    assert client.do_get(info.endpoints[0].ticket).read_all().num_rows == 2
    path = pyarrow.flight.FlightDescriptor.for_path(table)
    assert client.get_schema(path).schema.names == ["id"]
    info = client.get_flight_info(path)
    assert client.do_get(info.endpoints[0].ticket).read_all().num_rows == 2


def test_a_query_can_be_its_own_ticket(client):
    ticket = pyarrow.flight.Ticket(flight_sql.packed("CommandStatementQuery", {1: "SELECT 7 AS n"}))
    assert client.do_get(ticket).read_all().to_pylist() == [{"n": 7}]


# Bad input: a precise status, nothing left behind, others unharmed.


def works(server):
    with pyarrow.flight.connect(server.uri) as client:
        assert flight_sql.query(client, "SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_garbage_instead_of_http2_harms_nobody(server):
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + b"x" * 100, b"\0" * 1000):
        with socket.create_connection((server.host, server.port)) as connection:
            connection.sendall(garbage)
    works(server)


def test_a_client_that_stops_reading_stops_nobody(server):
    lazy = pyarrow.flight.connect(server.uri)
    info = lazy.get_flight_info(flight_sql.command("CommandStatementQuery", {1: ENDLESS}))
    reader = lazy.do_get(info.endpoints[0].ticket)
    assert reader.read_chunk().data.num_rows > 0
    for _ in range(5):
        works(server)
    lazy.close()


def test_a_client_that_vanishes_in_mid_ingest_leaves_nothing(server, table):
    with pyarrow.flight.connect(server.uri) as client:
        flight_sql.update(client, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    append = flight_sql.message({1: 2, 2: 2})
    command = flight_sql.packed("CommandStatementIngest", {1: append, 2: table})
    # Ends without a word, as a process does that is killed; it has sent more than the sockets hold, so the server has some.
    program = f"""
import os, pyarrow.flight
client = pyarrow.flight.connect({server.uri!r})
rows = pyarrow.record_batch({{"id": list(range(1_000_000))}})
writer, _ = client.do_put(pyarrow.flight.FlightDescriptor.for_command({command!r}), rows.schema)
writer.write_batch(rows)
writer.write_batch(pyarrow.record_batch({{"id": list(range(1_000_000, 6_000_000))}}))
os._exit(7)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 7
    with pyarrow.flight.connect(server.uri) as client:
        assert flight_sql.query(client, f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 0}]
        works(server)


def test_another_users_ticket_is_no_ticket(start, tmp_path):
    (tmp_path / "tokens").write_text("the-token-of-ann-0123456789\nthe-token-of-bob-0123456789\n")
    server = start("--token-file", tmp_path / "tokens")
    bearer = lambda name: pyarrow.flight.FlightCallOptions(
        headers=[(b"authorization", f"Bearer the-token-of-{name}-0123456789".encode())]
    )
    with pyarrow.flight.connect(server.uri) as client:
        info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: "SELECT 1"}), bearer("ann"))
        with pytest.raises(ERRORS, match="34000"):
            client.do_get(info.endpoints[0].ticket, bearer("bob")).read_all()
        assert client.do_get(info.endpoints[0].ticket, bearer("ann")).read_all().num_rows == 1


def test_connections_beyond_the_limit_wait_and_cost_nothing(start, tmp_path):
    (tmp_path / "few.toml").write_text("[flight]\nconnections = 4\n")
    server = start("--config", tmp_path / "few.toml")
    address = (server.host, server.port)
    crowd = [socket.create_connection(address, timeout=30) for _ in range(60)]
    for connection in crowd:
        # Half of them leave without a word, half with a reset.
        if connection.fileno() % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    # The slots come free as soon as the server has noticed.
    deadline = time.monotonic() + 60
    while True:
        try:
            works(server)
            break
        except ERRORS:
            assert time.monotonic() < deadline
    assert server.is_running()


def test_no_handle_can_be_guessed_or_outlives_its_owner(client):
    for name, field in [("TicketStatementQuery", 1), ("CommandPreparedStatementQuery", 1)]:
        for handle in (b"", b"short", bytes(16), bytes(1000)):
            ticket = pyarrow.flight.Ticket(flight_sql.packed(name, {field: handle}))
            with pytest.raises(ERRORS, match=r"\[(08P01|34000|26000)\]"):
                client.do_get(ticket).read_all()


@pytest.mark.parametrize("headers", [{"endpoints": "4"}, {"compression": "lz4"}, {"endpoints": "2", "compression": "zstd"}])
def test_adbc_asks_for_endpoints_and_compression(server, headers):
    options = {f"adbc.flight.sql.rpc.call_header.x-rustydb-{name}": value for name, value in headers.items()}
    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT value, 'row ' || value AS text FROM generate_series(1, 200000) AS s(value)")
            received = cursor.fetch_arrow_table()
    assert sorted(received["value"].to_pylist()) == list(range(1, 200_001))
    assert all(text == f"row {value}" for value, text in zip(*(received[name].to_pylist() for name in ("value", "text"))))
