"""What tools ask about a database: catalogs, schemas, tables, columns, keys, server information."""

import threading

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pyarrow.flight
import pytest

import flight_sql


@pytest.fixture
def described(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price DECIMAL(10, 2))")
    return table


def objects(connection, **filters):
    return connection.adbc_get_objects(**filters).read_all().to_pylist()


def test_catalogs(connection):
    assert [catalog["catalog_name"] for catalog in objects(connection, depth="catalogs")] == ["rustydb"]


def test_schemas(connection):
    (catalog,) = objects(connection, depth="db_schemas")
    assert "public" in [schema["db_schema_name"] for schema in catalog["catalog_db_schemas"]]


def test_tables_with_their_columns(connection, described):
    (catalog,) = objects(connection, depth="all", table_name_filter=described)
    (schema,) = [schema for schema in catalog["catalog_db_schemas"] if schema["db_schema_tables"]]
    assert schema["db_schema_name"] == "public"
    (found,) = schema["db_schema_tables"]
    assert (found["table_name"], found["table_type"]) == (described, "TABLE")
    assert [column["column_name"] for column in found["table_columns"]] == ["id", "name", "price"]
    assert [column["ordinal_position"] for column in found["table_columns"]] == [1, 2, 3]


def test_a_name_filter_is_a_like_pattern(connection, described):
    (catalog,) = objects(connection, depth="tables", table_name_filter=described[:-1] + "_")
    names = [found["table_name"] for schema in catalog["catalog_db_schemas"] for found in schema["db_schema_tables"]]
    assert described in names
    (catalog,) = objects(connection, depth="tables", table_name_filter="no such%")
    assert not any(schema["db_schema_tables"] for schema in catalog["catalog_db_schemas"])


def test_the_schema_of_a_table(connection, described):
    schema = connection.adbc_get_table_schema(described)
    assert schema.names == ["id", "name", "price"]
    assert schema.types == [pyarrow.int32(), pyarrow.string(), pyarrow.decimal128(10, 2)]
    assert [field.nullable for field in schema] == [False, False, True]


def test_the_schema_of_a_table_that_is_not_there(connection):
    with pytest.raises(adbc_driver_manager.Error):
        connection.adbc_get_table_schema("no_such_table")


def test_table_types(connection):
    assert connection.adbc_get_table_types() == ["LOCAL TEMPORARY", "TABLE", "VIEW"]


def test_views_are_listed_with_their_columns(connection, cursor, described):
    cursor.execute(f"CREATE VIEW {described}_view AS SELECT name, price * 2 AS twice FROM {described}")
    (catalog,) = objects(connection, depth="all", table_name_filter=f"{described}_view", table_types_filter=["VIEW"])
    (found,) = [found for schema in catalog["catalog_db_schemas"] for found in schema["db_schema_tables"]]
    assert (found["table_name"], found["table_type"]) == (f"{described}_view", "VIEW")
    assert [column["column_name"] for column in found["table_columns"]] == ["name", "twice"]
    assert connection.adbc_get_table_schema(f"{described}_view").names == ["name", "twice"]


def test_a_schema_without_tables_is_listed(connection, cursor, table):
    cursor.execute(f"CREATE SCHEMA {table}")
    (catalog,) = objects(connection, depth="db_schemas")
    assert table in [schema["db_schema_name"] for schema in catalog["catalog_db_schemas"]]


def test_information_about_the_server(connection):
    information = connection.adbc_get_info()
    assert information["vendor_name"] == "RustyDB"
    assert information["vendor_version"]
    assert information["vendor_arrow_version"]


def test_the_catalog_answers_in_sql_too(cursor, described):
    cursor.execute("SELECT column_name FROM information_schema.columns WHERE table_name = ? ORDER BY 1", (described,))
    assert cursor.fetchall() == [("id",), ("name",), ("price",)]


def test_a_dropped_table_is_gone_from_the_metadata(connection, cursor, described):
    cursor.execute(f"DROP TABLE {described}")
    (catalog,) = objects(connection, depth="tables", table_name_filter=described)
    assert not any(schema["db_schema_tables"] for schema in catalog["catalog_db_schemas"])


def tables_of(connection, **filters):
    (catalog,) = objects(connection, depth="tables", **filters)
    return [
        (schema["db_schema_name"], found["table_name"], found["table_type"])
        for schema in catalog["catalog_db_schemas"]
        for found in schema["db_schema_tables"]
    ]


