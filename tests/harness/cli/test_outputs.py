"""Commands write where they were asked to, and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from datasets.synthetic import generate
from harness import reporting
from harness.records import store
from harness.system.paths import REPOSITORY
from tests.support import record_samples as samples

Cli = Callable[..., tuple[int, str, str]]

OFFICE_CARD = """
kind = "dataset"
name = "office"
title = "Our office"

[[layouts]]
name = "office"
reader = "csv"
folders = ["office"]
"""


def state(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its bytes."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def page_of_the_checkout() -> dict[str, str]:
    page = hashlib.sha256((REPOSITORY / "BENCHMARKS.md").read_bytes()).hexdigest()
    return {"page": page, **state(REPOSITORY / "figures")}


def keep(results: Path, **changes: object) -> None:
    record = samples.ok(samples.spec(**changes), samples.evaluation())
    store.write(store.folder_of(results, record), record)


@pytest.mark.usefixtures("quick_runs")
def test_other_results_leave_the_page_of_the_checkout_alone(
    cli: Cli, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY)
    before, results = page_of_the_checkout(), tmp_path / "elsewhere"
    words = ["run", "--backbones", "dummy", "--datasets", "market1501", "--recipe", "smoke", "--from-scratch"]
    words += ["--data-root", world, "--results", results, "--debug", "--device", "cpu", "--no-mlflow"]
    code, out, err = cli(*words)
    assert code == 0, out + err
    assert "dummy" in (results / "BENCHMARKS.md").read_text() and f"Report: {results}/BENCHMARKS.md" in out
    code, out, err = cli("report", "--results", results)
    assert code == 0 and out == f"Report: {results}/BENCHMARKS.md\n"
    assert cli("report", "--results", results, "--check")[0] == 0
    assert page_of_the_checkout() == before
    assert store.paths_of(results) and len(list(store.records(results))) == 1, "the figures are no dataset"


def test_the_page_of_the_checkout_is_that_of_its_own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert reporting.page_of(Path("results")) == REPOSITORY / "BENCHMARKS.md"
    assert reporting.page_of(REPOSITORY / "results") == REPOSITORY / "BENCHMARKS.md"
    monkeypatch.chdir(tmp_path)
    assert reporting.page_of(Path("results")) == tmp_path / "results" / "BENCHMARKS.md"


def test_two_pages_in_one_folder_keep_their_figures(tmp_path: Path) -> None:
    for name in ("one", "two"):
        for seed in range(3):
            for backbone in ("alpha", "beta"):
                keep(tmp_path / name, seed=seed, backbone=backbone)
    first = reporting.write(tmp_path / "one", tmp_path / "BENCHMARKS.md")
    assert len(first) > 1
    before = {path: path.read_bytes() for path in first}
    reporting.write(tmp_path / "two", tmp_path / "two words.md")
    (tmp_path / "empty").mkdir()
    reporting.write(tmp_path / "empty", tmp_path / "two words.md")
    assert {path: path.read_bytes() for path in first} == before
    assert reporting.check(tmp_path / "one", tmp_path / "BENCHMARKS.md") == []


@pytest.mark.usefixtures("quick_runs")
def test_a_preset_s_page_is_not_that_of_other_results(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["run", "--preset", "smoke", "--backbones", "dummy", "--datasets", "market1501", "--no-mlflow"]
    code, out, err = cli(*words, "--debug", "--results", tmp_path / "mine")
    assert code == 0, out + err
    assert (tmp_path / "mine" / "BENCHMARKS.md").is_file()
    assert not (tmp_path / "demo" / "smoke" / "BENCHMARKS.md").exists()
    drawn = [path.name for path in (tmp_path / "demo" / "smoke" / "data").iterdir()]
    assert drawn == ["Market-1501-v15.09.15"], "only what is asked for"


@pytest.fixture
def office(tmp_path: Path) -> Path:
    """A data root with a dataset of the user's, and its plug-in beside it."""
    card = tmp_path / "plugins" / "office" / "card.toml"
    card.parent.mkdir(parents=True)
    card.write_text(OFFICE_CARD)
    root = tmp_path / "data"
    (root / "office").mkdir(parents=True)
    (root / "office" / "items.csv").write_text("path,pid,camid,split\na.jpg,1,0,train\n")
    return root


@pytest.mark.parametrize("preset", ["demo", "smoke"])
@pytest.mark.parametrize("datasets", ["office", "market1501", "office,msmt17-train"])
@pytest.mark.parametrize("dry", [True, False])
def test_nothing_is_drawn_beside_other_data(
    cli: Cli, tmp_path: Path, office: Path, monkeypatch: pytest.MonkeyPatch, preset: str, datasets: str, dry: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    before = state(tmp_path)
    for words in (["run", "--datasets", datasets], ["tune", "--dataset", datasets.split(",")[0]]):
        chosen = ["--backbones", "dummy"] if words[0] == "run" else ["--backbone", "dummy"]
        more = ["--preset", preset, "--data-root", office, "--plugins", tmp_path / "plugins"]
        if not dry:  # nothing can run, for the dataset is not whole
            (office / "office" / "items.csv").unlink(missing_ok=True)
            before.pop("data/office/items.csv", None)
        code, out, err = cli(*words, *chosen, *more, *(["--dry-run"] if dry else []))
        assert "Traceback" not in err and state(tmp_path) == before
        if words[0] == "run" and datasets != "office":
            assert "holds other data (office)" in out
        if not dry:
            assert code == 2


@pytest.mark.parametrize("command", ["run", "tune"])
def test_a_dry_run_draws_nothing_and_says_what_would_be(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    plural = "s" if command == "run" else ""
    words = [command, f"--backbone{plural}", "dummy", f"--dataset{plural}", "market1501", "--preset", "smoke"]
    code, out, err = cli(*words, "--data-root", tmp_path / "data", "--dry-run")
    assert code == 0 and "Would first generate data in data for market1501" in out, err
    assert state(tmp_path) == {} and not list((tmp_path / "data").iterdir())


@pytest.mark.usefixtures("quick_runs")
def test_what_the_generator_made_is_completed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    generate(tmp_path / "data", layouts=["cuhk03-detected"], scale="smoke", size=(64, 32))
    words = ["--preset", "smoke", "--backbones", "dummy", "--data-root", tmp_path / "data", "--results", tmp_path / "r"]
    code, out, err = cli("run", *words, "--datasets", "market1501", "--debug", "--no-mlflow")
    assert code == 0, out + err
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["Market-1501-v15.09.15", "cuhk03-np"]


def test_a_report_of_a_folder_that_does_not_exist_is_refused(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("report", "--results", tmp_path / "none")
    assert (code, out) == (2, "") and "none does not exist" in err and not (tmp_path / "none").exists()
