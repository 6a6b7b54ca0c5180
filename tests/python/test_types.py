"""Every Arrow type a client can send: through a parameter, and through a table."""

import datetime
import decimal
import uuid

import adbc_driver_manager
import pyarrow as pa
import pyarrow.flight
import pytest

import flight_sql

D = decimal.Decimal
UNITS = ["s", "ms", "us", "ns"]

# What tables hold: the array as sent, and the type it comes back in if that is another one.
STORED = {
    "int8": (pa.array([1, None, -128], pa.int8()), None),
    "int16": (pa.array([1, None, -2], pa.int16()), None),
    "int32": (pa.array([1, None, 2], pa.int32()), None),
    "int64": (pa.array([1, None, 2**63 - 1], pa.int64()), None),
    "uint8": (pa.array([1, None, 255], pa.uint8()), None),
    "uint16": (pa.array([1, None, 65535], pa.uint16()), None),
    "uint32": (pa.array([1, None, 2**32 - 1], pa.uint32()), None),
    "uint64": (pa.array([1, None, 2**64 - 1], pa.uint64()), None),
    "float16": (pa.array([1.5, None, 2.5], pa.float16()), pa.float32()),
    "float32": (pa.array([1.5, None, 2.5], pa.float32()), None),
    "float64": (pa.array([1.5, None, 2.5], pa.float64()), None),
    "boolean": (pa.array([True, None, False]), None),
    "decimal32": (pa.array([D("1.50"), None, D("-2.25")], pa.decimal32(7, 2)), pa.decimal128(7, 2)),
    "decimal64": (pa.array([D("1.50"), None, D("-2.25")], pa.decimal64(15, 2)), pa.decimal128(15, 2)),
    "decimal128": (pa.array([D("1.50"), None, D("-2.25")], pa.decimal128(38, 2)), None),
    "decimal256": (pa.array([D("1.50"), None, D("-2.25")], pa.decimal256(30, 2)), pa.decimal128(30, 2)),
    "string": (pa.array(["a", None, "ü"]), None),
    "large_string": (pa.array(["a", None, "ü"], pa.large_string()), pa.string()),
    "string_view": (pa.array(["a", None, "a text longer than twelve"], pa.string_view()), pa.string()),
    "binary": (pa.array([b"a", None, b"\0"], pa.binary()), None),
    "large_binary": (pa.array([b"a", None, b"\0"], pa.large_binary()), pa.binary()),
    "binary_view": (pa.array([b"a", None, b"\0" * 20], pa.binary_view()), pa.binary()),
    "fixed_binary": (pa.array([b"abcd", None, b"efgh"], pa.binary(4)), None),
    "date32": (pa.array([datetime.date(2020, 1, 1), None, datetime.date(1960, 1, 1)], pa.date32()), None),
    "date64": (pa.array([datetime.date(2020, 1, 1), None, datetime.date(1960, 1, 1)], pa.date64()), pa.date32()),
    "time32_s": (pa.array([1, None, 3], pa.time32("s")), pa.time64("us")),
    "time32_ms": (pa.array([1, None, 3], pa.time32("ms")), pa.time64("us")),
    "time64_us": (pa.array([1, None, 3], pa.time64("us")), None),
    "time64_ns": (pa.array([1, None, 86_399_999_999_999], pa.time64("ns")), None),
    **{f"timestamp_{unit}": (pa.array([1, None, -1], pa.timestamp(unit)), None) for unit in UNITS},
    **{f"timestamp_zone_{unit}": (pa.array([1, None, -1], pa.timestamp(unit, "Europe/Berlin")), None) for unit in UNITS},
    "interval": (pa.array([pa.MonthDayNano([1, 2, 3]), None, pa.MonthDayNano([0, 0, 1])]), None),
    "dictionary": (pa.array(["a", None, "b"]).dictionary_encode(), pa.string()),
    "run_end": (
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), pa.array(["a", None, "b"])),
        pa.string(),
    ),
    "null": (pa.nulls(3), pa.string()),
    "uuid": (pa.array([uuid.UUID(int=1).bytes, None, uuid.UUID(int=2).bytes], pa.uuid()), None),
    "json": (pa.ExtensionArray.from_storage(pa.json_(pa.string()), pa.array(["{}", None, "[1]"])), None),
}

