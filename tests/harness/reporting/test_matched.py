"""Where not all queries have a match, the count stands beside every score."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from harness import registry
from harness.execution.progress import ProgressDisplay
from harness.records import store
from harness.records.schema import matched
from harness.reporting import diagrams
from harness.reporting.report_data import gather
from harness.reporting.section import Context
from harness.spec.job import Job
from tests.harness.reporting.test_report import material, page, table
from tests.support import record_samples as samples

Cli = Callable[..., tuple[int, str, str]]
FEW = "7 of 12 queries have a match"


def test_the_words() -> None:
    assert matched({"n_valid": 7, "n_query": 1100}) == "7 of 1,100 queries have a match"
    assert matched({"n_valid": 1, "n_query": 2}) == "1 of 2 queries has a match"
    assert matched({"n_valid": 2, "n_query": 2}) == matched({}) == matched({"n_valid": None, "n_query": 3}) == ""


def test_every_score_on_the_page(tmp_path: Path) -> None:
    values = [0.7, 0.6, 0.5, 0.7, 0.2, 0.9, 0.4, *[float("nan")] * 5]
    for name in ("alpha", "beta"):
        row = samples.evaluation(n_valid=7, per_query="per_query.csv")
        record = samples.ok(samples.spec(name), row)
        store.write(store.folder_of(tmp_path, record), record, {"per_query.csv": samples.per_query(values)})
    found = gather(tmp_path)
    text = page(tmp_path, *found.records, per_query=found.per_query)
    assert {row["mAP"] for row in table(text, "### Market-1501, recipe unified")} >= {f"50.0 ({FEW})"}
    assert FEW in table(text, "## Overview")[0]["Market-1501"]
    assert f"- {FEW}." in text[text.index("<b>Significance</b>") :]
    assert FEW not in page(tmp_path, samples.ok(samples.spec(), samples.evaluation()))


def test_the_titles_of_figures() -> None:
    titles: list[str] = []

    def draw(function: Callable[..., bytes], title: str, *values: object) -> bytes:
        titles.append(title)
        return b""

    records = [samples.ok(samples.spec(name), samples.evaluation(n_valid=7)) for name in ("alpha", "beta")]
    diagrams.build(Context(material(*records), "figures", draw=draw))
    assert len(titles) == 2 and all(FEW in title for title in titles)


def test_status_and_compare(cli: Cli, tmp_path: Path) -> None:
    for name, values in (("alpha", [0.7, 0.6, 0.5, 0.3, 0.9, 0.4, 0.7]), ("beta", [0.2, 0.1, 0.4, 0.2, 0.3, 0.2, 0.1])):
        record = samples.ok(samples.spec(name), samples.evaluation(n_valid=7, per_query="per_query.csv"))
        rows = samples.per_query([*values, *[float("nan")] * 5])
        store.write(store.folder_of(tmp_path, record), record, {"per_query.csv": rows})
    for _ in range(2):  # read, then from the index
        code, out, err = cli("status", "--results", tmp_path)
        assert code == 0 and out.count("7 of 12 queries matched") == 2, out + err
    code, out, err = cli("compare", "alpha", "beta", "--dataset", "market1501", "--results", tmp_path)
    assert code == 0 and FEW in out.splitlines()[0], out + err


def test_the_line_of_a_finished_run() -> None:
    out, job = io.StringIO(), mock.Mock(spec=Job, folder="here")
    job.spec = samples.spec()
    board = ProgressDisplay(out, [job])
    board.event(job, {"event": "end", "status": "ok", "scores": {"mAP": 0.652, "rank-1": 0.7}, "matched": FEW})
    board.event(job, {"event": "finished", "status": "ok"})
    assert f"ok, mAP 65.2%, rank-1 70.0%, {FEW}" in out.getvalue()


@pytest.fixture(scope="module")
def few(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Market-1501's stand-in with a gallery of one identity alone."""
    root = tmp_path_factory.mktemp("few")
    folder = registry.dataset("market1501").load(world).root
    shutil.copytree(folder, root / folder.name)
    gallery = sorted((root / folder.name / "bounding_box_test").glob("*.jpg"))
    kept = next(path.name[:4] for path in gallery if path.name[:4] not in ("0000", "-1_c"))
    for path in gallery:
        if not path.name.startswith(kept):
            path.unlink()
    return root


@pytest.mark.usefixtures("quick_runs")
def test_run_and_evaluate(cli: Cli, few: Path, tmp_path: Path) -> None:
    splits = registry.dataset("market1501").load(few)
    files = tmp_path / "some.npz"
    draw = np.random.default_rng(0)
    np.savez(files, **{n: draw.normal(size=(len(getattr(splits, n)), 4)) for n in ("query", "gallery")})
    matching = sum(item.pid == splits.gallery[0].pid for item in splits.query)
    words = f"{matching} of {len(splits.query)} queries {'has' if matching == 1 else 'have'} a match"
    fixed = ["--data-root", few, "--device", "cpu", "--recipe", "smoke", "--results", tmp_path / "results"]
    fixed += ["--allow-count-mismatch", "--debug"]
    code, out, err = cli("evaluate", "--backbone", "dummy", "--features", files, "--dataset", "market1501", *fixed)
    assert code == 0 and out.count(words) >= 2, out + err  # the board's line and the result's
    run = ["--backbones", "dummy", "--datasets", "market1501", "--no-mlflow"]
    code, out, err = cli("run", *run, *fixed, "--report", tmp_path / "page.md", "--cache", tmp_path / "cache")
    assert code == 0 and words in out, out + err
    assert words in (tmp_path / "page.md").read_text(encoding="utf-8")
