"""PollFlightInfo: a statement starts, its progress rises, and its rows are there in the end.

No driver shows the progress, so this is message by message (`grpc_wire`).
"""

import pyarrow
import pyarrow.flight
import pytest

import flight_sql
import grpc_wire

# Sleeps a quarter of a second for each of 30 rows that lie far apart, so that it is long on any machine.
LONG = "SELECT count(pg_sleep(CASE WHEN id % 10000 = 0 THEN 0.25 ELSE 0 END)) AS n FROM {}"


@pytest.fixture
def many(client, table):
    flight_sql.update(client, f"CREATE TABLE {table} (id BIGINT)")
    flight_sql.update(client, f"INSERT INTO {table} SELECT value FROM generate_series(1, 300000) AS s (value)")
    return table


@pytest.fixture
def wire(server):
    with grpc_wire.Connection(server) as connection:
        yield connection


def prepare(client, sql):
    request = "ActionCreatePreparedStatementRequest"
    return flight_sql.action(client, "CreatePreparedStatement", {1: sql}, any_type=request)[1]


def poll(wire, descriptor):
    """The fields of a PollInfo: 1 the FlightInfo, 2 what to ask with again, 3 the progress, 4 when it expires."""
    return flight_sql.read_fields(wire.ask("PollFlightInfo", descriptor))


def poll_to_end(wire, descriptor):
    """Every answer, the last one being that all is there."""
    answers = [poll(wire, descriptor)]
    while 2 in answers[-1]:
        answers.append(poll(wire, answers[-1][2]))
    return answers


def fetch(client, answer):
    info = pyarrow.flight.FlightInfo.deserialize(answer[1])
    return client.do_get(info.endpoints[0].ticket).read_all().to_pylist()


@pytest.mark.parametrize("is_prepared", [False, True], ids=["statement", "prepared"])
def test_the_progress_of_a_long_query_rises_until_all_is_there(client, wire, many, is_prepared):
    sql = LONG.format(many)
    if is_prepared:
        descriptor = grpc_wire.descriptor("CommandPreparedStatementQuery", {1: prepare(client, sql)})
    else:
        descriptor = grpc_wire.descriptor("CommandStatementQuery", {1: sql})
    answers = poll_to_end(wire, descriptor)
    progress = [answer[3] for answer in answers]
    assert progress == sorted(progress)
    assert len({share for share in progress if 0 < share < 1}) >= 2, progress
    assert progress[-1] == 1.0
    tickets = {pyarrow.flight.FlightInfo.deserialize(answer[1]).endpoints[0].ticket.ticket for answer in answers}
    assert len(tickets) == 1, "one execution"
    assert fetch(client, answers[-1]) == [{"n": 300_000}]
    with pytest.raises(pyarrow.ArrowException, match="34000"):
        fetch(client, answers[-1])


def test_a_prepared_statement_is_polled_for_with_its_parameters(client, wire):
    handle = prepare(client, "SELECT $1 + 1 AS n")
    descriptor = grpc_wire.descriptor("CommandPreparedStatementQuery", {1: handle})
    with pytest.raises(grpc_wire.Refused, match=r"\[07001\]") as refused:
        poll(wire, descriptor)
    assert (refused.value.code, refused.value.sqlstate) == (grpc_wire.INVALID_ARGUMENT, "07001")
    for value in (41, 99):
        parameters = pyarrow.record_batch({"p": [value]})
        call = wire.call("DoPut")
        call.send(grpc_wire.flight_data(grpc_wire.ipc(parameters.schema.serialize()), descriptor))
        call.send(grpc_wire.flight_data(grpc_wire.ipc(parameters.serialize())))
        call.end()
        call.answers()
        answer = poll_to_end(wire, descriptor)[-1]
        assert answer[3] == 1.0
        assert fetch(client, answer) == [{"n": value + 1}]


def test_a_prepared_statement_that_was_closed_cannot_be_polled_for(client, wire):
    handle = prepare(client, "SELECT 1 AS one")
    request = "ActionClosePreparedStatementRequest"
    flight_sql.action(client, "ClosePreparedStatement", {1: handle}, any_type=request)
    with pytest.raises(grpc_wire.Refused) as refused:
        poll(wire, grpc_wire.descriptor("CommandPreparedStatementQuery", {1: handle}))
    assert (refused.value.code, refused.value.sqlstate) == (grpc_wire.NOT_FOUND, "26000")


def test_a_query_that_fails_later_on_says_so_to_who_polls(client, wire, many):
    sql = f"SELECT sum(1 / (id - 290000)), count(pg_sleep(CASE WHEN id % 100000 = 0 THEN 0.25 ELSE 0 END)) FROM {many}"
    with pytest.raises(grpc_wire.Refused) as refused:
        poll_to_end(wire, grpc_wire.descriptor("CommandStatementQuery", {1: sql}))
    assert (refused.value.code, refused.value.sqlstate) == (grpc_wire.INVALID_ARGUMENT, "22012")


def test_a_query_that_is_polled_for_can_be_cancelled(client, wire, many):
    answer = poll(wire, grpc_wire.descriptor("CommandStatementQuery", {1: f"SELECT pg_sleep(3600) AS n FROM {many}"}))
    assert 2 in answer, "it goes on"
    result = list(client.do_action(pyarrow.flight.Action("CancelFlightInfo", flight_sql.message({1: answer[1]}))))
    assert flight_sql.read_fields(result[0].body.to_pybytes()) == {1: 1}, "cancelled"
    with pytest.raises(grpc_wire.Refused) as refused:
        poll(wire, answer[2])
    assert (refused.value.code, refused.value.sqlstate) == (grpc_wire.NOT_FOUND, "34000")
