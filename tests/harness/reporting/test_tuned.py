"""The section of equal budgets, from studies and records that are written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from harness import reporting, stats
from harness.reporting import rows, tuned, tuned_results
from harness.reporting.others import merge
from harness.reporting.report_data import ReportData
from harness.reporting.site.source import Source
from harness.reporting.site.views import tuned as tuned_view
from harness.tuning import cost, space
from harness.tuning.asha import Asha
from harness.tuning.state import FINISHED, STOPPED, Final, Search, Settings, Trial
from tests.support import record_samples as samples

TRIALS = 12
SPACE = space.load("training").fitting(())


def study(backbone: str, seed: int, scores: dict[str, float], **options: Any) -> tuple[Search, list[dict[str, Any]]]:
    """A finished study whose held-out mAP depends on label smoothing alone, and its records."""
    spec = samples.spec(backbone, seed=seed, purpose="search", holdout={"seed": seed, "share": 0.3}, options=options)
    search = Search(SPACE, Settings("random", seed, Asha(4, 3, 2), TRIALS, (seed,), tuned=True), spec, estimate=7200.0)
    records = []
    generator = np.random.default_rng(seed)
    for number in range(TRIALS):
        point = SPACE.at({name: float(generator.random()) for name in SPACE.parameters})
        value = 0.7 - 2 * point["label_smoothing"]
        run = samples.spec(
            backbone, seed=seed, purpose="search", holdout=spec.holdout, options={**options, "n": number}
        )
        state = STOPPED if number == 1 else FINISHED
        found = value if state == FINISHED else None
        search.trials.append(Trial(number, point, run.run_id, state=state, value=found, curve={4: value}))
        records.append(samples.ok(run, samples.evaluation(mAP=value), source="search"))
    assert search.best is not None
    for name, score in scores.items():
        run = samples.spec(backbone, seed=seed, recipe="tuned" if name == "best" else "unified", options=options)
        run = run if name in ("best", "untuned") else samples.spec(backbone, seed=seed, options={"rate": name})
        search.finals.append(Final(name, search.best.point, [run.run_id]))
        records.append(samples.ok(run, samples.evaluation(mAP=score)))
    return search, records


def page(tmp_path: Path, studies: Sequence[tuple[Search, list[dict[str, Any]]]]) -> str:
    records = {r["run_id"]: r for _, found in studies for r in found}
    data = ReportData(list(records.values()), searches=[search for search, _ in studies])
    reporting.build(data, tmp_path / "page.md")
    return (tmp_path / "page.md").read_text().partition("## Tuned with equal budgets")[2].partition("\n## ")[0]


def test_the_website_has_the_same_medians(tmp_path: Path):
    studies = [*three("alpha", (0.4, 0.5, 0.6)), *three("beta", (0.2, 0.3, 0.3))]
    records = {r["run_id"]: r for _, found in studies for r in found}
    data = ReportData(list(records.values()), searches=[search for search, _ in studies])
    (entry,) = tuned_view.build(Source(data, (), None))["tuned"]
    rows = {row["label"]: row for row in entry["rows"]}
    assert rows["alpha"]["mAP"] == [0.5, 0.4, 0.6] and rows["beta"]["studies"] == [3, 3]
    assert rows["alpha"]["gain"] == pytest.approx([0.2, 0.1, 0.3]) and len(rows["alpha"]["runs"]) == 3


def three(backbone: str, tuned: Sequence[float], untuned: float = 0.3, **options: Any) -> list[Any]:
    rates = {f"learning rate x {factor:g}": 0.6 + factor / 100 for factor in (0.25, 0.5, 2, 4)}
    return [
        study(backbone, seed, {"best": value, "untuned": untuned, **(rates if seed == 0 else {})}, **options)
        for seed, value in enumerate(tuned)
    ]


def test_medians_gains_hours_and_a_difference(tmp_path: Path) -> None:
    shown = page(tmp_path, [*three("alpha", (0.50, 0.52, 0.53)), *three("beta", (0.40, 0.421, 0.431), untuned=0.45)])
    assert "| alpha" in shown and "52.0 [50.0, 53.0]" in shown and "+22.0 [+20.0, +23.0]" in shown
    assert "(6)" in shown, "three studies of two hours were expected"
    assert "alpha is better than beta by 9.9 points of mAP" in shown
    assert "The search lowered the median of beta, so its budget may be too small." in shown
    assert "Tuning changes the order of the medians: from beta, alpha to alpha, beta" in shown
    assert "33 finished, 3 stopped" in shown and "lower bounds" in shown
    row = next(line for line in shown.splitlines() if line.startswith("| `loss.label_smoothing`"))
    assert max(int(cell.strip(" %")) for cell in row.split("|")[2:-1]) > 50, "the only parameter with an effect"
    assert sorted(path.name for path in (tmp_path / "figures").glob("tuned.*")) == [
        "tuned.market1501.unified.training.12.4.cpu.best-of.png",
        "tuned.market1501.unified.training.12.4.cpu.rates.png",
    ]


def test_equal_backbones_and_unequal_numbers_of_studies_are_said(tmp_path: Path) -> None:
    shown = page(tmp_path, [*three("alpha", (0.50, 0.52, 0.53)), *three("beta", (0.52, 0.50, 0.53))])
    assert "no backbone is shown to be better" in shown
    shown = page(tmp_path, [*three("alpha", (0.50, 0.52, 0.53)), *three("beta", (0.52,))])
    assert "different numbers of studies" in shown and "Conclusion**: none yet" in shown
    unfinished = three("alpha", (0.50, 0.52, 0.53))
    unfinished[0][0].trials[3].state, unfinished[0][0].trials[3].value = "failed", None
    assert "trials of alpha are unfinished or failed" in page(tmp_path, unfinished)


def test_options_of_one_backbone_are_rows_of_their_own(tmp_path: Path) -> None:
    on = three("alpha", (0.5, 0.52), camera_embedding=True)
    off = three("alpha", (0.4, 0.42), camera_embedding=False)
    shown = page(tmp_path, [*on, *off])
    assert "camera" in shown and "51.0" in shown and "41.0" in shown


def test_a_diverged_trial_counts_as_zero_and_a_failed_one_not_at_all() -> None:
    search, _ = study("alpha", 0, {})
    search.trials[0].state, search.trials[0].value = "diverged", 0.0
    search.trials[2].state, search.trials[2].value = "failed", None
    values = [tuned_results.value_of(trial) for trial in search.trials]
    assert values[0] == 0.0 and values[1] == pytest.approx(search.trials[1].curve[4]) and values[2] is None
    search.trials[1].curve = {1: 0.6, 2: 0.4}
    assert tuned_results.value_of(search.trials[1]) == 0.4, "a stopped one counts with its last value, not its best"


def test_a_former_choice_is_in_no_ordinary_table() -> None:
    search, records = study("alpha", 0, {"best": 0.5, "untuned": 0.3})
    former = samples.ok(samples.spec("alpha", seed=0, recipe="tuned", options={"n": 1}), samples.evaluation(mAP=0.4))
    data = ReportData([*records, former], searches=[search])
    assert {run["spec"]["recipe"] for table in rows.tables(data) for row in table.rows for run in row.setting.runs} == {
        "unified"
    }
    lost = rows.tables(ReportData([former]))
    assert [table.key.recipe for table in lost] == ["tuned"], "without its study, a run is still shown"


def test_p_values_are_corrected_for_all_pairs() -> None:
    scores = {"alpha": (0.50, 0.52, 0.53), "beta": (0.42, 0.45, 0.43), "gamma": (0.49, 0.53, 0.52)}
    found = [study for backbone, values in scores.items() for study in three(backbone, values)]
    records = {r["run_id"]: r for _, of_study in found for r in of_study}
    (table,) = tuned_results.tables(ReportData(list(records.values()), searches=[search for search, _ in found]))
    pairs = tuned._pairs(table)
    assert [p for *_, p in pairs] == pytest.approx(list(stats.holm([test.p_value for _, _, test, _ in pairs])))
    assert max(p / test.p_value for _, _, test, p in pairs) == pytest.approx(3)


def test_hours_count_every_process_of_a_run() -> None:
    run = {"timing": {"seconds": {"train": 90.0, "evaluate": 10.0}}, "efficiency": {}}
    assert cost.spent([run, {**run, "efficiency": {"train_processes": 4}}]) == 100 + 400


def test_runs_without_camera_ids_have_a_table_of_their_own() -> None:
    specs = [samples.spec("alpha", options={"camera_embedding": on}) for on in (True, False)]
    data = ReportData([samples.ok(spec) for spec in (*specs, samples.spec("beta"))])
    found = {table.key.recipe: [row.label for row in table.rows] for table in rows.tables(data)}
    assert found == {"unified": ["alpha", "beta"], "unified, camera embedding off": ["alpha", "beta"]}
    alone = ReportData([samples.ok(specs[1]), samples.ok(samples.spec("beta"))])
    assert [table.key.recipe for table in rows.tables(alone)] == ["unified"]


def changed(studies: list[Any], **fields: Any) -> list[Any]:
    for search, _ in studies:
        search.spec = structs.replace(search.spec, **fields)
    return studies


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"pretrained": "a" * 64}, "alpha (pretrained=none)"),
        ({"values": {**samples.VALUES, "loss": {"triplet": 9.0}}}, "alpha (loss.triplet=9.0)"),
        ({"fingerprint": "e" * 64}, "alpha (fingerprint=eeeeeeee)"),
        ({"source": "a" * 64}, "alpha (code=aaaaaaaa)"),
    ],
)
def test_studies_with_other_settings_are_rows_of_their_own(fields: dict[str, Any], label: str) -> None:
    studies = [*three("alpha", (0.5, 0.52)), *changed(three("alpha", (0.3, 0.32), n=9), options={}, **fields)]
    records = {r["run_id"]: r for _, found in studies for r in found}
    (table,) = tuned_results.tables(ReportData(list(records.values()), searches=[s for s, _ in studies]))
    assert [sorted(row.scores("best").values()) for row in table.complete("best")] in (
        [[0.5, 0.52], [0.3, 0.32]], [[0.3, 0.32], [0.5, 0.52]]
    )  # fmt: skip
    assert label in [row.label for row in table.rows]


def test_spaces_of_one_name_have_tables_and_figures_of_their_own(tmp_path: Path) -> None:
    other = three("beta", (0.3, 0.32))
    for search, _ in other:
        kept = {name: p for name, p in SPACE.parameters.items() if name != "margin"}
        search.space = structs.replace(SPACE, parameters=kept)
    shown = page(tmp_path, [*three("alpha", (0.5, 0.52)), *other])
    assert shown.count("12 trials of 4 epochs in the space training ") == 2 * 3, "a title and two figures"
    assert len(list((tmp_path / "figures").glob("tuned.*"))) == 4 and "Conclusion**: none yet" in shown
    assert "--space training " in shown and "--space training.toml " in shown


def test_a_choice_without_effect_has_an_importance() -> None:
    parameters = {
        "o": {"key": "recipe.optimizer.name", "distribution": "choice", "values": ["sgd", "adam"]},
        "m": {"key": "recipe.x", "distribution": "choice", "values": [0.5, 0.9], "active_if": {"o": ["sgd"]}},
    }
    searches = [search for search, _ in three("alpha", (0.5, 0.52))]
    for search in searches:
        search.space = space.Space.from_dict({"name": "mine", "parameters": parameters})
        for trial in search.trials:
            trial.point = {"o": "sgd", "m": 0.5} if trial.number % 2 else {"o": "adam", "m": None}
    assert set(tuned_results.importance(searches)) == {"optimizer.name", "x"}
    parameters["n"] = {"key": "recipe.x", "distribution": "uniform", "low": 0, "high": 1, "active_if": {"o": ["adam"]}}
    for search in searches:
        search.space = space.Space.from_dict({"name": "mine", "parameters": parameters})
        for trial in search.trials:
            trial.point = {**trial.point, "n": None if trial.number % 2 else trial.number / 20}
    assert set(tuned_results.importance(searches)) == {"optimizer.name", "x"}, "a choice and a range set one key"


def test_a_study_without_a_choice_is_said(tmp_path: Path) -> None:
    studies = three("alpha", (0.5, 0.52))
    for trial in studies[0][0].trials:
        trial.state, trial.value = "diverged", 0.0
    del studies[0][0].finals[:]
    assert "**No choice**: in a study of alpha, no trial finished." in page(tmp_path, studies)


def test_diverged_and_missing_learning_rates(tmp_path: Path) -> None:
    studies = three("alpha", (0.5, 0.52))
    search, records = studies[0]
    search.finals[:] = [final for final in search.finals if final.name != "learning rate x 0.25"]
    last = next(r for r in records if r["run_id"] == search.finals[-1].run_ids[0])
    last |= {"status": "diverged", "evaluations": []}
    shown = page(tmp_path, studies)
    row = next(line for line in shown.splitlines() if line.startswith("| alpha") and "not run" in line)
    assert row.split("|")[6].strip() == "0.0" and float(row.split("|")[7]) < -50


def test_a_better_learning_rate_than_the_choice_is_said(tmp_path: Path) -> None:
    studies = three("alpha", (0.5, 0.52))
    assert "Higher than the choice" not in page(tmp_path, studies)
    better = next(final for final in studies[0][0].finals if final.name == "learning rate x 4")
    record = next(r for r in studies[0][1] if r["run_id"] == better.run_ids[0])
    record["evaluations"] = [samples.evaluation(mAP=0.9)]
    assert "**Higher than the choice**: alpha at x 4 (+" in page(tmp_path, studies)


def test_backbones_with_a_train_time_are_compared_though_their_epochs_differ(tmp_path: Path) -> None:
    studies = [*three("alpha", (0.50, 0.52, 0.53)), *three("beta", (0.40, 0.42, 0.43))]
    for search, records in studies:
        epochs = 8 if search.spec.backbone == "alpha" else 4
        search.settings = structs.replace(search.settings, asha=Asha(epochs, epochs * 3 // 4, 2))
        search.spec = structs.replace(search.spec, recipe="unified-30m")
        for record in records:
            record["request"] = {"recipe": "unified", "train_time": "30m"}
    shown = page(tmp_path, studies)
    assert shown.count("### ") == 1 and "12 trials of 30m in the space training\n" in shown
    assert "alpha is better than beta" in shown and "30m at the measured speed: alpha 8, beta 4." in shown


def test_studies_of_two_folders_are_two_tables() -> None:
    folders = []
    for backbone, score in (("alpha", 0.5), ("beta", 0.4)):
        searches_, records = zip(*three(backbone, (score, score)), strict=True)
        folders.append(ReportData([r for some in records for r in some], searches=list(searches_)))
    merged = merge.merge(folders, ["here", "there"])
    assert [(t.key.origin, [row.label for row in t.rows]) for t in tuned_results.tables(merged)] == [
        ("here", ["alpha"]),
        ("there", ["beta"]),
    ]
    twice = merge.merge([folders[0], folders[0]], ["here", "there"])
    assert [t.key.origin for t in tuned_results.tables(twice)] == ["here"]


def test_audits_and_other_tests_of_the_choices_are_shown(tmp_path: Path) -> None:
    studies = three("alpha", (0.5, 0.52))
    audit = {
        "check": "breakdown", "dataset": "market1501", "about": "Parts.", "source": "", "notes": [], "error": None,
        "rows": [{"name": "mAP", "setting": {"camera": "1"}, "value": 0.25, "interval": None}],
    }  # fmt: skip
    for search, records in studies:
        chosen = next(final for final in search.finals if final.name == "best").run_ids[0]
        record = next(r for r in records if r["run_id"] == chosen)
        record["audits"] = [audit]
        elsewhere = samples.evaluation("dukemtmc", mAP=0.125)
        record["evaluations"] += [samples.evaluation(mAP=0.75, rerank=True), elsewhere]
        record["spec"]["evaluate_on"] = [["dukemtmc", "f"]]
    shown = page(tmp_path, studies)
    assert "datasets that they were not trained on" in shown and "12.5" in shown
    whole = (tmp_path / "page.md").read_text()
    assert "### Audits: market1501, recipe tuned, 12 trials of 4 epochs in the space training" in whole
    assert "25.0" in whole.partition("### Audits")[2]
    assert "75.0 ± 0.0 / " in whole.partition("<b>Other tests</b>")[2]
