"""Other clients than bare ADBC. Each does what it can: connect, log in, query, bind, change, roll back, ingest, ask for metadata,
be refused. What is not here a client does not have: flightsql-dbapi neither transactions nor ingest nor a way to cancel, pandas over
ADBC no parameters, pandas and polars nothing of their own to cancel (`test_low_level.py` does it with the cursor that they use).
"""

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import flightsql
import pandas
import polars
import pyarrow
import pytest

import rustydb_server


@pytest.fixture
def flightsql_client(server):
    return flightsql.FlightSQLClient(host=server.host, port=server.port, insecure=True)


def test_pandas_writes_and_reads_tables(connection, table):
    frame = pandas.DataFrame({"id": [1, 2, 3], "name": ["pen", None, "ink"], "price": [1.5, None, 20.0]})
    assert frame.to_sql(table, connection, index=False) == 3
    read = pandas.read_sql(f"SELECT * FROM {table} ORDER BY id", connection)
    assert list(read.columns) == ["id", "name", "price"]
    assert read["id"].tolist() == [1, 2, 3]
    assert read["name"].isna().tolist() == [False, True, False]
    assert read["price"].dropna().tolist() == [1.5, 20.0]
    assert frame.to_sql(table, connection, index=False, if_exists="append") == 3
    assert frame.head(1).to_sql(table, connection, index=False, if_exists="replace") == 1
    assert pandas.read_sql(f"SELECT count(*) AS n FROM {table}", connection)["n"].tolist() == [1]
    with pytest.raises(ValueError, match="exists"):
        frame.to_sql(table, connection, index=False)


def test_polars_writes_and_reads_tables(connection, table):
    frame = polars.DataFrame({"id": [1, 2, 3], "name": ["pen", None, "ink"]})
    assert frame.write_database(table, connection, engine="adbc") == 3
    read = polars.read_database(f"SELECT * FROM {table} ORDER BY id", connection)
    assert read.to_dict(as_series=False) == frame.to_dict(as_series=False)
    assert frame.write_database(table, connection, engine="adbc", if_table_exists="append") == 3
    counted = polars.read_database(
        f"SELECT count(*) AS n FROM {table} WHERE id = $1", connection, execute_options={"parameters": [2]}
    )
    assert counted["n"].to_list() == [2]


def test_polars_gets_errors_and_tables_that_are_there_stay(connection, table):
    frame = polars.DataFrame({"id": [1, 2]})
    frame.write_database(table, connection, engine="adbc")
    with pytest.raises(adbc_driver_manager.Error, match="42P07"):
        frame.write_database(table, connection, engine="adbc", if_table_exists="fail")
    with pytest.raises(adbc_driver_manager.Error, match="42P01"):
        polars.read_database("SELECT * FROM no_such_table", connection)
    assert polars.read_database(f"SELECT count(*) AS n FROM {table}", connection)["n"].to_list() == [2]


def test_pandas_gets_errors(connection):
    with pytest.raises((pandas.errors.DatabaseError, adbc_driver_manager.Error), match="42P01"):
        pandas.read_sql("SELECT * FROM no_such_table", connection)


@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
def test_frames_are_of_the_transaction_that_reads_them(server, connection, table, commits):
    def count(of):
        query = f"SELECT count(*) AS n FROM {table}"
        (read,) = pandas.read_sql(query, of)["n"]
        assert polars.read_database(query, of)["n"].to_list() == [read]
        return read

    pandas.DataFrame({"id": [1]}).to_sql(table, connection, index=False)
    with adbc_driver_flightsql.dbapi.connect(server.uri) as transaction:
        # Their own ways to write commit by themselves; this is what both of them call.
        with transaction.cursor() as cursor:
            cursor.adbc_ingest(table, polars.DataFrame({"id": [2, 3]}).to_arrow(), mode="append")
        assert (count(transaction), count(connection)) == (3, 1)
        if commits:
            transaction.commit()
        else:
            transaction.rollback()
    assert count(connection) == (3 if commits else 1)


