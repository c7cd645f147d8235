"""Help of every command: it fits 100 columns, and every option has a plain sentence."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Callable

import click
import pytest

from harness.cli import COMMANDS
from harness.cli.groups import GROUPS, WIDEST_HELP, Command, Option

Cli = Callable[..., tuple[int, str, str]]
NAMES = [name for name, about in COMMANDS.items() if about]

NOT_PLAIN = re.compile(
    r"\b(anew|for want of|wants?|told|stands?|gone on|at hand|another matter|it is said|a word|the line)\b",
    re.IGNORECASE,
)
"""Words that the rules of writing replace by standard ones."""


def command(name: str) -> Command:
    found = importlib.import_module(f"harness.cli.{name.replace('-', '_')}").command
    assert isinstance(found, Command)
    return found


def options(name: str) -> list[click.Option]:
    return [p for p in command(name).get_params(click.Context(command(name))) if isinstance(p, click.Option)]


def described(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, columns: int) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, err = cli(*([name] if name else []), "--help")
    assert code == 0 and not err
    return out.splitlines()


@pytest.mark.parametrize("columns", [80, 100, 200])
@pytest.mark.parametrize("name", ["", *NAMES])
def test_help_fits(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, columns: int) -> None:
    lines = described(cli, monkeypatch, name, columns)
    example = lines[-1] if "Example:" in lines else ""
    for line in lines:
        assert len(line) <= (WIDEST_HELP if line == example else min(columns, WIDEST_HELP)), line
    assert not [line for line in lines if NOT_PLAIN.search(line)]


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_sentence(name: str) -> None:
    for option in options(name):
        text = option.help or ""
        assert text[:1].isupper() and text.endswith("."), f"{name} {option.opts[0]}: '{text}'"
        assert not NOT_PLAIN.search(text), f"{name} {option.opts[0]}: '{text}'"
        assert "default:" not in text, f"{name} {option.opts[0]}: a default is an attribute, so that it looks like one"


@pytest.mark.parametrize("name", NAMES)
def test_options_that_are_not_general_belong_to_a_section(name: str) -> None:
    other = {option.opts[0] for option in options(name) if not isinstance(option, Option)}
    assert other <= {"--version", "-h", "--help"}
    assert all(option.group in GROUPS for option in options(name) if isinstance(option, Option))


@pytest.mark.parametrize("name", NAMES)
def test_the_example_is_one_line_that_is_understood(cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    lines = described(cli, monkeypatch, name, 100)
    words = shlex.split(lines[lines.index("Example:") + 1])
    assert words[:4] == ["python", "-m", "harness", name]
    assert command(name).make_context(name, words[4:]), "its options exist"


def test_old_names_of_options_are_accepted_and_not_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    given = command("tune").make_context(
        "tune", ["--backbone", "bot", "--dataset", "msmt17", "--grace", "3", "--factor", "2"]
    )
    assert (given.params["grace_period"], given.params["reduction_factor"]) == (3, 2)
    text = "\n".join(described(cli, monkeypatch, "tune", 100))
    assert "--grace-period N" in text and "--grace," not in text and "--factor" not in text


def test_the_first_line_of_a_command_says_what_it_does() -> None:
    for name in NAMES:
        first = (command(name).help or "").splitlines()[0]
        assert first.endswith(".") and first[0].isupper() and not first.split()[0].endswith("s"), first