# What they do not hold, and what the refusal must name.
REFUSED = {
    "decimal256_wide": (pa.array([D("1.50"), None], pa.decimal256(50, 2)), "numeric\\(50,2\\)"),
    "list": (pa.array([[1, 2], None, []], pa.list_(pa.int32())), "List"),
    "large_list": (pa.array([[1, 2], None, []], pa.large_list(pa.int32())), "LargeList"),
    "fixed_list": (pa.array([[1, 2], None, [3, 4]], pa.list_(pa.int32(), 2)), "FixedSizeList"),
    "list_view": (pa.array([[1, 2], None, []], pa.list_view(pa.int32())), "ListView"),
    "struct": (pa.array([{"a": 1, "b": "x"}, None, {"a": 2, "b": None}]), "Struct"),
    "map": (pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int32())), "Map"),
    "sparse_union": (
        pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, None, None]), pa.array(["", "b", ""])]),
        "Union\\(Sparse",
    ),
    "dense_union": (
        pa.UnionArray.from_dense(
            pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, None]), pa.array(["b"])]
        ),
        "Union\\(Dense",
    ),
}

# What tables hold and queries return as intervals: nanoseconds in a second, a millisecond, a microsecond, a nanosecond.
DURATIONS = {f"duration_{unit}": pa.array([1, None, -1], pa.duration(unit)) for unit in UNITS}
NANOSECONDS = dict(zip(DURATIONS, [10**9, 10**6, 10**3, 1]))

# Clients without views, run ends and the like get the plain form.
PARAMETER_TYPES = {
    "string_view": pa.string(),
    "binary_view": pa.binary(),
    "dictionary": pa.string(),
    "run_end": pa.string(),
    "large_list": pa.list_(pa.int32()),
    "list_view": pa.list_(pa.int32()),
}


@pytest.mark.parametrize("name", STORED)
def test_a_table_returns_what_was_ingested(cursor, table, name):
    sent, returned_as = STORED[name]
    assert cursor.adbc_ingest(table, pa.table({"v": sent}), mode="create") == len(sent)
    cursor.execute(f"SELECT v FROM {table}")
    received = cursor.fetch_arrow_table()
    assert received.schema.field(0).type == (returned_as or sent.type)
    assert received.column(0).to_pylist() == sent.to_pylist()


def test_a_text_beside_a_uuid_is_one(cursor, table):
    known, other = "550e8400-e29b-41d4-a716-446655440000", "550E8400E29B41D4A716446655440001"
    sent = pa.array([uuid.UUID(known).bytes, uuid.UUID(int=2).bytes, None], pa.uuid())
    cursor.adbc_ingest(table, pa.table({"id": [1, 2, 3], "u": sent}), mode="create")

    def found(condition, *parameters):
        cursor.execute(f"SELECT id FROM {table} WHERE {condition} ORDER BY id", list(parameters) or None)
        return [identifier for identifier, in cursor.fetchall()]

    for condition, expected in [
        (f"u = '{known}'", [1]),
        (f"'{known.upper()}' = u", [1]),
        (f"u = '{{{known}}}'", [1]),
        (f"u <> '{known}'", [2]),
        (f"u < '{known}'", [2]),
        (f"u >= '{known}'", [1]),
        (f"u IN ('{other}', '{known}')", [1]),
        (f"u NOT IN ('{other}', '{known}')", [2]),
        (f"u BETWEEN '{known}' AND '{other}'", [1]),
        (f"CASE u WHEN '{known}' THEN true END", [1]),
        (f"nullif(u, '{known}') IS NULL", [1, 3]),
        (f"u = '{other}'", []),
    ]:
        assert found(condition) == expected, condition
    assert found("u = $1", known) == [1]
    assert found("u = $1", uuid.UUID(known).bytes) == [1]
    assert found("u IN ($1, $2)", other, known) == [1]
    cursor.execute(f"INSERT INTO {table} VALUES (4, '{other}'), (5, NULL)")
    cursor.execute(f"INSERT INTO {table} VALUES (6, $1)", [other])
    assert found(f"u = '{other}'") == [4, 6]
    cursor.execute(f"UPDATE {table} SET u = '{known}' WHERE id = 4")
    cursor.execute(f"UPDATE {table} SET u = $1 WHERE id = 5", [known])
    cursor.execute(f"UPDATE {table} SET u = $1 WHERE id = 6", [uuid.UUID(known).bytes])
    assert found("u = $1", known) == [1, 4, 5, 6]
    cursor.execute(f"UPDATE {table} SET u = u")
    cursor.execute(f"INSERT INTO {table} SELECT 7, '{other}'")
    assert found(f"u = '{other}'") == [7]
    merge = f"MERGE INTO {table} USING (SELECT 7 AS n) AS s ON id = n WHEN MATCHED THEN UPDATE SET u = '{known}'"
    cursor.execute(merge)
    assert found(f"u::text = '{known}'") == [1, 4, 5, 6, 7]
    for wrong in ["abc", known[:-1], known + "0"]:
        with pytest.raises(adbc_driver_manager.Error, match=r"\[22P02\].*uuid"):
            found(f"u = '{wrong}'")
        with pytest.raises(adbc_driver_manager.Error, match=r"\[22P02\].*uuid"):
            found("u = $1", wrong)


