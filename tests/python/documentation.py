"""Runs the code blocks of a Markdown page, in order, the way a reader follows along.

Each page gets an empty directory. What becomes of a fenced block depends on its language:

| language | what is done |
|---|---|
| `sh` | run by `bash -e` with `rustydb` on the path; a block that is one `rustydb serve` command starts a server for the rest of the page |
| `python` | run as a program of its own |
| `sql` | run by the shell: on the page's server if there is one, else on `./rustydb-data` |
| `toml` | given to `rustydb serve --config … --print-config`, which knows every setting |
| `rust` | must stand, line by line, in a file of `rustydb/examples` or `flight/tests`, which the build compiles; a line `// …` stands for what is left out |
| `js` | the same in a script of `tests/node`, which `test_node.py` runs |
| any other | nothing |

`cargo run --release --` in front of a command is what a reader without an installed binary types: it is replaced by the
binary under test. The documented port, 50051, is replaced by the one the page's server got.

An HTML comment above a block changes this:

- `<!-- not run: REASON -->`: nothing is done.
- `<!-- output -->` above a `text` block: it is what the block before printed; a line `…` stands for any lines.
- `<!-- fails: TEXT -->`: the block must fail, and TEXT be in what it prints.
- `<!-- at: root -->`: it is run at the root of the repository.
"""

import contextlib
import dataclasses
import os
import pathlib
import re
import shlex
import subprocess
import sys
import textwrap

import rustydb_server

RUST_PROGRAMS = [rustydb_server.REPOSITORY / "rustydb" / "examples", rustydb_server.REPOSITORY / "flight" / "tests"]
NODE_SCRIPTS = rustydb_server.REPOSITORY / "tests" / "node"
DOCUMENTED_ADDRESS = "127.0.0.1:50051"
RUN_FROM_SOURCE = re.compile(r"\bcargo run --release (--quiet )?-- ")
DIRECTIVE = re.compile(r"^<!-- (not run|output|fails|at)(?:: (.*))? -->$")
BLOCK_SECONDS_MAX = 300

# With these, `rustydb serve` prints something and serves nobody.
ENDS_AT_ONCE = {"--help", "--print-config"}


@dataclasses.dataclass
class Block:
    page: str
    line: int
    language: str
    text: str
    directive: str | None = None
    argument: str | None = None

    @property
    def place(self):
        return f"{self.page}:{self.line}"


def blocks(page, text):
    """The fenced blocks of a page with the directive above each."""
    found, fence, directive = [], None, (None, None)
    for number, line in enumerate(text.splitlines(), start=1):
        if fence:
            indent, block = fence
            if line.strip() == "```":
                block.text = textwrap.dedent(block.text)
                found.append(block)
                fence, directive = None, (None, None)
            else:
                block.text += line + "\n"
        elif match := re.match(r"^(\s*)```(\w*)", line):
            fence = match[1], Block(page, number, match[2], "", *directive)
        elif match := DIRECTIVE.match(line.strip()):
            directive = match[1], match[2]
        elif line.strip():
            directive = None, None
    assert fence is None, f"{page}: a code block without an end"
    return found


def matches(expected, printed):
    """Whether the printed lines are the expected ones, where `…` stands for any lines."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(line.rstrip()) + "\n" for line in expected.splitlines()
    )
    printed = "".join(line.rstrip() + "\n" for line in printed.strip("\n").splitlines())
    return re.fullmatch(pattern, printed) is not None


class Page:
    """One page being followed: its directory, its server, and what the last block printed."""

    def __init__(self, directory: pathlib.Path, resources: contextlib.ExitStack):
        self.directory = directory
        self.resources = resources
        self.server = None
        self.printed = None
        (directory / "bin").mkdir()
        (directory / "bin" / "rustydb").symlink_to(rustydb_server.binary())
        self.work = directory / "work"
        self.work.mkdir()

    def follow(self, block):
        if block.directive == "not run":
            assert block.argument, f"{block.place}: say why the block is not run"
            return
        if block.directive == "output":
            assert self.printed is not None, f"{block.place}: there is no block before this one"
            assert matches(block.text, self.printed), f"{block.place}: what was printed is\n{self.printed}"
            return
        action = getattr(self, f"_run_{block.language}", None)
        if action:
            action(dataclasses.replace(block, text=self._as_here(block.text)))

    def _as_here(self, text):
        text = RUN_FROM_SOURCE.sub("rustydb ", text)
        if self.server:
            text = text.replace(DOCUMENTED_ADDRESS, f"{self.server.host}:{self.server.port}")
            text = text.replace("port=50051", f"port={self.server.port}")
        return text

    def _run_sh(self, block):
        words = shlex.split(block.text, comments=True)
        if words[:2] == ["rustydb", "serve"] and block.directive is None and not ENDS_AT_ONCE & set(words):
            self._serve(words[2:])
        else:
            self._run(block, ["bash", "-e", "-o", "pipefail", "-c", block.text])

    def _serve(self, arguments):
        # The documented data directory is kept; the address is the system's choice.
        data = self.work / "rustydb-data"
        if "--data" in arguments:
            place = arguments.index("--data")
            data = self.work / arguments[place + 1]
            del arguments[place : place + 2]
        if "--flight" in arguments:
            place = arguments.index("--flight")
            del arguments[place : place + 2]
        self.server = self.resources.enter_context(rustydb_server.Server(data, *arguments, cwd=self.work))

    def _run_python(self, block):
        self._run(block, [sys.executable, "-W", "error", "-c", block.text])

    def _run_sql(self, block):
        target = ["--url", self.server.uri] if self.server else ["--data", "rustydb-data"]
        script = self.work / "block.sql"
        script.write_text(block.text)
        self._run(block, ["rustydb", "sql", *target, "-f", str(script)])

    def _run_toml(self, block):
        file = self.work / "block.toml"
        file.write_text(block.text)
        self._run(block, ["rustydb", "serve", "--config", str(file), "--print-config"])

    def _run_rust(self, block):
        self._must_stand_in(block, [file for folder in RUST_PROGRAMS for file in sorted(folder.rglob("*.rs"))])

    def _run_js(self, block):
        self._must_stand_in(block, sorted(NODE_SCRIPTS.glob("*.mjs")))

    def _must_stand_in(self, block, scripts):
        pattern = "".join(
            r"(?:.*\n)*?" if line.strip() == "// …" else re.escape(line.strip()) + "\n"
            for line in block.text.strip().splitlines()
        )
        for script in scripts:
            text = "".join(line.strip() + "\n" for line in script.read_text().splitlines())
            if re.search("^" + pattern, text, re.MULTILINE):
                return
        raise AssertionError(f"{block.place}: none of {[script.name for script in scripts]} contains this block")

    def _run(self, block, command):
        environment = rustydb_server.environment()
        environment["PATH"] = f"{self.directory / 'bin'}{os.pathsep}{environment['PATH']}"
        finished = subprocess.run(
            command,
            cwd=rustydb_server.REPOSITORY if block.directive == "at" else self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BLOCK_SECONDS_MAX,
        )
        everything = finished.stdout + finished.stderr
        if block.directive == "fails":
            assert finished.returncode != 0, f"{block.place}: should fail and does not:\n{everything}"
            assert block.argument in everything, f"{block.place}: no `{block.argument}` in\n{everything}"
            self.printed = everything
        else:
            assert finished.returncode == 0, f"{block.place}: status {finished.returncode}:\n{everything}"
            self.printed = finished.stdout
