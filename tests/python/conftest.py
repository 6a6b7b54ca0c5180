"""Fixtures: one server for the tests that only need SQL, and the means to make others."""

import itertools

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow.flight
import pytest

import rustydb_server

_numbers = itertools.count(1)


def pytest_configure(config):
    program = rustydb_server.binary()
    if not program.exists():
        pytest.exit(f"no binary at {program}: run `cargo xtask python`, which builds it", returncode=2)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server that all tests share: a test makes its own tables (see `table`)."""
    with rustydb_server.Server(tmp_path_factory.mktemp("shared") / "data") as running:
        yield running
        assert running.is_running(), "the shared server died:\n" + running.output
        assert running.stop() == 0, running.output


@pytest.fixture
def start(tmp_path):
    """Starts a server of the test's own on `tmp_path/data`; what still runs at the end is killed."""
    started = []

    def start(*arguments, **options):
        options.setdefault("data", tmp_path / "data")
        started.append(rustydb_server.Server(options.pop("data"), *arguments, **options))
        return started[-1]

    yield start
    for running in started:
        if running.is_running():
            running.kill()


@pytest.fixture
def connection(server):
    """An ADBC connection to the shared server that commits each statement."""
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
        yield connection


@pytest.fixture
def cursor(connection):
    with connection.cursor() as cursor:
        yield cursor


@pytest.fixture
def low_level(server):
    """The same without the DB-API layer."""
    with adbc_driver_flightsql.connect(server.uri) as database:
        with adbc_driver_manager.AdbcConnection(database) as connection:
            yield connection


@pytest.fixture
def client(server):
    """A pyarrow.flight client of the shared server."""
    with pyarrow.flight.connect(server.uri) as client:
        yield client


@pytest.fixture
def table():
    """A table name that no other test uses."""
    return f"t{next(_numbers)}"
