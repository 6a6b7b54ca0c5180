"""Prepared statements with parameters: single values, many rows, Arrow batches."""

import datetime
import decimal

import adbc_driver_manager
import pyarrow
import pytest


@pytest.fixture
def goods(cursor, table):
    cursor.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, name TEXT, price DECIMAL(10, 2), since DATE)")
    return table


@pytest.mark.parametrize("placeholder", ["?", "$1"])
def test_a_query_takes_a_parameter(cursor, goods, placeholder):
    cursor.execute(f"INSERT INTO {goods} VALUES (1, 'pen', 1.50, NULL), (2, 'ink', 20.00, NULL)")
    cursor.execute(f"SELECT name FROM {goods} WHERE id = {placeholder}", (2,))
    assert cursor.fetchall() == [("ink",)]
    # The same statement again with another value: prepared once, executed twice.
    cursor.execute(f"SELECT name FROM {goods} WHERE id = {placeholder}", (1,))
    assert cursor.fetchall() == [("pen",)]


def test_an_insert_takes_parameters_of_each_type(cursor, goods):
    row = (1, "Zoë's pen", decimal.Decimal("1.50"), datetime.date(2026, 11, 20))
    cursor.execute(f"INSERT INTO {goods} VALUES (?, ?, ?, ?)", row)
    cursor.execute(f"INSERT INTO {goods} VALUES (?, ?, ?, ?)", (2, None, None, None))
    cursor.execute(f"SELECT * FROM {goods} ORDER BY id")
    assert cursor.fetchall() == [row, (2, None, None, None)]


def test_executemany_runs_once_per_row(cursor, goods):
    rows = [(number, f"thing {number}", decimal.Decimal(number) / 4, None) for number in range(1, 101)]
    cursor.executemany(f"INSERT INTO {goods} VALUES (?, ?, ?, ?)", rows)
    assert cursor.rowcount == 100
    cursor.execute(f"SELECT count(*), sum(price) FROM {goods}")
    assert cursor.fetchone() == (100, decimal.Decimal("1262.50"))


def test_executemany_is_all_or_nothing(cursor, goods):
    with pytest.raises(adbc_driver_manager.Error, match="23505"):
        cursor.executemany(f"INSERT INTO {goods} (id) VALUES (?)", [(1,), (2,), (1,)])
    cursor.execute(f"SELECT count(*) FROM {goods}")
    assert cursor.fetchone() == (0,)


def test_updates_and_deletes_take_batches_of_parameters(cursor, goods):
    cursor.executemany(f"INSERT INTO {goods} (id, name) VALUES (?, ?)", [(1, "a"), (2, "b"), (3, "c")])
    cursor.executemany(f"UPDATE {goods} SET name = ? WHERE id = ?", [("x", 1), ("y", 2)])
    assert cursor.rowcount == 2
    cursor.executemany(f"DELETE FROM {goods} WHERE id = ?", [(3,), (4,)])
    assert cursor.rowcount == 1
    cursor.execute(f"SELECT id, name FROM {goods} ORDER BY id")
    assert cursor.fetchall() == [(1, "x"), (2, "y")]


def test_an_arrow_batch_is_a_list_of_parameters(cursor, goods):
    batch = pyarrow.RecordBatch.from_pydict({"1": pyarrow.array([1, 2], pyarrow.int32()), "2": ["a", None]})
    cursor.executemany(f"INSERT INTO {goods} (id, name) VALUES (?, ?)", batch)
    cursor.execute(f"SELECT id, name FROM {goods} ORDER BY id")
    assert cursor.fetchall() == [(1, "a"), (2, None)]


def test_preparing_tells_the_types_of_the_parameters(cursor, goods):
    schema = cursor.adbc_prepare(f"SELECT name FROM {goods} WHERE id = $1 AND price > $2")
    assert schema.types == [pyarrow.int32(), pyarrow.decimal128(10, 2)]


def test_preparing_reports_errors_at_once(cursor, goods):
    with pytest.raises(adbc_driver_manager.ProgrammingError, match="42703"):
        cursor.adbc_prepare(f"SELECT nmae FROM {goods}")


def test_too_few_parameters_are_an_error(cursor, goods):
    with pytest.raises(adbc_driver_manager.Error):
        cursor.execute(f"SELECT name FROM {goods} WHERE id = ? AND name = ?", (1,))


def test_a_parameter_is_a_value_and_never_sql(cursor, goods):
    nasty = f"'; DROP TABLE {goods}; --"
    cursor.execute(f"INSERT INTO {goods} (id, name) VALUES (1, ?)", (nasty,))
    cursor.execute(f"SELECT name FROM {goods} WHERE name = ?", (nasty,))
    assert cursor.fetchall() == [(nasty,)]
