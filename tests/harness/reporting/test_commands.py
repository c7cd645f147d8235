"""The commands on the page plan the ids of the runs they stand for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import registry
from harness.cli.options import given, literal, pair
from harness.cli.plan import command as plan_command
from harness.cli.profile import command as profile_command
from harness.cli.profile import study
from harness.execution import profile
from harness.execution.settings import resolve
from harness.planning import plan
from harness.planning import profile as profile_plan
from harness.planning.request import Request
from harness.records import store
from harness.reporting import commands
from harness.reporting.rows import flatten, settings
from harness.system.paths import REPOSITORY
from tests.support import record_samples as samples

pytestmark = pytest.mark.usefixtures("quick_runs")
Cli = Callable[..., tuple[int, str, str]]
MINE = """
name = "mine"
about = "A recipe of my own | for small tests."
[augmentation]
image_size = [32, 16]
[sampler]
identities = 4
instances = 2
epoch = "fixed"
iterations = 2
[training]
epochs = 1
[dataset.market1501.optimizer]
lr = 0.002
"""


class Bench:
    """A folder for results, and what the page made of them says; commands run in this process."""

    def __init__(self, cli: Cli, data: Path, folder: Path, plugins: Path) -> None:
        self.cli, self.folder, self.plugins, self.data = cli, folder, plugins, data
        self.results, self.page = folder / "results", folder / "page" / "BENCHMARKS.md"

    def call(self, *words: object) -> str:
        code, out, err = self.cli(*words)
        assert code == 0, out + err
        return out

    def place(self, line: str) -> list[str]:
        """Words of a printed command, after `python -m harness`, placeholders replaced."""
        known = {
            "DATA_ROOT": self.data,
            "WEIGHTS_ROOT": self.folder,
            "PLUGINS_DIR": self.plugins,
            "CHECKPOINT_FILE": self.folder / "file.pth",
            "FEATURES_FILE": self.folder / "file.npz",
            "SPACE_FILE": self.folder / "space.toml",
        }
        return [str(known.get(word, word)) for word in shlex.split(line)[3:]]

    def printed(self) -> list[list[str]]:
        """The commands on the page."""
        self.call("report", "--results", self.results, "--out", self.page)
        lines = self.page.read_text(encoding="utf-8").splitlines()
        return [self.place(line) for line in lines if line.startswith("python -m harness ")]

    def planned(self, commands: list[list[str]]) -> set[str]:
        """Ids of the runs that `run` commands plan."""
        ids: set[str] = set()
        for command, *words in commands:
            assert command == "run"
            plan = self.call("plan", *words, "--format", "json", "--results", self.folder / "nothing")
            ids |= {cell["run_id"] for cell in json.loads(plan)}
        return ids

    def recorded(self, *sources: str) -> set[str]:
        return {r["run_id"] for r in store.records(self.results) if r["source"] in (sources or ("trained",))}

    def forget_requests(self) -> None:
        """Makes records as they were before they kept what was typed."""
        for record in store.records(self.results):
            del record["request"]
            store.write(store.folder_of(self.results, record), record)

    def plan(self, *words: object, generated: bool = False) -> list[dict[str, Any]]:
        """Records as if the runs of a command had ended."""
        context = plan_command.make_context("plan", [str(word) for word in words])
        with context:
            names = context.params["backbones"], context.params["datasets"]
            cells = plan.build(resolve(*names, given(context.params, "backbones", "datasets", "form")).request)
        made = [samples.ok(cell.spec) | {"request": cell.asked} for cell in cells]
        for record in made:
            record["data"]["generated"] = {"generated": True} if generated else None
        return made

    def come_back(self, records: list[dict[str, Any]], number: int | None = None) -> list[list[str]]:
        """Asserts that the commands for some records plan their ids; returns the commands."""
        lines = commands.of_table(settings(records)).splitlines()[1:-1]
        printed = [self.place(line) for line in lines]
        assert self.planned(printed) == {record["run_id"] for record in records}
        assert number in (None, len(printed)), "\n".join(lines)
        return printed


@pytest.fixture
def bench(cli: Cli, world: Path, tmp_path: Path, plugin_folder: Path) -> Bench:
    return Bench(cli, world, tmp_path, plugin_folder)


def smoke(bench: Bench, *more: object, backbones: str = "dummy", datasets: str = "market1501") -> list[object]:
    fixed = ["--backbones", backbones, "--datasets", datasets, "--device", "cpu", "--data-root", bench.data]
    return [*fixed, *([] if "--recipe" in more or "--preset" in more else ["--recipe", "smoke"]), *more]


@pytest.mark.slow
def test_from_runs_to_the_page_and_back(bench: Bench) -> None:
    """A plug-in from outside, a recipe of the user's, two seeds, and a further dataset."""
    path = bench.folder / "own recipes" / "mine.toml"
    path.parent.mkdir()
    path.write_text(MINE)
    words = smoke(bench, "--recipe", path, "--plugins", bench.plugins, "--seeds", "0,3", backbones="dummy,pixels")
    words += ["--set", "loss.margin=0.5", "--option", "pixels.fault=none", "--eval-datasets", "dukemtmc"]
    rest = ["--results", bench.results, "--cache", bench.folder / "cache", "--report", bench.page, "--no-mlflow"]
    bench.call("run", *words, *rest, "--debug")
    printed = bench.printed()
    assert all(str(path) in words and str(bench.plugins) in words for words in printed)
    assert bench.planned(printed) == bench.recorded() and len(bench.recorded()) == 4
    assert "Recipe mine: A recipe of my own \\| for small tests." in bench.page.read_text(encoding="utf-8")

    bench.forget_requests()
    path.unlink()
    assert bench.planned(bench.printed()) == bench.recorded(), "the values are spelled out where the file is unknown"


