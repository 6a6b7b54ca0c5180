"""What flight.py measures, each a method of `Bench`, and how the answers are checked.

Nothing here prints a figure: methods return what goes into the JSON file. A wrong answer ends the process with status 1.
"""

import contextlib
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import adbc_driver_flightsql.dbapi
import duckdb
import pyarrow
import pyarrow.flight

import flight_sql
import rustydb_server

LINEITEM = "SELECT * FROM lineitem"
COLUMNS = """
    l_orderkey BIGINT, l_partkey BIGINT, l_suppkey BIGINT, l_linenumber INTEGER, l_quantity DECIMAL(15, 2),
    l_extendedprice DECIMAL(15, 2), l_discount DECIMAL(15, 2), l_tax DECIMAL(15, 2), l_returnflag TEXT,
    l_linestatus TEXT, l_shipdate DATE, l_commitdate DATE, l_receiptdate DATE, l_shipinstruct TEXT,
    l_shipmode TEXT, l_comment TEXT"""
WITHOUT_KEY = f"CREATE TABLE lineitem ({COLUMNS})"
WITH_KEY = f"CREATE TABLE lineitem ({COLUMNS}, PRIMARY KEY (l_orderkey, l_linenumber))"
# Something of every column, in SQL that RustyDB and DuckDB both speak; one row of integers and decimals.
SUMS = """SELECT count(*), sum(l_orderkey), sum(l_partkey), sum(l_suppkey), sum(l_linenumber), sum(l_quantity),
    sum(l_extendedprice), sum(l_discount), sum(l_tax), sum(ascii(l_returnflag)), sum(ascii(l_linestatus)),
    sum(l_shipdate - DATE '1990-01-01'), sum(l_commitdate - DATE '1990-01-01'), sum(l_receiptdate - DATE '1990-01-01'),
    sum(length(l_shipinstruct)), sum(length(l_shipmode)), sum(length(l_comment) * l_linenumber) FROM lineitem"""
ACCOUNTS = 10_000
TOKEN = "a-token-of-the-benchmark"



def wrong(what):
    sys.exit(f"wrong answer: {what}")


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def in_turns(rounds, contenders):
    """Runs each of {name: work} once a round; the times of each."""
    names = list(contenders)
    times = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            times[name].append(contenders[name](turn))
            print(f"round {turn + 1} of {rounds}: {name} {times[name][-1]:.3f} s", file=sys.stderr)
    return times


def replay(path, ready, keys=None):
    """A Flight server that sends a table from memory, until its process ends; over TLS with the certificate in `keys`."""

    class Replay(pyarrow.flight.FlightServerBase):
        def do_get(self, context, ticket):
            return pyarrow.flight.RecordBatchStream(table)

    table = pyarrow.ipc.open_file(pyarrow.OSFile(str(path))).read_all()
    if keys is None:
        server = Replay("grpc://127.0.0.1:0")
    else:
        pair = pyarrow.flight.CertKeyPair((keys / "server.pem").read_bytes(), (keys / "server.key").read_bytes())
        server = Replay("grpc+tls://127.0.0.1:0", tls_certificates=[pair])
    ready.put(server.port)
    server.serve()


