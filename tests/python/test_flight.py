"""pyarrow.flight as a Flight SQL client, message by message."""

import decimal

import pyarrow
import pyarrow.flight
import pytest

import flight_sql


def test_a_query(client):
    assert flight_sql.query(client, "SELECT 6 * 7 AS answer").to_pylist() == [{"answer": 42}]


def test_updates_return_their_row_counts(client, table):
    assert flight_sql.update(client, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, price DECIMAL(10, 2))") == 0
    assert flight_sql.update(client, f"INSERT INTO {table} VALUES (1, 1.50), (2, 2.50)") == 2
    assert flight_sql.update(client, f"UPDATE {table} SET price = price * 2 WHERE id = 2") == 1
    rows = flight_sql.query(client, f"SELECT id, price FROM {table} ORDER BY id").to_pylist()
    assert rows == [{"id": 1, "price": decimal.Decimal("1.50")}, {"id": 2, "price": decimal.Decimal("5.00")}]


def test_the_info_of_a_query_has_its_schema(client):
    info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: "SELECT 1 AS a, 'x' AS b"}))
    assert info.schema.names == ["a", "b"]
    assert info.schema.types == [pyarrow.int64(), pyarrow.string()]


def test_get_schema_does_not_run_the_query(client):
    descriptor = flight_sql.command("CommandStatementQuery", {1: "SELECT 1 / 0 AS never"})
    assert client.get_schema(descriptor).schema.names == ["never"]


def test_a_prepared_statement_step_by_step(client, table):
    flight_sql.update(client, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
    flight_sql.update(client, f"INSERT INTO {table} VALUES (1, 'one'), (2, 'two')")
    answer = flight_sql.action(
        client,
        "CreatePreparedStatement",
        {1: f"SELECT name FROM {table} WHERE id = $1"},
        any_type="ActionCreatePreparedStatementRequest",
    )
    handle = answer[1]
    result_schema = pyarrow.ipc.read_schema(pyarrow.py_buffer(answer[2]))
    assert result_schema.names == ["name"]

    descriptor = flight_sql.command("CommandPreparedStatementQuery", {1: handle})
    parameters = pyarrow.record_batch([pyarrow.array([2], pyarrow.int32())], names=["$1"])
    writer, reader = client.do_put(descriptor, parameters.schema)
    with writer:
        writer.write_batch(parameters)
        writer.done_writing()
        answer = reader.read()
    if answer is not None and 1 in (fields := flight_sql.read_fields(answer.to_pybytes())):
        # The server may hand out a new handle that carries the parameters.
        descriptor = flight_sql.command("CommandPreparedStatementQuery", {1: fields[1]})
    info = client.get_flight_info(descriptor)
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"name": "two"}]

    close = {"name": "ClosePreparedStatement", "any_type": "ActionClosePreparedStatementRequest"}
    flight_sql.action(client, fields={1: handle}, **close)
    with pytest.raises((pyarrow.flight.FlightError, pyarrow.ArrowException)):
        client.get_flight_info(flight_sql.command("CommandPreparedStatementQuery", {1: handle}))


def test_a_transaction_step_by_step(client, table):
    flight_sql.update(client, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    transaction = begin(client)
    descriptor = flight_sql.command("CommandStatementUpdate", {1: f"INSERT INTO {table} VALUES (1)", 2: transaction})
    writer, reader = client.do_put(descriptor, pyarrow.schema([]))
    with writer:
        writer.done_writing()
        assert flight_sql.read_fields(reader.read().to_pybytes())[1] == 1
    assert flight_sql.query(client, f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 0}]
    end(client, transaction, COMMIT)
    assert flight_sql.query(client, f"SELECT count(*) AS n FROM {table}").to_pylist() == [{"n": 1}]


def begin(client):
    return flight_sql.action(client, "BeginTransaction", any_type="ActionBeginTransactionRequest")[1]


COMMIT, ROLLBACK = 1, 2


def end(client, transaction, how):
    flight_sql.action(client, "EndTransaction", {1: transaction, 2: how}, any_type="ActionEndTransactionRequest")


def ingest(client, table, rows, transaction):
    """Creates the table and fills it, inside the transaction."""
    create_or_fail = flight_sql.message({1: 1, 2: 1})
    descriptor = flight_sql.command("CommandStatementIngest", {1: create_or_fail, 2: table, 6: transaction})
    writer, reader = client.do_put(descriptor, rows.schema)
    with writer:
        writer.write_table(rows)
        writer.done_writing()
        return flight_sql.read_fields(reader.read().to_pybytes())[1]


