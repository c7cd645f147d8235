"""Shell completion of names: also after a comma, from cards alone."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from harness.cli import cli
from harness.system.paths import REPOSITORY


def completed(command: str, flag: str, start: str, *before: str) -> list[str]:
    """What the shell offers for an option."""
    found = importlib.import_module(f"harness.cli.{command}").command
    with found.make_context(command, list(before), resilient_parsing=True) as context:
        (option,) = [param for param in found.params if flag in param.opts]
        return [item.value for item in option.shell_complete(context, start)]


@pytest.mark.parametrize(
    ("command", "flag", "start", "expected"),
    [
        ("run", "--backbones", "re", ["reidmamba"]),
        ("run", "--backbones", "reidmamba,tr", ["reidmamba,transreid", "reidmamba,transreid-ssl"]),
        ("run", "--backbones", "al", ["all"]),
        ("run", "--backbones", "bot,al", []),
        ("run", "--backbones", "bot,bo", []),
        ("run", "--backbones", "bot,reidmamba:ti", ["bot,reidmamba:tiny"]),
        ("run", "--backbones", "tim", ["timm:"]),
        ("plan", "--datasets", "market1501,msmt17-", ["market1501,msmt17-train"]),
        ("plan", "--eval-datasets", "occl", ["occluded-duke"]),
        ("profile", "--backbones", "bo", ["bot"]),
        ("prepare", "--datasets", "syn", ["synthetic"]),
        ("validate", "--backbones", "dum", ["dummy"]),
        ("tune", "--backbone", "reidmamba:b", ["reidmamba:base"]),
        ("tune", "--dataset", "duke", ["dukemtmc"]),
        ("compare", "--dataset", "mark", ["market1501"]),
        ("evaluate", "--backbone", "tra", ["transreid", "transreid-ssl"]),
        ("run", "--recipe", "un", ["unified"]),
        ("run", "--preset", "sm", ["small", "smoke"]),
        ("tune", "--space", "ra", ["ratr"]),
    ],
)
def test_names(command: str, flag: str, start: str, expected: list[str]) -> None:
    assert completed(command, flag, start) == expected


def test_groups_of_datasets_are_names() -> None:
    assert "cuhk03" in completed("run", "--datasets", "cuhk03")


def test_a_file_is_completed_by_the_shell_where_no_name_fits() -> None:
    assert completed("run", "--recipe", "./my") == ["./my"]
    assert completed("tune", "--space", "mine/") == ["mine/"]
    found = importlib.import_module("harness.cli.run").command
    with found.make_context("run", [], resilient_parsing=True) as context:
        kinds = {
            param.opts[0]: [item.type for item in param.shell_complete(context, "")]
            for param in found.params
            if isinstance(param, click.Option) and param.metavar in ("DIR", "FILE")
        }
    assert kinds["--data-root"] == ["dir"] and kinds["--report"] == ["file"]


def test_plug_ins_are_completed(plugin_folder: Path, tmp_path: Path) -> None:
    assert completed("run", "--backbones", "pix", "--plugins", str(plugin_folder)) == ["pixels"]
    assert completed("run", "--backbones", "pix", "--plugins", str(tmp_path / "nothing")) == [], "and no error"


def test_the_shell_s_call_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from harness.cli import main; sys.argv = ['reid-harness']; main(); "
        "heavy = {'torch', 'ray', 'mlflow', 'pandas', 'timm', 'numpy', 'rich'} & sys.modules.keys(); "
        "print(heavy, file=sys.stderr)"
    )
    told = {"_REID_HARNESS_COMPLETE": "bash_complete", "COMP_WORDS": "reid-harness run --backbones bot,tr"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, **told, "COMP_CWORD": "3"},
        capture_output=True,
        text=True,
    )
    assert "plain,bot,transreid" in done.stdout, done.stderr
    assert done.stderr.strip() in ("set()", ""), done.stderr


def test_commands_are_completed() -> None:
    with cli.make_context("reid-harness", ["run"], resilient_parsing=True) as context:
        assert {"run", "plan", "list"} <= {item.value for item in cli.shell_complete(context, "")}