def test_frames_come_over_a_connection_that_has_logged_in(start, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-for-this-test-only\n")
    server = start("--token-file", tokens)
    header = adbc_driver_flightsql.DatabaseOptions.AUTHORIZATION_HEADER.value
    with adbc_driver_flightsql.dbapi.connect(
        server.uri, db_kwargs={header: "Bearer another"}, autocommit=True
    ) as refused:
        with pytest.raises(pandas.errors.DatabaseError, match="28P01"):
            pandas.read_sql("SELECT 1 AS one", refused)
        with pytest.raises(adbc_driver_manager.Error, match="28P01"):
            polars.read_database("SELECT 1 AS one", refused)
    options = {header: "Bearer a-token-for-this-test-only"}
    with adbc_driver_flightsql.dbapi.connect(server.uri, db_kwargs=options, autocommit=True) as connection:
        assert polars.DataFrame({"id": [1, 2]}).write_database("written", connection, engine="adbc") == 2
        assert pandas.read_sql("SELECT sum(id) AS total FROM written", connection)["total"].tolist() == [3]
        assert polars.read_database("SELECT sum(id) AS total FROM written", connection)["total"].to_list() == [3]


def test_cursors_give_frames_without_a_detour(cursor):
    cursor.execute("SELECT value, 'row ' || value AS text FROM generate_series(1, 3) AS s(value)")
    assert cursor.fetch_df()["text"].tolist() == ["row 1", "row 2", "row 3"]
    cursor.execute("SELECT value FROM generate_series(1, 3) AS s(value)")
    assert cursor.fetch_polars()["value"].to_list() == [1, 2, 3]


def test_flightsql_dbapi_queries_and_changes(flightsql_client, table):
    assert flightsql_client.execute_update(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)") == 0
    assert flightsql_client.execute_update(f"INSERT INTO {table} VALUES (1, 'pen'), (2, 'ink')") == 2
    cursor = flightsql.connect(flightsql_client).cursor()
    cursor.execute(f"SELECT id, name FROM {table} ORDER BY id")
    assert [tuple(row) for row in cursor.fetchall()] == [(1, "pen"), (2, "ink")]
    info = flightsql_client.execute("SELECT 6 * 7 AS answer")
    assert flightsql_client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"answer": 42}]


def test_flightsql_dbapi_binds_parameters(flightsql_client, table):
    flightsql_client.execute_update(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT)")
    flightsql_client.execute_update(f"INSERT INTO {table} VALUES (1, 'one'), (2, 'two')")
    with flightsql_client.prepare(f"SELECT name FROM {table} WHERE id = $1") as statement:
        info = statement.execute(pyarrow.record_batch({"$1": pyarrow.array([2], pyarrow.int32())}))
        assert flightsql_client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"name": "two"}]


def test_flightsql_dbapi_reads_metadata(flightsql_client, table):
    flightsql_client.execute_update(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
    info = flightsql_client.get_tables(table_name_filter_pattern=table, include_schema=True)
    (row,) = flightsql_client.do_get(info.endpoints[0].ticket).read_all().to_pylist()
    assert row["table_name"] == table
    for call in ("get_catalogs", "get_db_schemas", "get_table_types", "get_sql_info"):
        arguments = [[0]] if call == "get_sql_info" else []
        info = getattr(flightsql_client, call)(*arguments)
        assert flightsql_client.do_get(info.endpoints[0].ticket).read_all().num_rows >= 1, call


def test_flightsql_dbapi_gets_errors(flightsql_client):
    with pytest.raises(pyarrow.ArrowException, match="42P01"):
        flightsql_client.execute("SELECT * FROM no_such_table")


def test_flightsql_dbapi_logs_in(start, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-for-this-test-only\n")
    server = start("--token-file", tokens)
    options = {"host": server.host, "port": server.port, "insecure": True}
    with pytest.raises(pyarrow.ArrowException, match="28"):
        flightsql.FlightSQLClient(**options).execute("SELECT 1")
    client = flightsql.FlightSQLClient(token="a-token-for-this-test-only", **options)
    info = client.execute("SELECT 1 AS one")
    assert client.do_get(info.endpoints[0].ticket).read_all().to_pylist() == [{"one": 1}]
    shown = rustydb_server.run("sql", "--url", server.uri, "--token-file", tokens, "-c", "SELECT 1 AS one")
    assert shown.returncode == 0, shown.stderr
