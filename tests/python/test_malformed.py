"""Data that is damaged in the middle, and statements beyond all measure: a precise status, nothing is kept of it, and
the connection goes on.
"""

import gzip
import struct

import pyarrow
import pyarrow.flight
import pytest

import flight_sql
import grpc_wire

SCHEMA = pyarrow.schema([("id", pyarrow.int64()), ("name", pyarrow.string())])
# What an ingest does if there is no table, and if there is one.
MODES = {"create": {1: 1, 2: 1}, "append": {1: 2, 2: 2}, "replace": {1: 1, 2: 3}, "create or append": {1: 1, 2: 2}}


def ipc_batch(identifiers):
    names = [f"row {identifier}" for identifier in identifiers]
    return grpc_wire.ipc(pyarrow.record_batch([list(identifiers), names], schema=SCHEMA).serialize())


def ipc_of(columns):
    return grpc_wire.ipc(pyarrow.record_batch(columns).serialize())


def ipc_tensor():
    sink = pyarrow.BufferOutputStream()
    pyarrow.ipc.write_tensor(pyarrow.Tensor.from_numpy(pyarrow.array([1, 2]).to_numpy()), sink)
    return grpc_wire.ipc(sink.getvalue())


FIRST, SECOND = range(1_000, 2_000), range(2_000, 3_000)
HEADER, BODY = ipc_batch(SECOND)
# The offsets of the strings lie behind 1,000 numbers of 8 bytes.
FAR_OFFSETS = BODY[:8_064] + b"\xff\xff\xff\x7f" * 16 + BODY[8_128:]

