// Flight SQL over @grpc/grpc-js, with the protocol's definitions from @lancedb/arrow-flight-sql-client, which itself can
// only log in and query. What is left out is what the tests do not need.

import { createRequire } from "node:module";
import path from "node:path";

import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { Message, RecordBatchReader, tableFromIPC, tableToIPC } from "apache-arrow";
import protobuf from "protobufjs";

const definitions = path.dirname(createRequire(import.meta.url).resolve("@lancedb/arrow-flight-sql-client"));
const flight = grpc.loadPackageDefinition(
  protoLoader.loadSync("Flight.proto", { includeDirs: [definitions], longs: String, defaults: true }),
).arrow.flight.protocol;
const messages = protobuf.loadSync(path.join(definitions, "FlightSql.proto"));
const flightMessages = protobuf.loadSync(path.join(definitions, "Flight.proto"));

const PACKAGE = "arrow.flight.protocol.sql.";
const Any = new protobuf.Type("Any")
  .add(new protobuf.Field("type_url", 1, "string"))
  .add(new protobuf.Field("value", 2, "bytes"));

/** A message of Flight SQL in a google.protobuf.Any. */
export function packed(name, fields) {
  const type = messages.lookupType(PACKAGE + name);
  const value = type.encode(type.fromObject(fields)).finish();
  return Any.encode({ type_url: `type.googleapis.com/${PACKAGE}${name}`, value }).finish();
}

export function unpacked(name, bytes) {
  return messages.lookupType(PACKAGE + name).decode(Any.decode(bytes).value);
}

/** The messages of an Arrow table, as Flight sends them. */
function* flightData(table) {
  const bytes = tableToIPC(table, "stream");
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  for (let at = 0; at + 8 <= bytes.length; ) {
    const length = view.getInt32(at + 4, true);
    if (length === 0) return;
    const header = bytes.subarray(at + 8, at + 8 + length);
    const bodyLength = Number(Message.decode(header).bodyLength);
    const start = at + 8 + length;
    yield { dataHeader: header, dataBody: bytes.subarray(start, start + bodyLength) };
    at = start + bodyLength;
  }
}

/** One message in the form of an Arrow stream. */
function streamed({ dataHeader, dataBody }) {
  const length = (dataHeader.length + 7) & ~7;
  const bytes = Buffer.alloc(8 + length + dataBody.length);
  bytes.writeUInt32LE(0xffffffff, 0);
  bytes.writeInt32LE(length, 4);
  bytes.set(dataHeader, 8);
  bytes.set(dataBody, 8 + length);
  return bytes;
}

export class FlightSql {
  constructor(address) {
    this.client = new flight.FlightService(address, grpc.credentials.createInsecure());
    this.metadata = new grpc.Metadata();
  }

  close() {
    this.client.close();
  }

  /** Logs in: name and password become a token. */
  async login(user, password) {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`);
    const call = this.client.handshake(metadata);
    const answered = new Promise((resolve, reject) => {
      call.on("metadata", resolve);
      call.on("error", reject);
    });
    call.on("data", () => {});
    call.end();
    this.metadata.set("authorization", (await answered).get("authorization")[0]);
  }

  unary(method, request) {
    return new Promise((resolve, reject) => {
      this.client[method](request, this.metadata, (error, answer) => (error ? reject(error) : resolve(answer)));
    });
  }

  async info(name, fields) {
    return this.unary("getFlightInfo", { type: "CMD", cmd: packed(name, fields) });
  }

  /** The messages of an endpoint as they come. */
  get(info) {
    return this.client.doGet(info.endpoint[0].ticket, this.metadata);
  }

  async table(info) {
    const chunks = [];
    for await (const message of this.get(info)) chunks.push(streamed(message));
    return tableFromIPC(RecordBatchReader.from(Buffer.concat(chunks)));
  }

  async query(sql, transaction) {
    return this.table(await this.info("CommandStatementQuery", { query: sql, transactionId: transaction }));
  }

  /** Sends a command, with rows if there are any, and gives what the server answers. */
  async put(name, fields, table) {
    const call = this.client.doPut(this.metadata);
    const answers = (async () => {
      const all = [];
      for await (const answer of call) all.push(answer.appMetadata);
      return all;
    })();
    const flightDescriptor = { type: "CMD", cmd: packed(name, fields) };
    const rows = table ? [...flightData(table)] : [{ dataHeader: Buffer.alloc(0), dataBody: Buffer.alloc(0) }];
    rows.forEach((message, index) => call.write(index === 0 ? { ...message, flightDescriptor } : message));
    call.end();
    return answers;
  }

  async update(sql, transaction) {
    const [answer] = await this.put("CommandStatementUpdate", { query: sql, transactionId: transaction });
    return Number(messages.lookupType(`${PACKAGE}DoPutUpdateResult`).decode(answer).recordCount);
  }

  async ingest(name, table, options) {
    const [answer] = await this.put("CommandStatementIngest", { table: name, tableDefinitionOptions: options }, table);
    return Number(messages.lookupType(`${PACKAGE}DoPutUpdateResult`).decode(answer).recordCount);
  }

  async action(type, body) {
    const results = [];
    for await (const result of this.client.doAction({ type, body }, this.metadata)) results.push(result.body);
    return results;
  }

  async prepare(sql) {
    const [body] = await this.action(
      "CreatePreparedStatement",
      packed("ActionCreatePreparedStatementRequest", { query: sql }),
    );
    return unpacked("ActionCreatePreparedStatementResult", body);
  }

  async begin() {
    const [body] = await this.action("BeginTransaction", packed("ActionBeginTransactionRequest", {}));
    return unpacked("ActionBeginTransactionResult", body).transactionId;
  }

  async end(transactionId, commit) {
    await this.action("EndTransaction", packed("ActionEndTransactionRequest", { transactionId, action: commit ? 1 : 2 }));
  }

  /** CancelFlightInfo; 1 is "cancelled". */
  async cancel(info) {
    const type = (name) => flightMessages.lookupType(`arrow.flight.protocol.${name}`);
    const encoded = type("CancelFlightInfoRequest").encode({ info: forProtobuf(info) }).finish();
    const [body] = await this.action("CancelFlightInfo", encoded);
    return type("CancelFlightInfoResult").decode(body).status;
  }
}

/** What of a FlightInfo says which one it is. */
function forProtobuf(info) {
  return { endpoint: info.endpoint.map(({ ticket }) => ({ ticket })) };
}
