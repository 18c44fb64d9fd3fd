"""What the documents show is true: their programs run, their commands and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from operator import attrgetter
from pathlib import Path

import pytest

from meshwalk.config import Config
from meshwalk.proto.overlay.statistics import OverlayStatistics

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEADLINE_S = 30


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def test_the_program_in_the_readme_has_at_most_fifteen_lines() -> None:
    (program,) = blocks(ROOT / "README.md", "python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 15


@pytest.mark.processes
def test_the_program_in_the_readme_talks_to_itself(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(blocks(ROOT / "README.md", "python")[0])
    first = subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True)
    timer = threading.Timer(DEADLINE_S, first.kill)
    timer.start()
    try:
        assert first.stdout is not None
        invite = first.stdout.readline().removeprefix("invite:").strip()
        assert invite.startswith("meshwalk://"), invite
        second = subprocess.Popen(
            [sys.executable, program, invite], stdout=subprocess.PIPE, text=True
        )
        try:
            heard = first.stdout.readline()
            assert re.fullmatch(r"(\w{8}) hello from \1\n", heard), heard
        finally:
            second.kill()
            second.communicate()
    finally:
        timer.cancel()
        first.kill()
        first.communicate()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_and_files_that_are_named_exist(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_each_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for name in set(re.findall(r"`((?:[a-z]+/)+[a-z]+\.py)`", text)):
        assert any((ROOT / base / name).exists() for base in ("", "src/meshwalk")), name


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_python_in_documents_parses(document: Path) -> None:
    for block in blocks(document, "python"):
        compile(block, document.name, "exec")


def test_limits_in_the_overlays_document_are_those_of_the_configuration() -> None:
    """Each table of limits says whose fields it has; a cell begins with their values, in order."""
    text = (ROOT / "docs" / "overlay.md").read_text()
    found = 0
    for section, table in re.findall(r"Field of `Config\.(\w+)`.*\n((?:\|.*\n)+)", text):
        for row in table.splitlines()[1:]:
            _, name, default, *_ = (cell.strip() for cell in row.strip("|").split("|"))
            fields = [field for field in re.findall(r"`([\w.]+)`", name) if field[-3:] != ".py"]
            values = re.findall(r"\d[\d,.]*", default)
            for field, value in zip(fields, values[: len(fields)], strict=True):
                path = field if "." in field else f"{section}.{field}"
                assert float(value.replace(",", "")) == attrgetter(path)(Config()), path
                found += 1
    assert found > 30


UNITS = {"KiB": 2**10, "MiB": 2**20, "MB/s": 10**6}


def test_limits_in_the_broadcasts_document_are_those_of_the_configuration() -> None:
    """A cell of defaults ends with the values of the row's fields, in order."""
    text = (ROOT / "docs" / "broadcast.md").read_text().partition("## Limits\n")[2]
    found = 0
    for row in re.findall(r"^\| (?!Limit |---)(?:.*) \|$", text, re.MULTILINE):
        _, names, default, _ = (cell.strip() for cell in row.strip("|").split(" | "))
        section = ""
        fields = re.findall(r"`([\w.]+)`", names)
        values = re.findall(r"(\d[\d,.]*) ?([KM]iB|MB/s)?", default)
        assert len(values) == len(fields) + names.count("the protocol"), row
        for field, (value, unit) in zip(fields, values[names.count("the protocol") :], strict=True):
            section = field.partition(".")[0] if "." in field else section
            path = field if "." in field else f"{section}.{field}"
            number = float(value.replace(",", "")) * UNITS.get(unit, 1)
            assert number == attrgetter(path)(Config()), path
            found += 1
    assert found > 30


def test_counts_in_the_overlays_document_exist() -> None:
    text = (ROOT / "docs" / "overlay.md").read_text()
    named = set(re.findall(r"\*Seen in\* `(\w+)`", text))
    assert len(named) >= 9
    assert named <= set(OverlayStatistics.__struct_fields__)


def test_shell_commands_in_the_readme_exist() -> None:
    for block in blocks(ROOT / "README.md", "sh"):
        for line in block.splitlines():
            assert (ROOT / line.split()[0]).exists(), line
