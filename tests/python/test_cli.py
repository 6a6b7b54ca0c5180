"""The binary from the command line: what users' scripts depend on."""

import csv
import io
import json
import socket
import subprocess

import pytest

import rustydb_server
from rustydb_server import run


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def sql(data):
    """Runs the shell on the test's own database."""

    def sql(*arguments, **options):
        return run("sql", "--data", data, *arguments, **options)

    return sql


SETUP = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'pen'), (2, 'say \"hi\", twice'), (3, NULL);"


def test_help_teaches_every_command():
    shown = run("--help")
    assert shown.returncode == 0
    for command in ("serve", "sql", "tpch", "check"):
        assert command in shown.stdout
        described = run(command, "--help")
        assert described.returncode == 0 and "--data" in described.stdout


def test_mistakes_on_the_command_line_are_status_two():
    assert run("srve").returncode == 2
    assert run("sql", "--no-such-flag").returncode == 2


def test_csv(sql):
    shown = sql("-c", SETUP, "-c", "SELECT * FROM t ORDER BY id", "--format", "csv")
    assert shown.returncode == 0, shown.stderr
    rows = list(csv.reader(io.StringIO(shown.stdout)))
    assert rows[-4:] == [["id", "name"], ["1", "pen"], ["2", 'say "hi", twice'], ["3", ""]]


def test_json(sql):
    sql("-c", SETUP)
    shown = sql("-c", "SELECT * FROM t ORDER BY id", "--format", "json")
    text = shown.stdout.strip()
    # One array, or one object per line: both are JSON to the tools that read it.
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert [row.get("name") for row in rows] == ["pen", 'say "hi", twice', None]


@pytest.mark.parametrize("form", ["table", "markdown", "expanded"])
def test_formats_for_people_show_names_and_values(sql, form):
    sql("-c", SETUP)
    shown = sql("-c", "SELECT id, name FROM t WHERE id = 1", "--format", form)
    assert shown.returncode == 0
    for text in ("id", "name", "1", "pen"):
        assert text in shown.stdout


def test_a_script_from_a_file_and_from_standard_input(sql, tmp_path):
    script = tmp_path / "script.sql"
    script.write_text(SETUP + "\n-- a comment; with a semicolon\nSELECT count(*) AS n FROM t;\n")
    assert sql("-f", script, "--format", "csv").stdout.split()[-2:] == ["n", "3"]
    assert sql("--format", "csv", input="SELECT max(id) AS top FROM t;\n").stdout.split()[-2:] == ["top", "3"]


def test_a_script_stops_at_its_first_error(sql, tmp_path):
    script = tmp_path / "script.sql"
    script.write_text("CREATE TABLE t (id INTEGER);\n\nINSERT INTO t\nVALUES (1), (nothing);\nINSERT INTO t VALUES (2);\n")
    failed = sql("-f", script)
    assert failed.returncode != 0
    assert "42703" in failed.stderr and "nothing" in failed.stderr
    assert sql("-c", "SELECT count(*) AS n FROM t", "--format", "csv").stdout.split() == ["n", "0"]


def test_errors_go_to_standard_error_with_their_place(sql):
    failed = sql("-c", "SELECT 1 AS ok", "-c", "SELECT\n  nonsense")
    assert failed.returncode == 1
    assert "ok" in failed.stdout
    assert "42703" in failed.stderr and "2" in failed.stderr
    assert "42703" not in failed.stdout


def test_the_shell_speaks_to_a_server_too(server, table):
    shown = run("sql", "--url", server.uri, "-c", f"CREATE TABLE {table} (id INTEGER)", "-c", f"INSERT INTO {table} VALUES (7)")
    assert shown.returncode == 0, shown.stderr
    shown = run("sql", "--url", server.uri, "--format", "csv", "-c", f"SELECT * FROM {table}")
    assert shown.stdout.split() == ["id", "7"]
    failed = run("sql", "--url", server.uri, "-c", "SELECT * FROM no_such_table")
    assert failed.returncode == 1 and "42P01" in failed.stderr


def test_what_the_shell_wrote_is_there_the_next_time(sql):
    sql("-c", SETUP)
    assert sql("-c", "SELECT count(*) AS n FROM t", "--format", "csv").stdout.split() == ["n", "3"]


def test_a_second_process_on_a_directory_is_refused(start, data):
    server = start(data=data)
    for refused in (run("sql", "--data", data, "-c", "SELECT 1"), run("serve", "--data", data, "--flight", "127.0.0.1:0")):
        assert refused.returncode != 0
        assert str(data) in refused.stderr and "process" in refused.stderr
    assert server.is_running()


def test_a_port_in_use_is_named(data):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run("serve", "--data", data, "--flight", f"127.0.0.1:{port}")
    assert refused.returncode != 0
    assert str(port) in refused.stderr and "in use" in refused.stderr


def test_beyond_loopback_needs_authentication_or_insecure(start, data):
    refused = run("serve", "--data", data, "--flight", "0.0.0.0:0")
    assert refused.returncode != 0 and "--insecure" in refused.stderr
    start("--insecure", data=data, address="0.0.0.0:0")