def test_recipes_options_and_seeds_that_differ(bench: Bench) -> None:
    """`--recipe smoke` is no preset, whatever the data."""
    records = [
        *bench.plan(*smoke(bench, "--seeds", "0,3", "--eval-datasets", "dukemtmc,msmt17"), generated=True),
        *bench.plan(*smoke(bench, "--option", "dummy.stripes=3", "--set", "augmentation.image_size=32x16")),
        *bench.plan(*smoke(bench, "--set", "evaluation.metric=euclidean", "--set", "training.deterministic=true")),
        *bench.plan(*smoke(bench, "--set", "optimizer.lr=1e-5", "--set", "augmentation.erasing.area=[0.05, 0.5]")),
    ]
    printed = bench.come_back(records, 4)
    assert not any({"--preset", "--plugins", "--weights-root"} & set(words) for words in printed)


def test_a_soft_margin_is_a_word(bench: Bench) -> None:
    sharp = bench.plan(*smoke(bench, "--set", "loss.margin=0.3"))
    (printed,) = bench.come_back(
        bench.plan(*smoke(bench, "--recipe", "native", "--set", "loss.margin=soft", backbones="bot")), 1
    )
    assert "loss.margin=soft" in printed
    soft = bench.plan(*smoke(bench, "--set", "loss.margin=soft"))
    assert {r["run_id"] for r in soft} == {r["run_id"] for r in bench.plan(*smoke(bench, "--set", "loss.margin=-1"))}
    for record, margin in zip([*soft, *sharp], ("soft", 0.3), strict=True):
        flatten(record["spec"]["values"], "", flat := {})
        assert flat["loss.margin"] == margin


def test_reader_options(bench: Bench) -> None:
    words = ["--data-option", "cuhk03_classic_detected.split=3", "--eval-datasets", "market1501"]
    (printed,) = bench.come_back(bench.plan(*smoke(bench, *words, datasets="cuhk03-classic-detected")), 1)
    assert "cuhk03-classic-detected.split=3" in printed


def test_a_preset_is_named_where_it_was_used(bench: Bench) -> None:
    """With data that were drawn; a preset draws none into a folder that holds real data."""
    words = smoke(bench, "--preset", "smoke", "--set", "loss.margin=0.3", backbones="dummy,bot,transreid,reidmamba")
    (printed,) = bench.come_back(bench.plan(*words, "--option", "bot.neck_feature=before", generated=True), 1)
    assert printed[printed.index("--preset") + 1] == "smoke" and "--recipe" not in printed
    assert printed.count("--option") == 1
    (printed,) = bench.come_back(bench.plan(*words), 1)
    assert "--preset" not in printed and printed[printed.index("--recipe") + 1] == "smoke"


def test_a_train_time_is_given_again(bench: Bench) -> None:
    study = profile_plan.Study(batches=(), train_batches=(64,), heights=(), threads=1)
    (cell,) = profile_plan.build(Request(backbones="bot", results=bench.folder / "nothing", device="cpu"), study)
    timed = samples.ok(cell.spec, source="profile", train_step_ms=500.0) | {"evaluations": []}
    store.write(cell.folder, timed)
    more = ("--recipe", "unified", "--train-time", "10m", "--from-scratch", "--results", bench.folder / "nothing")
    (printed,) = bench.come_back(bench.plan(*smoke(bench, *more, backbones="bot")), 1)
    assert printed[printed.index("--train-time") + 1] == "10m" and "training.epochs" not in " ".join(printed)


