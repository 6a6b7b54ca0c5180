#!/usr/bin/env python3
"""How fast the Flight SQL server is, beside what is possible on the same machine in the same minutes.

    cargo build --release --bin rustydb && cargo build --release -p rustydb-flight --example point_queries
    target/release/rustydb tpch --scale 1 --data /tmp/sf1 --runs 1
    python3 benches/flight/flight.py --rustydb target/release/rustydb --store /tmp/sf1 --json figures.json

| measurement | beside |
|---|---|
| DoGet of lineitem, all columns, to pyarrow | a pyarrow Flight server in a process of its own that sends the same batches from memory |
| bulk ingest of lineitem, durable | DuckDB's insert of the same Arrow table into a file |
| prepared point query (bind, fetch), 1 and 8 connections | (client and server share the cores) |
| 10,000 idle sessions, each on a connection of its own | memory of the process before |
| DoGet over TLS | the same in plain text |
| cancelling a join without end | processor time of the server in the second after |

What is compared takes turns, round by round, so that a noisy minute of a shared machine hits both; the median counts.
Needs pyarrow, adbc-driver-flightsql, adbc-driver-manager and duckdb. The store is used as it is; what is ingested goes to
a directory of its own.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import pyarrow
import pyarrow.flight

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "python"))

import flight_sql
import rustydb_server

LINEITEM = "SELECT * FROM lineitem"
CREATE_LINEITEM = """CREATE TABLE lineitem (
    l_orderkey BIGINT, l_partkey BIGINT, l_suppkey BIGINT, l_linenumber INTEGER, l_quantity DECIMAL(15, 2),
    l_extendedprice DECIMAL(15, 2), l_discount DECIMAL(15, 2), l_tax DECIMAL(15, 2), l_returnflag TEXT,
    l_linestatus TEXT, l_shipdate DATE, l_commitdate DATE, l_receiptdate DATE, l_shipinstruct TEXT,
    l_shipmode TEXT, l_comment TEXT, PRIMARY KEY (l_orderkey, l_linenumber))"""


class Replay(pyarrow.flight.FlightServerBase):
    """Sends one table from memory."""

    def __init__(self, location, table):
        super().__init__(location)
        self.table = table

    def do_get(self, context, ticket):
        return pyarrow.flight.RecordBatchStream(self.table)


def replay(path, ready):
    with pyarrow.memory_map(str(path)) as file:
        table = pyarrow.ipc.open_file(file).read_all()
        server = Replay("grpc://127.0.0.1:0", table)
        ready.put(server.port)
        server.serve()


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def fetch(uri, ticket=None, sql=LINEITEM, **tls):
    """All rows, batch by batch, thrown away: a client that keeps them would measure its own memory."""
    with pyarrow.flight.connect(uri, **tls) as client:
        options = None
        if tls:
            options = pyarrow.flight.FlightCallOptions(headers=[client.authenticate_basic_token("admin", "benchmark")])
        if ticket is None:
            info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: sql}), options)
            ticket = info.endpoints[0].ticket
        rows = 0
        for chunk in client.do_get(ticket, options):
            rows += chunk.data.num_rows
        return rows


def measure_fetch(server, work, rounds):
    with pyarrow.flight.connect(server.uri) as client:
        info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: LINEITEM}))
        reader = client.do_get(info.endpoints[0].ticket)
        path = work / "lineitem.arrow"
        with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_file(file, reader.schema) as writer:
            for chunk in reader:
                writer.write_batch(chunk.data)
    ready = multiprocessing.Queue()
    other = multiprocessing.Process(target=replay, args=(path, ready), daemon=True)
    other.start()
    uri = f"grpc://127.0.0.1:{ready.get(timeout=120)}"
    ours, theirs, rows = [], [], 0
    for _ in range(rounds):
        taken, rows = seconds(lambda: fetch(server.uri))
        ours.append(taken)
        taken, replayed = seconds(lambda: fetch(uri, pyarrow.flight.Ticket(b"all")))
        theirs.append(taken)
        assert rows == replayed
    other.terminate()
    figures = {"rows": rows, "bytes": path.stat().st_size, "rustydb_s": ours, "replay_s": theirs}
    figures["share_of_replay"] = statistics.median(theirs) / statistics.median(ours)
    return figures, path


def measure_ingest(program, work, path, rounds):
    import adbc_driver_flightsql.dbapi
    import duckdb

    table = pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()
    ours, theirs = [], []
    for number in range(rounds):
        with rustydb_server.Server(work / f"ingest{number}", program=program) as server:
            with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
                with connection.cursor() as cursor:
                    cursor.execute(CREATE_LINEITEM)
                    taken, rows = seconds(lambda: cursor.adbc_ingest("lineitem", table, mode="append"))
                    assert rows == table.num_rows
                    ours.append(taken)
        shutil.rmtree(work / f"ingest{number}")
        database = duckdb.connect(str(work / f"duckdb{number}"))
        database.execute(CREATE_LINEITEM)
        database.register("source", table)
        taken, _ = seconds(lambda: database.execute("INSERT INTO lineitem SELECT * FROM source").fetchall())
        theirs.append(taken)
        database.close()
        (work / f"duckdb{number}").unlink()
    rate = lambda times: table.num_rows / statistics.median(times)
    return {
        "rustydb_rows_per_s": rate(ours),
        "duckdb_rows_per_s": rate(theirs),
        "share_of_duckdb": rate(ours) / rate(theirs),
    }


def measure_points(server, client, duration):
    """One row by its key. The client is the example `point_queries` of the crate `flight`: a Python client would spend
    more time on a request than the server does."""
    query = "SELECT c_name, c_acctbal FROM customer WHERE c_custkey = $1"
    keys = 150_000
    figures = {}
    for connections in (1, 8):
        command = [client, f"{server.host}:{server.port}", str(connections), str(duration), query, str(keys)]
        used = processor_seconds(server.process_id)
        measured = subprocess.run(command, capture_output=True, text=True)
        assert measured.returncode == 0, measured.stderr
        measured = json.loads(measured.stdout)
        used = processor_seconds(server.process_id) - used
        measured["server_us_each"] = used * 1e6 / (measured["per_s"] * duration)
        figures[f"{connections}_connections"] = measured
    return figures


def processor_seconds(process_id):
    fields = pathlib.Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_cancel(server, rounds):
    """How long the client waits for the end of a statement it cancels, and what the server still does after that."""
    endless = "SELECT count(*) FROM lineitem a, lineitem b WHERE a.l_suppkey * b.l_suppkey % 1000003 = 17"
    waited, used = [], []
    for _ in range(rounds):
        with pyarrow.flight.connect(server.uri) as client, pyarrow.flight.connect(server.uri) as other:
            info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: endless}))
            ended = threading.Event()

            def fetch_it():
                try:
                    client.do_get(info.endpoints[0].ticket).read_all()
                except pyarrow.ArrowException:
                    ended.set()

            fetching = threading.Thread(target=fetch_it)
            fetching.start()
            before = processor_seconds(server.process_id)
            while processor_seconds(server.process_id) < before + 0.5:
                time.sleep(0.05)
            start = time.perf_counter()
            body = flight_sql.message({1: info.serialize()})
            list(other.do_action(pyarrow.flight.Action("CancelFlightInfo", body)))
            assert ended.wait(60)
            waited.append(time.perf_counter() - start)
            before = processor_seconds(server.process_id)
            time.sleep(1)
            used.append(processor_seconds(server.process_id) - before)
            fetching.join()
    return {"client_waits_ms": [1000 * each for each in waited], "server_busy_afterwards_ms": [1000 * each for each in used]}


def resident_mib(process_id):
    status = pathlib.Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def measure_idle(program, work, count):
    """Sessions and connections: HTTP/2 connections that have said hello, and as many sessions by Handshake."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(count, hard - 1000)
    with rustydb_server.Server(work / "idle", program=program) as server:
        before = resident_mib(server.process_id)
        with pyarrow.flight.connect(server.uri) as client:
            for _ in range(count):
                client.authenticate_basic_token("anyone", "anything")
        hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
        idle = []
        for _ in range(count):
            connection = socket.create_connection((server.host, server.port))
            connection.sendall(hello)
            idle.append(connection)
        for connection in idle:
            connection.recv(64)
        after = resident_mib(server.process_id)
        for connection in idle:
            connection.close()
    return {"connections": count, "before_mib": before, "after_mib": after, "kib_each": (after - before) * 1024 / count}


