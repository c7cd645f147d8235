"""Paths that users name and the places of caches: one rule for every option and variable."""

from __future__ import annotations

import importlib
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from harness import registry
from harness.cli import COMMANDS
from harness.cli.options import TrackingUri, UserPath
from harness.errors import UsageError
from harness.system import paths
from harness.tracking import default_uri

Cli = Callable[..., tuple[int, str, str]]

PATH_WORDS = re.compile(r"\b(DIR|FILE|PATH|FOLDER|URI)\b")
PATH_TEXT = re.compile(r"\b(file|folder|path|directory|server)\b|\.(toml|npz|pt|csv|md)\b", re.IGNORECASE)

NO_PATHS = {"trust_pickle", "preset", "name", "pattern"}
"""Options that speak of files and take none."""


def commands() -> dict[str, click.Command]:
    return {
        name: importlib.import_module(f"harness.cli.{name.replace('-', '_')}").command
        for name, about in COMMANDS.items()
        if about
    }


def path_options() -> Iterator[tuple[str, click.Option]]:
    """Every option of every command that looks as if it took a path or an address, whatever its type is."""
    for name, command in commands().items():
        for option in command.params:
            if not isinstance(option, click.Option) or option.is_flag or option.name in NO_PATHS:
                continue
            if isinstance(option.type, click.Choice):
                continue
            typed = isinstance(option.type, UserPath | TrackingUri | click.Path | click.File)
            if typed or PATH_WORDS.search(option.metavar or "") or PATH_TEXT.search(option.help or ""):
                yield name, option


OPTIONS = [pytest.param(name, option, id=f"{name} {option.opts[0]}") for name, option in path_options()]


def parsed(name: str, option: click.Option, value: str | None) -> object:
    """What a command makes of an option; the command is not run."""
    command, words = commands()[name], [] if value is None else [option.opts[0], value]
    for needed in command.params:
        if needed.required and needed is not option:
            count = 1 if needed.nargs < 1 else needed.nargs
            first = needed.type.choices[0] if isinstance(needed.type, click.Choice) else "x"
            words += [first] * count if isinstance(needed, click.Argument) else [needed.opts[0], str(first)]
    found = command.make_context(name, words).params[option.name]
    return found[0] if option.multiple else found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.chdir(tmp_path)
    return place


def test_the_options_that_take_paths_are_found() -> None:
    found = {option.opts[0] for _, option in path_options()}
    wanted = "--results --data-root --weights-root --cache --plugins --report --out --recipe --checkpoint --features"
    assert {*wanted.split(), "--from", "--space", "--mlflow-uri", "--from-mlflow"} <= found


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_for_a_path_expands_the_home_folder(home: Path, name: str, option: click.Option) -> None:
    assert isinstance(option.type, UserPath | TrackingUri), f"{name} {option.opts[0]} does not expand '~'"
    assert str(parsed(name, option, "~/x/y")) == f"{home}/x/y"
    assert str(parsed(name, option, "x~/~")) == "x~/~", "only at the start"


@pytest.mark.parametrize(("name", "option"), [o for o in OPTIONS if o.values[1].envvar])  # type: ignore[attr-defined]
def test_every_variable_for_a_path_expands_the_home_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, option: click.Option
) -> None:
    monkeypatch.setenv(str(option.envvar), "~/x")
    assert str(parsed(name, option, None)) == f"{home}/x"
    assert str(parsed(name, option, "other")) == "other", "the command line goes first"


def test_variables_are_options_wherever_their_option_is() -> None:
    asked = {o.opts[0]: set() for o in (p.values[1] for p in OPTIONS)}  # type: ignore[attr-defined]
    for _, option in path_options():
        asked[option.opts[0]].add(option.envvar)
    names = {"--data-root": paths.DATASETS, "--weights-root": paths.WEIGHTS, "--cache": paths.CACHE}
    for flag, name in {**names, "--plugins": paths.PLUGINS}.items():
        assert asked[flag] == {name}


def test_an_unknown_home_folder_is_one_sentence(cli: Cli, home: Path) -> None:
    code, _, err = cli("status", "--results", "~nobody-has-this-name/x")
    assert code == 2 and "--results is ~nobody-has-this-name/x" in err and "unknown" in err and err.count("\n") == 1
    with pytest.raises(UsageError, match=r"\./~nobody-has-this-name"):
        paths.expand("~nobody-has-this-name")
    assert sorted(p.name for p in home.parent.iterdir()) == ["home"]


def test_plug_ins_are_found_by_their_variable_with_a_home_folder(
    cli: Cli, home: Path, plugin_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_folder.rename(home / "mine")
    monkeypatch.setenv(paths.PLUGINS, "~/mine")
    assert registry.backbone("pixels").folder == home / "mine" / "pixels"
    code, out, err = cli("list", "backbones")
    assert code == 0 and "pixels" in out, err
    assert cli("validate", "pixels")[0] == 0


def test_tracking_addresses_expand_the_home_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/runs.db")
    assert default_uri(Path("results")) == f"sqlite:///{home}/runs.db"
    assert paths.expand_uri("file://~/runs") == f"file://{home}/runs"
    assert paths.expand_uri("https://host/~me") == "https://host/~me"


def test_caches_have_one_rule(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv(paths.CACHE, "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/xdg")
    assert paths.cache_folder() == home / "mine"
    monkeypatch.delenv(paths.CACHE)
    assert paths.cache_folder() == home / "xdg" / "reid-harness"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert paths.cache_folder() == home / ".cache" / "reid-harness"
    monkeypatch.setattr("os.access", lambda *_: False)
    alone = paths.cache_folder()
    assert alone.parent == tmp_path and stat.S_IMODE(alone.stat().st_mode) == 0o700
    assert paths.cache_folder() == alone
    alone.chmod(0o777)
    other = paths.cache_folder()
    assert other != alone and other.parent == tmp_path, "a folder that others can write is not used"
