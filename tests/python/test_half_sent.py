"""Messages of which the beginning comes and no more. The server has room for some of them, refuses the others after a while,
and serves who sends whole ones.
"""

import contextlib
import ssl
import struct
import time

import pyarrow
import pyarrow.flight
import pytest

import flight_sql
import grpc_wire
from rustydb_server import run
from test_abuse import answer, resident_mib
from test_broken_off import ERRORS, WAYS_TO_LEAVE, until
from test_frozen import DEADLINE_EXCEEDED
from test_security import PASSWORD, connect

METHODS = ["GetFlightInfo", "PollFlightInfo", "GetSchema", "DoAction", "DoGet", "DoPut", "DoExchange"]
# Those that find out who calls before they read.
KNOWING = ["DoGet", "DoPut", "DoExchange"]
MIB = 1 << 20
# Of these the server has nearly a MiB each: twice what has come, each time that it makes room.
CLAIMED, HERE = MIB - 5, 600_000


@pytest.fixture
def own(start, tmp_path):
    """Starts a server with these settings of `[flight]`."""

    def own(*arguments, **settings):
        lines = [f"{name} = {value!r}\n" for name, value in settings.items()]
        (tmp_path / "half.toml").write_text("[flight]\n" + "".join(lines))
        return start("--config", tmp_path / "half.toml", *arguments)

    return own


# Room for one of them, or one of the greatest length.
NARROW = {"message_size": "2MiB", "message_size_total": "2MiB"}


def half_sent(wire, method, claimed=CLAIMED, here=HERE):
    call = wire.call(method)
    call.send_bytes(struct.pack(">BI", 0, claimed) + bytes(here))
    return call


def fits(client, method):
    """Whether there is room for a message that leaves none for any other."""
    # Long enough for what fits, and short of what the server waits for room.
    options = pyarrow.flight.FlightCallOptions(timeout=3)
    filling = "x" * 1_900_000
    try:
        if method in KNOWING:
            flight_sql.update(client, f"DROP TABLE IF EXISTS nothing /* {filling} */", options)
        else:
            sql = f"SELECT length('{filling}') AS n"
            assert flight_sql.query(client, sql, options).to_pylist() == [{"n": 1_900_000}]
        return True
    except pyarrow.flight.FlightTimedOutError:
        return False
    except ERRORS as error:
        assert "[53200]" in str(error) and "flight.message_size_total" in str(error), error
        return False


def refusal(call):
    with pytest.raises(grpc_wire.Refused) as refused:
        call.answers()
    return refused.value.code, refused.value.sqlstate


def read_until_over(calls, number):
    while sum(call.is_over for call in calls) < number:
        for wire in {call.connection for call in calls}:
            while wire.has_news():
                wire.read_frame()
        time.sleep(0.01)


@pytest.mark.parametrize("method", METHODS)
def test_what_finds_no_room_is_refused_and_others_are_served(own, method):
    # Who waits for room does so for a quarter of this.
    server = own(**NARROW, transfer_idle="8s")
    with pyarrow.flight.connect(server.uri) as client, grpc_wire.Connection(server) as wire:
        until(lambda: fits(client, method))
        calls = [half_sent(wire, method) for _ in range(8)]
        # While they wait.
        for _ in range(10):
            assert flight_sql.query(client, "SELECT 42 AS n").to_pylist() == [{"n": 42}]
        # Which of them has the room is the server's affair.
        read_until_over(calls, 6)
        for call in calls:
            if call.is_over:
                assert refusal(call) == (grpc_wire.RESOURCE_EXHAUSTED, "53200")
            else:
                call.cancel()
        until(lambda: fits(client, method))
    assert server.stop() == 0, server.output


def half_sent_and_there(wire, client):
    """One that the server has, so that it has no room for a larger one."""
    while True:
        call = half_sent(wire, "DoPut")
        while not call.is_over:
            if not fits(client, "DoPut"):
                return call
            # It may have come while the other had the room.
            while wire.has_news():
                wire.read_frame()


