"""Searches end to end on generated people, with a backbone whose held-out mAP has a known optimum."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.execution import driver
from harness.records import store
from harness.system.paths import REPOSITORY
from harness.tuning import state
from harness.tuning.state import Search
from tests.support.runs import running, wait_for

Cli = Callable[..., tuple[int, str, str]]

SPACE = """
about = "Noise on the features, without which the ranking is best, and a fault."

[parameters.noise]
key = "option.noise"
distribution = "uniform"
low = 0.0
high = 1.0

[parameters.lr]
key = "recipe.optimizer.lr"
distribution = "log-uniform"
low = 1e-4
high = 1e-2

[[points]]
name = "middle"
values = { noise = 0.5, lr = 1e-3 }
final = true
"""


@pytest.fixture
def noisy(plugin_folder: Path, tmp_path: Path) -> Path:
    """The plug-in `pixels` with an option `noise`; held-out mAP falls with its distance from 0.3."""
    folder = plugin_folder / "pixels"
    card, model = folder / "card.toml", folder / "model.py"
    card.write_text(card.read_text().replace('fault = ""', 'fault = ""\nnoise = 0.0'))
    text = model.read_text().replace('pretrained=None, fault=""', 'pretrained=None, fault="", noise=0.0')
    text = text.replace("return Pixels(num_classes, fault)", "return noisy(Pixels(num_classes, fault), noise)")
    far = "features + 4 * abs(self.noise - 0.3) * torch.randn(features.shape)"
    text = text.replace("            return features\n", f"            return {far}\n")
    model.write_text(f"{text}\n\ndef noisy(module, noise):\n    module.noise = noise\n    return module\n")
    (tmp_path / "space.toml").write_text(SPACE)
    return plugin_folder


def arguments(
    world: Path, plugins: Path, folder: Path, *more: object, samples: int, scheduler: str = "inline"
) -> list[str]:
    fixed = ["tune", "--backbone", "pixels", "--dataset", "market1501", "--recipe", "smoke", "--from-scratch"]
    fixed += ["--space", str(plugins.parent / "space.toml"), "--plugins", str(plugins), "--samples", str(samples)]
    fixed += ["--data-root", str(world), "--results", str(folder / "results"), "--cache", str(folder / "cache")]
    fixed += ["--report", str(folder / "BENCHMARKS.md"), "--scheduler", scheduler, "--device", "cpu", "--no-mlflow"]
    fixed += ["--set", "sampler.identities=3", "--trial-epochs", "3", "--max-concurrent", "2", "--cpus-per-run", "1"]
    return [*fixed, *map(str, more)]


def only_search(folder: Path) -> Search:
    (path,) = state.every(folder / "results")
    return state.read(path)


@pytest.mark.usefixtures("quick_runs")
def test_a_search_does_without_the_files_of_the_test_split(cli: Cli, world: Path, noisy: Path, tmp_path: Path) -> None:
    root = tmp_path / "half"
    shutil.copytree(world / "Market-1501-v15.09.15", root / "Market-1501-v15.09.15")
    for split in ("query", "bounding_box_test"):
        shutil.rmtree(root / "Market-1501-v15.09.15" / split)
    code, out, err = cli(*arguments(root, noisy, tmp_path, "--final-seeds", "none", samples=3))
    assert code == 0, out + err
    search = only_search(tmp_path)
    assert search.trials[0].name == "middle" and search.best is not None
    records = list(store.records(tmp_path / "results"))
    assert len(records) == 3 and {r["source"] for r in records} == {"search"}
    whole = {r["data"]["splits"]["train"]["identities"] for r in records if r["status"] == "ok"}
    assert whole and all(n < 12 for n in whole), "part of the identities is held out"
    code, out, _ = cli(*arguments(root, noisy, tmp_path, "--final-seeds", "0", samples=3))
    assert code == 1 and "final runs cannot start" in out, "the test itself needs them"
    page = (tmp_path / "BENCHMARKS.md").read_text()
    assert "## Searches" in page and "Generated data" in page and "No final runs yet" not in page


@pytest.mark.usefixtures("quick_runs")
def test_a_killed_search_goes_on_to_the_same_number_of_trials(world: Path, noisy: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", *arguments(world, noisy, tmp_path, "--final-seeds", "0", samples=5)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(tmp_path.rglob("checkpoint.pt")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not running(tmp_path))
    begun = [trial.run_id for trial in only_search(tmp_path).trials]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    search = only_search(tmp_path)
    runs = [trial.run_id for trial in search.trials]
    assert len(runs) == len(set(runs)) == 5 and runs[: len(begun)] == begun
    assert all(trial.state in ("finished", "stopped") for trial in search.trials)
    assert {final.name for final in search.finals} == {"best", "middle"}
    page = (tmp_path / "BENCHMARKS.md").read_text()
    assert "Best minus this" in page and "1 of 1" in page
    before = time.monotonic()
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert again.returncode == 0 and "] trial " not in again.stdout, f"repeated after {time.monotonic() - before} s"


@pytest.mark.usefixtures("quick_runs")
def test_ray_searches_the_same_way(cli: Cli, world: Path, noisy: Path, tmp_path: Path) -> None:
    more = ["--final-seeds", "none", "--sampler", "random", "--factor", "0", "--max-concurrent", "1"]
    found = []
    for scheduler in ("inline", "ray"):
        code, out, err = cli(*arguments(world, noisy, tmp_path / scheduler, *more, samples=3, scheduler=scheduler))
        assert code == 0, out + err
        found.append([(t.point, t.state, t.value) for t in only_search(tmp_path / scheduler).trials])
    assert found[0] == found[1]


@pytest.mark.usefixtures("quick_runs")
def test_a_diverging_trial_is_bad_and_not_an_error(cli: Cli, world: Path, noisy: Path, tmp_path: Path) -> None:
    faults = SPACE.replace(
        'key = "option.noise"\ndistribution = "uniform"\nlow = 0.0\nhigh = 1.0',
        'key = "option.fault"\ndistribution = "choice"\nvalues = ["", "nan"]',
    ).replace("noise = 0.5", 'noise = "nan"')
    (tmp_path / "space.toml").write_text(faults)
    code, out, err = cli(*arguments(world, noisy, tmp_path, "--final-seeds", "none", samples=2))
    assert code == 0, out + err
    first = only_search(tmp_path).trials[0]
    assert (first.state, first.value) == ("diverged", 0.0) and "not finite" in first.reason


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--space", "rart"], "Did you mean 'ratr'"),
        (["--space", "ratr", "--holdout", "1.5"], "between 0 and 1"),
        (["--final-seeds", "a"], "whole numbers"),
        (["--set", "loss.ratr=1"], "ratr"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(
    cli: Cli, world: Path, noisy: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    code, _, err = cli(*arguments(world, noisy, tmp_path, *words, samples=2))
    assert code == 2 and message in err and not (tmp_path / "results").exists()


@pytest.mark.usefixtures("quick_runs")
def test_ctrl_c_while_the_chosen_points_train_exits_with_130(
    cli: Cli, world: Path, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(source: Any, share: Any, stop: threading.Event) -> None:
        if source.ahead:  # final runs are known beforehand
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set()

    monkeypatch.setattr(driver, "executor", lambda name: pressed)
    code, _, err = cli(*arguments(world, noisy, tmp_path, "--final-seeds", "0", samples=2))
    assert code == 130 and "Interrupted" in err


@pytest.mark.usefixtures("quick_runs")
def test_after_the_time_budget_the_first_ctrl_c_is_the_first(
    cli: Cli, world: Path, noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(feed: Any, share: Any, stop: threading.Event) -> None:
        assert stop.wait(60), "the budget is spent"
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(driver, "executor", lambda name: pressed)
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("stopped at once"))
    code, _, err = cli(*arguments(world, noisy, tmp_path, "--time-budget", "0.1s", samples=2))
    assert code == 130 and "Interrupted" in err


def test_a_dry_run_says_what_would_be_searched(cli: Cli, world: Path, noisy: Path, tmp_path: Path) -> None:
    code, out, err = cli(*arguments(world, noisy, tmp_path, "--dry-run", samples=7))
    assert code == 0, err
    assert "7 trials by tpe" in out and "option.noise" in out and "uniform" in out
    assert not (tmp_path / "results").exists()
