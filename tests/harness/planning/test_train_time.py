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
    fixed |= {"overrides": {"sampler.identities": 4, **epochs}}
    return harness.plan("bot", "market1501", **fixed, **more)[0].spec


def test_epochs_follow_from_the_measured_step(world: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--train-batch 16 --precision fp32 .*--option bot.width=tiny --results \S+$"):
        planned(world, tmp_path, train_time="10m", options={"bot": {"width": "tiny"}})
    with pytest.raises(UsageError, match="Leave out --set"):
        planned(world, tmp_path, train_time="10m", set_epochs=3)
    study = profile.Study(batches=(), train_batches=(16,), heights=(), threads=1)
    (cell,) = profile.build(Request(backbones="bot", results=tmp_path, device="cpu"), study)
    store.write(cell.folder, samples.ok(cell.spec, source="profile", train_step_ms=500.0) | {"evaluations": []})
    spec = planned(world, tmp_path, train_time="10m")
    images = len(list((world / "Market-1501-v15.09.15" / "bounding_box_train").glob("*.jpg")))
    assert spec.values["training"]["epochs"] == 600 * 32 // images
    assert spec.recipe == spec.values["name"] == "unified-10m", "a table of its own"
    assert planned(world, tmp_path).values["training"]["epochs"] == 120
