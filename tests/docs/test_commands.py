"""Every command in the pages works: the code blocks of a page run in their order, in a folder like a fresh checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from harness.cli import COMMANDS, cli
from harness.system.paths import REPOSITORY
from tests.conftest import PIXELS_CARD, PIXELS_MODEL
from tests.docs import commands, pages
from tests.support.runs import wait_for

PAGES = [page for page in pages.PAGES if page.name not in ("BENCHMARKS.md", "CHANGELOG.md")]
TOOLS = ("cat", "chmod", "cp", "find", "head", "ls", "mkdir", "mv", "rm", "seq", "tail", "tar", "unzip")
RUN_ELSEWHERE = "python.md"
"""Its example runs in `tests/harness/test_api.py`."""
OTHER_OPTIONS = {"--help", "--version"}
PRELUDE = """set -eE -o pipefail
trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every program that a page may call; any other one is not found, and its page fails."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("python", "python3", *commands.NOT_RUN):
        (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {commands.__file__} {name} "$@"\n')
        (folder / name).chmod(0o755)
    for name in TOOLS:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


@pytest.fixture
def checkout(tmp_path: Path, world: Path) -> Path:
    """The files of a checkout, and what a reader has: datasets, an archive, photos, a plug-in and features."""
    for name in ("backbones", "datasets", "docs", "harness/spec", "harness/tuning/spaces"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for name in ("results", "weights"):
        (tmp_path / name).mkdir()
    shutil.copytree(world, tmp_path / "data")
    market = "Market-1501-v15.09.15"
    shutil.make_archive(str(tmp_path / market), "zip", world, market)
    for image in sorted((world / market / "bounding_box_train").glob("*.jpg")):
        person = tmp_path / "photos" / image.name[:4]
        person.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, person)
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(image, tmp_path / name)
    plugin = tmp_path / "plugins" / "stripes"
    plugin.mkdir(parents=True)
    (plugin / "card.toml").write_text(PIXELS_CARD.replace('"pixels"', '"stripes"'))
    (plugin / "model.py").write_text(PIXELS_MODEL)
    write_features(world, tmp_path / "features.npz")
    return tmp_path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that pages before this one have finished."""
    return tmp_path_factory.mktemp("finished")


def write_features(world: Path, path: Path) -> None:
    from harness import registry

    splits = registry.dataset("market1501").load(world)
    arrays = {}
    for name in ("query", "gallery"):
        items = getattr(splits, name)
        arrays[name] = np.random.default_rng(0).normal(size=(len(items), 8)).astype(np.float32)
        arrays[f"{name}_paths"] = np.array([item.path.name for item in items])
    np.savez(path, **arrays)


def file_name(block: pages.Part) -> str:
    """The file whose text a block shows, as the text before it names it at its end; else nothing."""
    found = re.search(r"`([\w./-]+\.(?:toml|py|csv))`:\Z", block.before)
    return found[1] if found else ""


def is_complete(block: pages.Part) -> bool:
    """Whether a Python block runs by itself; others are parts of a file, or follow a block of another page."""
    return "import " in block.text and not file_name(block) and block.page.name != RUN_ELSEWHERE


def script(page: Path) -> str:
    """The bash and Python blocks of a page, each on its own lines of the page."""
    lines = [""] * (len(page.read_text(encoding="utf-8").splitlines()) + 1)
    for block in pages.code_blocks(page):
        code = block.text.splitlines()
        if block.kind == "bash":
            lines[block.line : block.line + len(code)] = code
        elif (
            block.kind == "python" and "import " in block.text and not (file_name(block) or page.name == RUN_ELSEWHERE)
        ):
            end = block.line + len(code)
            lines[block.line - 1 : end + 1] = ["python - <<'PYTHON'", *code, "PYTHON"]
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_blocks_have_a_language(page: Path) -> None:
    pages.report(block for block in pages.code_blocks(page) if not block.kind)


@pytest.mark.parametrize("page", PAGES, ids=pages.name)
def test_options_in_the_text_exist(page: Path) -> None:
    known = {name: options(name) for name in COMMANDS}
    unknown = []
    for span in pages.code_spans(page):
        _, harness, words = span.text.rpartition("python -m harness ")
        flags = {word.partition("=")[0] for word in words.split() if word.startswith("--")}
        here = known.get(words.split()[0], set()) if harness else set().union(*known.values())
        if (harness or span.text.startswith("--")) and flags - here - OTHER_OPTIONS:
            unknown.append(span)
    pages.report(unknown)


def options(command: str) -> set[str]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The address of the process that runs the commands."""
    address = tmp_path_factory.mktemp("server") / "socket"
    command = [sys.executable, "-P", commands.__file__, "serve", str(address)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HARNESS_PICTURES": "0"}
    with subprocess.Popen(command, env=environment) as process:
        wait_for(address.exists)
        yield address
        process.kill()


@pytest.fixture
def bash(
    server: Path, checkout: Path, programs: Path, finished: Path
) -> Callable[[str, str], subprocess.CompletedProcess[str]]:
    """Runs a script, which has a name, in the checkout; stops at the first command that fails."""

    def call(name: str, text: str) -> subprocess.CompletedProcess[str]:
        (checkout / ".prelude").write_text(PRELUDE)
        (checkout / name).write_text(text)
        own = ("REID_", "MLFLOW_", "HARNESS_PLUGINS")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        changed = {"PATH_OF_TESTS": kept["PATH"], "PATH": str(programs)}
        changed |= {"PYTHONPATH": str(REPOSITORY), "COMMAND_SERVER": str(server), "HARNESS_PICTURES": "0"}
        changed |= {"BASH_ENV": str(checkout / ".prelude"), "FINISHED_RUNS": str(finished)}
        command = ["/bin/bash", name]
        return subprocess.run(command, cwd=checkout, env=kept | changed, capture_output=True, text=True, timeout=240)

    return call


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if script(page).strip()], ids=pages.name)
def test_commands_run(page: Path, checkout: Path, finished: Path, bash: Callable[[str, str], Any]) -> None:
    for block in pages.code_blocks(page):
        if name := file_name(block):
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_text(block.text, encoding="utf-8")
    done = bash(page.name, script(page))
    if done.returncode != 0:
        pytest.fail(f"{pages.name(page)} {done.stderr}\n{done.stdout}", pytrace=False)
    if (checkout / "results").is_dir():
        shutil.copytree(checkout / "results", finished, dirs_exist_ok=True)


@pytest.mark.slow
def test_a_wrong_command_is_found(bash: Callable[[str, str], Any]) -> None:
    for command, words in {
        "harness list backbones": "harness: command not found",
        "python -m harness run --bakbones bot": "No such option",
        "python -m harness evaluate --checkpoint a.pth --dataset market1501": "Missing parameter: backbone",
        "python -m harness validate nobody": "Unknown backbone or dataset",
        "make tea": "make knows no tea",
        "pip install --editable '.[tea]'": "pip knows no tea",
        "python -m pytest tests/test_tea.py": "pytest knows no tests/test_tea.py",
        "python -m benchmarks.tea": "benchmarks knows no benchmarks/tea.py",
        "cat tea | head": "line 3: head",
    }.items():
        done = bash("page.md", f"\n\n{command}\necho on\n")
        assert done.returncode != 0 and words in done.stderr and done.stdout == "", command
