"""Datasets that cannot be scored are refused before training; a failing additional dataset does not affect others."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from harness.data.images import resized_copy, summary
from harness.execution import process
from harness.planning import plan
from harness.planning.request import Request
from harness.records import store
from harness.registry import dataset, dataset_checks
from harness.spec.job import Job, LocalPaths
from tests.support import small_csv

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(
    quick_runs: None, cli: Cli, plugin_folder: Path, tmp_path: Path
) -> Callable[..., tuple[int, str, store.Record]]:
    """Runs `pixels`, or another backbone, on the dataset `office`; returns exit code, output and the record."""
    small_csv.card(plugin_folder)
    small_csv.views(plugin_folder)

    def call(*more: object, backbone: str = "pixels") -> tuple[int, str, store.Record]:
        words = ["run", "--backbones", backbone, "--datasets", "office", "--recipe", "smoke", "--from-scratch"]
        words += ["--data-root", str(tmp_path / "data"), "--results", str(tmp_path / "results")]
        words += ["--cache", str(tmp_path / "cache"), "--report", str(tmp_path / "page.md"), "--no-mlflow"]
        words += ["--debug", "--device", "cpu", "--plugins", str(plugin_folder)]
        before = {record["run_id"] for record in store.records(tmp_path / "results")}
        code, out, err = cli(*words, *more)
        found = [r for r in store.records(tmp_path / "results") if r["run_id"] not in before]
        assert len(found) == 1, out + err
        return code, out + err, found[0]

    return call


def trained(record: store.Record) -> bool:
    return "train" in record["timing"]["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "table", "message"),
    [
        ("pixels", small_csv.rows((0, 0)), "No query has a match"),
        ("views", small_csv.rows((0, 1), test_cameras=(1, 4)), "no embedding: 4 (counted from zero)"),
        ("pixels", small_csv.rows((0, 1))[20:], "only 3"),
    ],
)
def test_what_cannot_be_scored_ends_the_run_before_training(
    plugin_folder: Path, tmp_path: Path, backbone: str, table: list[small_csv.Row], message: str
) -> None:
    """Planning detects it, too; here the data changes after planning."""
    small_csv.card(plugin_folder)
    small_csv.views(plugin_folder)
    small_csv.write(tmp_path / "data", small_csv.rows())
    places = LocalPaths(str(tmp_path / "data"), cache=str(tmp_path / "cache"), plugins=str(plugin_folder))
    request = Request(
        backbone, "office", "smoke", results=tmp_path / "results", paths=places, device="cpu", from_scratch=True
    )
    (cell,) = plan.build(request)
    assert cell.state == plan.TODO
    small_csv.write(tmp_path / "data", table)
    assert process.run(Job(cell.spec, str(cell.folder), places), lambda event: None) == "failed"
    record = store.read(cell.folder)
    assert record["stage"] == "data" and not trained(record)
    assert record["error"] and message in record["error"]["message"]


def test_cameras_without_training_images_may_go_unused(run, tmp_path: Path) -> None:
    small_csv.write(tmp_path / "data", small_csv.rows(cameras=(0, 1), test_cameras=(1, 4)))
    assert run("--camera-embedding", "off", backbone="views")[0] == 0
    assert run(backbone="pixels")[0] == 0


def test_camera_numbers_may_be_of_any_size(run, tmp_path: Path) -> None:
    """20230001 is a number, not a row: the embedding has one row per camera, and the scores are the same."""
    small_csv.write(tmp_path / "data", small_csv.rows(cameras=(0, 1)))
    _, _, plain = run(backbone="views")
    small_csv.write(tmp_path / "data", small_csv.rows(cameras=(20230001, 20230007)))
    code, out, record = run(backbone="views")
    assert code == 0, out
    assert record["efficiency"]["parameters"] == plain["efficiency"]["parameters"] < 10_000
    assert record["evaluations"] == plain["evaluations"]


@pytest.mark.parametrize("how", ["text", "truncated", "empty"])
def test_all_unreadable_test_images_are_named_before_training(run, tmp_path: Path, how: str) -> None:
    table = small_csv.rows()
    folder = small_csv.write(tmp_path / "data", table)
    bad = [folder / path for path, _, _, split in table if split == "query"][:4]
    bad.append(next(folder / path for path, _, _, split in table if split == "gallery"))
    for path in bad:
        if how == "text":
            path.write_text("no image")
        else:
            os.truncate(path, 300 if how == "truncated" else 0)
    code, _, record = run()
    message = record["error"]["message"]
    assert code == 1 and record["stage"] == "data" and not trained(record)
    assert message.startswith("5 images cannot be read.") and "And 2 more." in message
    assert [path.name in message for path in bad] == [True, True, True, False, False]


def test_a_failing_further_dataset_costs_only_itself(run, plugin_folder: Path, tmp_path: Path) -> None:
    small_csv.write(tmp_path / "data", small_csv.rows())
    for name in ("short", "torn", "alone", "sound"):
        expected = "expected = { query = { images = 7, identities = 6, cameras = 1 } }"
        small_csv.card(plugin_folder, name, expected if name == "short" else "")
        cameras = (0, 0) if name == "alone" else (3, 7)
        folder = small_csv.write(tmp_path / "data", small_csv.rows(cameras), name)
        if name == "torn":
            os.truncate(next(folder.glob("query/*")), 300)
    code, out, record = run("--eval-datasets", "short,torn,alone,sound")
    assert code == 0 and record["status"] == "ok", out
    assert {row["dataset"] for row in record["evaluations"]} == {"office", "sound"}
    evaluated = record["data"]["evaluated"]
    assert "expects 7 images, but" in evaluated["short"]["error"]
    assert "Cannot read the image" in evaluated["torn"]["error"] and "torn/query" in evaluated["torn"]["error"]
    assert "no query has a match" in evaluated["alone"]["error"].lower()
    assert "error" not in evaluated["sound"] and evaluated["sound"]["splits"]["query"]["images"] == 6
    assert "short is not scored: short differs from its card" in out, "the screen says so, too"


def test_an_absent_further_dataset_is_known_in_the_plan(cli: Cli, run, plugin_folder: Path, tmp_path: Path) -> None:
    small_csv.write(tmp_path / "data", small_csv.rows())
    words = ["plan", "--backbones", "pixels", "--datasets", "office", "--recipe", "smoke", "--plugins", plugin_folder]
    words += ["--data-root", tmp_path / "data", "--results", tmp_path / "results"]
    _, out, _ = cli(*words, "--eval-datasets", "market1501")
    assert "1 blocked" in out and "no data" in out


def test_zero_epochs_score_the_starting_weights(run, tmp_path: Path) -> None:
    """A single command gives the same scores as before training."""
    folder = small_csv.write(tmp_path / "data", small_csv.rows())
    before = [row for row in run()[2]["evaluations"] if not row["trained"]]
    for path in folder.glob("train/*"):
        os.truncate(path, 300)  # training images are not decoded
    code, out, record = run("--set", "training.epochs=0", "--set", "sampler.identities=99")
    assert code == 0 and not trained(record), out
    plain = next(row for row in record["evaluations"] if not row["flip"])
    same = ("mAP", "mINP", "cmc", "interval")
    assert len(before) == 1 and {key: plain[key] for key in same} == {key: before[0][key] for key in same}


def test_image_sizes_are_recorded_and_a_resized_copy_is_said(run, plugin_folder: Path, tmp_path: Path) -> None:
    table = small_csv.rows()
    folder = small_csv.write(tmp_path / "data", table)
    small_csv.card(plugin_folder, more='image_size = "varies"')
    _, _, record = run()
    one_size = {"height": [32, 32, 32], "width": [16, 16, 16], "distinct": 1}
    assert record["data"]["image_sizes"] == dict.fromkeys(("train", "query", "gallery"), one_size)
    sentence = (
        "All 56 images are 32x16 pixels (height x width), but the official images vary in size, "
        "so this is a resized copy."
    )
    assert record["data"]["notes"]["image_sizes"] == sentence
    findings = dataset_checks.validate_dataset(dataset("office", plugin_folder), tmp_path / "data")
    assert ("warning", sentence) in [(f.level, f.sentence) for f in findings]

    query = next(path for path, _, _, split in table if split == "query")
    Image.new("RGB", (40, 50)).save(folder / query)
    _, _, record = run("--seeds", "1")
    assert record["data"]["image_sizes"]["query"] == {"height": [32, 32, 50], "width": [16, 16, 40], "distinct": 2}
    assert "image_sizes" not in record["data"]["notes"]


def test_sizes_are_compared_with_the_card() -> None:
    same, other = [(128, 64)] * 3, [(128, 64)] * 2 + [(256, 128)]
    assert resized_copy("varies", other) == resized_copy((128, 64), same) == resized_copy("", same) == ""
    assert resized_copy("varies", same[:1]) == "", "one image proves nothing"
    assert resized_copy((128, 64), other) == (
        "1 of 3 images do not have the official size of 128x64 pixels (height x width), for example 256x128, "
        "so this is a resized copy."
    )
    assert summary(other) == {"height": [128, 128, 256], "width": [64, 64, 128], "distinct": 2}
