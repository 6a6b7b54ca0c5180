"""The real binary as a child process: started, stopped, killed.

A server listens on a port the system picks, on loopback, with its own data directory. Its environment holds no
RUSTYDB_* variable, so that the developer's own settings cannot change what is tested.
"""

import os
import pathlib
import queue
import re
import signal
import subprocess
import threading
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

# Debug binaries on a busy machine; a healthy start takes well under a second.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60

READY = re.compile(r"^flight-sql listening on (\S+):(\d+)$")


def binary() -> pathlib.Path:
    """The rustydb to test: what `cargo xtask python` built, or the debug build of this tree."""
    chosen = os.environ.get("RUSTYDB_TEST_BINARY")
    return pathlib.Path(chosen) if chosen else REPOSITORY / "target" / "debug" / "rustydb"


def environment() -> dict:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUSTYDB_")}
    kept["RUST_BACKTRACE"] = "1"
    return kept


def run(*arguments, input=None, timeout=120, cwd=None):
    """Runs `rustydb ARGUMENTS` to its end."""
    return subprocess.run(
        [binary(), *map(str, arguments)],
        input=input,
        # Without input, standard input is empty: no shell waits for a person.
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(),
        cwd=cwd,
    )


class Server:
    """`rustydb serve` on a data directory. Use it in a `with`, or call `stop` or `kill`."""

    def __init__(self, data, *arguments, address="127.0.0.1:0", cwd=None, program=None):
        self.data = pathlib.Path(data)
        self.lines = []
        self._process = subprocess.Popen(
            [program or binary(), "serve", "--data", str(data), "--flight", address, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            cwd=cwd,
        )
        ready = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self._reader.start()
        try:
            address = ready.get(timeout=START_SECONDS_MAX)
        except queue.Empty:
            self.kill()
            raise AssertionError("the server was not ready in time:\n" + self.output) from None
        if address is None:
            self._process.wait()
            self._process.stdout.close()
            raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.output}")
        self.host, self.port = address

    def _read(self, ready):
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if match := READY.match(self.lines[-1]):
                ready.put((match[1], int(match[2])))
        ready.put(None)

    @property
    def output(self):
        return "\n".join(self.lines)

    @property
    def uri(self):
        return f"grpc://{self.host}:{self.port}"

    @property
    def process_id(self):
        return self._process.pid

    def is_running(self):
        return self._process.poll() is None

    def send(self, number):
        self._process.send_signal(number)

    def wait_for(self, text):
        """Waits until the server has printed this."""
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while text not in self.output:
            assert time.monotonic() < deadline and self.is_running(), f"no {text!r} in\n{self.output}"
            time.sleep(0.02)

    def stop(self, with_signal=signal.SIGTERM):
        """Asks the server to end and returns its exit status."""
        self.send(with_signal)
        return self._end()

    def kill(self):
        """kill -9: no handler runs, nothing is flushed."""
        self._process.kill()
        return self._end()

    def _end(self):
        status = self._process.wait(timeout=STOP_SECONDS_MAX)
        self._reader.join(timeout=STOP_SECONDS_MAX)
        self._process.stdout.close()
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.is_running():
            self.stop()