@pytest.mark.parametrize("name", DURATIONS)
def test_durations_come_back_as_intervals(cursor, table, name):
    cursor.adbc_ingest(table, pa.table({"v": DURATIONS[name]}), mode="create")
    cursor.execute(f"SELECT v FROM {table}")
    one = NANOSECONDS[name]
    expected = [pa.MonthDayNano([0, 0, one]), None, pa.MonthDayNano([0, 0, -one])]
    assert cursor.fetch_arrow_table().column(0).to_pylist() == expected


def unchecked(data_type, *numbers):
    """An array of numbers that the type may not have: pyarrow looks at them as little as other libraries do."""
    width = data_type.bit_width // 8
    values = b"".join(number.to_bytes(width, "little", signed=True) for number in numbers)
    return pa.Array.from_buffers(data_type, len(numbers), [None, pa.py_buffer(values)])


HUNDREDS = pa.array([D("1200"), None, D("-700")], pa.decimal128(5, -2))

# Types that Arrow has and files do not: what is sent, the type that it is kept in, and the values if they are others.
CONVERTED = {
    "hundreds": (HUNDREDS, pa.decimal128(7, 0), None),
    "hundreds32": (pa.array([D("1200"), None], pa.decimal32(5, -2)), pa.decimal128(7, 0), None),
    "hundreds256": (pa.array([D("1200"), None], pa.decimal256(10, -2)), pa.decimal128(12, 0), None),
    "hundreds_twice": (HUNDREDS.dictionary_encode(), pa.decimal128(7, 0), None),
    "hundred_thousandths": (
        unchecked(pa.decimal128(2, 5), 12, -7),
        pa.decimal128(5, 5),
        [D("0.00012"), D("-0.00007")],
    ),
    "nothing": (pa.array([b"", None], pa.binary(0)), pa.binary(), None),
    "hours": (
        pa.array([25 * 60 * 60, None, -25 * 60 * 60], pa.duration("s")),
        pa.month_day_nano_interval(),
        [pa.MonthDayNano([0, 1, 3600 * 10**9]), None, pa.MonthDayNano([0, -1, -3600 * 10**9])],
    ),
}


def test_types_that_files_do_not_have_are_converted_and_written_out(start):
    def check(client):
        for name, (sent, kept_as, values) in CONVERTED.items():
            received = flight_sql.query(client, f"SELECT v FROM {name}")
            assert received.schema.field(0).type == kept_as, name
            assert received.column(0).to_pylist() == (values or sent.to_pylist()), name

    server = start()
    with pa.flight.connect(server.uri) as client:
        flight_sql.update(client, "CREATE TABLE other (a INTEGER)")
        for name, (sent, _, _) in CONVERTED.items():
            command = flight_sql.command("CommandStatementIngest", {1: flight_sql.message({1: 1, 2: 1}), 2: name})
            assert send(client, command, pa.table({"v": sent}), None) == {1: len(sent)}, name
        check(client)
        flight_sql.update(client, "CHECKPOINT")
        check(client)
        for name in CONVERTED:
            assert flight_sql.update(client, f"INSERT INTO other SELECT 1 FROM {name}") == len(CONVERTED[name][0])
        flight_sql.update(client, "CHECKPOINT")
    assert server.stop() == 0
    with pa.flight.connect(start().uri) as client:
        check(client)