@pytest.mark.parametrize(("how", "tables_left"), [(COMMIT, 1), (ROLLBACK, 0)])
def test_ingest_obeys_the_transaction(client, table, how, tables_left):
    transaction = begin(client)
    assert ingest(client, table, pyarrow.table({"id": [1, 2, 3]}), transaction) == 3
    count = f"SELECT count(*) AS n FROM information_schema.tables WHERE table_name = '{table}'"
    assert flight_sql.query(client, count).to_pylist() == [{"n": 0}]
    end(client, transaction, how)
    assert flight_sql.query(client, count).to_pylist() == [{"n": tables_left}]


def metadata(client, name, fields):
    info = client.get_flight_info(flight_sql.command(name, fields))
    return client.do_get(info.endpoints[0].ticket).read_all()


def test_catalog_metadata_has_the_schemas_of_the_specification(client, table):
    flight_sql.update(client, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    catalogs = metadata(client, "CommandGetCatalogs", {})
    assert catalogs.schema == pyarrow.schema([pyarrow.field("catalog_name", pyarrow.string(), nullable=False)])
    assert catalogs.to_pylist() == [{"catalog_name": "rustydb"}]
    schemas = metadata(client, "CommandGetDbSchemas", {2: "public"})
    assert schemas.to_pylist() == [{"catalog_name": "rustydb", "db_schema_name": "public"}]
    tables = metadata(client, "CommandGetTables", {3: table, 5: True})
    assert tables.schema.names == ["catalog_name", "db_schema_name", "table_name", "table_type", "table_schema"]
    (row,) = tables.to_pylist()
    assert (row["table_name"], row["table_type"]) == (table, "TABLE")
    assert pyarrow.ipc.read_schema(pyarrow.py_buffer(row["table_schema"])).names == ["id"]


def test_primary_and_foreign_keys(client, table):
    child = table + "_child"
    flight_sql.update(client, f"CREATE TABLE {table} (a INTEGER, b INTEGER, PRIMARY KEY (a, b))")
    flight_sql.update(
        client,
        f"CREATE TABLE {child} (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, FOREIGN KEY (a, b) REFERENCES {table} (a, b))",
    )
    keys = metadata(client, "CommandGetPrimaryKeys", {3: table}).to_pylist()
    assert [(key["column_name"], key["key_sequence"]) for key in keys] == [("a", 1), ("b", 2)]
    imported = metadata(client, "CommandGetImportedKeys", {3: child}).to_pylist()
    assert [(key["pk_table_name"], key["pk_column_name"], key["fk_column_name"]) for key in imported] == [
        (table, "a", "a"),
        (table, "b", "b"),
    ]
    exported = metadata(client, "CommandGetExportedKeys", {3: table}).to_pylist()
    assert {key["fk_table_name"] for key in exported} == {child}


def test_the_server_lists_its_actions(client):
    names = {action.type for action in client.list_actions()}
    assert {"CreatePreparedStatement", "ClosePreparedStatement", "BeginTransaction", "EndTransaction"} <= names


def test_nonsense_is_refused_and_harms_nobody(client):
    descriptor = pyarrow.flight.FlightDescriptor.for_command(b"\xff\xff\xff no protobuf")
    with pytest.raises((pyarrow.flight.FlightError, pyarrow.ArrowException)):
        client.get_flight_info(descriptor)
    with pytest.raises((pyarrow.flight.FlightError, pyarrow.ArrowException)):
        client.do_get(pyarrow.flight.Ticket(b"somebody else's")).read_all()
    with pytest.raises((pyarrow.flight.FlightError, pyarrow.ArrowException)):
        list(client.do_action(pyarrow.flight.Action("NoSuchAction", b"")))
    assert flight_sql.query(client, "SELECT 1 AS one").to_pylist() == [{"one": 1}]


def test_a_running_query_is_cancelled_by_its_info(client, server):
    endless = "SELECT count(*) AS n FROM generate_series(1, 1000000000000) AS s(value) WHERE value % 7 = 1"
    info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: endless}))
    reader = client.do_get(info.endpoints[0].ticket)
    # The schema comes first, so the query has been started.
    assert reader.schema.names == ["n"]
    body = flight_sql.message({1: info.serialize()})
    with pyarrow.flight.connect(server.uri) as other:
        list(other.do_action(pyarrow.flight.Action("CancelFlightInfo", body)))
    with pytest.raises(pyarrow.ArrowException, match="57014"):
        reader.read_chunk()
    with pytest.raises(pyarrow.ArrowException, match="34000"):
        client.do_get(info.endpoints[0].ticket).read_chunk()
