"""`run --recipe tuned` with real runs on generated people: the test split, a kill in the middle, and the page."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness.records import store
from harness.system.paths import REPOSITORY
from harness.tuning import state
from tests.support.runs import wait_for

Cli = Callable[..., tuple[int, str, str]]
MARKET = "Market-1501-v15.09.15"
SPLITS = ("query", "bounding_box_test")


def words(root: Path, plugins: Path, folder: Path) -> list[str]:
    fixed = ["run", "--recipe", "tuned", "--preset", "smoke", "--backbones", "pixels", "--datasets", "market1501"]
    fixed += ["--budget", "2", "--studies", "2", "--plugins", str(plugins), "--set", "sampler.identities=3"]
    fixed += ["--data-root", str(root), "--results", str(folder / "results"), "--cache", str(folder / "cache")]
    return [*fixed, "--report", str(folder / "BENCHMARKS.md"), "--no-mlflow", "--debug", "--audit", "ranked-lists"]


def ended(folder: Path) -> dict[str, int]:
    """Time of the last change of every record with status ok."""
    paths = (Path(path) for path in store.paths_of(folder / "results"))
    return {p.parent.name: p.stat().st_mtime_ns for p in paths if store.read(p.parent)["status"] == "ok"}


@pytest.mark.usefixtures("quick_runs")
def test_trials_without_the_test_split_then_a_kill_then_final_runs(
    cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(world / MARKET, root / MARKET)
    for split in SPLITS:
        (root / MARKET / split).rename(tmp_path / split)
    command = words(root, plugin_folder, tmp_path)

    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *command],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: len(ended(tmp_path)) >= 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = ended(tmp_path)

    code, out, _ = cli(*command)
    assert code == 1 and "The final runs cannot start" in out
    searches = [state.read(path) for path in state.every(tmp_path / "results")]
    assert [len(search.trials) for search in searches] == [2, 2]
    assert {trial.state for search in searches for trial in search.trials} == {"finished"}
    trials = ended(tmp_path)
    assert before.items() <= trials.items() and len(trials) == 4 + 4, "nothing is repeated"
    assert {record["source"] for record in store.records(tmp_path / "results")} == {"search"}

    for split in SPLITS:
        (tmp_path / split).rename(root / MARKET / split)
    code, out, err = cli(*command)
    assert code == 0, out + err
    everything = ended(tmp_path)
    assert trials.items() <= everything.items() and len(everything) == 4 + 4 + 4
    audited = {record["source"]: bool(record.get("audits")) for record in store.records(tmp_path / "results")}
    assert audited == {"search": False, "trained": True}, "audits are about the test split"
    page = (tmp_path / "BENCHMARKS.md").read_text()
    section = page.partition("## Tuned with equal budgets")[2].partition("\n## ")[0]
    for expected in ("2 of 2", "4 finished", "CPU hours", "x 0.25", "best-of.png", "Chosen settings", "Conclusion"):
        assert expected in section, expected
    assert "recipe tuned" not in page.partition("## Tuned with equal budgets")[0], "its table is its own"

    code, out, _ = cli(*command)
    assert code == 0 and "20 runs" not in out and "] pixels" not in out and ended(tmp_path) == everything
    assert (tmp_path / "BENCHMARKS.md").read_text() == page

    records = harness.run(
        "pixels", "market1501", recipe="tuned", budget=2, studies=2, preset="smoke", plugins=plugin_folder,
        mlflow=False, overrides={"sampler.identities": 3}, data_root=root, results=tmp_path / "results",
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert [record["spec"]["recipe"] for record in records] == ["smoke", "tuned"] * 2