WAYS_TO_END = {**WAYS_TO_LEAVE, "complete": lambda wire, call: call.send_bytes(bytes(CLAIMED - HERE))}


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_the_room_comes_back_with_the_end(own, way):
    server = own(**NARROW)
    with pyarrow.flight.connect(server.uri) as client, grpc_wire.Connection(server) as wire:
        call = half_sent_and_there(wire, client)
        WAYS_TO_END[way](wire, call)
        until(lambda: fits(client, "DoPut"))
    assert server.stop() == 0, server.output


def test_who_waits_for_room_goes_on_when_there_is_some(own):
    server = own(**NARROW)
    descriptor = grpc_wire.descriptor("CommandStatementQuery", {1: f"SELECT length('{'x' * 1_500_000}') AS n"})
    framed = struct.pack(">BI", 0, len(descriptor)) + descriptor
    with grpc_wire.Connection(server) as wire:
        calls = [wire.call("GetSchema") for _ in range(4)]
        # All have begun before one is complete.
        for call in calls:
            call.send_bytes(framed[:HERE])
        for call in calls:
            call.send_bytes(framed[HERE:])
            call.end()
        for call in calls:
            assert len(call.answers()) == 1
    assert server.stop() == 0, server.output


def test_many_of_them_take_no_more_memory_than_there_is_for_all(own):
    server = own("--memory-limit", "512MiB", message_size_total="64MiB", transfer_idle="20s")
    assert answer(server) == 42
    memory = resident_mib(server)
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(grpc_wire.Connection(server)) for _ in range(10)]
        # They send 600 MiB, and announce twelve gigabytes. No connection has more under way than HTTP/2 takes unread.
        for _ in range(5):
            calls = [half_sent(wire, "DoPut", 60 * MIB, 3 * MIB) for wire in wires for _ in range(4)]
            assert answer(server) == 42
            assert resident_mib(server) < memory + 256
            read_until_over(calls, len(calls) - 1)
    with pyarrow.flight.connect(server.uri) as client:
        until(lambda: fits(client, "DoPut"))
    assert server.stop() == 0, server.output


def test_who_has_not_logged_in_takes_no_room_from_those_who_have(start, tmp_path):
    data, password = tmp_path / "data", tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    done = run("init", "--data", data, "--administrator", "ann", "--password-file", password)
    assert done.returncode == 0, done.stderr
    configuration = data / "rustydb.toml"
    lines = "".join(f"{name} = {value!r}\n" for name, value in NARROW.items())
    configuration.write_text(configuration.read_text().replace("[flight]\n", "[flight]\n" + lines))
    server = start("--config", configuration, data=data)
    tls = ssl.create_default_context(cafile=str(data / "tls" / "ca.pem"))
    tls.set_alpn_protocols(["h2"])
    with grpc_wire.Connection(server, tls) as wire, connect(server, data) as connection:
        for method in METHODS + ["Handshake"]:
            calls = [half_sent(wire, method) for _ in range(4)]
            if method in KNOWING or method == "Handshake":
                expected = "28000" if method in KNOWING else "54000"
                read_until_over(calls, len(calls))
                assert {refusal(call)[1] for call in calls} == {expected}
            with connection.cursor() as cursor:
                rows = pyarrow.table({"a": pyarrow.array(range(100_000))})
                cursor.adbc_ingest("t", rows, mode="create_append")
            for call in calls:
                if not call.is_over:
                    call.cancel()
    assert server.stop() == 0, server.output


def test_a_message_whose_end_does_not_come_is_given_up(own):
    server = own(transfer_idle="1s")
    with grpc_wire.Connection(server) as wire:
        for call in [half_sent(wire, method) for method in METHODS]:
            assert refusal(call) == (DEADLINE_EXCEEDED, "57014"), call.number
    assert server.stop() == 0, server.output