def test_a_plug_in_without_its_request(bench: Bench) -> None:
    records = bench.plan(*smoke(bench, "--plugins", bench.plugins, backbones="pixels"), "--from-scratch")
    for record in records:
        del record["request"]
    assert bench.come_back(records, 1)


def test_what_cannot_stand_in_one_command_has_one_of_its_own() -> None:
    """Variants beside their base, backbones with and without weights: read by `plan` in the other tests."""
    base = {"values": {}, "pretrained": "sha256:0"}
    runs = [
        samples.ok(samples.spec("reidmamba", options={"stride": 12}, **base)),
        samples.ok(samples.spec("reidmamba:mgfe", **base)),
        samples.ok(samples.spec("bot", **base)),
        samples.ok(samples.spec("dummy", values={})),
        samples.ok(samples.spec("transreid", values={})),
    ]
    said = commands.of_table(settings(runs)).splitlines()[1:-1]
    assert [line.split("--backbones ")[1].split()[0] for line in said] == [
        "bot,dummy,reidmamba",
        "reidmamba:mgfe",
        "transreid",
    ]
    assert ["--weights-root WEIGHTS_ROOT" in line for line in said] == [True, True, False]
    assert ["--from-scratch" in line for line in said] == [False, False, True]


@pytest.mark.parametrize("recipe", ["native", "unified"])
def test_real_backbones(bench: Bench, recipe: str) -> None:
    """Variants, native recipes with values for a dataset, camera embedding."""
    names = "bot,bot:no-center,reidmamba,reidmamba:mgfe,transreid"
    words = ["--recipe", recipe, "--from-scratch", "--seeds", "0,7", "--set", "optimizer.lr=0.0007"]
    records = bench.plan(*smoke(bench, *words, backbones=names, datasets="msmt17"))
    bench.come_back(records, 1)
    records += bench.plan(*smoke(bench, *words, "--camera-embedding", "off", backbones=names, datasets="msmt17"))
    bench.come_back(records)


@pytest.mark.slow
def test_final_runs_of_a_search_and_the_search_itself(bench: Bench) -> None:
    place = bench.folder / "space.toml"
    place.write_text('[parameters.rate]\nkey = "recipe.optimizer.lr"\nlow = 0.001\nhigh = 0.1\n')
    words = ["--backbone", "pixels", "--dataset", "market1501", "--space", place, "--recipe", "smoke", "--samples", 2]
    words += ["--data-root", bench.data, "--from-scratch", "--device", "cpu", "--plugins", bench.plugins]
    words += ["--trial-epochs", 1, "--final-seeds", "0,1", "--set", "training.epochs=3", "--sampler", "random"]
    words += ["--results", bench.results, "--report", bench.page, "--no-mlflow", "--debug"]
    bench.call("tune", *words, "--cache", bench.folder / "cache")
    (search,) = (bench.results / "searches").iterdir()
    printed = bench.printed()
    (tune,) = [words for words in printed if words[0] == "tune"]
    assert f"Search {search.name}" in bench.call(*tune, "--results", bench.results, "--dry-run")
    assert tune[tune.index("--trial-epochs") + 1] == "1" and "training.epochs=3" in tune
    assert bench.planned([words for words in printed if words[0] == "run"]) == bench.recorded()


@pytest.mark.slow
def test_a_checkpoint_and_features(bench: Bench) -> None:
    splits = registry.dataset("market1501").load(bench.data)
    draw = np.random.default_rng(0)
    np.savez(
        bench.folder / "file.npz", **{n: draw.normal(size=(len(getattr(splits, n)), 8)) for n in ("query", "gallery")}
    )
    module = registry.backbone("pixels", bench.plugins).build(num_classes=12, num_cameras=6, image_size=(64, 32))
    torch.save(module.state_dict(), bench.folder / "file.pth")
    fixed = ["--dataset", "market1501", "--data-root", bench.data, "--device", "cpu", "--results", bench.results]
    fixed += ["--recipe", "smoke", "--set", "evaluation.batch_size=16"]
    scored = ["--checkpoint", bench.folder / "file.pth", "--plugins", bench.plugins]
    fixed += ["--debug"]
    bench.call("evaluate", "--backbone", "pixels", *scored, *fixed)
    bench.call("evaluate", "--backbone", "dummy", "--features", bench.folder / "file.npz", *fixed)
    kinds = ("published-checkpoint", "features")
    known = bench.recorded(*kinds)
    printed = [words for words in bench.printed() if words[0] == "evaluate"]
    assert len(known) == len(printed) == 2
    for words in printed:
        bench.call(*words, "--results", bench.results, "--force")
    assert bench.recorded(*kinds) == known
    assert {r["attempts"] for r in store.records(bench.results)} == {2}, "each was scored again, none beside it"


