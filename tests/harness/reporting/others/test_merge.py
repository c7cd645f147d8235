"""Several results folders in one report: the origin of each row, duplicates and contradictions."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import reporting
from harness.errors import UsageError
from harness.reporting.others import merge
from tests.harness.reporting.test_report import keep, table
from tests.harness.reporting.test_significance import add, scores
from tests.support import record_samples as samples


def record(seed: int = 0, mAP: float = 0.5, **changes: Any) -> dict[str, Any]:
    return samples.ok(samples.spec(seed=seed, **changes), samples.evaluation(mAP=mAP))


def page(place: Path, *folders: str) -> str:
    return reporting.write([place / name for name in folders], place / "BENCHMARKS.md")[0].read_text()


def test_rows_have_their_origin_and_are_not_pooled(tmp_path: Path) -> None:
    keep(tmp_path / "a", record(0, 0.5), record(1, 0.52))
    keep(tmp_path / "b", record(2, 0.6))
    text = page(tmp_path, "a", "b")
    rows = table(text, "### Market")
    assert [(row["Backbone"], row["Origin"], row["mAP"]) for row in rows] == [
        ("alpha (origin=a)", "a", "51.0 ± 1.4"),
        ("alpha (origin=b)", "b", "60.0"),
    ]
    assert [row["Origin"] for row in table(text, "**What was run where**")] == ["a", "b"]
    assert "### Runs in several results folders" not in text


def test_duplicates_are_shown_once_and_contradictions_twice(tmp_path: Path) -> None:
    keep(tmp_path / "a", record(0), record(1, 0.5))
    keep(tmp_path / "b", record(0), record(1, 0.6))
    text = page(tmp_path, "a", "b")
    shown = table(text, "<b>Single runs</b>")
    assert sorted((row["Backbone"], row["Seed"], row["Market-1501"].split(" `")[0]) for row in shown) == [
        ("alpha (origin=a)", "0", "50.0 / 60.0"),
        ("alpha (origin=a)", "1", "50.0 / 60.0"),
        ("alpha (origin=b)", "1", "60.0 / 70.0"),
    ]
    same, other = record(0)["run_id"][:12], record(1)["run_id"][:12]
    where = "(alpha on market1501, seed"
    assert f"- Duplicate: run {same} {where} 0) is in a and b with the same scores; the record of a is shown." in text
    assert f"- Contradiction: run {other} {where} 1) has mAP 50.0000 %" in text
    assert "in a, but has mAP 60.0000 %, rank-1 70.0000 % in b; both are shown." in text


def test_values_of_queries_come_from_the_folder_of_the_record(tmp_path: Path) -> None:
    """Also if both folders have the same run with other scores."""
    for place, shift in (("a", 0.0), ("b", 0.1)):
        add(tmp_path / place, "alpha", scores(1, shift))
    text = page(tmp_path, "a", "b")
    (pair,) = table(text, "<b>Significance</b>")
    assert (pair["First"], pair["Second"]) == ("alpha (origin=a)", "alpha (origin=b)")
    assert pair["Market-1501"].startswith("**-10.0** [")


def test_the_same_folders_give_the_same_bytes(tmp_path: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        keep(tmp_path / name / "results", record(seed))
    folders = ["--results", tmp_path / "a" / "results", "--results", tmp_path / "b" / "results"]
    assert cli("report", *folders)[0] == 2, "where to?"
    out = ["--out", tmp_path / "BENCHMARKS.md"]
    assert cli("report", *folders, *out)[0] == 0
    assert cli("report", *folders, *out, "--check")[0] == 0
    assert "| a " in (tmp_path / "BENCHMARKS.md").read_text()
    assert cli("report", *folders, "--csv", tmp_path / "csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "csv" / "runs.csv").open()))
    assert [(row["seed"], row["origin"]) for row in rows] == [("0", "a"), ("1", "b")]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a", "b"], ["a", "b"]),
        (["x/results", "y/results"], ["x", "y"]),
        (["results", "y/results"], ["results", "y/results"]),
        (["./x/a", "x/b/"], ["a", "b"]),
        (["x/a", "y/a", "x/b"], ["x/a", "y/a", "x/b"]),
        ([".", "x/b"], ["here", "b"]),
    ],
)
def test_names_are_short_and_unique(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: list[str], names: list[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
    assert merge.names([Path(folder) for folder in folders]) == names


def test_a_folder_is_given_once_and_exists(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="given twice"):
        merge.names([tmp_path, tmp_path / "." / ""])
    with pytest.raises(UsageError, match="does not exist"):
        merge.names([tmp_path, tmp_path / "no"])


def test_a_folder_may_have_the_name_of_one_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Path(tmp_path.relative_to("/"))
    here.mkdir(parents=True)
    one, other = merge.names([here, tmp_path])
    assert one != other


def test_a_record_is_compared_with_all_folders_before(tmp_path: Path) -> None:
    keep(tmp_path / "a", record(0, 0.5))
    for name in ("b", "c"):
        keep(tmp_path / name, record(0, 0.6))
    text = page(tmp_path, "a", "b", "c")
    assert text.count("- Contradiction: ") == 1 and "is in b and c with the same scores" in text
