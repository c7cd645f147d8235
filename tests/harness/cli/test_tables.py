"""Tables and sentences fit the terminal, and colours are printed only where they are shown."""

from __future__ import annotations

import shlex
import sys

import pytest

from harness.cli import tables
from harness.cli.tables import STATES, Column, prose, shell, table
from harness.system import terminal

COLUMNS = (
    Column("state", colours=STATES),
    Column("backbone", folds=True),
    Column("recipe", optional=True),
    Column("seed", right=True),
    Column("reason", folds=True),
)
LONG = "timm:vit_base_patch14_reg4_dinov2.lvd142m"
ROWS = [
    ["blocked", LONG, "unified", "0", "no weights, no data"],
    ["to do", "bot", "unified", "12", "new"],
]


class Screen:
    """A stream that says it is a terminal."""

    def __init__(self, tty: bool = True) -> None:
        self.isatty = lambda: tty


def test_columns_are_aligned_below_a_header() -> None:
    assert table(COLUMNS, ROWS, 120).splitlines() == [
        "STATE    BACKBONE                                   RECIPE   SEED  REASON",
        f"blocked  {LONG}  unified     0  no weights, no data",
        "to do    bot                                        unified    12  new",
    ]


@pytest.mark.parametrize("width", [50, 60, 80, 90])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(width: int) -> None:
    text = table(COLUMNS, ROWS, width)
    assert max(map(len, text.splitlines())) <= width
    assert not [line for line in text.splitlines() if line.endswith(" ")]
    header, *lines = text.splitlines()
    start, end = header.index("BACKBONE"), header.index("SEED")
    assert "".join(line[start:end].split("  ")[0].strip() for line in lines if "to do" not in line) == LONG
    assert ("RECIPE" in text) is (width >= 90), "what all rows have in common goes first"


def test_columns_without_text_are_left_out() -> None:
    assert table(COLUMNS, [["", "bot", "", "0", ""]], 80).splitlines() == ["BACKBONE  SEED", "bot          0"]
    assert table((Column("name"),), [], 80) == ""


def test_sentences_are_wrapped_and_commands_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "64")
    lines = prose("word " * 40, "    ", "  reason: ").splitlines()
    assert lines[0].startswith("  reason: word") and all(line.startswith("    word") for line in lines[1:])
    assert max(map(len, lines)) <= 64
    command = f"python -m harness prepare --backbones {LONG} --data-root 'my data' --weights-root weights"
    text = shell(command)
    assert max(map(len, text.splitlines())) <= 64
    assert shlex.split(text.replace("\\\n", " ")) == shlex.split(command)
    monkeypatch.setenv("COLUMNS", "200")
    assert shell(command) == f"  {command}"


def test_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.width(Screen(False)) == 100  # type: ignore[arg-type]
    monkeypatch.setenv("COLUMNS", "72")
    assert terminal.width(Screen(False)) == 72  # type: ignore[arg-type]
    monkeypatch.setenv("COLUMNS", "3")
    assert terminal.width(Screen()) == terminal.NARROWEST  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tty", "environment", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, tty: bool, environment: dict[str, str], coloured: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert terminal.colours(Screen(tty)) is coloured  # type: ignore[arg-type]
    monkeypatch.setattr(tables.terminal, "colours", lambda stream: coloured and stream is sys.stdout)
    text = table(COLUMNS, ROWS, 120)
    assert ("\x1b[31mblocked\x1b[0m  timm" in text) is coloured and ("\x1b[36mto do  \x1b[0m  bot" in text) is coloured
    assert coloured or "\x1b" not in text
