"""All 99 queries of TPC-DS and 43 over page views agree with DuckDB; see `breadth.py`.

At the default scale a debug binary takes seconds, and a third of TPC-DS finds no rows. RUSTYDB_BREADTH_SCALE=1, with a
release binary, takes minutes and finds rows nearly everywhere.
"""

import os

import adbc_driver_flightsql.dbapi
import pytest

import breadth
import rustydb_server

SCALE = float(os.environ.get("RUSTYDB_BREADTH_SCALE", "0.01"))


@pytest.fixture(scope="module")
def workloads(tmp_path_factory):
    directory = tmp_path_factory.mktemp("breadth")
    loaded = {"tpcds": breadth.tpcds(SCALE), "hits": breadth.hits(int(2_000_000 * SCALE))}
    with (
        rustydb_server.Server(directory / "data") as server,
        adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection,
        connection.cursor() as cursor,
    ):
        for workload in loaded.values():
            workload.load(cursor)
        yield loaded, cursor


@pytest.mark.parametrize("number", range(1, 100))
def test_tpcds(workloads, number):
    loaded, cursor = workloads
    loaded["tpcds"].check(cursor, number)


@pytest.mark.parametrize("number", range(1, 44))
def test_page_views(workloads, number):
    loaded, cursor = workloads
    loaded["hits"].check(cursor, number)
