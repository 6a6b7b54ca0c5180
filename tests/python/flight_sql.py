"""Flight SQL commands for pyarrow.flight, which knows Flight but not Flight SQL.

A command is a protobuf message in a `google.protobuf.Any`. The few used here hold strings, bytes and booleans only, so
encoding them takes two functions and no protobuf package.
"""

import struct

import pyarrow
import pyarrow.flight


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(encoded + bytes([number]))


def message(fields):
    """Encodes {field number: str, bytes, bool or int}."""
    encoded = b""
    for number, value in fields.items():
        if isinstance(value, (bool, int)):
            encoded += varint(number << 3) + varint(int(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            encoded += varint(number << 3 | 2) + varint(len(data)) + data
    return encoded


def packed(name, fields):
    """The message as an Any."""
    return message({1: f"type.googleapis.com/arrow.flight.protocol.sql.{name}", 2: message(fields)})


def command(name, fields):
    return pyarrow.flight.FlightDescriptor.for_command(packed(name, fields))


def read_fields(encoded):
    """Decodes a message of varints and length-delimited fields into {number: value}; a repeated field keeps its last."""
    fields, position = {}, 0

    def read_varint():
        nonlocal position
        number, shift = 0, 0
        while True:
            byte = encoded[position]
            position += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while position < len(encoded):
        key = read_varint()
        if key & 7 == 1:
            (fields[key >> 3],) = struct.unpack_from("<d", encoded, position)
            position += 8
        elif key & 7 == 0:
            fields[key >> 3] = read_varint()
        else:
            assert key & 7 == 2, f"wire type {key & 7}"
            length = read_varint()
            fields[key >> 3] = bytes(encoded[position : position + length])
            position += length
    return fields


def query(client, sql, options=None):
    """Runs a query and returns its rows as a table."""
    info = client.get_flight_info(command("CommandStatementQuery", {1: sql}), options)
    tables = [client.do_get(endpoint.ticket, options).read_all() for endpoint in info.endpoints]
    return pyarrow.concat_tables(tables)


def update(client, sql, options=None):
    """Runs a statement without rows and returns how many rows it changed."""
    descriptor = command("CommandStatementUpdate", {1: sql})
    writer, reader = client.do_put(descriptor, pyarrow.schema([]), options)
    with writer:
        writer.done_writing()
        result = reader.read()
    return read_fields(result.to_pybytes()).get(1, 0) if result is not None else 0


def action(client, name, fields=None, any_type=None, options=None):
    """Does an action and returns the fields of its answer ({} for none)."""
    body = packed(any_type or name, fields or {})
    results = list(client.do_action(pyarrow.flight.Action(name, body), options))
    return read_fields(read_fields(results[0].body.to_pybytes())[2]) if results else {}
