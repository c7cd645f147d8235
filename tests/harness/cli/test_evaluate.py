"""`evaluate` and `--eval-datasets`: scoring without training gives what training recorded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import registry
from harness.records import store
from tests.support.golden_weights import shapes, state
from tests.support.runs import arguments, only_record

Cli = Callable[..., tuple[int, str, str]]
SMALL = ("--option", "width=tiny", "--option", "patch_size=8", "--option", "stride=8")


def places(world: Path, folder: Path, *, debug: bool = True) -> list[object]:
    """Options of `evaluate`; it scores in this process with `debug`, else in a process of its own."""
    fixed = ["--data-root", world, "--results", folder / "results", "--cache", folder / "cache", "--device", "cpu"]
    return [*fixed, "--recipe", "smoke", "--no-mlflow", *["--debug"] * debug]


def rows(record: store.Record) -> dict[tuple[str, bool], dict]:
    return {(e["dataset"], e["flip"]): e for e in record["evaluations"] if e["trained"]}


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.parametrize("backbone", ["pixels", "reidmamba"])
def test_a_checkpoint_of_a_run_scores_as_the_run_did(
    cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path, backbone: str
) -> None:
    build = ["--plugins", plugin_folder, *(SMALL if backbone == "reidmamba" else ())]
    more = [*build, "--set", "training.epochs=1", "--set", "evaluation.untrained=false"]
    code, out, err = cli(*arguments(world, tmp_path / "a", *more, backbones=backbone))
    assert code == 0, out + err
    trained = only_record(tmp_path / "a")
    checkpoint = store.folder_of(tmp_path / "a/results", trained) / "checkpoint.pt"
    options = ["--plugins", plugin_folder] if backbone == "pixels" else []  # the file tells the rest
    words = ["evaluate", "--backbone", backbone, "--dataset", "market1501", "--checkpoint", checkpoint]
    code, out, err = cli(*words, *places(world, tmp_path / "b"), *options)
    assert code == 0, out + err
    again = only_record(tmp_path / "b")
    assert again["spec"]["options"] == trained["spec"]["options"], "the record tells the build that ran"
    assert again["environment"]["threads"] == len(os.sched_getaffinity(0))
    assert again["source"] == "published-checkpoint" and "mAP" in out
    for key, row in rows(trained).items():
        for score in ("mAP", "mINP", "rank-1"):
            assert rows(again)[key][score] == pytest.approx(row[score], abs=1e-6)


def test_option_against_the_checkpoint_is_one_sentence(cli: Cli, world: Path, tmp_path: Path) -> None:
    options = {"width": "tiny", "patch_size": 8, "stride": 8}
    built = registry.backbone("reidmamba").build(num_classes=3, num_cameras=2, image_size=(64, 32), **options)
    torch.save(built.state_dict(), tmp_path / "net.pth")
    words = ["evaluate", "--backbone", "reidmamba", "--dataset", "market1501", "--checkpoint", tmp_path / "net.pth"]
    code, _, err = cli(*words, *places(world, tmp_path), *SMALL, "--option", "branches=2")
    assert code == 2 and "net.pth was built with branches=3, not 2" in err and "Traceback" not in err
    words[words.index("reidmamba")] = "reidmamba:strong-baseline"
    code, _, err = cli(*words, *places(world, tmp_path), *SMALL)
    assert code == 2 and "branches=3, not 1. reidmamba:strong-baseline is another variant" in err
    assert not list(store.records(tmp_path / "results"))


@pytest.mark.usefixtures("quick_runs")
def test_a_dead_process_is_not_covered_by_the_record_before(
    cli: Cli, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = registry.dataset("market1501").load(world)
    draw = np.random.default_rng(0).normal
    np.savez(tmp_path / "f.npz", **{n: draw(size=(len(getattr(items, n)), 8)) for n in ("query", "gallery")})
    words = ["evaluate", "--backbone", "dummy", "--dataset", "market1501", "--features", tmp_path / "f.npz"]
    words += ["--threads", 1, *places(world, tmp_path, debug=False)]
    assert cli(*words)[0] == 0 and only_record(tmp_path)["environment"]["threads"] == 1
    monkeypatch.setattr(sys, "executable", "/bin/false")
    code, out, err = cli(*words, "--force")
    record = only_record(tmp_path)
    assert code == 1 and "mAP" not in out and "ended without a record" in err
    assert (record["status"], record["attempts"]) == ("failed", 2)


@pytest.mark.usefixtures("quick_runs")
def test_stored_features_score_as_the_model_that_made_them(cli: Cli, world: Path, tmp_path: Path) -> None:
    assert cli(*arguments(world, tmp_path / "a"))[0] == 0
    entry = registry.dataset("market1501")
    splits, module = (
        entry.load(world),
        registry.backbone("dummy").build(num_classes=1, num_cameras=1, image_size=(64, 32)),
    )
    from PIL import Image

    def features(items: list) -> np.ndarray:
        images = [np.asarray(Image.open(item.path).convert("RGB")) for item in items]
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
        card = registry.backbone("dummy").card.input
        mean, std = (torch.tensor(v)[None, :, None, None] for v in (card.mean, card.std))
        with torch.inference_mode():
            return module.eval()((batch - mean) / std, torch.zeros(len(batch), dtype=torch.long)).numpy()

    np.savez(tmp_path / "f.npz", query=features(splits.query), gallery=features(splits.gallery))
    words = ["evaluate", "--backbone", "dummy", "--dataset", "market1501", "--features", tmp_path / "f.npz"]
    code, out, err = cli(*words, *places(world, tmp_path / "b"))
    assert code == 0, out + err
    expected, found = (rows(only_record(tmp_path / name))["market1501", False] for name in "ab")
    assert found["mAP"] == pytest.approx(expected["mAP"], abs=1e-3) and found["n_query"] == expected["n_query"]
    np.savez(tmp_path / "f.npz", query=features(splits.query)[1:], gallery=features(splits.gallery))
    code, out, err = cli(*words, *places(world, tmp_path / "b"))
    assert (
        code == 2
        and f"{len(splits.query) - 1} query features, but the dataset has {len(splits.query)} images" in out + err
    )


@pytest.mark.usefixtures("quick_runs")
def test_original_checkpoint_is_scored_on_another_dataset(cli: Cli, world: Path, tmp_path: Path) -> None:
    small = {"pos_embed": (1, 8, 384)}  # 64x32 pixels, so that the test is short
    original = state(shapes("reidmamba_shapes")["default"] | small, seed=7)
    torch.save({"model": {f"module.{key}": value for key, value in original.items()}}, tmp_path / "original.pth")
    words = ["evaluate", "--backbone", "reidmamba", "--checkpoint", tmp_path / "original.pth"]
    words += [*places(world, tmp_path), "--set", "augmentation.image_size=64x32", "--set", "evaluation.flip=false"]
    cameras = len(original["sie_embed"])
    code, out, err = cli(*words, "--dataset", "msmt17")
    assert code == 2 and not list(store.records(tmp_path / "results")), out + err
    assert f"no embedding: {cameras}, " in err and "--camera-embedding mean" in err
    code, out, err = cli(*words, "--dataset", "msmt17", "--camera-embedding", "mean")
    assert code == 0, out + err
    found = [r for r in store.records(tmp_path / "results") if r["status"] == "ok"]
    assert [r["spec"]["options"]["camera_embedding"] for r in found] == ["mean"]


@pytest.mark.usefixtures("quick_runs")
def test_a_model_is_also_scored_on_other_datasets(cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path) -> None:
    more = ["--plugins", plugin_folder, "--eval-datasets", "msmt17,cuhk03-labeled", "--set", "training.epochs=1"]
    code, out, err = cli(*arguments(world, tmp_path, *more, backbones="pixels"))
    assert code == 0, out + err
    record = only_record(tmp_path)
    assert {e["dataset"] for e in record["evaluations"] if e["trained"]} == {"market1501", "msmt17", "cuhk03-labeled"}
    assert set(record["data"]["evaluated"]) == {"msmt17", "cuhk03-labeled"}
    page = (tmp_path / "BENCHMARKS.md").read_text()
    assert "trained on" in page.lower() or "cross" in page.lower()


def test_wrong_words_of_evaluate_are_one_sentence(cli: Cli, world: Path, tmp_path: Path) -> None:
    words = ["evaluate", "--backbone", "bot", "--dataset", "market1501", *places(world, tmp_path)]
    for more, sentence in (
        ([], "either --checkpoint FILE or --features FILE"),
        (["--checkpoint", tmp_path / "none.pth"], "does not exist"),
        (["--checkpoint", __file__, "--camera-embedding", "mean"], "has no camera embedding"),
    ):
        code, _, err = cli(*words, *more)
        assert code == 2 and sentence in err and "Traceback" not in err