class Bench:
    """Servers, tables and the means to ask for them."""

    def __init__(self, chosen):
        self.chosen, self.work = chosen, chosen.work
        self.program, self.client = chosen.rustydb.resolve(), chosen.client.resolve()
        self.store = self.work / f"sf{chosen.scale}"
        self.arrow = self.work / f"lineitem-sf{chosen.scale}.arrow"
        self.make_store()

    def make_store(self):
        if self.store.is_dir():
            return
        unfinished = self.store.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [self.program, "tpch", "--scale", self.chosen.scale, "--data", unfinished, "--runs", "1", "--queries", "6"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        unfinished.rename(self.store)

    def serve(self, data, *arguments):
        return rustydb_server.Server(data, *map(str, arguments), program=self.program)

    @contextlib.contextmanager
    def own_directory(self, name):
        directory = self.work / name
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        yield directory
        shutil.rmtree(directory)

    def export(self, server):
        """Lineitem as the server's batches, in a file that stays."""
        if self.arrow.is_file():
            return
        unfinished = self.arrow.with_suffix(".part")
        batches = self.fetch(server.uri)
        schema = next(batches)
        with pyarrow.OSFile(str(unfinished), "wb") as file, pyarrow.ipc.new_file(file, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        unfinished.rename(self.arrow)

    def fetch(self, uri, ticket=None, authority=None):
        """The schema and then batch by batch: a client that keeps them would measure its own memory."""
        with pyarrow.flight.connect(uri, **({"tls_root_certs": authority} if authority else {})) as client:
            if ticket is None:
                info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: LINEITEM}))
                ticket = info.endpoints[0].ticket
            reader = client.do_get(ticket)
            yield reader.schema
            for chunk in reader:
                yield chunk.data

    def fetch_all(self, *where, **how):
        batches = self.fetch(*where, **how)
        next(batches)
        return sum(batch.num_rows for batch in batches)

    @contextlib.contextmanager
    def replaying(self, keys=None):
        """The port of a server that replays lineitem."""
        ready = multiprocessing.Queue()
        other = multiprocessing.Process(target=replay, args=(self.arrow, ready, keys), daemon=True)
        other.start()
        yield ready.get(timeout=600)
        other.terminate()
        other.join()

    @contextlib.contextmanager
    def doing_nothing(self):
        """A server that answers prepared queries with ready-made messages, those for the key 1."""
        command = [self.client, "nothing", "127.0.0.1:0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            if not (ready := process.stdout.readline()):
                wrong(f"the server that does nothing ended with {process.wait()}")
            host, port = json.loads(ready)["address"].rsplit(":", 1)
            try:
                yield types.SimpleNamespace(host=host, port=port, process_id=process.pid)
            finally:
                process.kill()

    def sums(self, batches):
        """Of Arrow batches, by DuckDB."""
        lineitem = pyarrow.RecordBatchReader.from_batches(next(batches), batches)
        with duckdb.connect() as database:
            database.register("lineitem", lineitem)
            return [str(number) for number in database.execute(SUMS).fetchone()]

    def ask(self, uri, sql):
        with adbc_driver_flightsql.dbapi.connect(uri, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return [str(number) for number in cursor.fetchone()] if cursor.description else None

    def measure_fetch(self):
        with self.serve(self.store) as server:
            self.export(server)
            with self.replaying() as port:
                uri, everything = f"grpc://127.0.0.1:{port}", pyarrow.flight.Ticket(b"all")
                # These count as warming up, too.
                ours = self.sums(self.fetch(server.uri))
                if (theirs := self.sums(self.fetch(uri, everything))) != ours:
                    wrong(f"lineitem sums to {ours} and, replayed, to {theirs}")

                def timed(*where):
                    taken, rows = seconds(lambda: self.fetch_all(*where))
                    return taken if str(rows) == ours[0] else wrong(f"{rows} rows instead of {ours[0]}")

                times = in_turns(
                    self.chosen.rounds,
                    {"rustydb": lambda _: timed(server.uri), "replay": lambda _: timed(uri, everything)},
                )
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        return {
            "rows": int(ours[0]),
            "bytes": self.arrow.stat().st_size,
            "times_s": times,
            "share_of_replay": medians["replay"] / medians["rustydb"],
            "mib_per_s": self.arrow.stat().st_size / 2**20 / medians["rustydb"],
        }

    def measure_ingest(self):
        if not self.arrow.is_file():
            with self.serve(self.store) as server:
                self.export(server)
        table = pyarrow.ipc.open_file(pyarrow.OSFile(str(self.arrow))).read_all()
        with duckdb.connect() as database:
            database.register("lineitem", table)
            expected = [str(number) for number in database.execute(SUMS).fetchone()]

        def rustydb(_):
            with self.own_directory("ingest") as directory:
                with self.serve(directory / "data") as server:
                    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
                        with connection.cursor() as cursor:
                            cursor.execute(WITH_KEY)
                            taken, rows = seconds(lambda: cursor.adbc_ingest("lineitem", table, mode="append"))
                    server.kill()
                with self.serve(directory / "data") as server:
                    if rows != table.num_rows or (found := self.ask(server.uri, SUMS)) != expected:
                        wrong(f"{rows} rows were ingested; after kill -9 they sum to {found}, not {expected}")
            return taken

        def duckdb_with(definition):
            def run(_):
                with self.own_directory("duckdb") as directory:
                    database = duckdb.connect(str(directory / "database"))
                    database.execute(definition)
                    database.register("source", table)
                    statement = "INSERT INTO lineitem SELECT * FROM source"
                    taken, _ = seconds(lambda: database.execute(statement).fetchall())
                    if (found := [str(number) for number in database.execute(SUMS).fetchone()]) != expected:
                        wrong(f"DuckDB's rows sum to {found}, not {expected}")
                    database.close()
                return taken

            return run

        contenders = {"rustydb": rustydb, "duckdb": duckdb_with(WITHOUT_KEY), "duckdb_with_key": duckdb_with(WITH_KEY)}
        times = in_turns(self.chosen.rounds, contenders)
        rates = {name: table.num_rows / statistics.median(taken) for name, taken in times.items()}
        return {
            "rows": table.num_rows,
            "times_s": times,
            "rows_per_s": rates,
            "share_of_duckdb": rates["rustydb"] / rates["duckdb"],
            "share_of_duckdb_with_key": rates["rustydb"] / rates["duckdb_with_key"],
        }

    def load(self, server, mode, connections, sql, keys):
        """One round of the load client, with the server's processor time per request."""
        address = f"{server.host}:{server.port}"
        used = processor_seconds(server.process_id)
        command = [self.client, mode, address, connections, self.chosen.seconds, sql, keys]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        if done.returncode != 0:
            wrong(done.stderr)
        measured = json.loads(done.stdout)
        used = processor_seconds(server.process_id) - used
        measured["server_us_each"] = used * 1e6 / max(measured["requests"], 1)
        return measured

    def load_in_turns(self, contenders, sql):
        """Loads servers, {name: (server, mode of the client, number of keys)}, with 1 and 8 connections."""
        runs, names = {}, list(contenders)
        for turn in range(self.chosen.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                server, mode, keys = contenders[name]
                for connections in (1, 8):
                    run = self.load(server, mode, connections, sql, keys)
                    runs.setdefault(f"{name}_{connections}", []).append(run)
                    print(f"round {turn + 1}: {name}, {connections} connections: {run}", file=sys.stderr)
        kinds = ("per_s", "p50_us", "p99_us", "server_us_each")
        medians = {name: {kind: statistics.median(run[kind] for run in own) for kind in kinds} for name, own in runs.items()}
        return {"medians": medians, "runs": runs}

    def measure_points(self):
        with self.serve(self.store) as server:
            customers = int(self.ask(server.uri, "SELECT count(*) FROM customer")[0])
            query = "SELECT c_custkey, c_name, c_acctbal FROM customer WHERE c_custkey = $1"
            with self.doing_nothing() as nothing:
                contenders = {
                    "points": (server, "points", customers),
                    "points-nothing": (nothing, "points", 1),
                    "driver": (server, "driver", customers),
                    "driver-nothing": (nothing, "driver", 1),
                    "exchange": (server, "exchange", customers),
                }
                figures = self.load_in_turns(contenders, query)
        per_s = {name: own["per_s"] for name, own in figures["medians"].items()}
        pairs = [(f"{mode}_{number}", f"{mode}-nothing_{number}") for mode in ("points", "driver") for number in (1, 8)]
        return {**figures, "share_of_nothing": {ours: per_s[ours] / per_s[nothing] for ours, nothing in pairs}}

    def measure_updates(self):
        with self.own_directory("updates") as directory:
            with self.serve(directory / "data") as server:
                self.ask(server.uri, "CREATE TABLE account (id BIGINT PRIMARY KEY, changes BIGINT NOT NULL, note TEXT)")
                rows = f"SELECT value, 0, 'account ' || value FROM generate_series(1, {ACCOUNTS}) AS s (value)"
                self.ask(server.uri, f"INSERT INTO account {rows}")
                update = "UPDATE account SET changes = changes + 1 WHERE id = $1"
                figures = self.load_in_turns({"updates": (server, "updates", ACCOUNTS)}, update)
                server.kill()
            acknowledged = sum(run["requests"] for run in sum(figures["runs"].values(), []))
            with self.serve(directory / "data") as server:
                found = int(self.ask(server.uri, "SELECT sum(changes) FROM account")[0])
            if found != acknowledged:
                wrong(f"{acknowledged} updates were acknowledged, {found} are there after kill -9")
            return {**figures, "sync_us": sync_microseconds(directory / "sync")}

    def measure_idle(self):
        figures = {"connections": self.chosen.idle}
        with self.own_directory("idle") as directory:
            (directory / "tokens").write_text(TOKEN + "\n")
            (directory / "plain.toml").write_text(f"[flight]\ntoken_file = '{directory}/tokens'\n")
            tls = self.make_certificates(directory)
            (directory / "tls.toml").write_text(f"{tls}token_file = '{directory}/tokens'\n")
            authority = directory / "keys" / "tls" / "ca.pem"
            for name, scheme, options in (("plain", "grpc", ()), ("tls", "grpc+tls", (authority,))):
                with self.serve(directory / name, "--config", directory / f"{name}.toml") as server:
                    figures[name] = self.hold_idle(server, f"{scheme}://localhost:{server.port}", options)
        return figures

    def hold_idle(self, server, uri, options):
        before = resident_mib(server.process_id)
        command = [self.client, "idle", uri, str(self.chosen.idle), TOKEN, *map(str, options)]
        client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not (ready := client.stdout.readline()):
            wrong(f"idle connections: the client ended with {client.wait()}")
        opened = json.loads(ready)
        after = resident_mib(server.process_id)
        client.stdin.close()
        client.wait()
        client.stdout.close()
        each = (after - before) * 1024 / max(opened["connections"], 1)
        return {"before_mib": before, "after_mib": after, "kib_each": each, "seconds_to_open": opened["seconds"]}

    def make_certificates(self, directory):
        """Returns the settings that use them."""
        (directory / "password").write_text("benchmark\n")
        command = [self.program, "init", "--data", directory / "keys", "--password-file", directory / "password"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        tls = directory / "keys" / "tls"
        return f"[flight]\ntls_certificate = '{tls}/server.pem'\ntls_key = '{tls}/server.key'\n"

    def measure_tls(self):
        """RustyDB's server and the replay, each with and without TLS: what of the difference is ours."""
        with self.own_directory("tls") as directory:
            (directory / "tls.toml").write_text(self.make_certificates(directory))
            keys = directory / "keys" / "tls"
            authority = (keys / "ca.pem").read_bytes()
            expected = set()

            used = {"server": {}, "client": {}}

            def fetched(uri, ticket, authority, used_by=lambda: []):
                """The time of a fetch, and the processor time that it took those of `used_by`."""
                fetch = lambda: expected.add(self.fetch_all(uri, ticket, authority=authority))
                fetch()
                before = used_by()
                taken = statistics.median(seconds(fetch)[0] for _ in range(3))
                return taken, [(after - start) / 3 for start, after in zip(before, used_by())]

            def own(options, scheme, authority):
                with self.serve(self.store, *options) as server:
                    self.export(server)
                    both = lambda: [processor_seconds(process) for process in (server.process_id, os.getpid())]
                    taken, each = fetched(f"{scheme}://localhost:{server.port}", None, authority, both)
                    for side, processor in zip(used, each):
                        used[side].setdefault(scheme, []).append(processor)
                    return taken

            def replayed(keys, scheme, authority):
                with self.replaying(keys) as port:
                    return fetched(f"{scheme}://localhost:{port}", pyarrow.flight.Ticket(b"all"), authority)[0]

            times = in_turns(
                self.chosen.rounds,
                {
                    "plain": lambda _: own((), "grpc", None),
                    "tls": lambda _: own(("--config", directory / "tls.toml"), "grpc+tls", authority),
                    "replay_plain": lambda _: replayed(None, "grpc", None),
                    "replay_tls": lambda _: replayed(keys, "grpc+tls", authority),
                },
            )
        if len(expected) != 1:
            wrong(f"numbers of rows: {sorted(expected)}")
        medians = {name: statistics.median(taken) for name, taken in times.items()}
        slower = {name: medians[f"{name}tls"] / medians[f"{name}plain"] - 1 for name in ("", "replay_")}
        processors = {side: {kind: statistics.median(each) for kind, each in own.items()} for side, own in used.items()}
        return {
            "times_s": times,
            "slower": slower[""],
            "replay_slower": slower["replay_"],
            "processor_s": {side: {"plain": own["grpc"], "tls": own["grpc+tls"]} for side, own in processors.items()},
        }

    def measure_cancel(self):
        """How long the client waits for the end of a statement it cancels, and what the server still does after that."""
        endless = "SELECT count(*) FROM lineitem a, lineitem b WHERE a.l_suppkey * b.l_suppkey % 1000003 = 17"
        waited, used = [], []

        def one(server):
            with pyarrow.flight.connect(server.uri) as client, pyarrow.flight.connect(server.uri) as other:
                info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: endless}))
                ended = threading.Event()

                def fetch_it():
                    # Not read_all, which would interrupt the main thread, as if somebody had pressed Ctrl-C.
                    try:
                        for _ in client.do_get(info.endpoints[0].ticket):
                            pass
                    except (pyarrow.ArrowException, pyarrow.ArrowCancelled):
                        ended.set()

                fetching = threading.Thread(target=fetch_it)
                fetching.start()
                before = processor_seconds(server.process_id)
                while processor_seconds(server.process_id) < before + 0.5:
                    time.sleep(0.05)
                start = time.perf_counter()
                body = flight_sql.message({1: info.serialize()})
                list(other.do_action(pyarrow.flight.Action("CancelFlightInfo", body)))
                if not ended.wait(60):
                    wrong("a cancelled statement goes on")
                waited.append(1000 * (time.perf_counter() - start))
                before = processor_seconds(server.process_id)
                time.sleep(1)
                used.append(1000 * (processor_seconds(server.process_id) - before))
                fetching.join()

        with self.serve(self.store) as server:
            for _ in range(self.chosen.rounds):
                one(server)
        return {"client_waits_ms": waited, "server_busy_afterwards_ms": used}


def processor_seconds(process_id):
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(process_id):
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def sync_microseconds(path):
    """What the disk takes to make 4 KiB durable in a file that has its size already."""
    times = []
    with open(path, "wb", buffering=0) as file:
        file.write(bytes(4096 * 200))
        os.fsync(file.fileno())
        file.seek(0)
        for _ in range(200):
            start = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            times.append(1e6 * (time.perf_counter() - start))
    return statistics.median(times)