def test_a_directory_that_is_no_database_is_left_alone(sql, data):
    data.mkdir()
    (data / "letters.txt").write_text("private")
    refused = sql("-c", "SELECT 1")
    assert refused.returncode != 0
    assert str(data) in refused.stderr and "database" in refused.stderr
    assert [path.name for path in data.iterdir()] == ["letters.txt"]


def test_a_store_of_a_future_release_is_refused_and_left_as_it_is(sql, data):
    assert sql("-c", SETUP).returncode == 0
    before = sorted((path, path.read_bytes()) for path in data.rglob("*") if path.is_file())
    (data / "FORMAT").write_text("rustydb 99\n")
    for refused in (sql("-c", "DROP TABLE t"), run("check", "--data", data)):
        assert refused.returncode == 3
        assert "99" in refused.stderr and "newer" in refused.stderr
    (data / "FORMAT").write_text("rustydb 1\n")
    assert sorted((path, path.read_bytes()) for path in data.rglob("*") if path.is_file()) == before
    assert sql("-c", "SELECT count(*) AS n FROM t", "--format", "csv").stdout.split() == ["n", "3"]


def test_check_is_silent_about_a_good_store_and_names_a_damaged_file(sql, data):
    statements = ["-c", SETUP, "-c", "CREATE TABLE big AS SELECT value FROM generate_series(1, 100000) AS s(value)"]
    assert sql(*statements).returncode == 0
    good = run("check", "--data", data)
    assert good.returncode == 0, good.stdout + good.stderr
    segments = sorted(data.rglob("*.parquet"))
    assert segments, f"no segments among {sorted(map(str, data.rglob('*')))}"
    damaged = segments[0]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 0xFF
    damaged.write_bytes(content)
    bad = run("check", "--data", data)
    assert bad.returncode == 1
    assert damaged.name in bad.stdout + bad.stderr


def test_check_writes_nothing(sql, data):
    assert sql("-c", SETUP).returncode == 0
    (data / "LOCK").unlink()
    before = sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*"))
    sound = run("check", "--data", data)
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert sorted((path, path.stat().st_mtime_ns) for path in data.rglob("*")) == before


def test_check_of_nothing_says_so(tmp_path):
    missing = run("check", "--data", tmp_path / "nowhere")
    assert missing.returncode != 0 and "nowhere" in missing.stderr
    assert not (tmp_path / "nowhere").exists()


def test_tpch_verifies_all_answers_and_uses_its_store_again(tmp_path):
    report = tmp_path / "report.json"
    arguments = ["tpch", "--scale", "0.01", "--data", tmp_path / "tpch", "--json", report]
    first = run(*arguments, timeout=600)
    assert first.returncode == 0, first.stdout + first.stderr
    measured = json.loads(report.read_text())
    assert len(measured["queries"]) == 22
    assert all(query["verified"] for query in measured["queries"])
    again = run(*arguments, "--queries", "1,6", "--runs", "2", timeout=600)
    assert again.returncode == 0, again.stdout + again.stderr
    measured = json.loads(report.read_text())
    assert len(measured["queries"]) == 2


def test_the_configuration_file_is_read_and_checked(start, data, tmp_path):
    configuration = tmp_path / "rustydb.toml"
    configuration.write_text("[flight]\nadress = '127.0.0.1:0'\n")
    refused = run("serve", "--data", data, "--config", configuration)
    assert refused.returncode != 0
    assert "adress" in refused.stderr and "address" in refused.stderr
    configuration.write_text("memory_limit = '512MiB'\n")
    assert start("--config", configuration, data=data).is_running()


def test_too_little_memory_is_refused_with_the_least(tmp_path):
    for command in (["serve", "--data", tmp_path / "data", "--memory-limit", "1"], ["sql", "--memory-limit", "63MiB", "-c", "SELECT 1"]):
        refused = run(*command)
        assert refused.returncode == 2 and "the least is 64MiB" in refused.stderr, refused.stderr


def test_too_few_files_to_open_are_an_error_and_no_panic(tmp_path):
    command = f"ulimit -n 16; exec {rustydb_server.binary()} serve --data {tmp_path}/data --flight 127.0.0.1:0"
    failed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=rustydb_server.environment(), timeout=60)
    assert failed.returncode in (1, 3), failed.stderr
    assert "panicked" not in failed.stderr and "open files" in failed.stderr, failed.stderr


def test_init_makes_no_certificate_for_what_is_no_host(tmp_path):
    refused = run("init", "--data", tmp_path / "data", "--host", "bad host")
    assert refused.returncode == 2 and "neither a host's name" in refused.stderr
    assert not (tmp_path / "data").exists()
    made = run("init", "--data", tmp_path / "data", "--host", "db.example.org")
    assert made.returncode == 0 and "grpc+tls://db.example.org:50051" in made.stdout, made.stdout + made.stderr
