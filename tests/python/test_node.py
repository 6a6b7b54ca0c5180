"""Clients for Node.js: `tests/node` against the shared server, by Node's own test runner.

The packages are installed as `tests/node/package-lock.json` pins them, into the build directory, and again only when that
file changes.
"""

import os
import shutil
import subprocess

import pytest

import rustydb_server

TESTS = rustydb_server.REPOSITORY / "tests" / "node"
INSTALL_SECONDS_MAX = 600
TEST_SECONDS_MAX = 300


@pytest.fixture(scope="module")
def node():
    """A directory with the tests and their packages."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    place = rustydb_server.REPOSITORY / "target" / "node-clients"
    place.mkdir(parents=True, exist_ok=True)
    lock = (TESTS / "package-lock.json").read_text()
    stamp = place / "installed-lock.json"
    if not stamp.exists() or stamp.read_text() != lock:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(TESTS / name, place / name)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        installed = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
        assert installed.returncode == 0, installed.stdout + installed.stderr
        stamp.write_text(lock)
    for script in TESTS.glob("*.mjs"):
        shutil.copy(script, place / script.name)
    return place


def test_clients_from_npm_do_all_that_clients_do(node, server):
    environment = os.environ | {"RUSTYDB_ADDRESS": f"{server.host}:{server.port}"}
    command = ["node", "--test", "clients.test.mjs"]
    done = subprocess.run(
        command, cwd=node, env=environment, capture_output=True, text=True, timeout=TEST_SECONDS_MAX
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "# fail 0" in done.stdout and "# pass 9" in done.stdout, done.stdout
