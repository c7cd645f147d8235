"""The plan of `--recipe tuned`: equal points, people and seeds for every backbone, without reading the test split."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.cli import studies as studies_text
from harness.errors import UsageError
from harness.execution import settings, tuned
from harness.execution.options import Execution
from harness.execution.tune import SearchSettings, Tuning
from harness.planning.plan import BLOCKED, CACHED, TODO
from harness.planning.request import Request
from harness.records import store
from harness.spec.job import Job
from harness.tuning import state, studies
from harness.tuning.state import FINISHED, STOPPED, Trial
from harness.tuning.trial_source import SearchTrials
from tests.support import record_samples as samples

Cli = Callable[..., tuple[int, str, str]]


def request(world: Path, folder: Path, backbones: str = "bot,transreid", **more: Any) -> Request:
    given = {"budget": 4, "studies": 2, **more}
    fixed = {"recipe": "tuned", "data_root": world, "results": folder / "results", "from_scratch": True}
    fixed |= {"device": "cpu", "overrides": {"sampler.identities": 4}}
    return settings.resolve(backbones, "market1501", {**fixed, **given}).request


def test_studies_are_the_same_for_every_backbone(world: Path, tmp_path: Path) -> None:
    found = studies.build(request(world, tmp_path))
    assert [(s.trial.spec.backbone, s.number) for s in found] == [
        ("bot", 0), ("transreid", 0), ("bot", 1), ("transreid", 1)
    ]  # fmt: skip
    values = [[cell.spec.values for cell in study.trials()] for study in found]
    assert values[0] == values[1] and values[2] == values[3] and values[0] != values[2]
    assert [study.trial.spec.holdout["seed"] for study in found] == [0, 0, 1, 1]
    assert {cell.spec.seed for cell in found[3].trials()} == {1}
    runs = {cell.spec.run_id for study in found for cell in study.trials()}
    assert len(runs) == 16 and runs == {
        c.spec.run_id for s in studies.build(request(world, tmp_path)) for c in s.trials()
    }


def test_a_trial_is_the_one_that_tune_would_run(world: Path, tmp_path: Path) -> None:
    asked = request(world, tmp_path, "transreid")
    first = studies.build(asked)[0]
    tuned = Tuning(replace(asked, budget=None), SearchSettings(space="training", sampler="random"), Execution())
    for cell in first.trials():
        point = next(p for p in first.search.points() if first.plan_trial(p).spec == cell.spec)
        assert tuned.plan_trial(point).spec.run_id == cell.spec.run_id
    assert tuned.search.id != first.search.id, "a search of `tune` and a study do not share a file"


def test_the_untuned_runs_are_those_of_the_recipe(world: Path, tmp_path: Path) -> None:
    asked = request(world, tmp_path, "bot")
    plain = harness.plan(
        "bot", "market1501", seeds=[0, 1], data_root=world, results=asked.results, from_scratch=True, device="cpu",
        overrides=asked.overrides,
    )  # fmt: skip
    assert [study.untuned.spec.run_id for study in studies.build(asked)] == [cell.spec.run_id for cell in plain]


def test_the_choice_is_trained_on_everything_and_only_its_settings_change(world: Path, tmp_path: Path) -> None:
    study = studies.build(request(world, tmp_path, "transreid", budget=2))[0]
    points = study.search.points()[:2]
    study.search.trials = [
        Trial(i, p, study.plan_trial(p).spec.run_id, state=FINISHED, value=0.5 + 0.1 * i) for i, p in enumerate(points)
    ]
    second, study.search.trials = study.search.trials[1], study.search.trials[:1]
    assert study.finals() == [study.untuned] and not study.rates(), "nothing is chosen before the last trial"
    study.search.trials = [*study.search.trials, second]
    tuned, untuned, *rates = study.settle()
    assert (tuned.spec.recipe, tuned.spec.purpose, tuned.spec.holdout) == ("tuned", "test", {})
    assert tuned.spec.options["drop_path"] == points[1]["drop_path"]
    chosen = tuned.spec.values["optimizer"]["lr"]
    assert [cell.spec.values["optimizer"]["lr"] / chosen for cell in rates] == pytest.approx(studies.FACTORS, rel=1e-3)
    assert all(cell.spec.purpose == "search" and cell.state == TODO for cell in rates)
    assert untuned.spec.recipe == "unified" and [final.name for final in study.search.finals][:2] == ["untuned", "best"]
    assert study.search.finals[0].point["sgd_rate"] == 0.008 and study.search.finals[0].point["margin"] == "soft"


def test_trials_do_not_need_the_test_split(world: Path, tmp_path: Path) -> None:
    root = tmp_path / "half"
    shutil.copytree(world / "Market-1501-v15.09.15", root / "Market-1501-v15.09.15")
    shutil.rmtree(root / "Market-1501-v15.09.15" / "query")
    (study, *_) = studies.build(request(root, tmp_path, "bot"))
    assert study.trial.state == TODO and {cell.state for cell in study.trials()} == {TODO}
    assert study.untuned.state == BLOCKED and [cell.state for cell in study.finals()] == [BLOCKED]


def test_a_space_with_fewer_points_than_the_budget_ends_nevertheless(world: Path, tmp_path: Path) -> None:
    few = 'name = "few"\n[parameters.m]\nkey = "recipe.loss.margin"\ndistribution = "choice"\nvalues = ["soft", 0.3]\n'
    (tmp_path / "few.toml").write_text(few)
    (study, *_) = studies.build(request(world, tmp_path, "bot", space=tmp_path / "few.toml", studies=1))
    assert len(study.trials()) == 2 and not study.has_ended
    study.search.trials = [
        Trial(i, point, study.plan_trial(point).spec.run_id, state=FINISHED, value=0.5)
        for i, point in enumerate(study.search.points())
    ]
    assert study.has_ended and len(study.finals()) == 2 and study.runs == 2 + 2 + 4
    rows = studies_text.shown([study], study.request).splitlines()
    assert next(row for row in rows if row.startswith("bot")).split()[2:5] == ["2", "2", "6"]


def test_a_study_without_a_choice_has_the_untuned_run_alone(world: Path, tmp_path: Path) -> None:
    study = studies.build(request(world, tmp_path, "bot", budget=2))[0]
    study.search.trials = [
        Trial(i, p, study.plan_trial(p).spec.run_id, state="diverged", value=0.0)
        for i, p in enumerate(study.search.points())
    ]
    assert study.settle() == [study.untuned] and study.left == 1


def test_late_stopping_of_short_runs_is_none(world: Path, tmp_path: Path) -> None:
    """The report cannot tell the two apart, and its command must find the same study."""
    for epochs, same in ((3, True), (4, False)):
        few = {"overrides": {"sampler.identities": 4, "training.epochs": epochs}}
        late, off = (studies.build(request(world, tmp_path, "bot", stopping=s, **few))[0] for s in ("late", "off"))
        assert (late.search.id == off.search.id) == same
    usual = studies.build(request(world, tmp_path, "bot"))[0].search.settings.asha
    assert (usual.rungs, usual.reduction_factor) == ([90], 2), "the worse half, after 3/4 of 120 epochs"


def test_a_space_that_a_backbone_cannot_use_blocks_it(world: Path, tmp_path: Path) -> None:
    (study, *_) = studies.build(request(world, tmp_path, "bot", space="ratr"))
    assert study.trial.state == BLOCKED and "only one" in study.trial.reason
    assert study.left == 0, "nothing of it can start"


def test_a_blocked_backbone_is_said_at_the_end_too(world: Path, tmp_path: Path, capsys: Any) -> None:
    asked = request(world, tmp_path, "bot,transreid", space="ratr", budget=1, studies=1)
    study = studies.build(asked)[1]
    (point,), (cell,) = study.search.points(), study.trials()
    study.search.trials = [Trial(0, point, cell.spec.run_id, state=FINISHED, value=0.5)]
    for run in [cell, *study.settle()]:
        store.write(run.folder, samples.ok(run.spec, samples.evaluation(mAP=0.5)))
    state.write(asked.results, study.search)
    assert tuned.run(asked, studies.build(asked), Execution(mlflow=False)).code == 1
    out = capsys.readouterr().out
    assert out.count("The trials cannot start") == 1 and "only one" in out


def test_a_learning_rate_that_a_trial_has_tried_is_not_trained_again(world: Path, tmp_path: Path) -> None:
    """Though the trial was stopped, and so has no finished record."""
    rates = tmp_path / "rates.toml"
    rates.write_text('[parameters.rate]\nkey = "recipe.optimizer.lr"\ndistribution = "choice"\nvalues = [0.01, 0.02]\n')
    study = studies.build(request(world, tmp_path, "bot", space=str(rates), budget=2, studies=1))[0]
    found = [(point, study.plan_trial(point).spec.run_id) for point in study.search.points()]
    found.sort(key=lambda pair: pair[0]["rate"])
    states = ((FINISHED, 0.5), (STOPPED, None))
    study.search.trials = [
        Trial(i, point, run, state=how, value=value, curve={1: 0.1})
        for i, ((point, run), (how, value)) in enumerate(zip(found, states, strict=True))
    ]
    by_factor = dict(zip(studies.FACTORS, study.rates(), strict=True))
    assert by_factor[2.0].spec.run_id == found[1][1]
    assert [cell.state for cell in by_factor.values()] == [TODO, TODO, CACHED, TODO]


def test_the_cost_follows_from_measured_images_per_second(cli: Cli, world: Path, tmp_path: Path) -> None:
    asked = request(world, tmp_path, "bot", budget=10)
    first, second = studies.build(asked)
    assert first.search.estimate is None
    store.write(first.untuned.folder, samples.ok(first.untuned.spec, train_images_per_second=50.0))
    images = len(list((world / "Market-1501-v15.09.15" / "bounding_box_train").glob("*.jpg")))
    first, second = studies.build(asked)
    assert first.search.estimate == pytest.approx((14 * 0.7 + 2) * 120 * images / 50)
    assert second.search.estimate == pytest.approx((10 * 0.7 + 2) * 120 * images / 50)
    pair = samples.ok(first.untuned.spec, train_images_per_second=100.0, train_processes=2)
    store.write(first.untuned.folder, pair)
    assert studies.build(asked)[0].search.estimate == first.search.estimate, "hours of both devices"
    state.write(asked.results, first.search)
    store.write(first.untuned.folder, samples.ok(first.untuned.spec, train_images_per_second=99.0))
    assert studies.build(asked)[0].search.estimate == first.search.estimate, "what was said before the start stays"
    words = ["--backbones", "bot", "--datasets", "market1501", "--data-root", world, "--from-scratch"]
    words += ["--set", "sampler.identities=4", "--results", asked.results, "--device", "cpu", "--dry-run"]
    code, out, _ = cli("run", "--recipe", "tuned", "--budget", 10, "--studies", 2, *words)
    assert code == 0 and "CPU hours without early stopping" in " ".join(out.split())


def test_finished_trials_of_a_smaller_budget_are_taken_over(world: Path, tmp_path: Path) -> None:
    asked = request(world, tmp_path, "bot", budget=2, studies=1)
    for cell, score in zip(studies.build(asked)[0].trials(), (0.5, 0.6), strict=True):
        store.write(cell.folder, samples.ok(cell.spec, samples.evaluation(mAP=score), source="search"))
    (study,) = studies.build(request(world, tmp_path, "bot", budget=3, studies=1))
    assert "9 runs, 7 to do" in studies_text.shown([study], study.request)
    make = lambda cell: Job(cell.spec, str(cell.folder))  # noqa: E731
    trials = SearchTrials(study.search, asked.results, study.plan_trial, make, threading.Event())
    job = trials.next()
    assert job is not None and job.spec == study.trials()[2].spec
    assert [(trial.state, trial.value) for trial in study.search.trials[:2]] == [(FINISHED, 0.5), (FINISHED, 0.6)]


def test_a_large_search_is_planned_in_two_seconds(cli: Cli, world: Path, tmp_path: Path) -> None:
    names = ["--backbones", "bot,transreid,reidmamba", "--from-scratch", "--set", "sampler.identities=4"]
    data = ["--datasets", "market1501,dukemtmc,msmt17,cuhk03-detected,occluded-duke", "--data-root", str(world)]
    words = ["run", "--recipe", "tuned", *names, *data, "--results", str(tmp_path), "--device", "cpu", "--dry-run"]
    cli(*words)  # reads the datasets; later plans remember them
    start = time.process_time()
    code, out, _ = cli(*words)
    assert code == 0 and time.process_time() - start < 2
    assert "3 studies of 20 random trials" in out and "1050 runs" in out and "known in this results folder" in out
    assert list(tmp_path.iterdir()) == [] or not (tmp_path / "searches").exists()


def test_the_plan_as_json_has_every_run_that_is_known(cli: Cli, world: Path, tmp_path: Path) -> None:
    words = ["--backbones", "bot", "--datasets", "market1501", "--data-root", str(world), "--from-scratch"]
    code, out, _ = cli(
        "plan", "--recipe", "tuned", "--budget", 3, "--studies", 2, *words, "--results", tmp_path, "--format", "json",
        "--set", "sampler.identities=4",
    )  # fmt: skip
    assert code == 0
    runs = json.loads(out)
    assert len(runs) == 2 * (3 + 1) and len({run["run_id"] for run in runs}) == 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "unified", "budget": 3}, "--budget is part of a search"),
        ({"force": True}, "Leave out --force"),
        ({"seeds": "0,1"}, "takes its seeds from --studies"),
        ({"protocol": "leave-one-out"}, "Leave out --protocol"),
        ({"stopping": "early"}, "stopping rule"),
        ({"budget": 0}, "--budget must be a whole number"),
        ({"space": "train"}, "Did you mean 'training'"),
        ({"stopping": False}, "stopping rule"),
        ({"budget": True}, "--budget must be a whole number"),
    ],
)
def test_settings_that_do_not_fit_are_refused(world: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        studies.build(request(world, tmp_path, "bot", **given))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("recipe.optimizer.lrr", "The space mine does not fit: .*Did you mean 'lr'"),
        ("option.drop_path", "The space mine does not fit: Unknown option of bot"),
        ("recipe.training.epochs", "Remove the parameter of training.epochs"),
        ("recipe.loss.label_smoothing", "The space mine does not fit: .*loss.label_smoothing"),
    ],
)
def test_the_message_names_a_space_that_does_not_fit(world: Path, tmp_path: Path, key: str, message: str) -> None:
    ends = 'distribution = "integer"\nlow = 1\nhigh = 5\n'
    (tmp_path / "mine.toml").write_text(f'[parameters.m]\nkey = "{key}"\n{ends}')
    with pytest.raises(UsageError, match=message):
        studies.build(request(world, tmp_path, "bot", space=tmp_path / "mine.toml"))


def test_an_epoch_of_fixed_length_costs_the_same_in_a_trial(world: Path, tmp_path: Path) -> None:
    fixed = {"overrides": {"sampler.identities": 4, "sampler.epoch": "fixed", "sampler.iterations": 10}}
    asked = request(world, tmp_path, "bot", budget=10, **fixed)
    untuned = studies.build(asked)[0].untuned
    store.write(untuned.folder, samples.ok(untuned.spec, train_images_per_second=50.0))
    assert studies.build(asked)[0].search.estimate == pytest.approx((14 + 2) * 120 * 10 * 16 / 50)


def test_other_commands_refuse_a_recipe_that_is_a_search(cli: Cli, world: Path, tmp_path: Path) -> None:
    words = ["--backbone", "bot", "--dataset", "market1501", "--data-root", world, "--results", tmp_path]
    code, _, err = cli("tune", *words, "--recipe", "tuned", "--from-scratch")
    assert code == 2 and "only `run` and `plan`" in err
