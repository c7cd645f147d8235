"""A run that differs from another only in what it scores takes over its training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from harness.records import store
from harness.training import checkpoint
from tests.support import small_csv

Cli = Callable[..., tuple[int, str, str]]
QUERY = "query/08_0_0.png"


@pytest.fixture
def run(
    quick_runs: None, cli: Cli, plugin_folder: Path, tmp_path: Path
) -> Callable[..., tuple[str, store.Record, Path]]:
    """Runs `pixels` on `office` in a results folder; returns the output, the new record and its folder."""
    small_csv.card(plugin_folder)

    def call(
        *more: object, results: str = "results", code: int = 0, debug: bool = True
    ) -> tuple[str, store.Record, Path]:
        words = ["run", "--backbones", "pixels", "--datasets", "office", "--recipe", "smoke", "--from-scratch"]
        words += ["--data-root", str(tmp_path / "data"), "--results", str(tmp_path / results)]
        words += ["--cache", str(tmp_path / "cache"), "--report", str(tmp_path / "page.md"), "--no-mlflow"]
        words += ["--device", "cpu", "--plugins", str(plugin_folder)]
        before = [record["run_id"] for record in store.records(tmp_path / results) if "--force" not in more]
        words += ["--debug"] if debug else ["--scheduler", "local"]  # a debugged run has no speed
        found, out, err = cli(*words, *more)
        assert found == code, out + err
        (record,) = [r for r in store.records(tmp_path / results) if r["run_id"] not in before]
        return out + err, record, store.folder_of(tmp_path / results, record)

    return call


def weights(folder: Path) -> dict[str, Any]:
    return torch.load(folder / checkpoint.NEWEST, weights_only=True)["module"]


def repair(folder: Path) -> None:
    """Replaces a test image by one of another size in bytes, so that the dataset's fingerprint changes."""
    Image.new("RGB", (16, 32), "red").save(folder / QUERY)


def test_repairing_test_images_trains_nothing_again(run, tmp_path: Path) -> None:
    data = small_csv.write(tmp_path / "data", small_csv.rows())
    _, first, first_folder = run(debug=False)
    before = {path.name: path.read_bytes() for path in first_folder.iterdir() if path.is_file()}
    repair(data)
    out, second, folder = run(debug=False)
    assert f"resumes from run {first['run_id'][:12]}" in out and "2 of 2 epochs" in out
    efficiency = second["efficiency"]
    assert efficiency["taken_over"] == {"run_id": first["run_id"], "epochs": 2} and efficiency["resumed_at_epoch"] == 2
    assert efficiency["train_images_per_second"] is None and efficiency["peak_memory_bytes"] is None
    assert first["efficiency"]["taken_over"] is None and first["efficiency"]["train_images_per_second"] > 0
    assert (folder / "metrics.jsonl").read_text() == (first_folder / "metrics.jsonl").read_text()
    assert {path.name: path.read_bytes() for path in first_folder.iterdir() if path.is_file()} == before

    _, alone, alone_folder = run(results="elsewhere")
    assert alone["efficiency"]["taken_over"] is None
    assert second["evaluations"] == alone["evaluations"], "as if it had been trained here"
    assert weights(folder).keys() == weights(alone_folder).keys()
    assert all(torch.equal(tensor, weights(alone_folder)[name]) for name, tensor in weights(folder).items())


def test_cut_off_training_is_completed_to_the_same_weights(run, tmp_path: Path) -> None:
    data = small_csv.write(tmp_path / "data", small_csv.rows())
    _, _, first_folder = run("--set", "training.epochs=3")
    (first_folder / checkpoint.NEWEST).unlink()
    (first_folder / checkpoint.PREVIOUS).rename(first_folder / checkpoint.NEWEST)  # as after epoch 2 of 3
    repair(data)
    _, second, folder = run("--set", "training.epochs=3", "--set", "evaluation.flip=false", debug=False)
    assert second["efficiency"]["taken_over"]["epochs"] == second["efficiency"]["resumed_at_epoch"] == 2
    assert second["efficiency"]["train_images_per_second"] > 0
    _, _, alone = run("--set", "training.epochs=3", results="elsewhere")
    assert all(torch.equal(tensor, weights(alone)[name]) for name, tensor in weights(folder).items())
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [json.loads(line)["loss"] for line in (alone / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in epochs] == [1, 2, 3] and [row["loss"] for row in epochs] == losses


@pytest.mark.parametrize(
    "more", [("--seeds", 1), ("--set", "optimizer.lr=0.002"), ("--set", "training.epochs=3"), ("--force",)]
)
def test_another_training_is_done(run, tmp_path: Path, more: tuple[object, ...]) -> None:
    small_csv.write(tmp_path / "data", small_csv.rows())
    run()
    _, second, _ = run(*more)
    assert second["efficiency"]["taken_over"] is None and second["efficiency"]["resumed_at_epoch"] == 0


def test_changed_training_images_are_trained_on(run, tmp_path: Path) -> None:
    table = small_csv.rows()
    data = small_csv.write(tmp_path / "data", table)
    run()
    Image.new("RGB", (16, 32), "red").save(data / table[0][0])
    _, second, _ = run()
    assert second["efficiency"]["taken_over"] is None


def test_a_damaged_checkpoint_of_another_run_is_not_used(run, tmp_path: Path) -> None:
    data = small_csv.write(tmp_path / "data", small_csv.rows())
    _, _, first_folder = run()
    newest = first_folder / checkpoint.NEWEST
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 255
    newest.write_bytes(content)
    repair(data)
    out, second, _ = run()
    assert second["efficiency"]["resumed_at_epoch"] == 0, out
    assert newest.read_bytes() == bytes(content)


def test_without_links_the_checkpoint_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    target.mkdir()
    torch.save({"run_id": "x", "training": "key", "epoch": 4}, source / checkpoint.NEWEST)
    shutil.copy(source / checkpoint.NEWEST, source / "other.pt")

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    checkpoint.take_over(target, "another key")
    assert not list(target.iterdir())
    checkpoint.take_over(target, "key")
    assert (target / checkpoint.NEWEST).read_bytes() == (source / "other.pt").read_bytes()
    assert (target / checkpoint.NEWEST).stat().st_ino != (source / checkpoint.NEWEST).stat().st_ino
