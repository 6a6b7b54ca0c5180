"""What was acknowledged survives: a restart, kill -9 during inserts, kill -9 during a load."""

import signal
import threading

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pyarrow.flight
import pytest

import flight_sql
import rustydb_server


def execute(server, *statements):
    """Runs statements and returns the rows of the last one."""
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if statements[-1].startswith("SELECT") else None


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_clean_stop_keeps_everything_and_exits_with_zero(start, with_signal):
    server = start()
    execute(server, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, 'kept')")
    assert server.stop(with_signal) == 0, server.output
    server = start()
    assert execute(server, "SELECT * FROM t") == [(1, "kept")]


def test_a_server_whose_lock_is_removed_acknowledges_nothing_and_harms_nobody(start):
    server = start()
    execute(server, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "INSERT INTO t VALUES (1, 'kept')")
    (server.data / "LOCK").unlink()
    second = rustydb_server.run("sql", "--data", server.data, "-c", "CREATE TABLE u (id INTEGER); INSERT INTO u VALUES (7)")
    assert second.returncode == 0, second.stderr
    with pytest.raises(adbc_driver_manager.Error, match="55P02.*LOCK"):
        execute(server, "INSERT INTO t VALUES (2, 'of nobody')")
    assert execute(server, "SELECT * FROM t") == [(1, "kept")], "reads go on"
    server.stop()
    checked = rustydb_server.run("check", "--data", server.data)
    assert checked.returncode == 0, checked.stdout
    server = start()
    assert execute(server, "SELECT * FROM t") == [(1, "kept")]
    assert execute(server, "SELECT id FROM u") == [(7,)]
    execute(server, "INSERT INTO t VALUES (2, 'b')")


def test_a_stop_does_not_wait_for_idle_clients(start):
    server = start()
    client = pyarrow.flight.connect(server.uri)
    assert flight_sql.query(client, "SELECT 1 AS one").num_rows == 1
    assert server.stop() == 0, server.output
    client.close()


def test_an_open_transaction_ends_with_the_server(start):
    server = start()
    execute(server, "CREATE TABLE t (id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    connection = adbc_driver_flightsql.dbapi.connect(server.uri)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (2)")
    server.kill()
    try:
        connection.close()
    except adbc_driver_manager.Error:
        pass  # its rollback finds nobody to talk to
    server = start()
    assert execute(server, "SELECT id FROM t") == [(1,)]


class Inserter:
    """Inserts batches of three rows until the server is gone, and remembers which were acknowledged."""

    ROWS_PER_BATCH = 3

    def __init__(self, server, first_batch):
        self.acknowledged = []
        self._uri = server.uri
        self._next = first_batch
        self._enough = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._insert)
        self._thread.start()

    def wait_for(self, batches):
        for _ in range(batches):
            assert self._enough.acquire(timeout=60), "the inserts have stopped"

    def join(self):
        self._thread.join()

    def _insert(self):
        try:
            with adbc_driver_flightsql.dbapi.connect(self._uri, autocommit=True) as connection:
                with connection.cursor() as cursor:
                    while True:
                        rows = [(self._next, place) for place in range(self.ROWS_PER_BATCH)]
                        cursor.executemany("INSERT INTO t (batch, place) VALUES (?, ?)", rows)
                        self.acknowledged.append(self._next)
                        self._next += 1
                        self._enough.release()
        except adbc_driver_manager.Error:
            pass  # the server was killed


def test_kill_nine_during_inserts_loses_nothing_acknowledged_and_halves_nothing(start, tmp_path):
    server = start()
    execute(server, "CREATE TABLE t (batch BIGINT, place INTEGER, PRIMARY KEY (batch, place))")
    acknowledged = []
    for round in range(4):
        inserters = [Inserter(server, first_batch=(round * 2 + number) * 1_000_000) for number in range(2)]
        for inserter in inserters:
            inserter.wait_for(25)
        server.kill()
        for inserter in inserters:
            inserter.join()
            acknowledged += inserter.acknowledged
        server = start()
        found = dict(execute(server, "SELECT batch, count(*) FROM t GROUP BY batch"))
        assert set(acknowledged) <= set(found), f"lost in round {round}"
        assert set(found.values()) == {Inserter.ROWS_PER_BATCH}, f"half a batch in round {round}"
        # Each client may have had one batch on its way, committed but not yet acknowledged.
        assert len(found) <= len(acknowledged) + len(inserters) * (round + 1)
    assert server.stop() == 0
    checked = rustydb_server.run("check", "--data", tmp_path / "data")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("batches_before_the_kill", [1, 20])
def test_kill_nine_during_a_load_leaves_no_part_of_it(start, tmp_path, batches_before_the_kill):
    server = start()
    execute(server, "CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)", "INSERT INTO t VALUES (-1, 'before')")
    schema = pyarrow.schema([("id", pyarrow.int64()), ("note", pyarrow.string())])

    def batches(kill_after):
        for number in range(40):
            if number == kill_after:
                server.kill()
            identifiers = range(number * 5_000, (number + 1) * 5_000)
            notes = [f"a note that makes the row longer, number {i}" for i in identifiers]
            yield pyarrow.record_batch([pyarrow.array(identifiers), notes], schema=schema)

    def load(kill_after=None):
        with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
            with connection.cursor() as cursor:
                reader = pyarrow.RecordBatchReader.from_batches(schema, batches(kill_after))
                return cursor.adbc_ingest("t", reader, mode="append")

    with pytest.raises(adbc_driver_manager.Error):
        load(kill_after=batches_before_the_kill)
    server = start()
    assert execute(server, "SELECT * FROM t") == [(-1, "before")]
    # The same load goes through now: nothing of the first one is in its way.
    assert load() == 200_000
    assert execute(server, "SELECT count(*), min(id), max(id) FROM t") == [(200_001, -1, 199_999)]
    assert server.stop() == 0
    checked = rustydb_server.run("check", "--data", tmp_path / "data")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_kill_nine_right_after_a_load_keeps_it(start):
    server = start()
    rows = pyarrow.table({"id": range(100_000), "half": [number / 2 for number in range(100_000)]})
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
        with connection.cursor() as cursor:
            assert cursor.adbc_ingest("t", rows, mode="create") == 100_000
            server.kill()
    server = start()
    assert execute(server, "SELECT count(*), sum(id), sum(half) FROM t") == [(100_000, 4_999_950_000, 2_499_975_000.0)]
    assert execute(server, "INSERT INTO t VALUES (100000, 50000.0)", "SELECT count(*) FROM t") == [(100_001,)]
