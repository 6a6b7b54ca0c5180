"""Users, certificates and signals of the real binary: what keeps strangers out, and secrets in."""

import pathlib
import signal
import subprocess

import adbc_driver_flightsql
import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pyarrow
import pyarrow.flight
import pytest

import flight_sql
import rustydb_server
from rustydb_server import run

PASSWORD = "correct horse battery staple"


@pytest.fixture
def initialised(tmp_path):
    """A data directory made by `rustydb init`, with the administrator `ann`."""
    (tmp_path / "password").write_text(PASSWORD + "\n")
    done = run("init", "--data", tmp_path / "data", "--administrator", "ann", "--password-file", tmp_path / "password")
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    return tmp_path / "data"


def serve(start, data, *arguments):
    return start("--config", data / "rustydb.toml", *arguments, data=data)


def secure_uri(server):
    return f"grpc+tls://localhost:{server.port}"


def connect(server, data, user="ann", password=PASSWORD, **options):
    kwargs = {
        "username": user,
        "password": password,
        adbc_driver_flightsql.DatabaseOptions.TLS_ROOT_CERTS.value: (data / "tls" / "ca.pem").read_text(),
        **options,
    }
    return adbc_driver_flightsql.dbapi.connect(secure_uri(server), db_kwargs=kwargs, autocommit=True)