def test_a_decimal_of_too_many_digits_before_the_point_is_refused_by_name(cursor, table):
    sent = pa.array([D("1000"), None], pa.decimal128(38, -3))
    with pytest.raises(adbc_driver_manager.NotSupportedError, match=r"numeric\(38,-3\)"):
        cursor.adbc_ingest(table, pa.table({"v": sent}), mode="create")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "+99:99", "'; drop"])
def test_a_time_zone_that_there_is_not_is_refused(cursor, table, zone):
    sent = pa.array([0, None], pa.timestamp("us", zone))
    with pytest.raises(adbc_driver_manager.Error, match=r'\[22023\] column "v": time zone .* not recognized'):
        cursor.adbc_ingest(table, pa.table({"v": sent}), mode="create")
    with pytest.raises(adbc_driver_manager.Error, match="42P01"):
        cursor.execute(f"SELECT * FROM {table}")


def test_instants_of_any_zone_go_by_the_clock_of_the_session(connection, cursor, table):
    # 20:00 by the clock of UTC, 5:00 of the next day by that of Tokyo.
    sent = pa.array([1_577_908_800_000_000], pa.timestamp("us", "Asia/Tokyo"))
    with connection.cursor() as other:
        other.adbc_ingest(table, pa.table({"v": sent}), mode="create")
    parts = "v::date::text, v::time::text, extract(hour FROM v)::int, date_trunc('day', v)::text, to_char(v, 'HH24')"
    expected = ("2020-01-01", "20:00:00", 20, "2020-01-01 00:00:00+00", "20")
    cursor.execute(f"SELECT {parts} FROM {table} WHERE v < date '2020-01-02'")
    assert cursor.fetchall() == [expected]
    cursor.execute(f"SELECT {parts} FROM (SELECT $1 AS v) AS sent", pa.record_batch({"p": sent}))
    assert cursor.fetchall() == [expected]

    cursor.execute(f"CREATE TABLE {table}_parts (d DATE, t TIME)")
    both = pa.record_batch({"d": sent, "t": sent})
    cursor.execute(f"INSERT INTO {table}_parts VALUES (?, ?)", both)
    with connection.cursor() as other:
        other.adbc_ingest(f"{table}_parts", pa.Table.from_batches([both]), mode="append")
    cursor.execute(f"SELECT d::text, t::text FROM {table}_parts")
    assert cursor.fetchall() == [expected[:2]] * 2


@pytest.mark.parametrize(
    ("kind", "sent"),
    [
        ("DATE", pa.array([5])),
        ("TIME", pa.array([5])),
        ("TIMESTAMP", pa.array([1.5])),
        ("INTEGER", pa.array([5], pa.date32())),
        ("NUMERIC(20, 2)", pa.array([5], pa.timestamp("us"))),
        ("BOOLEAN", pa.array([0.5])),
    ],
)
def test_what_no_assignment_makes_of_a_value_is_refused(connection, cursor, table, kind, sent):
    cursor.execute(f"CREATE TABLE {table} (v {kind})")
    for _ in range(3):
        with pytest.raises(adbc_driver_manager.Error, match="42804"):
            cursor.execute(f"INSERT INTO {table} VALUES (?)", pa.record_batch({"v": sent}))
    with connection.cursor() as other, pytest.raises(adbc_driver_manager.Error, match="42804"):
        other.adbc_ingest(table, pa.table({"v": sent}), mode="append")


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_table_cannot_hold_is_refused_by_name(cursor, table, name):
    sent, named = REFUSED[name]
    with pytest.raises(adbc_driver_manager.NotSupportedError, match=named):
        cursor.adbc_ingest(table, pa.table({"v": sent}), mode="create")
    with pytest.raises(adbc_driver_manager.Error, match="42P01"):
        cursor.execute(f"SELECT * FROM {table}")


@pytest.mark.parametrize("name", [*STORED, *REFUSED, *DURATIONS])
def test_a_parameter_is_returned_as_it_was_sent(cursor, name):
    sent = DURATIONS[name] if name in DURATIONS else (STORED.get(name) or REFUSED.get(name))[0]
    if isinstance(sent, pa.ExtensionArray):
        sent = sent.storage
    cursor.execute("SELECT $1 AS v", pa.record_batch({"p": sent}))
    received = cursor.fetch_arrow_table()
    assert received.schema.field(0).type == PARAMETER_TYPES.get(name, sent.type)
    assert received.column(0).to_pylist() == sent.to_pylist()