def test_what_the_open_transaction_has_made_is_seen(server, connection, table):
    with adbc_driver_flightsql.dbapi.connect(server.uri) as writer, writer.cursor() as cursor:
        cursor.execute(f"CREATE TABLE {table} (ints BIGINT)")
        cursor.execute(f"CREATE VIEW {table}_view AS SELECT ints * 2 AS twice FROM {table}")
        cursor.adbc_ingest(f"{table}_loaded", pyarrow.table({"x": [1.5]}), mode="create")
        assert writer.adbc_get_table_schema(table).names == ["ints"]
        assert writer.adbc_get_table_schema(f"{table}_view").names == ["twice"]
        assert writer.adbc_get_table_schema(f"{table}_loaded").types == [pyarrow.float64()]
        names = {name for _, name, _ in tables_of(writer, table_name_filter=f"{table}%")}
        assert names == {table, f"{table}_view", f"{table}_loaded"}
        assert tables_of(connection, table_name_filter=f"{table}%") == []
        writer.rollback()
        assert tables_of(writer, table_name_filter=f"{table}%") == []


def test_looking_does_not_end_a_transaction(server, cursor, table):
    cursor.execute(f"CREATE TABLE {table} (a INTEGER)")
    with adbc_driver_flightsql.dbapi.connect(server.uri) as writer, writer.cursor() as own:
        own.execute(f"INSERT INTO {table} VALUES (1)")
        with pytest.raises(adbc_driver_manager.Error):
            writer.adbc_get_table_schema("no_such_table")
        writer.commit()
    cursor.execute(f"SELECT count(*) FROM {table}")
    assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("autocommit", [True, False])
def test_temporary_tables_are_listed_for_their_session(server, connection, table, autocommit):
    user = {"username": "anyone", "password": "anything"}
    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=user, autocommit=autocommit) as owner:
        with owner.cursor() as own:
            own.execute(f"CREATE TEMPORARY TABLE {table} (a INTEGER)")
            own.execute(f"CREATE TEMPORARY VIEW {table}_view AS SELECT a AS b FROM {table}")
            assert owner.adbc_get_table_schema(table).names == ["a"]
            assert owner.adbc_get_table_schema(f"{table}_view").names == ["b"]
            found = sorted(tables_of(owner, table_name_filter=f"{table}%"))
            assert [(name, kind) for _, name, kind in found] == [(table, "LOCAL TEMPORARY"), (f"{table}_view", "VIEW")]
            assert found[0][0].startswith("pg_temp_")
            assert tables_of(connection, table_name_filter=f"{table}%") == []
            if not autocommit:
                owner.rollback()


def test_keys_of_temporary_tables_are_told_to_their_session_only(server, client, table):
    login = pyarrow.flight.connect(server.uri)
    owner = pyarrow.flight.FlightCallOptions(headers=[login.authenticate_basic_token("anyone", "anything")])
    flight_sql.update(login, f"CREATE TEMPORARY TABLE {table} (id INTEGER PRIMARY KEY)", owner)
    flight_sql.update(login, f"CREATE TEMPORARY TABLE {table}_child (id INTEGER REFERENCES {table})", owner)

    def keys(client, name, fields, options=None):
        info = client.get_flight_info(flight_sql.command(name, fields), options)
        return client.do_get(info.endpoints[0].ticket, options).read_all().num_rows

    for name, fields in [
        ("CommandGetPrimaryKeys", {3: table}),
        ("CommandGetImportedKeys", {3: f"{table}_child"}),
        ("CommandGetExportedKeys", {3: table}),
        ("CommandGetCrossReference", {3: table, 6: f"{table}_child"}),
    ]:
        assert (keys(login, name, fields, owner), keys(client, name, fields)) == (1, 0), name
    login.close()


def test_looking_does_not_wait_for_a_statement(server, table):
    columns = pyarrow.schema([("a", pyarrow.int32())])
    with adbc_driver_flightsql.dbapi.connect(server.uri) as writer, writer.cursor() as own:
        own.execute(f"CREATE TABLE {table} (a INTEGER)")
        own.execute(f"CREATE VIEW {table}_view AS SELECT a AS b FROM {table}")
        writer.commit()
        own.execute(f"INSERT INTO {table} VALUES (1)")
        found = []

        def rows():
            yield pyarrow.record_batch([pyarrow.array([2], pyarrow.int32())], schema=columns)
            # It looks while the ingest waits for its rows.
            looking = threading.Thread(
                target=lambda: found.append(writer.adbc_get_table_schema(f"{table}_view").names), daemon=True
            )
            looking.start()
            looking.join(20)
            found.append(looking.is_alive())
            yield pyarrow.record_batch([pyarrow.array([3], pyarrow.int32())], schema=columns)

        own.adbc_ingest(table, pyarrow.RecordBatchReader.from_batches(columns, rows()), mode="append")
        assert found == [["b"], False]
        writer.rollback()
