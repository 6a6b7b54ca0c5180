"""Two analytical workloads that nobody tunes for, with DuckDB as the oracle: TPC-DS, and one wide table of page views.

TPC-DS's rows and its 99 texts come from DuckDB's own extension. Page views (`breadth_hits.py`) are generated here; their
43 queries have the shapes of ClickBench: counting, grouping by few and by many values, top-k, text search, date parts.

A text with a LIMIT often has more than one right answer, because rows tie. So each text runs twice on RustyDB: without its
last LIMIT the rows must be the oracle's, and with it they must be among these, as many as the oracle returns.
"""

import datetime
import decimal
import math
import pathlib
import re

import duckdb
import duckdb_extension_tpcds
import pyarrow

import breadth_hits

# The primary keys of the specification; those of returns refer to the line that was sold.
TPCDS_KEYS = {
    "call_center": "cc_call_center_sk",
    "catalog_page": "cp_catalog_page_sk",
    "catalog_returns": "cr_item_sk, cr_order_number",
    "catalog_sales": "cs_item_sk, cs_order_number",
    "customer": "c_customer_sk",
    "customer_address": "ca_address_sk",
    "customer_demographics": "cd_demo_sk",
    "date_dim": "d_date_sk",
    "household_demographics": "hd_demo_sk",
    "income_band": "ib_income_band_sk",
    "inventory": "inv_date_sk, inv_item_sk, inv_warehouse_sk",
    "item": "i_item_sk",
    "promotion": "p_promo_sk",
    "reason": "r_reason_sk",
    "ship_mode": "sm_ship_mode_sk",
    "store": "s_store_sk",
    "store_returns": "sr_item_sk, sr_ticket_number",
    "store_sales": "ss_item_sk, ss_ticket_number",
    "time_dim": "t_time_sk",
    "warehouse": "w_warehouse_sk",
    "web_page": "wp_web_page_sk",
    "web_returns": "wr_item_sk, wr_order_number",
    "web_sales": "ws_item_sk, ws_order_number",
    "web_site": "web_site_sk",
}

HITS_KEYS = {"hits": "counter_id, event_date, user_id, event_time, watch_id"}

# The most quotients whose sum is compared.
QUOTIENTS_SUMMED = 20

# Rows of a message: ADBC sends none of more than 16 MiB.
INGESTED_ROWS = 20_000

LAST_LIMIT = re.compile(r"\bLIMIT\s+\d+(\s+OFFSET\s+\d+)?\s*$", re.IGNORECASE)


class Workload:
    """Tables in an in-memory DuckDB, and numbered texts."""

    def __init__(self, keys):
        self.keys = keys
        self.oracle = duckdb.connect()
        self.texts = {}

    def load(self, cursor):
        """Makes the same tables in RustyDB, with their keys."""
        for table, key in self.keys.items():
            columns = self.oracle.execute(f"DESCRIBE {table}").fetchall()
            declared = [f"{name} {'TEXT' if kind == 'VARCHAR' else kind}" for name, kind, *_ in columns]
            cursor.execute(f"CREATE TABLE {table} ({', '.join(declared)}, PRIMARY KEY ({key}))")
            cursor.adbc_ingest(table, self.oracle.execute(f"FROM {table}").to_arrow_reader(INGESTED_ROWS), mode="append")
        # Small tables stay in memory otherwise, where nothing is counted that the order of joins could go by.
        cursor.execute("CHECKPOINT")

    def tables_in_order(self, cursor, number):
        """The tables in a text's plan."""
        plan = rows(cursor, "EXPLAIN " + self.texts[number])[-1][1]
        return re.findall(r"ColumnScanExec: table=public\.(\w+)", plan)

    def check(self, cursor, number):
        """Runs a text on both and fails with the first difference."""
        text = self.texts[number].strip().rstrip(";").strip()
        whole = LAST_LIMIT.sub("", text)
        expected = self.oracle.execute(whole).fetchall()
        assert_same(rows(cursor, whole), expected)
        if whole == text:
            return
        count = len(self.oracle.execute(text).fetchall())
        limited = rows(cursor, text)
        assert len(limited) == count, f"{len(limited)} rows with the LIMIT instead of {count}"
        left = sorted(expected, key=sort_key)
        for row in limited:
            place = next((place for place, other in enumerate(left) if same_row(row, other)), None)
            assert place is not None, f"{row} is not in the answer without the LIMIT"
            del left[place]


def tpcds(scale):
    workload = Workload(TPCDS_KEYS)
    package = pathlib.Path(duckdb_extension_tpcds.__file__).parent
    extension = next(package.glob("extensions/*/tpcds.duckdb_extension"))
    workload.oracle.execute(f"LOAD '{extension}'")
    workload.oracle.execute(f"CALL dsdgen(sf = {scale})")
    workload.texts = dict(workload.oracle.execute("SELECT query_nr, query FROM tpcds_queries()").fetchall())
    return workload


def hits(count):
    workload = Workload(HITS_KEYS)
    workload.oracle.execute(breadth_hits.create(count))
    workload.texts = dict(enumerate(breadth_hits.QUERIES, start=1))
    return workload


def rows(cursor, text):
    cursor.execute(text)
    table = cursor.fetch_arrow_table()
    if not table.num_columns:
        return []
    return list(zip(*map(cells, table.columns)))


def cells(column):
    """The values of a column. A numeric without digits behind the point, as extract() gives one here, is an integer elsewhere."""
    values = column.to_pylist()
    whole = pyarrow.types.is_decimal(column.type) and column.type.scale == 0
    return [int(value) if whole and value is not None else value for value in values]


def assert_same(ours, expected):
    assert len(ours) == len(expected), f"{len(ours)} rows instead of {len(expected)}"
    for row, other in zip(sorted(ours, key=sort_key), sorted(expected, key=sort_key)):
        assert same_row(row, other), f"{row} instead of {other}"


def sort_key(row):
    """An order in which both engines' rows stand alike: exact cells first, then numbers, which may differ in a last digit."""
    exact = [(cell is not None, str(cell)) for cell in row if not isinstance(cell, (float, decimal.Decimal))]
    numbers = [float(cell) for cell in row if isinstance(cell, (float, decimal.Decimal))]
    kinds = [cell is None for cell in row]
    return exact, kinds, numbers


def same_row(row, other):
    return len(row) == len(other) and all(map(same_cell, row, other))


def same_cell(cell, other):
    """Exact but for quotients and averages, which are a DECIMAL of some scale here and a DOUBLE there; a sum of quotients
    adds up what each of them was cut off."""
    if cell is None or other is None:
        return cell is other
    if isinstance(cell, datetime.datetime) and isinstance(other, datetime.date) and not isinstance(other, datetime.datetime):
        return cell == datetime.datetime.combine(other, datetime.time())
    if isinstance(cell, float) or isinstance(other, float):
        cut_off = max((unit(value) for value in (cell, other) if isinstance(value, decimal.Decimal)), default=0.0)
        return math.isclose(float(cell), float(other), rel_tol=1e-9, abs_tol=max(cut_off * QUOTIENTS_SUMMED, 1e-9))
    return cell == other


def unit(value):
    """One in a decimal's last place."""
    return 10.0 ** value.as_tuple().exponent