# Every kind of buffer: of NULLs, bits, numbers, offsets, views, dictionaries, run ends; and buffers without a byte.
COMPRESSED = pa.table(
    {
        "number": pa.array([None if row % 7 == 0 else row for row in range(10_000)], pa.int64()),
        "truth": pa.array([row % 3 == 0 for row in range(10_000)]),
        "text": pa.array([f"a text longer than twelve, {row % 50}" for row in range(10_000)]),
        "view": pa.array([f"a text longer than twelve, {row % 50}" for row in range(10_000)], pa.string_view()),
        "dictionary": pa.array([f"entry {row % 50}" for row in range(10_000)]).dictionary_encode(),
        "run_end": pa.RunEndEncodedArray.from_arrays(pa.array([9_000, 10_000], pa.int32()), pa.array(["a", None])),
        "decimal": pa.array([D(row) / 4 for row in range(10_000)], pa.decimal128(20, 2)),
        "empty": pa.array([""] * 10_000),
        "null": pa.nulls(10_000),
    }
)


def compressed(codec):
    """What makes pyarrow.flight send compressed buffers. ADBC's driver has no such option."""
    return pa.flight.FlightCallOptions(write_options=pa.ipc.IpcWriteOptions(compression=codec))


def send(client, descriptor, rows, codec):
    """A DoPut, in batches small and large."""
    writer, reader = client.do_put(descriptor, rows.schema, compressed(codec))
    with writer:
        for batch in [*rows.slice(0, 3).to_batches(), *rows.slice(3).to_batches()]:
            writer.write_batch(batch)
        writer.done_writing()
        return flight_sql.read_fields(reader.read().to_pybytes())


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_rows_are_ingested(client, table, codec):
    command = flight_sql.command("CommandStatementIngest", {1: flight_sql.message({1: 1, 2: 1}), 2: table})
    assert send(client, command, COMPRESSED, codec) == {1: 10_000}
    received = flight_sql.query(client, f"SELECT * FROM {table} ORDER BY decimal")
    assert received.to_pylist() == COMPRESSED.to_pylist()


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("name", [*STORED, *REFUSED])
def test_a_compressed_parameter_is_returned_as_it_was_sent(client, name, codec):
    sent = (STORED.get(name) or REFUSED.get(name))[0]
    if isinstance(sent, pa.ExtensionArray):
        sent = sent.storage
    request = "ActionCreatePreparedStatementRequest"
    prepare = {"name": "CreatePreparedStatement", "fields": {1: "SELECT $1 AS v"}, "any_type": request}
    command = flight_sql.command("CommandPreparedStatementQuery", {1: flight_sql.action(client, **prepare)[1]})
    send(client, command, pa.table({"p": sent}), codec)
    info = client.get_flight_info(command)
    received = client.do_get(info.endpoints[0].ticket).read_all()
    assert received.schema.field(0).type == PARAMETER_TYPES.get(name, sent.type)
    assert received.column(0).to_pylist() == sent.to_pylist()


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_compressed_column_that_no_table_can_hold_is_refused_by_name(client, table, name, codec):
    sent, named = REFUSED[name]
    command = flight_sql.command("CommandStatementIngest", {1: flight_sql.message({1: 1, 2: 1}), 2: table})
    with pytest.raises(pa.ArrowNotImplementedError, match=rf"\[0A000\].*{named}"):
        send(client, command, pa.table({"v": sent}), codec)


