"""Comparisons: paired by query, words that say no more than the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from harness import reporting, stats
from harness.records import store
from harness.reporting import significance
from harness.reporting.report_data import gather
from harness.reporting.section import Context
from tests.harness.reporting.test_report import keep, table
from tests.support import record_samples as samples

IDENTITIES, QUERIES = 40, 200


def scores(seed: int, shift: float = 0.0) -> list[float]:
    """AP of each query: a difficulty that all backbones share, noise of their own, and a shift."""
    difficulty = np.random.default_rng(99).normal(0.5, 0.15, QUERIES)
    noise = np.random.default_rng(seed).normal(shift, 0.03, QUERIES)
    return [float(v) for v in np.clip(difficulty + noise, 0, 1).round(6)]


def add(results, backbone: str, values: list[float], seed: int = 0, offset: int = 0, **spec):
    run = samples.spec(backbone, seed=seed, **spec)
    evaluation = samples.evaluation(mAP=float(np.nanmean(values)) * 0.7, per_query="per_query.csv")
    record = samples.ok(run, evaluation)
    rows = samples.per_query(values, IDENTITIES, offset)
    store.write(store.folder_of(results, record), record, {"per_query.csv": rows})


def section(results) -> str:
    return significance.build(Context(gather(results), "figures")).markdown


def pairs(results, column: str = "market1501") -> dict[tuple[str, str], str]:
    return {(row["First"], row["Second"]): row[column] for row in table(section(results), "<b>Significance</b>")}


def test_numbers_are_those_of_the_paired_test(tmp_path):
    a, b = scores(1), scores(2, 0.008)
    add(tmp_path, "alpha", a)
    add(tmp_path, "beta", b)
    groups = [i % IDENTITIES for i in range(QUERIES)]
    wanted = stats.paired_test(a, b, groups)
    difference = f"{100 * wanted.difference:+.1f}"
    assert difference == f"{100 * (np.mean(a) - np.mean(b)):+.1f}" and wanted.p_value < 0.05
    interval = f"[{100 * wanted.interval[0]:+.1f}, {100 * wanted.interval[1]:+.1f}]"
    assert pairs(tmp_path) == {("alpha", "beta"): f"**{difference}** {interval}, p {wanted.p_value:.4f}"}


def test_equal_backbones_show_no_difference(tmp_path):
    add(tmp_path, "alpha", scores(1))
    add(tmp_path, "beta", scores(1))
    assert pairs(tmp_path) == {("alpha", "beta"): "0.0 [0.0, 0.0], p 1.0000"}


def test_pairs_are_corrected_over_the_table(tmp_path):
    values = {"alpha": scores(1), "beta": scores(2, 0.004), "gamma": scores(3, 0.008)}
    for name, one in values.items():
        add(tmp_path, name, one)
    groups = [i % IDENTITIES for i in range(QUERIES)]
    names = [("alpha", "beta"), ("alpha", "gamma"), ("beta", "gamma")]
    wanted = stats.holm([stats.paired_test(values[x], values[y], groups).p_value for x, y in names])
    found = pairs(tmp_path)
    assert list(found) == names
    assert [float(cell.split("p ")[1]) for cell in found.values()] == pytest.approx(wanted, abs=5e-5)


def test_seeds_are_averaged_and_their_spread_is_said_apart(tmp_path):
    a, b = [scores(1), scores(2, 0.02)], [scores(3, 0.1), scores(4, 0.12)]
    for name, seeds in (("alpha", a), ("beta", b)):
        for seed, values in enumerate(seeds):
            add(tmp_path, name, values, seed)
    (cell,) = pairs(tmp_path).values()
    assert cell.startswith(f"**{100 * (np.mean(a) - np.mean(b)):+.1f}** [") and cell.endswith(", beyond seeds")


def test_a_difference_within_the_spread_over_seeds_may_be_chance(tmp_path):
    for name, shift in (("alpha", 0.0), ("beta", 0.02)):
        for seed, values in enumerate((scores(1, shift), scores(1, shift + 0.2))):
            add(tmp_path / "results", name, values, seed)
    ((_, cell),) = pairs(tmp_path / "results").items()
    assert cell.startswith("**-") and cell.endswith(", within seeds")
    page = reporting.write(tmp_path / "results", tmp_path / "BENCHMARKS.md")[0].read_text()
    rows = table(page, "## Overview")
    assert rows[0]["Market-1501"].endswith(" ≈") and rows[1]["Market-1501"].startswith("**")


def test_queries_without_a_match_are_left_out(tmp_path):
    a, b = scores(1), scores(2, 0.05)
    a[7] = b[7] = float("nan")
    add(tmp_path, "alpha", a)
    add(tmp_path, "beta", b)
    assert pairs(tmp_path)["alpha", "beta"].startswith(f"**{100 * (np.nanmean(a) - np.nanmean(b)):+.1f}**")


def test_other_queries_or_files_are_not_compared(tmp_path):
    add(tmp_path, "alpha", scores(1, 0.2))
    add(tmp_path, "beta", scores(2, 0.1))
    add(tmp_path, "gamma", scores(3), offset=1)
    add(tmp_path, "delta", scores(4), fingerprint="a" * 64)
    text = section(tmp_path)
    assert list(pairs(tmp_path)) == [("alpha", "beta")]
    for name in ("gamma", "delta"):
        assert f"- {name} is not compared: its queries or files differ from those of alpha." in text


def test_missing_values_are_said_without_the_place(tmp_path):
    for i, name in enumerate(("alpha", "beta", "gamma")):
        add(tmp_path, name, scores(i))
    next(tmp_path.glob("market1501/gamma/*/per_query.csv")).unlink()
    text = section(tmp_path)
    assert "- gamma is not compared: market1501/gamma/" in text and str(tmp_path) not in text
    assert len(pairs(tmp_path)) == 1


def test_no_values_at_all_is_one_sentence(tmp_path):
    keep(tmp_path, samples.ok(samples.spec("alpha")), samples.ok(samples.spec("beta")))
    text = section(tmp_path)
    assert text.count("compared:") == 1 and "Nothing is compared: no configuration has per-query values here." in text


def test_one_backbone_needs_no_comparison(tmp_path):
    add(tmp_path, "alpha", scores(1))
    assert section(tmp_path) == ""


def test_a_large_table_compares_the_best_and_says_so(tmp_path):
    for i in range(significance.MOST_SETTINGS + 1):
        add(tmp_path, f"net{i}", scores(i, 0.01 * i))
    text = section(tmp_path)
    rows = pairs(tmp_path)
    assert len(rows) == significance.MOST_SETTINGS * (significance.MOST_SETTINGS - 1) // 2
    assert "net0" not in {name for pair in rows for name in pair}
    assert "Only the 8 configurations with the highest mAP and per-query values are compared." in text
    resamples = significance.RESAMPLES * significance.FULL_PAIRS // len(rows)
    assert f"({resamples:,} resamples)" in text


def test_the_overview_marks_what_may_be_chance(tmp_path):
    """Bold is the highest mAP; a difference to it that is not shown or not tested has a mark."""
    for name, values in {"alpha": scores(1), "beta": scores(2, 0.1), "gamma": scores(3, 0.1)}.items():
        add(tmp_path / "results", name, values)
    keep(tmp_path / "results", samples.ok(samples.spec("delta"), samples.evaluation(mAP=0.1)))
    page = reporting.write(tmp_path / "results", tmp_path / "BENCHMARKS.md")[0].read_text()
    cells = {row["Backbone"]: row["Market-1501"] for row in table(page, "## Overview")}
    best, other = sorted(("beta", "gamma"), key=lambda name: cells[name].strip("*")[:4])[::-1]
    assert cells[best].startswith("**") and cells[other].endswith(" ≈")
    assert cells["delta"].endswith(" ?") and cells["alpha"][-1].isdigit()
    assert "<b>Significance</b>: 2 of 3 differences in mAP shown on these queries" in page
