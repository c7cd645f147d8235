"""`--train-time`: as many epochs as fit, by the training step that `profile` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import harness
from harness.errors import UsageError
from harness.planning import profile
from harness.planning.request import Request
from harness.records import store
from tests.support import record_samples as samples


def planned(world: Path, results: Path, **more: Any) -> Any:
    fixed = {"data_root": world, "results": results, "from_scratch": True, "device": "cpu"}
    epochs = {"training.epochs": more.pop("set_epochs")} if "set_epochs" in more else {}
    fixed |= {"overrides": {"sampler.identities": 4, **epochs, **more.pop("set", {})}}
    return harness.plan("bot", "market1501", **fixed, **more)[0].spec


def measured(results: Path) -> None:
    """A profiled training step of 0.5 s for 16 images."""
    study = profile.Study(batches=(), train_batches=(16,), heights=(), threads=1)
    (cell,) = profile.build(Request(backbones="bot", results=results, device="cpu"), study)
    store.write(cell.folder, samples.ok(cell.spec, source="profile", train_step_ms=500.0) | {"evaluations": []})


def test_epochs_follow_from_the_measured_step(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--train-batch 16 --precision fp32 .*--option bot.width=tiny --results \S+$"):
        planned(world, tmp_path, train_time="10m", options={"bot": {"width": "tiny"}})
    with pytest.raises(UsageError, match="Leave out --set"):
        planned(world, tmp_path, train_time="10m", set_epochs=3)
    measured(tmp_path)
    spec = planned(world, tmp_path, train_time="10m")
    images = len(list((world / "Market-1501-v15.09.15" / "bounding_box_train").glob("*.jpg")))
    assert spec.values["training"]["epochs"] == 600 * 32 // images
    assert spec.recipe == spec.values["name"] == "unified-10m", "a table of its own"
    assert planned(world, tmp_path).values["training"]["epochs"] == 120


def test_joined_datasets_have_their_own_number_of_epochs(world: Path, tmp_path: Path) -> None:
    measured(tmp_path / "results")
    cells = harness.plan(
        "bot,dummy", "market1501,dukemtmc,msmt17", data_root=world, results=tmp_path / "results", from_scratch=True,
        device="cpu", protocol="leave-one-out", train_time="10m", overrides={"sampler.identities": 4},
    )  # fmt: skip
    epochs = {cell.spec.dataset: cell.spec.values["training"]["epochs"] for cell in cells[:3]}
    assert all("+" in name for name in epochs) and 120 not in epochs.values(), epochs
    assert len(cells) == 6, "a backbone without training needs no measured speed"


def test_what_profile_does_not_measure_is_refused(world: Path, tmp_path: Path) -> None:
    measured(tmp_path)
    with pytest.raises(UsageError, match="one process per run"):
        planned(world, tmp_path, train_time="10m", gpus_per_run=2)
    with pytest.raises(UsageError, match=r"--train-batch 16 .* --compile"):
        planned(world, tmp_path, train_time="10m", set={"training.compile": "default"})
    with pytest.raises(UsageError, match="reduce-overhead"):
        planned(world, tmp_path, train_time="10m", set={"training.compile": "reduce-overhead"})


def test_data_of_a_preset_is_made_before_its_images_are_counted(tmp_path: Path) -> None:
    """So the same command has the same epochs the second time."""
    words = {"preset": "smoke", "data_root": tmp_path / "data", "results": tmp_path / "results", "mlflow": False}
    with pytest.raises(UsageError, match="needs the training speed of bot"):
        harness.run("bot", "market1501", train_time="1m", **words)
    assert (tmp_path / "data").is_dir()


@pytest.mark.parametrize("train_time", ["30m", "1800", "0.5h"])
def test_the_name_does_not_depend_on_how_the_time_was_written(world: Path, tmp_path: Path, train_time: str) -> None:
    measured(tmp_path)
    assert planned(world, tmp_path, train_time=train_time).recipe == "unified-30m"


def test_other_commands_refuse_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Only `run` and `plan`"):
        harness.tune("bot", "market1501", data_root=tmp_path, results=tmp_path, train_time="1m")
