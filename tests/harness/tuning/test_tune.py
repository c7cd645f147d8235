"""Spaces, samplers, early stopping and what is kept of a search, without training."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import RecordError, UsageError
from harness.records import store
from harness.spec.job import Job
from harness.tuning import final_runs, sampler, space, state
from harness.tuning.asha import Asha
from harness.tuning.sampler import Known
from harness.tuning.space import Parameter, Space
from harness.tuning.stopping import Rung, stop_reason
from tests.support import searches

RATR = space.load("ratr")


def test_the_ratr_space_starts_with_the_paper_and_the_ablations() -> None:
    known: list[Known] = []
    for number in range(4):
        point = sampler.suggest(RATR, "tpe", seed=0, number=number, samples=40, known=known)
        assert point is not None
        known.append(Known(point, 0.5))
    weights = [(k.point["intra"], k.point["inter"]) for k in known]
    assert weights == [(1, 1), (0, 0), (1, 0), (0, 1)]
    assert {k.point["temperature"] for k in known} == {0.1}
    assert RATR.recipe(known[0].point) == {
        "loss.ratr_intra": 1.0,
        "loss.ratr_inter": 1.0,
        "loss.ratr_temperature": 0.1,
    }


PARAMETERS = st.sampled_from(
    [
        Parameter("recipe.optimizer.lr", "log-uniform", 1e-4, 1e-1),
        Parameter("recipe.loss.ratr_intra", "log-uniform", 0.05, 5.0, zero_probability=0.15),
        Parameter("recipe.loss.margin", "uniform", -1.0, 2.0),
        Parameter("recipe.sampler.instances", "integer", 2, 8),
        Parameter("recipe.optimizer.name", "choice", values=("sgd", "adam", "adamw")),
    ]
)


@given(PARAMETERS, st.floats(0, 1))
def test_a_value_lies_where_it_came_from(parameter: Parameter, position: float) -> None:
    value = parameter.value(position)
    assert parameter.value(parameter.position(value)) == value
    if parameter.distribution != "choice":
        assert value == 0 or parameter.low <= value <= parameter.high


def test_zero_has_its_probability_and_the_rest_is_log_uniform() -> None:
    parameter = RATR.parameters["intra"]
    values = [parameter.value(i / 10_000) for i in range(10_000)]
    assert values.count(0.0) / len(values) == pytest.approx(0.15, abs=0.001)
    below_half = sum(0 < v < math.sqrt(0.05 * 5.0) for v in values) / sum(v > 0 for v in values)
    assert below_half == pytest.approx(0.5, abs=0.001)


def test_a_temperature_without_weights_is_not_searched() -> None:
    off = RATR.canonical({"intra": 0.0, "inter": 0.0, "temperature": 0.4})
    assert off["temperature"] == 0.1
    assert RATR.canonical({"intra": 0.0, "inter": 0.1, "temperature": 0.4})["temperature"] == 0.4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks parameters"),
        ("[parameters]", "has no parameters"),
        ('[parameters.a]\nkey = "loss.margin"', "recipe.KEY"),
        ('[parameters.a]\nkey = "recipe.loss.margin"\nlow = 2.0', "below high"),
        ('[parameters.a]\nkey = "recipe.loss.margin"\ndistribution = "log-uniform"', "above zero"),
        ('[parameters.a]\nkey = "recipe.loss.margin"\ndistribution = "uniforn"', "Did you mean 'uniform'"),
        (
            '[parameters.a]\nkey = "recipe.loss.margin"\n[[points]]\nname = "p"\nvalues = { b = 1 }',
            "must set exactly a",
        ),
    ],
)
def test_a_bad_space_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        space.load(str(tmp_path / "s.toml"))
    with pytest.raises(UsageError, match="Did you mean 'ratr'"):
        space.load("rart")


def test_a_grid_holds_every_combination_once() -> None:
    points = sampler.grid(RATR, 40)
    assert len(points) == 16 and all(points.count(point) == 1 for point in points)
    two = Space("two", {n: Parameter(f"recipe.loss.{n}") for n in ("identity", "triplet")})
    assert len(sampler.grid(two, 10)) == 9
    known = [Known(point, 0.1) for point in sampler.grid(two, 10)]
    assert sampler.suggest(two, "grid", seed=0, number=9, samples=10, known=known) is None


def best_of(name: str, seed: int) -> float:
    known: list[Known] = []
    for number in range(40):
        point = sampler.suggest(RATR, name, seed=seed, number=number, samples=40, known=known)
        assert point is not None and point not in [k.point for k in known], "no point is tried twice"
        known.append(Known(point, searches.final_score(point)))
    return max(k.value or 0.0 for k in known)


@pytest.mark.slow
def test_tpe_is_near_the_optimum_and_beats_random_search() -> None:
    tpe, random = ([best_of(name, seed) for seed in range(10)] for name in ("tpe", "random"))
    assert min(tpe) >= 0.95, "the optimum is 1"
    assert sum(tpe) > sum(random)


def test_a_suggestion_depends_on_what_is_known_alone() -> None:
    known = [Known(RATR.canonical(point.values), 0.3) for point in RATR.points]
    known += [Known({"intra": 0.1 * i, "inter": 0.2, "temperature": 0.1}, 0.1 * i, running=i > 8) for i in range(1, 10)]
    one, other = (sampler.suggest(RATR, "tpe", seed=3, number=13, samples=40, known=known) for _ in range(2))
    assert one == other and one not in [k.point for k in known]


def test_optuna_is_given_what_its_versions_disagree_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    asked: list[dict[str, Any]] = []
    real = optuna.samplers.TPESampler
    monkeypatch.setattr(optuna.samplers, "TPESampler", lambda **given: (asked.append(given), real(**given))[1])
    known = [Known(RATR.canonical(point.values), 0.3) for point in RATR.points]
    known += [Known({"intra": 0.1 * i, "inter": 0.2, "temperature": 0.1}, 0.1 * i, running=i > 8) for i in range(1, 10)]
    sampler.suggest(RATR, "tpe", seed=3, number=13, samples=40, known=known)
    assert asked and asked[0]["multivariate"] is True and asked[0]["constant_liar"] is True


def test_asha_lets_the_best_third_go_on() -> None:
    rule = Asha(epochs=27)
    assert rule.rungs == [3, 9] and Asha(12, grace_period=2, reduction_factor=2).rungs == [2, 4, 8]
    assert not Asha(12, reduction_factor=0).rungs
    others = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert [rule.promotes(value, others) for value in (0.6, 0.45, 0.35)] == [True, True, False]
    assert [rule.promotes(value, [0.5]) for value in (0.6, 0.4)] == [True, False], "one goes on where there are few"


def test_beyond_asha_named_points_and_the_best_go_on_and_promotions_are_capped() -> None:
    rule, others = Asha(epochs=27), [0.1, 0.2, 0.3, 0.4, 0.5]
    full, free = Rung(others, judged=5, promoted=2), Rung(others, judged=5, promoted=1)
    assert not stop_reason(rule, 3, 0.45, free)
    assert stop_reason(rule, 3, 0.45, full).startswith("Stopped by the promotion cap after epoch 3 of 27")
    assert "2 of 6 have been promoted" in stop_reason(rule, 3, 0.45, full)
    assert not stop_reason(rule, 3, 0.6, full), "the best so far"
    assert stop_reason(rule, 3, 0.0, free).startswith("Stopped by ASHA")
    assert not stop_reason(rule, 3, 0.0, free, named=True)
    assert "number 4 of 6" in stop_reason(rule, 3, 0.25, Rung(others, judged=5, promoted=0))
    assert not stop_reason(rule, 4, 0.0, full), "not a rung"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_search_finds_the_hill_in_half_the_epochs(tmp_path: Path, seed: int) -> None:
    search = searches.new_search(seed=seed)
    searches.play(search, tmp_path)
    spent, full = search.epochs
    assert len(search.trials) == 40 and full == 40 * searches.EPOCHS and spent <= full / 2
    assert search.best is not None and searches.final_score(search.best.point) >= 0.9
    named = [t for t in search.trials if t.name]
    assert len(named) == 4 and all(t.state == "finished" for t in named)
    stopped = next(t for t in search.trials if t.state == "stopped")
    record = next(r for r in store.records(tmp_path) if r["run_id"] == stopped.run_id)
    assert record["source"] == "search" and record["error"] is not None
    assert record["error"]["type"] == "Stopped" and "Stopped by " in record["error"]["message"]
    assert not list(tmp_path.rglob("checkpoint.pt"))


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_killed_at_any_moment_it_goes_on_with_the_same_trials(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[int]
) -> None:
    broken, whole = tmp_path_factory.mktemp("broken"), tmp_path_factory.mktemp("whole")
    search = searches.new_search(samples_=12)
    for events in deaths:
        search = searches.reload(broken, search)
        with pytest.raises(searches.Killed):
            searches.play(search, broken, die_after=events)
            raise searches.Killed  # it was done before
    search = searches.reload(broken, search)
    searches.play(search, broken)
    straight = searches.new_search(samples_=12)
    searches.play(straight, whole)
    assert len(search.trials) == 12 and len({t.run_id for t in search.trials}) == 12
    assert [t.point for t in search.trials] == [t.point for t in straight.trials]
    assert [t.state for t in search.trials] == [t.state for t in straight.trials]
    assert searches.play(searches.reload(broken, search), broken) == [], "nothing is left to do"


def test_more_samples_go_on_with_the_same_search(tmp_path: Path) -> None:
    search = searches.new_search(samples_=6)
    searches.play(search, tmp_path)
    more = state.resume(tmp_path, searches.new_search(samples_=8))
    assert len(searches.play(more, tmp_path)) == 2 and more.id == search.id


def test_other_settings_are_another_search(tmp_path: Path) -> None:
    one, other = searches.new_search(seed=0, samples_=5), searches.new_search(seed=1, samples_=5)
    for search in (one, other):
        searches.play(search, tmp_path)
    assert one.id != other.id and len(list(state.every(tmp_path))) == 2
    one.finals.append(state.Final("best", one.trials[0].point, ["a" * 64, "b" * 64]))
    state.write(tmp_path, one)
    again = state.read(state.path_of(tmp_path, one.id))
    assert again.to_dict() == one.to_dict() and list(again.space.parameters) == ["intra", "inter", "temperature"]


def test_spaces_and_searches_with_former_names_are_still_read(tmp_path: Path) -> None:
    text = (space.FOLDER / "ratr.toml").read_text()
    (tmp_path / "ratr.toml").write_text(text.replace("zero_probability", "zero").replace("active_if", "matters_with"))
    assert space.load(str(tmp_path / "ratr.toml")) == RATR
    search = searches.new_search(seed=2, samples_=6)
    assert search.id == "ratr-pixels-market1501-bb80826a95", "as version 1 had it"
    searches.play(search, tmp_path)
    path = state.path_of(tmp_path, search.id)
    former = json.loads(path.read_text())
    asha = former["settings"]["asha"]
    former["settings"]["asha"] = {"epochs": asha["epochs"], "grace": 0, "factor": 3}
    former["settings"]["holdout"] = {"seed": 0, "share": 0.3}
    for _, keys in former["space"]["parameters"]:
        keys["zero"], keys["matters_with"] = keys.pop("zero_probability"), keys.pop("active_if")
    path.write_text(json.dumps({**former, "version": 1}))
    assert state.read(path).to_dict() == search.to_dict()
    path.write_text(json.dumps({**former, "version": 3}))
    with pytest.raises(RecordError, match="reads up to version 2; update it"):
        state.read(path)


def test_divergence_is_bad_and_failure_is_retried(tmp_path: Path) -> None:
    search = searches.new_search(samples_=6)
    searches.play(search, tmp_path, status=lambda point: "diverged" if point["inter"] == 0 else "ok")
    ends = {t.name: (t.state, t.value) for t in search.trials}
    assert ends["intra only"] == ends["RATR off"] == ("diverged", 0.0) and ends["paper"][0] == "finished"

    failing = searches.new_search(seed=1, samples_=1)
    started = searches.play(failing, tmp_path / "other", status=lambda point: "failed")
    assert started == [failing.trials[0].run_id] * 2 and failing.trials[0].state == "failed"


def test_a_failed_trial_keeps_its_checkpoint_for_the_next_call(tmp_path: Path) -> None:
    search = searches.new_search(samples_=2)
    searches.play(search, tmp_path, status=lambda point: "failed")
    assert {trial.state for trial in search.trials} == {"failed"}
    assert len(list(tmp_path.rglob("checkpoint.pt"))) == 2
    searches.play(search, tmp_path)
    assert {trial.state for trial in search.trials} == {"finished"} and not list(tmp_path.rglob("checkpoint.pt"))


def test_nothing_starts_once_the_search_is_told_to_stop(tmp_path: Path) -> None:
    search, stop = searches.new_search(), threading.Event()
    stop.set()
    driver = searches.SearchTrials(search, tmp_path, searches.plan_in(tmp_path, search), None, stop)  # type: ignore[arg-type]
    assert driver.next() is None and not search.trials


def test_a_full_disk_is_said_once_and_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    search, said = searches.new_search(samples_=3), []
    job = lambda cell: Job(cell.spec, str(cell.folder))  # noqa: E731
    plan, stop = searches.plan_in(tmp_path, search), threading.Event()
    driver = searches.SearchTrials(search, tmp_path, plan, job, stop, warn=said.append)
    with monkeypatch.context() as patch:
        patch.setattr(state.files, "write_json", full)
        while (one := driver.next()) is not None:
            searches.train(driver, one, lambda: None, "ok")
        with pytest.raises(RecordError, match="Cannot write"):
            state.write(tmp_path, search)
    assert len(said) == 1 and "search continues" in said[0]
    assert [trial.state for trial in search.trials] == ["finished"] * 3
    state.write(tmp_path, search)
    assert state.read(state.path_of(tmp_path, search.id)).to_dict() == search.to_dict(), "room again: nothing is lost"
    with monkeypatch.context() as patch:
        patch.setattr(state.files, "locked", full)
        with pytest.raises(UsageError, match="Cannot write to"), state.exclusive(tmp_path, search.id):
            pass


def test_a_damaged_file_is_said_to_be_so(tmp_path: Path) -> None:
    search = searches.new_search()
    path = state.path_of(tmp_path, search.id)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(RecordError, match="damaged"):
        state.resume(tmp_path, search)
    with (
        state.exclusive(tmp_path, search.id),
        pytest.raises(UsageError, match="Another process"),
        state.exclusive(tmp_path, search.id),
    ):
        pass


def test_an_unknown_state_of_a_trial_is_damage(tmp_path: Path) -> None:
    search = searches.new_search(samples_=1)
    searches.play(search, tmp_path)
    path = state.path_of(tmp_path, search.id)
    path.write_text(path.read_text().replace('"state": "finished"', '"state": "done"'))
    with pytest.raises(RecordError, match=r"damaged.*done"):
        state.read(path)


def test_the_chosen_points_are_the_best_the_paper_and_off(tmp_path: Path) -> None:
    search = searches.new_search(samples_=8)
    searches.play(search, tmp_path)
    assert [name for name, _ in final_runs.chosen(search)] == ["best", "paper", "RATR off"]
