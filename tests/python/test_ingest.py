"""Bulk ingest: Arrow tables become tables, in each mode, all or nothing."""

import decimal

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pytest


@pytest.fixture
def rows():
    return pyarrow.table(
        {
            "id": pyarrow.array([1, 2, 3], pyarrow.int64()),
            "name": ["pen", None, "ink"],
            "price": pyarrow.array([decimal.Decimal("1.50"), None, decimal.Decimal("20.00")], pyarrow.decimal128(10, 2)),
        }
    )


def read(cursor, table):
    cursor.execute(f"SELECT id, name, price FROM {table} ORDER BY id")
    return cursor.fetchall()


EXPECTED = [(1, "pen", decimal.Decimal("1.50")), (2, None, None), (3, "ink", decimal.Decimal("20.00"))]


def test_create_makes_the_table(cursor, table, rows):
    assert cursor.adbc_ingest(table, rows, mode="create") == 3
    assert read(cursor, table) == EXPECTED


def test_create_refuses_a_table_that_exists(cursor, table, rows):
    cursor.adbc_ingest(table, rows, mode="create")
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="42P07"):
        cursor.adbc_ingest(table, rows, mode="create")
    assert read(cursor, table) == EXPECTED


def test_append_adds_rows(cursor, table, rows):
    cursor.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT, price DECIMAL(10, 2))")
    assert cursor.adbc_ingest(table, rows, mode="append") == 3
    assert read(cursor, table) == EXPECTED


def test_append_needs_the_table(cursor, table, rows):
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="42P01"):
        cursor.adbc_ingest(table, rows, mode="append")


def test_append_goes_by_name_and_fills_what_is_missing(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT DEFAULT 'nobody', price DECIMAL(10, 2))")
    cursor.adbc_ingest(table, pyarrow.table({"price": [None], "id": [1]}), mode="append")
    assert read(cursor, table) == [(1, "nobody", None)]


def test_append_of_an_unknown_column_is_refused(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY)")
    with pytest.raises(adbc_driver_manager.Error, match="42703"):
        cursor.adbc_ingest(table, pyarrow.table({"id": [1], "nmae": ["x"]}), mode="append")


def test_create_append_does_either(cursor, table, rows):
    assert cursor.adbc_ingest(table, rows.slice(0, 1), mode="create_append") == 1
    assert cursor.adbc_ingest(table, rows.slice(1), mode="create_append") == 2
    assert read(cursor, table) == EXPECTED


def test_replace_forgets_the_old_rows_and_columns(cursor, table, rows):
    cursor.adbc_ingest(table, pyarrow.table({"other": [1.5]}), mode="create")
    assert cursor.adbc_ingest(table, rows, mode="replace") == 3
    assert read(cursor, table) == EXPECTED


def test_a_duplicate_key_refuses_the_whole_batch(cursor, table, rows):
    cursor.execute(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, name TEXT, price DECIMAL(10, 2))")
    cursor.execute(f"INSERT INTO {table} (id) VALUES (3)")
    with pytest.raises(adbc_driver_manager.Error, match="23505"):
        cursor.adbc_ingest(table, rows, mode="append")
    assert read(cursor, table) == [(3, None, None)]


def test_a_stream_of_many_batches(cursor, table):
    schema = pyarrow.schema([("id", pyarrow.int64()), ("text", pyarrow.string())])

    def batches():
        for start in range(0, 100_000, 8_000):
            identifiers = range(start, min(start + 8_000, 100_000))
            yield pyarrow.record_batch([pyarrow.array(identifiers), [f"row {i}" for i in identifiers]], schema=schema)

    reader = pyarrow.RecordBatchReader.from_batches(schema, batches())
    assert cursor.adbc_ingest(table, reader, mode="create") == 100_000
    cursor.execute(f"SELECT count(*), count(DISTINCT id), min(text), max(id) FROM {table}")
    assert cursor.fetchone() == (100_000, 100_000, "row 0", 99_999)


