"""The documentation keeps its word: every code block of every page is run (see `documentation.py`)."""

import contextlib
import csv
import io
import re
import tomllib

import pytest

import documentation
import rustydb_server

REPOSITORY = rustydb_server.REPOSITORY
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_every_block_does_what_the_page_says(page, tmp_path):
    name = str(page.relative_to(REPOSITORY))
    with contextlib.ExitStack() as resources:
        reader = documentation.Page(tmp_path, resources)
        for block in documentation.blocks(name, page.read_text()):
            reader.follow(block)


def test_the_readme_has_both_python_quickstarts():
    blocks = documentation.blocks("README.md", (REPOSITORY / "README.md").read_text())
    run = [block.text for block in blocks if block.language == "python" and block.directive != "not run"]
    assert any("adbc_driver_flightsql" in text for text in run)
    assert any("pyarrow.flight" in text for text in run)


def first_column(page, heading):
    """The names in the first column of the first table below a heading."""
    text = (REPOSITORY / "docs" / "reference" / page).read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)


def test_the_settings_page_lists_every_setting_of_the_server():
    printed = tomllib.loads(rustydb_server.run("serve", "--print-config").stdout)
    keys = [key for key, value in printed.items() if not isinstance(value, dict)]
    keys += [f"{group}.{key}" for group, value in printed.items() if isinstance(value, dict) for key in value]
    assert sorted(first_column("configuration.md", "Settings of the server")) == sorted(keys)


def test_the_settings_page_lists_every_setting_of_a_session():
    shown = rustydb_server.run("sql", "--data", ":memory:", "--format", "csv", "-c", "SHOW ALL")
    names = [row["name"] for row in csv.DictReader(io.StringIO(shown.stdout))]
    assert names and first_column("configuration.md", "Settings of a session") == names


def test_the_settings_without_effect_are_shown_as_the_page_has_them():
    names = first_column("configuration.md", "Settings of PostgreSQL without effect")
    source = (REPOSITORY / "engine" / "src" / "session" / "taken_settings.rs").read_text()
    table = source.split("const TAKEN")[1].split("];\n")[0]
    assert names and names == re.findall(r'\(\s*"(\w+)",', table)
    for name in ("client_min_messages", "datestyle", "work_mem"):
        shown = rustydb_server.run("sql", "--data", ":memory:", "--format", "csv", "-c", f"SHOW {name}")
        assert name in shown.stdout


def test_the_errors_page_lists_every_sqlstate_of_engine_and_server():
    source = (REPOSITORY / "engine" / "src" / "error.rs").read_text()
    states = set(re.findall(r'pub\(crate\) const \w+: &str = "([0-9A-Z]{5})";', source))
    assert states
    for file in (REPOSITORY / "flight" / "src").rglob("*.rs"):
        # The server and its client write the codes where they use them; what tests make up does not count.
        product = file.read_text().split("#[cfg(test)]")[0]
        states.update(re.findall(r'(?:refuse\(|local\(|unknown: |=> )\s*"([0-9A-Z]{5})"', product))
    assert {"28P01", "53300"} <= states
    assert sorted(first_column("errors.md", "SQLSTATEs")) == sorted(states)


SAMPLE = """\
Text.

<!-- not run: it would take an hour -->
```sh
sleep 3600
```

  ```sql
  SELECT 1;
  ```

<!-- output -->
```text
1
```
"""


def test_blocks_are_found_with_their_directives():
    found = documentation.blocks("sample.md", SAMPLE)
    assert [(block.language, block.line, block.directive, block.argument) for block in found] == [
        ("sh", 4, "not run", "it would take an hour"),
        ("sql", 8, None, None),
        ("text", 13, "output", None),
    ]
    assert found[1].text == "SELECT 1;\n"


def test_a_directive_is_for_the_block_right_below_it():
    found = documentation.blocks("sample.md", "<!-- not run: x -->\nBut first some words.\n```sh\ntrue\n```\n")
    assert found[0].directive is None


def test_a_block_may_be_run_at_the_root(tmp_path):
    with contextlib.ExitStack() as resources:
        reader = documentation.Page(tmp_path, resources)
        reader.follow(documentation.Block("sample.md", 1, "sh", "test -f Cargo.lock", "at", "root"))
        with pytest.raises(AssertionError):
            reader.follow(documentation.Block("sample.md", 1, "sh", "test -f Cargo.lock"))


@pytest.mark.parametrize(
    ("expected", "printed", "is_match"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a  \nb\n\n", True),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\n", "a\n", True),
        ("a\nb\n", "a\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_printed_lines_are_compared_with_a_wildcard(expected, printed, is_match):
    assert documentation.matches(expected, printed) is is_match


def test_a_block_that_fails_fails_the_page(tmp_path):
    with contextlib.ExitStack() as resources:
        reader = documentation.Page(tmp_path, resources)
        with pytest.raises(AssertionError, match="sample.md:1: status 3"):
            reader.follow(documentation.Block("sample.md", 1, "sh", "exit 3"))
        reader.follow(documentation.Block("sample.md", 1, "sh", "echo no such thing; exit 3", "fails", "no such thing"))
        with pytest.raises(AssertionError, match="should fail"):
            reader.follow(documentation.Block("sample.md", 1, "sh", "true", "fails", "x"))
        with pytest.raises(AssertionError, match="say why"):
            reader.follow(documentation.Block("sample.md", 1, "sh", "true", "not run", None))
