"""Transactions through ADBC's own calls and through SQL text."""

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pytest


@pytest.fixture
def connect(server):
    """Opens connections whose transactions the test ends itself."""
    opened = []

    def connect(autocommit=False):
        opened.append(adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=autocommit))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def execute(connection, sql, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def count(connection, table):
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table}")
        return cursor.fetchone()[0]


@pytest.fixture
def accounts(connection, table):
    execute(connection, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, balance INTEGER)")
    execute(connection, f"INSERT INTO {table} VALUES (1, 100), (2, 100)")
    return table


def test_others_see_a_transaction_only_once_it_is_committed(connect, connection, accounts):
    writer = connect()
    execute(writer, f"INSERT INTO {accounts} VALUES (3, 100)")
    assert count(writer, accounts) == 3
    assert count(connection, accounts) == 2
    writer.commit()
    assert count(connection, accounts) == 3


def test_rollback_undoes_everything(connect, connection, accounts):
    writer = connect()
    execute(writer, f"DELETE FROM {accounts} WHERE id = 1")
    execute(writer, f"UPDATE {accounts} SET balance = 0")
    writer.rollback()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {accounts} ORDER BY id")
        assert cursor.fetchall() == [(1, 100), (2, 100)]


def test_the_next_transaction_begins_by_itself(connect, connection, accounts):
    writer = connect()
    for identifier in (3, 4):
        execute(writer, f"INSERT INTO {accounts} VALUES (?, 0)", (identifier,))
        writer.commit()
    assert count(connection, accounts) == 4


def test_one_cursor_goes_on_over_commits_and_rollbacks(connect, connection, accounts):
    writer = connect()
    with writer.cursor() as cursor:
        for identifier in (3, 4):
            cursor.execute(f"INSERT INTO {accounts} VALUES (?, 0)", (identifier,))
            writer.commit()
        cursor.execute(f"INSERT INTO {accounts} VALUES (?, 0)", (5,))
        writer.rollback()
        cursor.executemany(f"INSERT INTO {accounts} VALUES (?, 0)", [(5,), (6,)])
        writer.commit()
        cursor.executemany(f"INSERT INTO {accounts} VALUES (?, 0)", [(7,), (8,)])
        writer.commit()
        for end in (writer.commit, writer.rollback, writer.commit):
            cursor.execute(f"SELECT count(*) FROM {accounts}")
            assert cursor.fetchone() == (8,)
            end()
    assert count(connection, accounts) == 8


def test_closing_without_commit_is_a_rollback(connect, connection, accounts):
    writer = connect()
    execute(writer, f"DELETE FROM {accounts}")
    writer.close()
    assert count(connection, accounts) == 2


def test_a_transaction_reads_one_snapshot(connect, connection, accounts):
    reader = connect()
    assert count(reader, accounts) == 2
    execute(connection, f"INSERT INTO {accounts} VALUES (3, 100)")
    assert count(reader, accounts) == 2
    reader.commit()
    assert count(reader, accounts) == 3


def test_the_second_writer_of_a_row_is_told_to_try_again(connect, connection, accounts):
    first, second = connect(), connect()
    assert count(first, accounts) == count(second, accounts) == 2
    execute(first, f"UPDATE {accounts} SET balance = balance - 10 WHERE id = 1")
    first.commit()
    with pytest.raises(adbc_driver_manager.Error, match="40001"):
        execute(second, f"UPDATE {accounts} SET balance = balance - 20 WHERE id = 1")
        second.commit()
    # The driver has no way back from a failed commit, so the transaction is tried again on a new connection.
    third = connect()
    execute(third, f"UPDATE {accounts} SET balance = balance - 20 WHERE id = 1")
    third.commit()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT balance FROM {accounts} WHERE id = 1")
        assert cursor.fetchone() == (70,)


def test_after_an_error_a_transaction_only_listens_to_its_end(connect, connection, accounts):
    writer = connect()
    execute(writer, f"INSERT INTO {accounts} VALUES (3, 100)")
    with pytest.raises(adbc_driver_manager.Error, match="23505"):
        execute(writer, f"INSERT INTO {accounts} VALUES (3, 100)")
    with pytest.raises(adbc_driver_manager.Error, match="25P02"):
        count(writer, accounts)
    writer.rollback()
    assert count(writer, accounts) == 2


def test_autocommit_can_be_switched(connect, connection, accounts):
    writer = connect(autocommit=True)
    execute(writer, f"INSERT INTO {accounts} VALUES (3, 100)")
    assert count(connection, accounts) == 3
    writer.adbc_connection.set_autocommit(False)
    execute(writer, f"INSERT INTO {accounts} VALUES (4, 100)")
    assert count(connection, accounts) == 3
    writer.rollback()
    assert count(connection, accounts) == 3
