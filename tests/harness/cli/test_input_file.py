"""Files from elsewhere through the command line: scored in any order, refused before a record, tracked."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import timm
import torch

from harness import registry, tracking
from harness.contracts import Item
from harness.errors import WeightsError
from harness.records import store
from harness.training.trained import from_checkpoint
from tests.harness.cli.test_evaluate import places, rows
from tests.harness.tracking.test_tracking import children
from tests.support.runs import arguments, only_record

Cli = Callable[..., tuple[int, str, str]]
NAME = "osnet/x0.25 (msmt17)"


def images(world: Path) -> dict[str, list[Item]]:
    splits = registry.dataset("market1501").load(world)
    return {"query": list(splits.query), "gallery": list(splits.gallery)}


def features(items: list[Item]) -> np.ndarray:
    """Identities lie together, but not perfectly."""
    noise = np.random.default_rng(0).normal(size=(len(items), 8))
    people = np.random.default_rng(1).normal(size=(10_000, 8))
    return (people[[item.pid % 10_000 for item in items]] + 1.5 * noise).astype(np.float32)


def words(world: Path, folder: Path, stored: Path, *more: object, backbone: str = NAME) -> list[object]:
    fixed = ["evaluate", "--backbone", backbone, "--dataset", "market1501", "--features", stored]
    return [*fixed, *places(world, folder), *more]


def layumi(world: Path, path: Path) -> Path:
    """A `pytorch_result.mat` in another order, with rows of junk and cameras counted from one."""
    arrays: dict[str, Any] = {}
    for side, items in images(world).items():
        values = [features(items), [i.pid for i in items], [i.camid + 1 for i in items]]
        if side == "gallery":
            values = [np.concatenate([np.ones((5, 8)), values[0]]), [-1] * 5 + values[1], [3] * 5 + values[2]]
        order = random.Random(3).sample(range(len(values[1])), len(values[1]))
        arrays |= {f"{side}_{name}": np.array(v)[order] for name, v in zip(("f", "label", "cam"), values, strict=True)}
    scipy.io.savemat(path, arrays)
    return path


@pytest.mark.usefixtures("quick_runs")
def test_rows_score_the_same_in_any_order_and_with_junk(cli: Cli, world: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **{side: features(items) for side, items in images(world).items()})
    code, out, err = cli(*words(world, tmp_path / "a", tmp_path / "f.npz"))
    assert code == 0 and "could not be checked" in out, out + err
    plain = only_record(tmp_path / "a")
    assert "could not be checked" in plain["data"]["notes"]["row_order"]
    rerank = ("--set", "evaluation.rerank=true")
    code, out, err = cli(*words(world, tmp_path / "b", layumi(world, tmp_path / "result.mat"), *rerank))
    assert code == 0 and "have no flip test" in out and "+rerank" in out and "could not be checked" not in out, (
        out + err
    )
    again = only_record(tmp_path / "b")
    assert [(e["flip"], e["rerank"]) for e in again["evaluations"]] == [(False, False), (False, True)]
    for score in ("mAP", "mINP", "rank-1", "rank-5"):
        assert again["evaluations"][0][score] == pytest.approx(plain["evaluations"][0][score], abs=1e-7)
    assert again["evaluations"][1]["mAP"] != again["evaluations"][0]["mAP"]
    assert "by identity and camera" in again["data"]["notes"]["row_order"]
    assert "5 of junk images" in again["data"]["notes"]["rows_left_out"]
    for folder, unchecked in (("a", True), ("b", False)):
        page = tmp_path / folder / "page.md"
        code, out, err = cli("report", "--results", tmp_path / folder / "results", "--out", page)
        assert code == 0 and "osnet/x0.25" in page.read_text(), out + err
        assert ("could not be checked" in page.read_text()) == unchecked


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x" * 300, "300 characters"),
        ("", "0 characters"),
        (" ", "1 characters"),
        ("é" * 200, "200 characters"),
        ("a\nb", "text"),
    ],
)
def test_a_name_that_cannot_name_a_folder_is_refused(
    cli: Cli, world: Path, tmp_path: Path, name: str, says: str
) -> None:
    code, _, err = cli(*words(world, tmp_path, tmp_path, backbone=name))
    assert code == 2 and says in err and "Traceback" not in err and not (tmp_path / "results").exists()


def wrong_features(kind: str, world: Path, path: Path) -> Path:
    arrays = {side: features(items) for side, items in images(world).items()}
    if kind == "rows":
        arrays["query"] = arrays["query"][1:]
    elif kind == "nan":
        arrays["query"][0, 0] = np.nan
    elif kind == "width":
        arrays["query"] = arrays["query"][:, :4]
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [("rows", "query features, but the dataset has"), ("nan", "NaN"), ("width", "extract both with the same model")],
)
def test_wrong_features_are_refused_before_a_record(
    cli: Cli, world: Path, tmp_path: Path, kind: str, says: str
) -> None:
    stored = wrong_features(kind, world, tmp_path / "f.npz")
    code, _, err = cli(*words(world, tmp_path, stored))
    assert code == 2 and says in err and "f.npz" in err and "Traceback" not in err
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("backbone", "says"), [("bot", "no checkpoint of the ResNet-50"), ("timm:test_vit", "share no key")]
)
def test_checkpoint_of_another_network_is_refused(
    cli: Cli, world: Path, tmp_path: Path, backbone: str, says: str
) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "net.pth")
    order = ["evaluate", "--backbone", backbone, "--dataset", "market1501", "--checkpoint", tmp_path / "net.pth"]
    code, _, err = cli(*order, *places(world, tmp_path))
    assert code == 2 and says in err and len(err) < 800 and "Traceback" not in err
    assert not (tmp_path / "results").exists()


SMALL: dict[str, dict[str, Any]] = {
    "timm:test_resnet": {},
    "bot": {"width": "tiny"},
    "transreid": {"width": "tiny", "patch_size": 8, "stride": 8},
    "reidmamba": {"width": "tiny", "patch_size": 8, "stride": 8},
}


@pytest.mark.parametrize("backbone", SMALL)
def test_a_checkpoint_needs_no_classifier_and_no_counters(backbone: str) -> None:
    entry = registry.backbone(backbone)
    given = {key: value for key, value in SMALL[backbone].items() if key in entry.card.options}
    built = entry.build(num_classes=3, num_cameras=2, image_size=(64, 32), **given).eval()
    left_out = ("classifier", "cls.weight", "num_batches_tracked")
    state = {k: v for k, v in built.state_dict().items() if not any(part in k for part in left_out)}
    assert len(state) < len(built.state_dict())
    shape = {"image_size": (64, 32), "num_classes": 9, "num_cameras": 2}
    module, _ = from_checkpoint(entry, state, entry.options(given), **shape)
    batch = torch.rand(2, 3, 64, 32), torch.tensor([0, 1])
    with torch.inference_mode():
        assert torch.equal(module(*batch), built(*batch))


def test_a_checkpoint_of_a_diverged_training_is_refused() -> None:
    entry = registry.backbone("bot")
    options = {"width": "tiny"}
    state = entry.build(num_classes=3, num_cameras=2, image_size=(64, 32), **options).state_dict()
    name = next(key for key in state if key.endswith(".weight"))
    state[name] = state[name] * float("nan")
    with pytest.raises(WeightsError, match=r"NaN or infinity in 1 tensors"):
        from_checkpoint(entry, state, entry.options(options), image_size=(64, 32), num_classes=3, num_cameras=2)


@pytest.mark.usefixtures("quick_runs")
def test_no_epochs_score_the_start_as_it_is(cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path) -> None:
    more = ["--plugins", plugin_folder, "--set", "evaluation.rerank=true"]
    none = ["--set", "training.epochs=0", "--set", "sampler.identities=5000"]
    code, out, err = cli(*arguments(world, tmp_path / "a", *more, *none, backbones="pixels"))
    assert code == 0, out + err
    start = only_record(tmp_path / "a")
    assert "train" not in start["timing"]["seconds"] and "train_images_per_second" not in start["efficiency"]
    assert len(rows(start)) == 2 and len(start["evaluations"]) == 4
    assert "not trained" in (tmp_path / "a" / "BENCHMARKS.md").read_text()
    more += ["--set", "training.epochs=1", "--set", "evaluation.untrained=true"]
    assert cli(*arguments(world, tmp_path / "b", *more, backbones="pixels"))[0] == 0
    (before,) = [e for e in only_record(tmp_path / "b")["evaluations"] if not e["trained"]]
    (plain,) = [e for e in start["evaluations"] if not e["flip"] and not e["rerank"]]
    assert plain["mAP"] == pytest.approx(before["mAP"], abs=1e-7)
    code, _, err = cli(*arguments(world, tmp_path, *more[:2], "--set", "training.epochs=-1", backbones="pixels"))
    assert code == 2 and "at least 0" in err


@pytest.mark.usefixtures("quick_runs")
def test_start_that_does_not_fit_gives_its_reason(cli: Cli, world: Path, tmp_path: Path) -> None:
    root = tmp_path / "weights"
    root.mkdir()
    net = {f"features.{n}.weight": torch.ones(1) for n in range(300)}
    torch.save(net, root / "test_resnet.r160_in1k.pth")
    order = arguments(world, tmp_path, "--weights-root", root, backbones="timm:test_resnet.r160_in1k")
    order.remove("--from-scratch")
    code, out, err = cli(*order)
    assert code == 1 and "They share no key" in out and "300 unexpected: features.0.weight" in out, out + err
    assert "features.9.weight" not in out + cli("status", "--results", tmp_path / "results")[1]
    (root / "test_resnet.r160_in1k.pth").write_text("<html><title>404</title>")
    os.utime(root / "test_resnet.r160_in1k.pth", ns=(1, 1))
    code, out, err = cli(*order)
    assert code == 2 and "an HTML page ('404')" in out, out + err
    code, _, err = cli("prepare", "--backbones", "timm:test_resnet.r160_in1k", "--weights-root", root)
    assert code == 1 and "an HTML page ('404')" in err


@pytest.mark.usefixtures("quick_runs")
def test_evaluate_is_tracked_like_a_run(cli: Cli, world: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    order = words(world, tmp_path, layumi(world, tmp_path / "result.mat"), "--mlflow-uri", uri)
    order.remove("--no-mlflow")
    code, out, err = cli(*order)
    assert code == 0, out + err
    (run,) = children(uri)
    row = store.plain(only_record(tmp_path))
    assert row and run.data.metrics["mAP"] == pytest.approx(row["mAP"]) and run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] and tracking.unsent(tmp_path / "results", uri) == []
    order[order.index(uri)] = "http://127.0.0.1:9"
    code, out, err = cli(*order, "--force")
    assert code == 0 and "status --sync" in out, "a server that is away does not fail the scoring"
