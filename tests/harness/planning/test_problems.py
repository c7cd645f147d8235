"""Blocked runs: a short reason, the command that helps, and the whole explanation on request."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import registry
from harness.planning.problems import Problem

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def plan(cli: Cli, tmp_path: Path) -> Cli:
    def call(*words: object) -> tuple[int, str, str]:
        return cli("plan", "--device", "cpu", "--recipe", "smoke", "--results", tmp_path / "results", *words)

    return call


def reasons(plan: Cli, *words: object) -> dict[tuple[str, str], str]:
    code, out, err = plan(*words, "--format", "json")
    assert code == 0, err
    return {(cell["backbone"], cell["dataset"]): cell["short_reason"] for cell in json.loads(out)}


def test_without_anything(plan: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = plan()
    lines = out.splitlines()
    assert code == 0 and lines[0].split() == ["STATE", "BACKBONE", "DATASET", "RECIPE", "SEED", "RUN", "ID", "REASON"]
    table = lines[1 : lines.index("")]
    runs = len(registry.resolve_backbones("all")) * len(registry.resolve_datasets("all"))
    assert len(table) == runs and all(line.startswith("blocked") for line in table)
    assert all(line.endswith("no weights, no data") for line in table)
    assert max(map(len, lines)) <= 100 and len(lines) < len(table) + 12, "no paragraphs"
    assert "      python -m harness prepare --backbones all --weights-root weights" in lines
    assert "      python -m harness prepare --datasets all --data-root data" in lines
    assert lines[-1] == "Run `python -m harness plan --explain` with the same options for details."
    assert "Also accepted" not in out


def test_explanations_are_shown_when_asked_for(plan: Cli, tmp_path: Path) -> None:
    _, short, _ = plan("--data-root", tmp_path, "--backbones", "bot")
    code, out, _ = plan("--data-root", tmp_path, "--backbones", "bot", "--explain")
    assert code == 0 and out.startswith(short.split("\n\n")[0]), "the same table"
    text = " ".join(out.split())
    assert "Market-1501-v15.09.15. Also accepted: market1501/Market-1501-v15.09.15, market1501, " in text
    assert "MSMT17_V1 (layout msmt17-v1). Also accepted: msmt17/MSMT17_V1, " in text
    assert "resnet50-0676ba61.pth" in text
    assert max(map(len, out.splitlines())) <= 100 and "--explain" not in out


def test_what_is_ready_needs_no_advice(plan: Cli, world: Path) -> None:
    out = plan("--data-root", world, "--backbones", "dummy", "--datasets", "market1501,msmt17")[1]
    assert "2 runs on cpu: 2 to do." in out and "What to do" not in out and "--explain" not in out


def test_states_of_data(plan: Cli, world: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    words = ["--backbones", "dummy", "--datasets", "market1501", "--data-root", root]
    one = ("dummy", "market1501")
    assert reasons(plan, *words) == {one: "no data root"}
    root.mkdir()
    assert reasons(plan, *words) == {one: "no data"}
    folder = root / "Market-1501-v15.09.15"
    shutil.copytree(world / folder.name, folder)
    assert reasons(plan, *words) == {one: "new"}
    (folder / "stand-in.json").write_text("{")
    assert reasons(plan, *words) == {one: "damaged data"}
    shutil.rmtree(folder / "query")
    assert reasons(plan, *words) == {one: "incomplete data"}
    assert "it lacks query" in " ".join(plan(*words, "--explain")[1].split())


def test_states_of_weights(plan: Cli, world: Path, tmp_path: Path) -> None:
    words = ["--data-root", world, "--backbones", "bot", "--datasets", "market1501", "--weights-root", tmp_path]
    assert reasons(plan, *words) == {("bot", "market1501"): "no weights"}
    assert reasons(plan, *words, "--from-scratch") == {("bot", "market1501"): "new"}
    (tmp_path / "resnet50-0676ba61.pth").write_text("no checkpoint")
    assert reasons(plan, *words) == {("bot", "market1501"): "wrong weights"}
    assert "resnet50-0676ba61.pth" in plan(*words)[1], "the reason is short enough to be shown"


def test_a_package_that_is_not_installed(plan: Cli, world: Path, plugin_folder: Path) -> None:
    card = plugin_folder / "pixels" / "card.toml"
    card.write_text(card.read_text() + '\n[[requires]]\ndistribution = "no-such-thing"\nmodule = "no_such_thing"\n')
    words = ["--data-root", world, "--plugins", plugin_folder, "--backbones", "pixels", "--datasets", "market1501"]
    assert reasons(plan, *words) == {("pixels", "market1501"): "no no-such-thing"}
    assert "      pip install no-such-thing" in plan(*words)[1].splitlines()


def test_a_further_dataset_that_is_not_scored_is_a_warning(plan: Cli, tmp_path: Path, plugin_folder: Path) -> None:
    from tests.support import small_csv

    for name, rows in (("office", small_csv.rows()), ("alone", small_csv.rows((0, 0)))):
        small_csv.card(plugin_folder, name)
        small_csv.write(tmp_path / "data", rows, name)
    words = ["--data-root", tmp_path / "data", "--plugins", plugin_folder, "--backbones", "pixels"]
    words += ["--datasets", "office", "--eval-datasets", "alone", "--from-scratch"]
    assert reasons(plan, *words) == {("pixels", "office"): "new; no matches"}


def test_the_commands_can_be_copied(plan: Cli, tmp_path: Path) -> None:
    root = tmp_path / "my data"
    root.mkdir()
    out = plan("--data-root", root, "--backbones", "dummy", "--datasets", "market1501,dukemtmc")[1]
    joined = out.replace("\\\n", " ")
    (command,) = [line for line in joined.splitlines() if "prepare --datasets" in line]
    assert shlex.split(command)[3:] == ["prepare", "--datasets", "market1501,dukemtmc", "--data-root", str(root)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--option", "nobody.stride=3"], "Unknown backbone in a build option 'nobody'"),
        (["--option", "reidmama.stride=3"], "Did you mean 'reidmamba'?"),
        (["--data-option", "msmt17.versio=v2"], "Did you mean 'version'?"),
        (["--data-option", "version=v2"], "must be of the form DATASET.KEY=VALUE"),
        (["--backbones", "bot", "--camera-embedding", "on"], "No backbone of the plan has a camera embedding (bot)"),
        (["--camera-embedding", "maybe"], "'maybe' is not one of 'on', 'off'"),
        (["--set", "lr"], "--set must be of the form KEY=VALUE, found 'lr'"),
        (["--seeds", "a"], "--seeds must be whole numbers separated by commas, found 'a'"),
    ],
)
def test_wrong_options_are_named(plan: Cli, tmp_path: Path, words: list[str], message: str) -> None:
    code, out, err = plan("--data-root", tmp_path, *words)
    assert code == 2 and message in err and not out


def test_run_shows_the_same_table(cli: Cli, plan: Cli, tmp_path: Path) -> None:
    words = ["--data-root", tmp_path, "--backbones", "dummy", "--datasets", "market1501"]
    planned = plan(*words)[1]
    more = ["--device", "cpu", "--recipe", "smoke", "--results", tmp_path / "results", "--no-mlflow"]
    code, out, err = cli("run", *more, *words)
    assert code == 2 and out == planned and err == "Error: Nothing can run: the run is blocked, see above.\n"


def test_a_preset_that_generates_data_needs_no_advice(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in (["plan"], ["run", "--dry-run"]):
        code, out, err = cli(*command, "--preset", "smoke", "--datasets", "market1501")
        assert code == 0 and "generate" in out and "can start after that" in out and "prepare" not in out, err
    out = cli("plan", "--preset", "smoke", "--datasets", "market1501", "--format", "json")[1]
    assert {cell["state"] for cell in json.loads(out)} == {"blocked"}


def test_equal_problems_are_one() -> None:
    assert len({Problem("text", "short"), Problem("text", "short")}) == 1


def test_a_dataset_of_a_plug_in_has_no_archive_to_unpack(
    plan: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.planning.problems.REPOSITORY", tmp_path)  # `plugins/` of a checkout lies in it
    card = tmp_path / "plugins" / "office" / "card.toml"
    card.parent.mkdir(parents=True)
    layout = '[[layouts]]\nname = "office"\nreader = "csv"\nfolders = ["office"]\n'
    card.write_text(f'kind = "dataset"\nname = "office"\ntitle = "Office"\n{layout}')
    found = ["--data-root", tmp_path, "--plugins", tmp_path / "plugins", "--backbones", "dummy", "--datasets"]
    assert "office was not found in" in " ".join(plan(*found, "office")[1].split())
    assert "prepare --datasets office" not in plan(*found, "office")[1]
    code, _, err = plan(*found, "dummy")
    assert code == 2 and "'dummy' is a backbone, not a dataset" in err