def test_every_string_and_integer_type_is_taken(cursor, table):
    sent = pyarrow.table(
        {
            "i8": pyarrow.array([-1], pyarrow.int8()),
            "u64": pyarrow.array([2**64 - 1], pyarrow.uint64()),
            "large": pyarrow.array(["a"], pyarrow.large_string()),
            "view": pyarrow.array(["b"], pyarrow.string_view()),
            "dictionary": pyarrow.array(["c"]).dictionary_encode(),
            "date": pyarrow.array([0], pyarrow.date32()),
            "seconds": pyarrow.array([0], pyarrow.timestamp("s")),
            "nanoseconds": pyarrow.array([1_000], pyarrow.timestamp("ns", tz="UTC")),
            "binary": pyarrow.array([b"\x00\xff"], pyarrow.binary()),
            "float32": pyarrow.array([0.5], pyarrow.float32()),
        }
    )
    cursor.adbc_ingest(table, sent, mode="create")
    cursor.execute(f"SELECT * FROM {table}")
    received = cursor.fetch_arrow_table()
    assert received.schema.names == sent.schema.names
    assert received.to_pylist() == sent.to_pylist()


def test_a_schema_can_be_named(cursor, table, rows):
    cursor.execute(f"CREATE SCHEMA {table}")
    assert cursor.adbc_ingest("items", rows, mode="create", db_schema_name=table, catalog_name="rustydb") == 3
    assert read(cursor, f"{table}.items") == EXPECTED


def test_without_autocommit_an_ingest_is_part_of_the_transaction(server, connection, table, rows):
    with adbc_driver_flightsql.dbapi.connect(server.uri) as writer, writer.cursor() as cursor:
        assert cursor.adbc_ingest(table, rows, mode="create") == 3
        assert read(cursor, table) == EXPECTED
        with connection.cursor() as other, pytest.raises(adbc_driver_manager.ProgrammingError, match="42P01"):
            read(other, table)
        writer.rollback()
        with pytest.raises(adbc_driver_manager.ProgrammingError, match="42P01"):
            read(cursor, table)
        writer.rollback()
        assert cursor.adbc_ingest(table, rows, mode="create") == 3
        writer.commit()
    with connection.cursor() as other:
        assert read(other, table) == EXPECTED


def test_a_table_that_a_view_needs_is_not_replaced(cursor, table, rows):
    cursor.adbc_ingest(table, rows, mode="create")
    cursor.execute(f"CREATE VIEW {table}_view AS SELECT name FROM {table}")
    with pytest.raises(adbc_driver_manager.Error, match="2BP01"):
        cursor.adbc_ingest(table, rows, mode="replace")
    assert read(cursor, table) == EXPECTED


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_temporary_table_is_the_connections_own(server, cursor, table, rows, autocommit):
    user = {"username": "anyone", "password": "anything"}
    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=user, autocommit=autocommit) as owner:
        with owner.cursor() as own:
            assert own.adbc_ingest(table, rows, mode="create", temporary=True) == 3
            assert own.adbc_ingest(table, rows, mode="append", temporary=True) == 3
            if not autocommit:
                owner.commit()
            own.execute(f"SELECT count(*) FROM {table}")
            assert own.fetchone() == (6,)
            with pytest.raises(adbc_driver_manager.ProgrammingError, match="42P01"):
                cursor.execute(f"SELECT count(*) FROM {table}")
            if not autocommit:
                owner.rollback()


def test_a_temporary_table_needs_a_session(cursor, table, rows):
    with pytest.raises(adbc_driver_manager.NotSupportedError, match="session"):
        cursor.adbc_ingest(table, rows, mode="create", temporary=True)
    for what in ("TABLE {}_t (id INTEGER)", "TABLE {}_t AS SELECT 1 AS id", "VIEW {}_v AS SELECT 1 AS id", "SEQUENCE {}_s"):
        with pytest.raises(adbc_driver_manager.NotSupportedError, match="session"):
            cursor.execute("CREATE TEMPORARY " + what.format(table))