def test_options_of_a_checkpoint(bench: Bench) -> None:
    """A mean of the cameras is an option of `evaluate` alone."""
    entry = registry.backbone("transreid")
    (record,) = bench.plan(*smoke(bench, backbones="transreid"), "--from-scratch")
    spec = {**record["spec"], "options": {**entry.options({"stride": 12}), "camera_embedding": "mean"}}
    run = {**record, "source": "published-checkpoint", "spec": spec}
    (line,) = commands.of_table(settings([run])).splitlines()[1:-1]
    words = bench.place(line)
    assert words[:1] == ["evaluate"] and words[words.index("--camera-embedding") + 1] == "mean"
    assert [w for w in words if w.startswith("transreid.")] == ["transreid.stride=12"] * (
        entry.card.options["stride"] != 12
    )


def test_cells_of_the_study(bench: Bench) -> None:
    words = ["--backbones", "dummy,pixels", "--plugins", bench.plugins, "--device", "cpu", "--threads", 1]
    words += ["--image-size", "32x16,64x32", "--batch", "1,2", "--train-batch", "4", "--precision", "fp32,bf16"]
    words += ["--heights", "32,48", "--heights-batch", 3, "--seconds", 0.1, "--compile", "--results", bench.results]
    planned = {
        c["run_id"]: c for c in json.loads(bench.call("profile", *words, "--format", "json")) if c["state"] == "to do"
    }
    context = profile_command.make_context("profile", [str(word) for word in words])
    with context:
        _, cells = profile.plan(context.params["backbones"], study(context.params))
    records = [
        {**samples.ok(cell.spec, source="profile"), "evaluations": []} for cell in cells if cell.spec.run_id in planned
    ]
    ids: list[str] = []
    lines = commands.of_profile(records).splitlines()[1:-1]
    for line in lines:
        again = bench.call(*bench.place(line), "--format", "json", "--results", bench.results)
        ids += [cell["run_id"] for cell in json.loads(again)]
    assert sorted(ids) == sorted(planned) and len(lines) < 8


def test_the_page_of_this_repository(cli: Cli) -> None:
    """Every command parses and names what is known."""
    page = (REPOSITORY / "BENCHMARKS.md").read_text(encoding="utf-8")
    for line in page.splitlines():
        if line.startswith("python -m harness run "):
            words = [word for word in shlex.split(line)[4:] if word not in ("--plugins", "PLUGINS_DIR")]
            code, _, err = cli("plan", *words, "--format", "json")
            assert code == 0, err


@pytest.mark.parametrize(
    "value",
    ["one-pass", "0.5", "true", "32x16", "a b", "", " x", "[1]", "ünï", 'quo"te', 1.0, 1e-05, 3, True, [0.02, 0.4]],
)
def test_values_are_read_as_they_were(value: object) -> None:
    assert literal(pair("--set", f"key={commands.literal(value)}")[1]) == value


def test_a_hostile_value_stays_one_word(tmp_path: Path) -> None:
    run = samples.ok(samples.spec("evil`\n$(x)", options={"a": "b'\n    python -m harness run --force"}))
    run["request"] = {"recipe": "x/`id`\n.toml", "options": {"a": "$(rm -r)"}, "set": {"a.b": {"c": "\u202e;"}}}
    said = commands.of_table(settings([run])).splitlines()[1:-1]
    assert len(said) == 1
    words = shlex.split(said[0])
    assert "evil`?$(x).a=$(rm -r)" in words and words[words.index("--recipe") + 1] == "x/`id`?.toml"


def test_many_commands_are_counted() -> None:
    runs = [samples.ok(samples.spec(options={"a": i})) for i in range(commands.MOST_COMMANDS + 2)]
    said = commands.of_table(settings(runs))
    assert said.count("python -m harness") == commands.MOST_COMMANDS and "2 more commands not shown" in said