# What comes as the second batch, and what the refusal says of it.
DAMAGED = {
    "cut off": ((HEADER, BODY[:64]), "malformed Arrow data"),
    "without a body": ((HEADER, b""), "malformed Arrow data"),
    "without a header": ((b"", BODY), "a message has a body and no header"),
    "with half a header": ((HEADER[: len(HEADER) // 2], BODY), "malformed Arrow data"),
    "with garbage for a header": ((b"\x5a" * 200, BODY), "malformed Arrow data"),
    "with offsets out of bounds": ((HEADER, FAR_OFFSETS), "malformed Arrow data"),
    "with one column more": (ipc_of({"id": [2_000], "name": ["x"], "more": [1]}), "malformed Arrow data"),
    "with one column only": (ipc_of({"id": [2_000]}), "malformed Arrow data"),
    "of other types": (ipc_of({"id": ["a", "b"], "name": [1, 2]}), "malformed Arrow data"),
    "of another schema, which comes first": (grpc_wire.ipc(SCHEMA.remove(1).serialize()), "a second schema"),
    "that is no batch": (ipc_tensor(), "a message is a Tensor"),
}


@pytest.fixture
def wire(server):
    with grpc_wire.Connection(server) as connection:
        yield connection


def begin_ingest(wire, table, mode):
    call = wire.call("DoPut")
    command = grpc_wire.descriptor("CommandStatementIngest", {1: flight_sql.message(MODES[mode]), 2: table})
    call.send(grpc_wire.flight_data(grpc_wire.ipc(SCHEMA.serialize()), command))
    call.send(grpc_wire.flight_data(ipc_batch(FIRST)))
    return call


def ingested(call):
    """How many rows the server says it has taken."""
    (answer,) = call.answers()
    return flight_sql.read_fields(flight_sql.read_fields(answer)[1])[1]


def refused_as(call, code, sqlstate, text):
    with pytest.raises(grpc_wire.Refused) as refused:
        call.answers()
    assert (refused.value.code, refused.value.sqlstate) == (code, sqlstate), refused.value
    assert refused.value.message.startswith(f"[{sqlstate}] ") and text in refused.value.message


def rows(client, table):
    return flight_sql.query(client, f"SELECT count(*) AS n, min(id) AS least FROM {table}").to_pylist()


@pytest.mark.parametrize("damage", DAMAGED)
def test_an_ingest_with_a_damaged_second_batch_leaves_nothing(client, wire, table, damage):
    second, text = DAMAGED[damage]
    flight_sql.update(client, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
    call = begin_ingest(wire, table, "append")
    call.send(grpc_wire.flight_data(second))
    call.end()
    refused_as(call, grpc_wire.INVALID_ARGUMENT, "08P01", text)
    assert rows(client, table) == [{"n": 0, "least": None}]
    # The same connection, the same keys.
    call = begin_ingest(wire, table, "append")
    call.send(grpc_wire.flight_data(ipc_batch(SECOND)))
    call.end()
    assert ingested(call) == 2_000
    assert rows(client, table) == [{"n": 2_000, "least": 1_000}]


# What is sent as it is, after the first batch, and the status.
BROKEN_MESSAGES = {
    "no protobuf": (struct.pack(">BI", 0, 50) + b"\xff" * 50, grpc_wire.INVALID_ARGUMENT, "08P01"),
    "shorter than announced": (struct.pack(">BI", 0, 5_000) + b"\x12\x03abc", grpc_wire.INVALID_ARGUMENT, "08P01"),
    "half a prefix": (b"\0\0\0", grpc_wire.INVALID_ARGUMENT, "08P01"),
    "longer than there may be": (struct.pack(">BI", 0, 1 << 31), grpc_wire.RESOURCE_EXHAUSTED, "54000"),
    "compressed by gRPC": (struct.pack(">BI", 1, 3) + b"abc", grpc_wire.UNIMPLEMENTED, "0A000"),
}


@pytest.mark.parametrize("what", BROKEN_MESSAGES)
def test_an_ingest_whose_second_message_is_none_leaves_nothing(client, wire, table, what):
    sent, code, sqlstate = BROKEN_MESSAGES[what]
    call = begin_ingest(wire, table, "create")
    call.send_bytes(sent)
    call.end()
    refused_as(call, code, sqlstate, "")
    with pytest.raises(pyarrow.ArrowException, match=r"\[42P01\]"):
        rows(client, table)


@pytest.mark.parametrize("mode", MODES)
def test_in_every_mode_a_damaged_batch_leaves_the_table_as_it_was(client, wire, table, mode):
    is_there = mode != "create"
    if is_there:
        flight_sql.update(client, f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT)")
        flight_sql.update(client, f"INSERT INTO {table} VALUES (7, 'old')")
    call = begin_ingest(wire, table, mode)
    call.send(grpc_wire.flight_data((HEADER, BODY[:64])))
    call.end()
    refused_as(call, grpc_wire.INVALID_ARGUMENT, "08P01", "malformed Arrow data")
    if is_there:
        assert rows(client, table) == [{"n": 1, "least": 7}]
    else:
        with pytest.raises(pyarrow.ArrowException, match=r"\[42P01\]"):
            rows(client, table)
    call = begin_ingest(wire, table, mode)
    call.end()
    assert ingested(call) == 1_000


@pytest.mark.parametrize("method", ["GetFlightInfo", "PollFlightInfo", "DoAction", "DoGet", "DoPut", "DoExchange"])
def test_messages_compressed_by_grpc_are_refused_by_name(wire, method):
    call = wire.call(method, [("grpc-encoding", "gzip")])
    compressed = gzip.compress(grpc_wire.descriptor("CommandStatementQuery", {1: "SELECT 1 AS one"}))
    call.send_bytes(struct.pack(">BI", 1, len(compressed)) + compressed)
    call.end()
    refused_as(call, grpc_wire.UNIMPLEMENTED, "0A000", "compressed")


def test_a_call_that_there_is_not_is_refused_by_name(wire):
    call = wire.call("Frobnicate")
    call.send(b"")
    call.end()
    refused_as(call, grpc_wire.UNIMPLEMENTED, "0A000", "Frobnicate")


@pytest.mark.parametrize("method", ["GetFlightInfo", "DoPut"])
def test_a_gigabyte_statement_is_refused_while_it_comes(server, client, method):
    """The client sees the status in the middle of sending, and the connection is as good as new."""
    descriptor = grpc_wire.descriptor("CommandStatementQuery", {1: "SELECT 1 AS one"})
    with grpc_wire.Connection(server) as wire:
        # All together more than the server lets a connection send unread: what it has refused counts no more.
        for _ in range(16):
            call = wire.call(method)
            sent = call.send_bytes(struct.pack(">BI", 0, 1 << 30))
            while not call.is_over:
                sent += call.send_bytes(b"x" * (1 << 20))
            assert sent < 1 << 29, "it is refused before it has been sent"
            refused_as(call, grpc_wire.RESOURCE_EXHAUSTED, "54000", "1073741824 bytes")
            assert flight_sql.query(client, "SELECT 1 AS one").to_pylist() == [{"one": 1}], "others are served"
        assert flight_sql.read_fields(wire.ask("GetFlightInfo", descriptor))
        assert {call.reset for call in wire.calls.values()} <= {None, 0}, "told to stop, which is no error"
