"""The schemas of Flight SQL's metadata, as FlightSql.proto spells them: names, types, order, and what may be NULL."""

import pytest

import flight_sql

KEYS = [
    "pk_catalog_name: string",
    "pk_db_schema_name: string",
    "pk_table_name: string not null",
    "pk_column_name: string not null",
    "fk_catalog_name: string",
    "fk_db_schema_name: string",
    "fk_table_name: string not null",
    "fk_column_name: string not null",
    "key_sequence: int32 not null",
    "fk_key_name: string",
    "pk_key_name: string",
    "update_rule: uint8 not null",
    "delete_rule: uint8 not null",
]

TABLES = [
    "catalog_name: string",
    "db_schema_name: string",
    "table_name: string not null",
    "table_type: string not null",
]

# What of this may be NULL the specification does not say. In Arrow's C++ nothing may, the union itself included; in
# arrow-flight the lists may. Names inside of lists and maps have no meaning in Arrow, and are not the specification's.
SQL_INFO_VALUE = (
    "dense_union<string_value: string not null=0, bool_value: bool not null=1, bigint_value: int64 not null=2, "
    "int32_bitmask: int32 not null=3, string_list: list<item: string>=4, "
    "int32_to_int32_list_map: map<int32, list<item: int32>>=5>"
)

SPECIFIED = {
    "GetCatalogs": ["catalog_name: string not null"],
    "GetDbSchemas": ["catalog_name: string", "db_schema_name: string not null"],
    "GetTables": TABLES,
    "GetTables with schemas": [*TABLES, "table_schema: binary not null"],
    "GetTableTypes": ["table_type: string not null"],
    "GetPrimaryKeys": [
        "catalog_name: string",
        "db_schema_name: string",
        "table_name: string not null",
        "column_name: string not null",
        "key_name: string",
        "key_sequence: int32 not null",
    ],
    "GetExportedKeys": KEYS,
    "GetImportedKeys": KEYS,
    "GetCrossReference": KEYS,
    "GetXdbcTypeInfo": [
        "type_name: string not null",
        "data_type: int32 not null",
        "column_size: int32",
        "literal_prefix: string",
        "literal_suffix: string",
        "create_params: list<item: string not null>",
        "nullable: int32 not null",
        "case_sensitive: bool not null",
        "searchable: int32 not null",
        "unsigned_attribute: bool",
        "fixed_prec_scale: bool not null",
        "auto_increment: bool",
        "local_type_name: string",
        "minimum_scale: int32",
        "maximum_scale: int32",
        "sql_data_type: int32 not null",
        "datetime_subcode: int32",
        "num_prec_radix: int32",
        "interval_precision: int32",
    ],
    "GetSqlInfo": ["info_name: uint32 not null", f"value: {SQL_INFO_VALUE} not null"],
}


@pytest.fixture
def related(client, table):
    """A table, and one whose foreign key leads to it: every command has something to answer."""
    flight_sql.update(client, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    child = f"{table}_child"
    flight_sql.update(client, f"CREATE TABLE {child} (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES {table} (id))")
    return table, child


@pytest.mark.parametrize(
    "number, sqls",
    [
        # SQL_SUPPORTS_LIKE_ESCAPE_CLAUSE
        (523, ["SELECT 1 WHERE 'a%' LIKE 'a!%' ESCAPE '!'"]),
        # SQL_STORED_PROCEDURES_SUPPORTED
        (537, ["CREATE PROCEDURE {} () LANGUAGE plpgsql AS $$ BEGIN END $$", "CALL {}()", "DROP PROCEDURE {}"]),
    ],
)
def test_what_is_said_to_be_supported_is(client, cursor, table, number, sqls):
    info = client.get_flight_info(flight_sql.command("CommandGetSqlInfo", {1: number}))
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"info_name": number, "value": True}]
    for sql in sqls:
        cursor.execute(sql.format(table))


def test_procedures_and_indexes_are_named_with_catalog_and_schema(client, cursor, table):
    # SQL_SCHEMAS_SUPPORTED_ACTIONS, SQL_CATALOGS_SUPPORTED_ACTIONS: bit 0 procedure calls, bit 1 definitions of indexes.
    for number in (533, 534):
        info = client.get_flight_info(flight_sql.command("CommandGetSqlInfo", {1: number}))
        assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"info_name": number, "value": 0b11}]
    cursor.execute(f"CREATE TABLE {table} (id INTEGER)")
    cursor.execute(f"CREATE PROCEDURE {table}_p () LANGUAGE plpgsql AS $$ BEGIN END $$")
    for prefix in ("public", "rustydb.public"):
        cursor.execute(f"CALL {prefix}.{table}_p()")
        cursor.execute(f"CREATE INDEX {table}_{len(prefix)} ON {prefix}.{table} (id)")


def spelled(schema):
    return [f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema]


@pytest.mark.parametrize("name", SPECIFIED)
def test_the_schema_is_that_of_the_specification(client, related, name):
    parent, child = related
    fields = {
        "GetTables": {3: parent},
        "GetTables with schemas": {3: parent, 5: True},
        "GetPrimaryKeys": {3: parent},
        "GetExportedKeys": {3: parent},
        "GetImportedKeys": {3: child},
        "GetCrossReference": {3: parent, 6: child},
    }
    descriptor = flight_sql.command(f"Command{name.split()[0]}", fields.get(name, {}))
    assert spelled(client.get_schema(descriptor).schema) == SPECIFIED[name]
    info = client.get_flight_info(descriptor)
    assert spelled(info.schema) == SPECIFIED[name]
    rows = client.do_get(info.endpoints[0].ticket).read_all()
    assert spelled(rows.schema) == SPECIFIED[name]
    assert rows.num_rows > 0
    rows.validate(full=True)
    for field in rows.schema:
        assert field.nullable or rows[field.name].null_count == 0, f"{field.name} is said to be not null"