def answer(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT 6 * 7")
        return cursor.fetchone()[0]


def test_init_makes_a_server_that_lets_in_its_administrator(start, initialised):
    server = serve(start, initialised)
    with connect(server, initialised) as connection:
        assert answer(connection) == 42
    with pyarrow.flight.connect(
        secure_uri(server), tls_root_certs=(initialised / "tls" / "ca.pem").read_bytes()
    ) as client:
        header = client.authenticate_basic_token("ann", PASSWORD)
        options = pyarrow.flight.FlightCallOptions(headers=[header])
        assert flight_sql.query(client, "SELECT 1 AS one", options).to_pylist() == [{"one": 1}]
        with pytest.raises(pyarrow.flight.FlightUnauthenticatedError, match="28000"):
            flight_sql.query(client, "SELECT 1 AS one")
    # The next start knows the users, too.
    assert server.stop() == 0
    server = serve(start, initialised)
    with connect(server, initialised) as connection:
        assert answer(connection) == 42


def test_init_prints_a_password_once_and_does_not_run_twice(tmp_path):
    first = run("init", "--data", tmp_path / "data")
    assert first.returncode == 0, first.stderr
    (password,) = [line.split()[1] for line in first.stdout.splitlines() if line.startswith("password:")]
    assert len(password) == 24
    for path in (tmp_path / "data").rglob("*"):
        if path.is_file():
            assert password.encode() not in path.read_bytes(), path
            if path.suffix == ".key" or path.name == "users":
                assert path.stat().st_mode & 0o777 == 0o600, path
    again = run("init", "--data", tmp_path / "data")
    assert again.returncode == 2
    assert run("check", "--data", tmp_path / "data").returncode == 0


def test_a_wrong_password_is_refused_and_then_slowed_down(start, initialised):
    server = serve(start, initialised)
    seen = set()
    for _ in range(8):
        with pytest.raises(adbc_driver_manager.Error) as refused:
            connect(server, initialised, password="wrong horse")
        seen |= {code for code in ("28P01", "53300") if code in str(refused.value)}
        assert "wrong horse" not in str(refused.value)
    assert seen == {"28P01", "53300"}
    with pytest.raises(adbc_driver_manager.Error, match="28P01"):
        connect(server, initialised, user="nobody")
    server.stop()
    assert "wrong horse" not in server.output and PASSWORD not in server.output
    assert "login failed" in server.output


def test_plain_text_and_unknown_authorities_are_refused(start, initialised):
    server = serve(start, initialised)
    with pytest.raises(adbc_driver_manager.Error):
        adbc_driver_flightsql.dbapi.connect(
            f"grpc://localhost:{server.port}", db_kwargs={"username": "ann", "password": PASSWORD}
        )
    without_authority = {"username": "ann", "password": PASSWORD}
    with pytest.raises(adbc_driver_manager.Error):
        adbc_driver_flightsql.dbapi.connect(secure_uri(server), db_kwargs=without_authority)
    with connect(server, initialised) as connection:
        assert answer(connection) == 42


def test_mutual_tls_wants_a_certificate_of_the_authority(start, tmp_path):
    data = tmp_path / "data"
    (tmp_path / "password").write_text(PASSWORD)
    arguments = ["--administrator", "ann", "--password-file", tmp_path / "password", "--client", "ann"]
    assert run("init", "--data", data, *arguments).returncode == 0
    server = serve(start, data)
    with pytest.raises(adbc_driver_manager.Error):
        connect(server, data)
    certificate = {
        adbc_driver_flightsql.DatabaseOptions.MTLS_CERT_CHAIN.value: (data / "tls" / "ann.pem").read_text(),
        adbc_driver_flightsql.DatabaseOptions.MTLS_PRIVATE_KEY.value: (data / "tls" / "ann.key").read_text(),
    }
    with connect(server, data, **certificate) as connection:
        assert answer(connection) == 42
    # A certificate alone is not a login.
    with pytest.raises(adbc_driver_manager.Error, match="28P01"):
        connect(server, data, password="wrong horse", **certificate)
    shell = ["sql", "--url", secure_uri(server), "--user", "ann", "--password-file", tmp_path / "password"]
    shell += ["--ca-certificate", data / "tls" / "ca.pem", "--format", "csv", "-c", "SELECT 42 AS answer"]
    tls = ["--client-certificate", data / "tls" / "ann.pem", "--client-key", data / "tls" / "ann.key"]
    assert run(*shell, *tls).stdout.split() == ["answer", "42"]
    assert run(*shell).returncode == 3


def test_users_are_managed_in_sql_and_survive_a_crash(start, initialised):
    server = serve(start, initialised)
    with connect(server, initialised) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER bob PASSWORD 'another secret'")
        cursor.execute("SHOW USERS")
        assert cursor.fetchall() == [("ann", "YES", "YES"), ("bob", "NO", "YES")]
    server.kill()
    server = serve(start, initialised)
    with connect(server, initialised, user="bob", password="another secret") as bob, bob.cursor() as cursor:
        with pytest.raises(adbc_driver_manager.Error, match="42501"):
            cursor.execute("CREATE USER eve PASSWORD 'long enough'")
        cursor.adbc_statement.set_sql_query("ALTER USER CURRENT_USER PASSWORD 'yet another secret'")
        cursor.adbc_statement.execute_update()
        cursor.adbc_statement.set_sql_query("SELECT 1")
        with pytest.raises(adbc_driver_manager.Error, match="28000"):
            cursor.adbc_statement.execute_query()
    with pytest.raises(adbc_driver_manager.Error, match="28P01"):
        connect(server, initialised, user="bob", password="another secret")
    server.stop()
    for secret in ("another secret", "yet another secret", "argon2"):
        assert secret not in server.output


def test_damaged_users_let_nobody_in(start, initialised):
    users = initialised / "users"
    users.write_text(users.read_text().replace("ann", "eve"))
    checked = run("check", "--data", initialised)
    assert checked.returncode == 1 and "users" in checked.stdout
    refused = run("serve", "--data", initialised, "--flight", "127.0.0.1:0")
    assert refused.returncode == 3 and "users" in refused.stderr


def test_the_shell_logs_in_without_a_password_on_its_command_line(start, initialised, tmp_path):
    server = serve(start, initialised)
    command = [rustydb_server.binary(), "sql", "--url", secure_uri(server), "--user", "ann", "--format", "csv"]
    command += ["--ca-certificate", str(initialised / "tls" / "ca.pem"), "-c", "SELECT 42 AS answer"]
    environment = rustydb_server.environment()
    missing = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert missing.returncode == 2 and "RUSTYDB_PASSWORD" in missing.stderr
    environment["RUSTYDB_PASSWORD"] = PASSWORD
    shown = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert shown.stdout.split() == ["answer", "42"], shown.stderr


def test_the_shell_trusts_the_authorities_of_the_system(start, initialised):
    server = serve(start, initialised)
    command = [rustydb_server.binary(), "sql", "--url", secure_uri(server), "--user", "ann", "--format", "csv"]
    command += ["-c", "SELECT 42 AS answer"]
    # The variable is how a system with an authority of its own is told.
    environment = {**rustydb_server.environment(), "RUSTYDB_PASSWORD": PASSWORD}
    trusted = {**environment, "SSL_CERT_FILE": str(initialised / "tls" / "ca.pem")}
    shown = subprocess.run(command, capture_output=True, text=True, env=trusted)
    assert shown.stdout.split() == ["answer", "42"], shown.stderr
    stranger = {**environment, "SSL_CERT_FILE": str(initialised.parent / "stranger.pem")}
    pathlib.Path(stranger["SSL_CERT_FILE"]).write_text("")
    refused = subprocess.run(command, capture_output=True, text=True, env=stranger)
    assert refused.returncode == 3 and "certificate" in refused.stderr.lower(), refused.stderr


def test_with_users_and_certificates_it_listens_beyond_this_machine(start, initialised):
    configuration = (initialised / "rustydb.toml").read_text()
    without_tls = pathlib.Path(initialised / "plain.toml")
    without_tls.write_text(configuration.split("tls_certificate")[0])
    refused = run("serve", "--config", without_tls, "--flight", "0.0.0.0:0")
    assert refused.returncode == 2 and "without TLS" in refused.stderr
    start("--config", initialised / "rustydb.toml", data=initialised, address="0.0.0.0:0")


def test_a_second_sigterm_ends_at_once_and_loses_nothing(start, tmp_path):
    server = start("--config", grace(tmp_path, "1h"))
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection:
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (id INTEGER)")
            cursor.execute("INSERT INTO t VALUES (1), (2)")
        client = pyarrow.flight.connect(server.uri)
        endless = "SELECT a.value FROM generate_series(1, 100000) AS a(value), generate_series(1, 100000) AS b(value)"
        info = client.get_flight_info(flight_sql.command("CommandStatementQuery", {1: endless}))
        reader = client.do_get(info.endpoints[0].ticket)
        assert reader.read_chunk().data.num_rows > 0
        server.send(signal.SIGTERM)
        server.wait_for("ending in order")
        assert server.is_running(), "a request is being answered"
        assert server.stop() == 130
    server = start()
    with adbc_driver_flightsql.dbapi.connect(server.uri, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM t")
        assert cursor.fetchone() == (2,)


def grace(directory, duration):
    configuration = directory / "grace.toml"
    configuration.write_text(f"[flight]\nshutdown_grace = '{duration}'\n")
    return configuration


def test_what_one_user_has_another_can_neither_use_nor_end(start, initialised):
    server = serve(start, initialised)
    with connect(server, initialised) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER bob PASSWORD 'another secret'")

    authority = (initialised / "tls" / "ca.pem").read_bytes()
    with pyarrow.flight.connect(secure_uri(server), tls_root_certs=authority) as client:

        def login(user, password):
            return pyarrow.flight.FlightCallOptions(headers=[client.authenticate_basic_token(user, password)])

        ann, bob = login("ann", PASSWORD), login("bob", "another secret")

        def act(options, name, fields):
            return flight_sql.action(client, name, fields, f"Action{name}Request", options)

        def act_on(info, options, name):
            """The actions whose message is in no Any."""
            return list(client.do_action(pyarrow.flight.Action(name, flight_sql.message({1: info.serialize()})), options))

        prepared = act(ann, "CreatePreparedStatement", {1: "SELECT 6 * 7 AS answer"})[1]
        transaction = act(ann, "BeginTransaction", {})[1]
        savepoint = act(ann, "BeginSavepoint", {1: transaction, 2: "here"})[1]
        of_statement = flight_sql.command("CommandPreparedStatementQuery", {1: prepared})
        in_transaction = flight_sql.command("CommandStatementQuery", {1: "SELECT 1 AS one", 2: transaction})
        info = client.get_flight_info(of_statement, ann)

        # As if there were no such thing: what there is of others is nobody's business.
        for sqlstate, attempt in [
            ("26000", lambda: client.get_flight_info(of_statement, bob)),
            ("25P01", lambda: client.get_flight_info(in_transaction, bob)),
            ("34000", lambda: client.do_get(info.endpoints[0].ticket, bob).read_chunk()),
            ("25P01", lambda: act(bob, "EndTransaction", {1: transaction, 2: 1})),
            ("3B001", lambda: act(bob, "EndSavepoint", {1: savepoint, 2: 1})),
            ("25P01", lambda: act(bob, "BeginSavepoint", {1: transaction, 2: "mine"})),
            ("34000", lambda: act_on(info.endpoints[0], bob, "RenewFlightEndpoint")),
        ]:
            with pytest.raises(pyarrow.ArrowException, match=rf"\[{sqlstate}\] no such"):
                attempt()
        # These have nothing to end, which is no error.
        act(bob, "ClosePreparedStatement", {1: prepared})
        act_on(info, bob, "CancelFlightInfo")

        assert client.do_get(info.endpoints[0].ticket, ann).read_all().to_pylist() == [{"answer": 42}]
        assert client.get_flight_info(of_statement, ann).schema.names == ["answer"]
        act(ann, "EndSavepoint", {1: savepoint, 2: 1})
        act(ann, "EndTransaction", {1: transaction, 2: 1})
