// What every client must be able to do, done with two from npm: a Flight SQL client, and gRPC itself.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import lancedb from "@lancedb/arrow-flight-sql-client";
import { Int32, Utf8, tableFromArrays, vectorFromArray, Table } from "apache-arrow";

import { FlightSql, packed } from "./flight_sql.mjs";

const address = process.env.RUSTYDB_ADDRESS;
let client;

before(async () => {
  client = new FlightSql(address);
  await client.login("anyone", "anything");
});

after(() => client.close());

const rows = (table) => table.toArray().map((row) => row.toJSON());

test("a Flight SQL client from npm logs in and queries", async () => {
  const npm = await lancedb.Client.connect({ host: address, username: "anyone", password: "anything", insecure: true });
  const result = await npm.query("SELECT value AS n, 'row ' || value AS name FROM generate_series(1, 3) AS s(value)");
  const objects = (await result.collectToObjects()).map((row) => row.toJSON());
  assert.deepEqual(objects.map((row) => row.name), ["row 1", "row 2", "row 3"]);
});

test("a wrong token is refused", async () => {
  const other = new FlightSql(address);
  other.metadata.set("authorization", "Bearer rustydb-session-00000000000000000000000000000000");
  await assert.rejects(other.query("SELECT 1"), (error) => error.code === 16 && /28000/.test(error.details));
  other.close();
});

test("queries and changes", async () => {
  assert.equal(await client.update("CREATE TABLE node_items (id INTEGER PRIMARY KEY, name TEXT)"), 0);
  assert.equal(await client.update("INSERT INTO node_items VALUES (1, 'pen'), (2, 'ink'), (3, NULL)"), 3);
  const table = await client.query("SELECT * FROM node_items ORDER BY id");
  assert.deepEqual(rows(table), [{ id: 1, name: "pen" }, { id: 2, name: "ink" }, { id: 3, name: null }]);
});

test("parameters", async () => {
  const prepared = await client.prepare("SELECT name FROM node_items WHERE id = $1 OR name = $2");
  const handle = { preparedStatementHandle: prepared.preparedStatementHandle };
  const parameters = new Table({
    $1: vectorFromArray([2], new Int32()),
    $2: vectorFromArray(["pen"], new Utf8()),
  });
  await client.put("CommandPreparedStatementQuery", handle, parameters);
  const table = await client.table(await client.info("CommandPreparedStatementQuery", handle));
  assert.deepEqual(rows(table).map((row) => row.name).sort(), ["ink", "pen"]);
  await client.action("ClosePreparedStatement", packed("ActionClosePreparedStatementRequest", handle));
  await assert.rejects(client.info("CommandPreparedStatementQuery", handle), /26000/);
});

test("transactions", async () => {
  const count = async (transaction) => Number(rows(await client.query("SELECT count(*) AS n FROM node_items", transaction))[0].n);
  const transaction = await client.begin();
  await client.update("DELETE FROM node_items", transaction);
  assert.deepEqual([await count(transaction), await count()], [0, 3]);
  await client.end(transaction, false);
  assert.equal(await count(), 3);
  await client.update("BEGIN");
  await client.update("DELETE FROM node_items WHERE id = 3");
  await client.update("COMMIT");
  assert.equal(await count(), 2, "SQL transactions last in the session of the token");
});

test("bulk ingest", async () => {
  const table = tableFromArrays({ id: Int32Array.from([1, 2, 3]), price: Float64Array.from([1.5, 2.5, 3.5]) });
  const create = { ifNotExist: 1, ifExists: 1 };
  assert.equal(await client.ingest("node_prices", table, create), 3);
  await assert.rejects(client.ingest("node_prices", table, create), /42P07/);
  assert.equal(await client.ingest("node_prices", table, { ifNotExist: 2, ifExists: 2 }), 3);
  assert.deepEqual(rows(await client.query("SELECT sum(price) AS total FROM node_prices")), [{ total: 15 }]);
});

test("metadata", async () => {
  const tables = await client.table(
    await client.info("CommandGetTables", { tableNameFilterPattern: "node\\_%", includeSchema: true }),
  );
  assert.deepEqual(rows(tables).map((row) => row.table_name), ["node_items", "node_prices"]);
  const keys = await client.table(await client.info("CommandGetPrimaryKeys", { table: "node_items" }));
  assert.deepEqual(rows(keys).map((row) => row.column_name), ["id"]);
  const info = await client.table(await client.info("CommandGetSqlInfo", { info: [0] }));
  assert.equal(rows(info)[0].value, "RustyDB");
});

test("cancelling", async () => {
  const info = await client.info("CommandStatementQuery", {
    query: "SELECT a.value FROM generate_series(1, 1000000) AS a(value), generate_series(1, 1000000) AS b(value)",
  });
  const call = client.get(info);
  const ended = new Promise((resolve) => call.on("error", resolve));
  await new Promise((resolve) => call.once("data", resolve));
  call.on("data", () => {});
  assert.equal(await client.cancel(info), 1);
  const error = await ended;
  assert.equal(error.code, 1);
  assert.match(error.details, /57014/);
});

test("errors say what is wrong and where", async () => {
  await assert.rejects(client.query("SELECT nam FROM node_items"), (error) => {
    assert.equal(error.code, 5);
    assert.equal(error.metadata.get("x-sqlstate")[0], "42703");
    assert.equal(error.metadata.get("x-sql-position")[0], "1:8");
    return /nam/.test(error.details);
  });
});
