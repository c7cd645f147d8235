"""The CSV files hold what the records hold, a row each, with the columns that the documentation lists."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness.records import store
from harness.reporting import flat
from harness.reporting.report_data import ReportData
from tests.support import record_samples as samples

Rows = list[dict[str, str]]


def written(place: Path, *records: dict[str, Any], **more: Any) -> dict[str, Rows]:
    paths = flat.write(ReportData(list(records), **more), place)
    return {path.name: list(csv.DictReader(path.open(newline=""))) for path in paths}


def test_a_row_per_run_score_and_cell(tmp_path: Path) -> None:
    plain, flip = samples.evaluation(mAP=0.1 + 0.2), samples.evaluation(flip=True, mAP=0.6)
    run = samples.ok(samples.spec(options={"stride": 12}), flip, plain)
    failed = samples.failed(samples.spec("beta"))
    cell = samples.ok(samples.spec(purpose="profile"), source="profile", latency_ms=7.5, measure="inference")
    cell["evaluations"] = []
    found = written(tmp_path, cell, failed, run)
    one, other = found["runs.csv"]
    assert (one["backbone"], float(one["mAP"]), one["mAP_low"], one["flops"]) == (
        "alpha",
        0.1 + 0.2,
        str(0.1 + 0.2 - 0.04),
        "4100000000",
    )
    assert (one["options"], one["height"], one["origin"]) == ('{"stride":12}', "256", "")
    assert (other["status"], other["reason"], other["mAP"]) == ("oom", "CUDA out of memory", "")
    assert [(row["flip"], row["mAP"]) for row in found["scores.csv"]] == [("True", "0.6"), ("False", one["mAP"])]
    assert [(row["latency_ms"], row["newest"]) for row in found["cells.csv"]] == [("7.5", "True")]


def test_the_same_records_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    records = [samples.ok(samples.spec(name, seed=seed)) for name in ("alpha", "beta") for seed in range(3)]
    written(tmp_path / "a", *records)
    written(tmp_path / "b", *reversed(records))
    for name in flat.TABLES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_text_is_not_a_formula_and_stays_on_one_line(tmp_path: Path) -> None:
    failed = samples.failed(samples.spec("=cmd|' /C calc'!A0"), message='@SUM(1)\nand "more", too')
    (row,) = written(tmp_path, failed)["runs.csv"]
    assert (row["backbone"], row["reason"]) == ("'=cmd|' /C calc'!A0", '\'@SUM(1) and "more", too')


def test_the_page_lists_the_columns() -> None:
    page = flat.PAGE.read_text(encoding="utf-8")
    assert page == flat.documented(page), "run: python -m harness.reporting.flat"


def test_the_command_and_the_function_write_the_same(cli: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    record = samples.ok(samples.spec())
    store.write(store.folder_of(tmp_path / "results", record), record)
    code, out, _ = cli("report", "--results", tmp_path / "results", "--csv", tmp_path / "a")
    assert code == 0 and out.count("CSV: ") == 3 and not (tmp_path / "results" / "BENCHMARKS.md").exists()
    assert harness.report(tmp_path / "results", csv=tmp_path / "b") == tmp_path / "b"
    for name in flat.TABLES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    code, _, err = cli("report", "--results", tmp_path / "results", "--csv", tmp_path / "a", "--check")
    assert code == 2 and "--csv writes the CSV files alone" in err