@pytest.mark.parametrize(
    ("column", "sent"),
    [
        ("SMALLINT", pa.array([2**40])),
        ("DECIMAL(4, 2)", pa.array([D("123.45")])),
        ("VARCHAR(3)", pa.array(["four"])),
        ("DATE", pa.array(["no date"])),
        ("REAL", pa.array([1e300])),
        ("REAL", pa.array([-1e300]).dictionary_encode()),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_an_error_and_nothing_is_kept(cursor, table, column, sent):
    cursor.execute(f"CREATE TABLE {table} (v {column})")
    with pytest.raises(adbc_driver_manager.Error, match=r"\[22"):
        cursor.adbc_ingest(table, pa.table({"v": sent}), mode="append")
    with pytest.raises(adbc_driver_manager.Error, match=r"\[22"):
        cursor.execute(f"INSERT INTO {table} VALUES ($1)", pa.record_batch({"p": sent}))
    cursor.execute(f"SELECT count(*) FROM {table}")
    assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    ("sent", "sqlstate"),
    [
        (unchecked(pa.decimal128(3, 1), 123, 123_456), "22003"),
        (unchecked(pa.decimal64(3, 1), -1_000), "22003"),
        (unchecked(pa.decimal256(3, 1), 1_000), "22003"),
        (unchecked(pa.time32("s"), 25 * 60 * 60), "22008"),
        (unchecked(pa.time64("us"), -1), "22008"),
        (unchecked(pa.time64("ns"), 24 * 60 * 60 * 10**9), "22008"),
        (unchecked(pa.date32(), 2**31 - 1), "22008"),
        (unchecked(pa.timestamp("s"), -(2**62)), "22008"),
        (unchecked(pa.timestamp("us", "UTC"), 2**63 - 1), "22008"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else value,
)
def test_a_number_that_its_own_type_cannot_have_is_refused(cursor, table, sent, sqlstate):
    with pytest.raises(adbc_driver_manager.Error, match=rf'\[{sqlstate}\] column "v" has a value out of the range'):
        cursor.adbc_ingest(table, pa.table({"v": sent}), mode="create")
    with pytest.raises(adbc_driver_manager.Error, match="42P01"):
        cursor.execute(f"SELECT v FROM {table}")
    with pytest.raises(adbc_driver_manager.Error, match=rf"\[{sqlstate}\]"):
        cursor.execute("SELECT $1 AS v", pa.record_batch({"v": sent}))


@pytest.mark.parametrize("zone", [None, "UTC"])
@pytest.mark.parametrize("digits", range(10))
def test_timestamps_have_the_digits_of_their_column(cursor, table, digits, zone):
    held = -(-digits // 3)
    column = f"timestamp({digits})" + (" with time zone" if zone else "")
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, v {column})")
    moment = "2000-01-01 00:00:00.623456789"
    sent = pa.array([946_684_800_623_456_789], pa.timestamp("ns", zone))
    cursor.adbc_ingest(table, pa.table({"id": pa.array([1], pa.int32()), "v": sent}), mode="append")
    cursor.execute(f"INSERT INTO {table} VALUES (2, $1)", [moment])
    cursor.execute(f"INSERT INTO {table} VALUES (3, $1)", pa.record_batch({"v": sent}))
    cursor.execute(f"INSERT INTO {table} VALUES (4, TIMESTAMP '{moment}')")
    cursor.execute(f"INSERT INTO {table} SELECT 5, TIMESTAMP '{moment}'")
    cursor.execute(f"INSERT INTO {table} VALUES (6, NULL)")
    cursor.execute(f"UPDATE {table} SET v = $1 WHERE id = 6", [moment])
    cursor.execute(f"SELECT v FROM {table} ORDER BY id")
    received = cursor.fetch_arrow_table()
    assert received.schema.field(0).type == pa.timestamp(UNITS[held], zone)
    # Digits that nanoseconds alone have are rounded away first.
    known, number = (6, 623_457) if digits <= 6 else (9, 623_456_789)
    step = 10 ** (known - digits)
    fraction = (number + step // 2) // step * step * 10 ** (3 * held) // 10**known
    expected = 946_684_800 * 10 ** (3 * held) + fraction
    assert received.column(0).cast(pa.int64()).to_pylist() == [expected] * 6


@pytest.mark.parametrize("digits, expected", [(0, 36_001_000_000_000), (3, 36_000_623_000_000), (8, 36_000_623_456_790)])
def test_times_have_the_digits_of_their_column(cursor, table, digits, expected):
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, v time({digits}))")
    sent = pa.array([36_000_623_456_789], pa.time64("ns"))
    cursor.adbc_ingest(table, pa.table({"id": pa.array([1], pa.int32()), "v": sent}), mode="append")
    cursor.execute(f"INSERT INTO {table} VALUES (2, $1)", ["10:00:00.623456789"])
    cursor.execute(f"SELECT v FROM {table} ORDER BY id")
    received = cursor.fetch_arrow_table().column(0)
    assert received.cast(pa.time64("ns")).cast(pa.int64()).to_pylist() == [expected] * 2
