"""Messages of a few hundred bytes that stand for terabytes: compressed buffers that say how long they are, and rows
that take no byte. They are refused, and the server lives.
"""

import struct

import adbc_driver_flightsql.dbapi
import numpy
import pyarrow
import pyarrow.flight
import pytest

import flight_sql
import grpc_wire
from test_abuse import answer, resident_mib

CODECS = ["lz4", "zstd"]
ROWS = 1_000
# What no machine has, in bytes or in rows: a server that asks for it fails at once, and takes no memory from others.
ENDLESS = 1 << 46
MORE_THAN_ADDRESSES = 1 << 62


def messages(batch, codec=None):
    """The Arrow messages of a batch: its schema and its rows."""
    sink = pyarrow.BufferOutputStream()
    options = pyarrow.ipc.IpcWriteOptions(compression=codec, allow_64bit=True)
    with pyarrow.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    stream = pyarrow.ipc.MessageReader.open_stream(sink.getvalue())
    return [(message.metadata.to_pybytes(), message.body.to_pybytes()) for message in stream]


def replaced(header, old, new):
    """The header with other numbers of 64 bits; those that are meant are found by their value."""
    old, new = struct.pack("<q", old), struct.pack("<q", new)
    assert old in header
    return header.replace(old, new)


def numbers(codec):
    return messages(pyarrow.record_batch({"v": pyarrow.array(range(ROWS), pyarrow.int64())}), codec)


def with_claim(codec, claimed):
    """A compressed column whose first bytes, its length without compression, are another number."""
    schema, (header, body) = numbers(codec)
    assert struct.unpack_from("<q", body) == (8 * ROWS,)
    return [schema, (header, struct.pack("<q", claimed) + body[8:])]


def zeros(mib):
    """As many zeros as take so much; 32 KiB for a GiB."""
    return messages(pyarrow.record_batch({"v": numpy.zeros(mib << 17, numpy.int64)}), "zstd")


def nothing(rows):
    """NULLs without a type."""
    schema, (header, body) = messages(pyarrow.record_batch({"v": pyarrow.nulls(ROWS)}))
    return [schema, (replaced(header, ROWS, rows), body)]


def one_run(rows):
    run = pyarrow.RunEndEncodedArray.from_arrays(pyarrow.array([rows], pyarrow.int64()), pyarrow.array(["a"]))
    return messages(pyarrow.record_batch({"v": run}))


def empty_binaries(rows):
    column = pyarrow.FixedSizeBinaryArray.from_buffers(pyarrow.binary(0), rows, [None, pyarrow.py_buffer(b"")])
    return messages(pyarrow.record_batch({"v": column}))


def ingest(wire, sent):
    command = {1: flight_sql.message({1: 1, 2: 1}), 2: "t"}
    return put(wire, grpc_wire.descriptor("CommandStatementIngest", command), sent)


def insert(wire, sent):
    return put(wire, grpc_wire.descriptor("CommandPreparedStatementUpdate", {1: prepare(wire)}), sent)


def bind(wire, sent):
    return put(wire, grpc_wire.descriptor("CommandPreparedStatementQuery", {1: prepare(wire)}), sent)


def prepare(wire):
    request = flight_sql.packed("ActionCreatePreparedStatementRequest", {1: "INSERT INTO given VALUES ($1)"})
    result = wire.ask("DoAction", flight_sql.message({1: "CreatePreparedStatement", 2: request}))
    return flight_sql.read_fields(flight_sql.read_fields(flight_sql.read_fields(result)[1])[2])[1]


def put(wire, descriptor, sent):
    call = wire.call("DoPut")
    call.send(grpc_wire.flight_data(sent[0], descriptor))
    call.send(grpc_wire.flight_data(sent[1]))
    call.end()
    return call.answers()


@pytest.fixture
def own(start):
    """A server of the test's own, which may not survive it."""
    server = start("--memory-limit", "512MiB")
    assert answer(server) == 42
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE given (v TEXT)")
    memory = resident_mib(server)
    yield server
    assert server.is_running(), server.output
    with pyarrow.flight.connect(server.uri) as client:
        assert flight_sql.query(client, "SELECT count(*) AS n FROM given").to_pylist() == [{"n": 0}]
        with pytest.raises(pyarrow.ArrowException, match=r"\[42P01\]"):
            flight_sql.query(client, "SELECT count(*) AS n FROM t")
    assert resident_mib(server) < memory + 256
    assert server.stop() == 0, server.output


def refusal(server, way, sent):
    with grpc_wire.Connection(server) as wire, pytest.raises(grpc_wire.Refused) as refused:
        way(wire, sent)
    return refused.value.code, refused.value.sqlstate


MALFORMED = (grpc_wire.INVALID_ARGUMENT, "08P01")
TOO_MUCH = (grpc_wire.RESOURCE_EXHAUSTED, "54000")


@pytest.mark.parametrize("way", [ingest, bind, insert])
@pytest.mark.parametrize("codec", CODECS)
def test_a_buffer_that_claims_another_length_is_refused(own, codec, way):
    for claimed in (-MORE_THAN_ADDRESSES, -2, -1, 0, 8 * ROWS - 1, 8 * ROWS + 1):
        assert refusal(own, way, with_claim(codec, claimed)) == MALFORMED, claimed


@pytest.mark.parametrize("way", [ingest, bind, insert])
@pytest.mark.parametrize("codec", CODECS)
def test_a_buffer_that_claims_more_than_there_is_memory_is_refused(own, codec, way):
    for claimed in (ENDLESS, MORE_THAN_ADDRESSES):
        assert refusal(own, way, with_claim(codec, claimed)) in (MALFORMED, TOO_MUCH), claimed


@pytest.mark.parametrize("way", [ingest, bind, insert])
def test_a_gigabyte_compressed_to_nearly_nothing_is_refused_before_it_takes_memory(own, way):
    """Uncompressed it would be refused as longer than `flight.message_size`."""
    assert refusal(own, way, zeros(1024)) == TOO_MUCH


@pytest.mark.parametrize("way", [ingest, insert])
@pytest.mark.parametrize("rows", [ENDLESS, MORE_THAN_ADDRESSES])
@pytest.mark.parametrize("made", [nothing, one_run, empty_binaries])
def test_rows_without_a_byte_are_refused_when_they_are_too_many(own, made, rows, way):
    assert refusal(own, way, made(rows)) in (MALFORMED, TOO_MUCH)