def test_a_few_rows_of_many_columns_stay_in_memory(start):
    server = start()
    rows = pyarrow.table({f"c{number}": [1, 2, 3, 4, 5] for number in range(1_600)})
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
        assert cursor.adbc_ingest("wide", rows, mode="create") == 5
        assert not list(server.data.glob("segments/**/*.parquet")), "each column was taken for the whole message"
        cursor.execute("SELECT c0, c1599 FROM wide ORDER BY c0")
        assert cursor.fetchall() == [(number, number) for number in range(1, 6)]


def test_a_column_without_a_name_is_refused(cursor, table):
    # A table without a name is refused by the driver.
    with pytest.raises(adbc_driver_manager.Error, match="42601"):
        cursor.adbc_ingest(table, pyarrow.table({"": [1]}), mode="create")


def test_a_list_becomes_the_text_that_is_read_as_it_and_a_struct_that_of_a_row(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (a TEXT)")
    lists = pyarrow.record_batch([pyarrow.array([[1, None]])], ["a"])
    cursor.executemany(f"INSERT INTO {table} VALUES ($1)", lists)
    cursor.adbc_ingest(table, pyarrow.Table.from_batches([lists]), mode="append")
    cursor.execute(f"SELECT a, a::bigint[] FROM {table}")
    assert cursor.fetchall() == [("{1,NULL}", [1, None])] * 2
    structs = pyarrow.Table.from_arrays([pyarrow.array([{"x": 1, "y": "two, three", "z": None}])], ["a"])
    cursor.adbc_ingest(table, structs, mode="append")
    cursor.execute(f"SELECT a FROM {table} WHERE a LIKE '(%'")
    assert cursor.fetchall() == [('(1,"two, three",)',)]


@pytest.mark.parametrize("mode", ["append", "create_append"])
def test_columns_that_do_not_match_are_said_to_be_there_already(cursor, table, mode):
    cursor.execute(f"CREATE TABLE {table} (id BIGINT, a TEXT)")
    structs = pyarrow.Table.from_arrays([pyarrow.array([{"x": 1}])], ["id"])
    for rows, sqlstate in ((pyarrow.table({"id": [1], "nmae": ["x"]}), "42703"), (structs, "42804")):
        with pytest.raises(adbc_driver_manager.Error, match=sqlstate) as raised:
            cursor.adbc_ingest(table, rows, mode=mode)
        assert raised.value.status_code == adbc_driver_manager.AdbcStatusCode.ALREADY_EXISTS


@pytest.mark.parametrize("mode", ["append", "create_append"])
@pytest.mark.parametrize("autocommit", [True, False])
def test_rows_go_into_a_temporary_table_if_that_is_said_or_there_is_no_other(server, table, mode, autocommit):
    user = {"username": "anyone", "password": "anything"}
    numbers, ints = pyarrow.table({"numbers": [1, 2]}), pyarrow.table({"ints": [3]})
    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=user, autocommit=autocommit) as owner:
        with owner.cursor() as own:
            own.adbc_ingest(table, numbers, mode="create")
            own.adbc_ingest(table, ints, mode="create", temporary=True)
            own.adbc_ingest(table, numbers, mode=mode)
            own.adbc_ingest(table, ints, mode=mode, temporary=True)
            own.execute(f"SELECT * FROM {table}")
            assert own.fetchall() == [(3,), (3,)]
            own.execute(f"SELECT count(*) FROM public.{table}")
            assert own.fetchone() == (4,)
            own.execute(f"CREATE TEMPORARY TABLE {table}_own (ints BIGINT)")
            own.adbc_ingest(f"{table}_own", ints, mode=mode)
            own.execute(f"SELECT count(*) FROM pg_temp.{table}_own")
            assert own.fetchone() == (1,)
            if not autocommit:
                owner.rollback()