def measure_tls(program, store, work, rounds):
    """The same store in plain text and over TLS; its users are made for this and dropped with it."""
    secret = work / "password"
    secret.write_text("benchmark\n")
    keys = work / "keys"
    subprocess.run(
        [program, "init", "--data", keys, "--password-file", secret], check=True, stdout=subprocess.DEVNULL
    )
    configuration = work / "tls.toml"
    configuration.write_text(
        f"[flight]\ntls_certificate = '{keys}/tls/server.pem'\ntls_key = '{keys}/tls/server.key'\n"
    )
    authority = (keys / "tls" / "ca.pem").read_bytes()
    plain, secure = [], []
    for _ in range(rounds):
        with rustydb_server.Server(store, program=program) as server:
            fetch(server.uri)
            plain.append(seconds(lambda: fetch(server.uri))[0])
        with rustydb_server.Server(store, "--config", str(configuration), program=program) as server:
            uri = f"grpc+tls://localhost:{server.port}"
            fetch(uri, tls_root_certs=authority)
            secure.append(seconds(lambda: fetch(uri, tls_root_certs=authority))[0])
    return {"plain_s": plain, "tls_s": secure, "slower": statistics.median(secure) / statistics.median(plain) - 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rustydb", type=pathlib.Path, required=True, help="the rustydb binary (release)")
    parser.add_argument("--store", type=pathlib.Path, required=True, help="a store made by `rustydb tpch`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=int, default=10_000, help="idle sessions and connections")
    parser.add_argument("--points", type=pathlib.Path, help="the client for point queries, if not beside the binary")
    parser.add_argument("--only", help="fetch, ingest, points, cancel, idle, tls; separated by commas")
    parser.add_argument("--json", type=pathlib.Path, help="file to write the figures to")
    chosen = parser.parse_args()
    wanted = set((chosen.only or "fetch,ingest,points,cancel,idle,tls").split(","))
    program = chosen.rustydb.resolve()
    # Not fork: gRPC does not survive it.
    multiprocessing.set_start_method("spawn")
    figures = {"cores": os.cpu_count(), "load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        if wanted & {"fetch", "ingest", "points", "cancel"}:
            with rustydb_server.Server(chosen.store, program=program) as server:
                if wanted & {"fetch", "ingest"}:
                    figures["fetch"], path = measure_fetch(server, work, chosen.rounds if "fetch" in wanted else 1)
                    print(json.dumps(figures["fetch"]), flush=True)
                if "points" in wanted:
                    client = chosen.points or program.parent / "examples" / "point_queries"
                    figures["points"] = measure_points(server, client, 5)
                    print(json.dumps(figures["points"]), flush=True)
                if "cancel" in wanted:
                    figures["cancel"] = measure_cancel(server, chosen.rounds)
                    print(json.dumps(figures["cancel"]), flush=True)
            if "ingest" in wanted:
                figures["ingest"] = measure_ingest(program, work, path, min(chosen.rounds, 3))
                print(json.dumps(figures["ingest"]), flush=True)
        if "idle" in wanted:
            figures["idle"] = measure_idle(program, work, chosen.idle)
            print(json.dumps(figures["idle"]), flush=True)
        if "tls" in wanted:
            figures["tls"] = measure_tls(program, chosen.store, work, chosen.rounds)
            print(json.dumps(figures["tls"]), flush=True)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
