"""The section of equal budgets, from studies and records that are written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import reporting
from harness.reporting import rows, tuned_results
from harness.reporting.report_data import ReportData
from harness.tuning import space
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
    assert "Tuning changes the order of the medians: from beta, alpha to alpha, beta" in shown
    assert "33 finished, 3 stopped" in shown and "lower bounds" in shown
    row = next(line for line in shown.splitlines() if line.startswith("| loss.label\\_smoothing"))
    assert max(int(cell.strip(" %")) for cell in row.split("|")[2:-1]) > 50, "the only parameter with an effect"
    assert sorted(path.name for path in (tmp_path / "figures").glob("tuned.*")) == [
        "tuned.market1501.unified.training.12.cpu.best-of.png",
        "tuned.market1501.unified.training.12.cpu.rates.png",
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


def test_runs_without_camera_ids_have_a_table_of_their_own() -> None:
    specs = [samples.spec("alpha", options={"camera_embedding": on}) for on in (True, False)]
    data = ReportData([samples.ok(spec) for spec in (*specs, samples.spec("beta"))])
    found = {table.key.recipe: [row.label for row in table.rows] for table in rows.tables(data)}
    assert found == {"unified": ["alpha", "beta"], "unified, camera embedding off": ["alpha", "beta"]}
    alone = ReportData([samples.ok(specs[1]), samples.ok(samples.spec("beta"))])
    assert [table.key.recipe for table in rows.tables(alone)] == ["unified"]
