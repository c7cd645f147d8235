"""`embed` writes the features that the evaluation ranks, in a file that `evaluate --features` scores alike."""

from __future__ import annotations

import io
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import harness
from harness import registry
from harness.errors import HarnessError, UsageError
from harness.records import store
from harness.spec.job import Job
from harness.worker import pipelines, scoring
from harness.worker.deploy.feature_file import list_images
from harness.worker.events import Progress

Cli = Callable[..., tuple[int, str, str]]
MARKET = "Market-1501-v15.09.15"
TINY: dict[str, Any] = {"width": "tiny", "patch_size": 8, "stride": 8}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a TransReID that was trained on the six cameras of the generated Market-1501."""
    entry = registry.backbone("transreid")
    module = entry.build(num_classes=3, num_cameras=6, image_size=(64, 32), **TINY)
    torch.save(module.state_dict(), tmp_path / "net.pt")
    return tmp_path / "net.pt"


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["reidmamba", "bot"])
def test_the_features_are_those_of_the_evaluation_to_the_last_bit(
    trained: Any, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    run, ranked = trained(backbone), []
    folder = shutil.copytree(run.folder, tmp_path / "again")
    score = scoring.score_features
    monkeypatch.setattr(scoring, "score_features", lambda q, g, *more: ranked.append((q, g)) or score(q, g, *more))
    pipelines.PIPELINES["test"](Job.read(folder / "job.json"), folder, Progress(io.StringIO())).run()
    for (query, gallery), flip in zip(ranked[-2:], (False, True), strict=True):
        written = harness.embed(
            **run.where, dataset="market1501", data_root=world, out=tmp_path / "f.npz", raw=True, flip=flip
        )
        found = np.load(tmp_path / "f.npz")
        assert written.counts == {"query": len(query), "gallery": len(gallery)}
        assert np.array_equal(found["query"], query.numpy()) and np.array_equal(found["gallery"], gallery.numpy())


@pytest.mark.slow
def test_the_file_scores_as_the_run(trained: Any, world: Path, tmp_path: Path, cli: Cli) -> None:
    run, out = trained("reidmamba"), tmp_path / "our f.npz"
    words = ["--run", run.run_id[:8], "--results", run.results, "--dataset", "market1501", "--data-root", world]
    code, text, err = cli("embed", *words, "--out", out)
    assert code == 0 and "33 query and 46 gallery of 192 numbers" in text, err
    printed = shlex.split(text.splitlines()[-1])[3:]
    expected = ["--backbone", "reidmamba", "--dataset", "market1501", "--features", str(out), "--data-root", str(world)]
    assert printed == ["evaluate", *expected]
    scored = harness.evaluate(
        "reidmamba", "market1501", features=out, data_root=world, results=tmp_path / "r", mlflow=False
    )
    (there,) = [row for row in scored["evaluations"] if not row["flip"]]
    (here,) = [row for row in run.record["evaluations"] if row["trained"] and not row["flip"]]
    assert [there[name] for name in ("mAP", "rank-1", "mINP")] == [here[name] for name in ("mAP", "rank-1", "mINP")]


def test_a_folder_and_lists_give_the_same_rows(world: Path, tmp_path: Path, checkpoint: Path) -> None:
    place = world / MARKET / "query"
    images = sorted(place.glob("*.jpg"))
    (tmp_path / "list.txt").write_text("\n".join(map(str, images)))
    network = harness.load_backbone("transreid", checkpoint, image_size=(64, 32))
    expected = network.embed(images)
    for given in (place, tmp_path / "list.txt", images):
        written = harness.embed(
            "transreid", checkpoint=checkpoint, image_size=(64, 32), images=given, out=tmp_path / "f.npz"
        )
        found = np.load(tmp_path / "f.npz")
        assert found["paths"].tolist() == [str(image) for image in images]
        assert np.array_equal(found["features"], expected.numpy())
        assert "mean of the trained cameras" in " ".join(written.sentences)
    about = json.loads(str(found["about"]))
    assert (about["backbone"], about["camera"], about["unit_length"]) == ("transreid", "mean", True)
    assert np.linalg.norm(found["features"], axis=1) == pytest.approx(np.ones(len(images)), abs=1e-6)


def test_cameras_that_the_network_does_not_know_are_averaged_and_named(
    world: Path, tmp_path: Path, checkpoint: Path
) -> None:
    settings: dict[str, Any] = {"checkpoint": checkpoint, "image_size": (64, 32), "data_root": world}
    known = harness.embed("transreid", dataset="market1501", out=tmp_path / "a.npz", **settings)
    assert not known.sentences
    other = harness.embed("transreid", dataset="msmt17", out=tmp_path / "b.npz", **settings)
    assert "the mean of its 6 trained cameras is used" in other.sentences[0]
    fixed = [
        harness.embed("transreid", dataset="msmt17", out=tmp_path / f"{c}.npz", camera=c, **settings) for c in (0, 1)
    ]
    first, second = (np.load(written.path)["query"] for written in fixed)
    assert not np.array_equal(first, second), "the camera changes the features"


def test_cameras_get_the_rows_of_training(world: Path, tmp_path: Path) -> None:
    for split in ("bounding_box_train", "query", "bounding_box_test"):
        (tmp_path / MARKET / split).mkdir(parents=True)
        for image in (world / MARKET / split).glob("*_c[25]s*.jpg"):
            shutil.copy(image, tmp_path / MARKET / split)
    network = registry.backbone("transreid").build(num_classes=3, num_cameras=2, image_size=(64, 32), **TINY)
    torch.save(network.state_dict(), tmp_path / "net.pt")
    settings: dict[str, Any] = {"checkpoint": tmp_path / "net.pt", "image_size": (64, 32)}
    harness.embed("transreid", dataset="market1501", data_root=tmp_path, out=tmp_path / "f.npz", **settings)
    found = np.load(tmp_path / "f.npz")
    rows = [{1: 0, 4: 1}[camera] for camera in found["query_camids"]]
    assert set(rows) == {0, 1}
    expected = harness.load_backbone("transreid", **settings).embed(found["query_paths"].tolist(), rows)
    assert np.array_equal(found["query"], expected.numpy())


@pytest.mark.slow
def test_a_run_that_did_not_finish_has_no_network(trained: Any, tmp_path: Path) -> None:
    run = trained("bot")
    folder = shutil.copytree(run.folder, tmp_path / "market1501" / "bot" / run.folder.name)
    store.write(folder, {**run.record, "status": "interrupted", "error": {"message": "Stopped."}})
    with pytest.raises(UsageError, match=r"did not finish \(status interrupted\)"):
        harness.load_backbone(run=run.run_id, results=tmp_path)


def test_the_batch_size_changes_features_by_rounding_only(world: Path, checkpoint: Path) -> None:
    images = sorted((world / "Market-1501-v15.09.15" / "query").glob("*.jpg"))[:5]
    usual, small = (
        harness.load_backbone("transreid", checkpoint, image_size=(64, 32), **batch)
        for batch in ({}, {"batch_size": 2})
    )
    done: list[int] = []
    features = small.embed(images, progress=lambda count, _: done.append(count))
    assert done == [2, 4, 5]
    assert torch.allclose(features, usual.embed(images), atol=1e-6)
    with pytest.raises(UsageError, match="at least one image"):
        harness.load_backbone("transreid", checkpoint, batch_size=-1)


def test_arrays_are_images(world: Path) -> None:
    network = harness.load_backbone("transreid", options=TINY)
    path = sorted((world / MARKET / "query").glob("*.jpg"))[0]
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    torch.testing.assert_close(network.embed([pixels]), network.embed([path]), rtol=0, atol=0)
    height, width = network.image_size
    tensor = torch.rand(3, height, width)
    torch.testing.assert_close(network.embed([tensor, path])[:1], network.embed(tensor[None]), rtol=0, atol=1e-6)
    assert network.embed([]).shape == (0, network.embed([path]).shape[1])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("a.jpg", "Pass a list of images, also for one image; found str"),
        (Path("a.jpg"), "Pass a list of images"),
        (Image.new("RGB", (32, 64)), "Pass a list of images"),
        ([np.zeros((64, 32, 3), np.float32)], r"uint8 \[height, width, 3\], found float32"),
        ([np.zeros((3, 64, 32), np.uint8)], r"found uint8 \[3, 64, 32\]"),
        (torch.zeros(1, 3, 32, 64), r"shape \[3, 64, 32\], found \[3, 32, 64\]"),
        ([torch.zeros(1, 1, 1)], r"shape \[3, 64, 32\], found \[1, 1, 1\]"),
        ([torch.full((3, 64, 32), 255.0)], "floats from 0 to 1; found torch.float32 from 255 to 255"),
        ([torch.full((3, 64, 32), torch.nan)], "from nan to nan"),
        ([torch.zeros(3, 64, 32, dtype=torch.int64)], "found torch.int64"),
        ([None], "found NoneType"),
        ([Path("missing.jpg"), None], "Cannot read the image missing.jpg"),
    ],
)
def test_other_things_are_no_images(images: Any, message: str, checkpoint: Path) -> None:
    network = harness.load_backbone("transreid", checkpoint, image_size=(64, 32))
    with pytest.raises(HarnessError, match=message):
        network.embed(images)


@pytest.mark.parametrize("size", [(0, 64), (64,), 64, "64x32", (64.5, 32)])
def test_an_image_size_is_two_numbers(size: Any, checkpoint: Path) -> None:
    with pytest.raises(UsageError, match=r"must be \(height, width\) in pixels"):
        harness.load_backbone("transreid", checkpoint, image_size=size)


def test_a_gpu_that_is_not_there_is_said(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="The device cuda cannot be used"):
        harness.load_backbone("transreid", checkpoint, image_size=(64, 32), device="cuda")


def test_images_are_listed_with_subfolders_and_without_other_files(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "a/1.jpg", "a/.hidden.jpg", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert list_images(tmp_path) == [tmp_path / "a/1.jpg", tmp_path / "b/2.PNG"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "photos"], "Name a trained network"),
        (["--checkpoint", "none.pt", "--backbone", "bot", "--images", "photos"], "none.pt does not exist"),
        (["--checkpoint", "net.pt", "--images", "photos"], "Pass the name of the backbone"),
        (["--checkpoint", "net.pt", "--backbone", "transreid"], "--images"),
        (["--checkpoint", "net.pt", "--backbone", "transreid", "--images", "nowhere"], "nowhere does not exist"),
        (["--checkpoint", "net.pt", "--backbone", "transreid", "--images", "empty"], "no images in empty"),
        (["--checkpoint", "net.pt", "--backbone", "transreid", "--images", "bad"], "2 images cannot be read"),
        (["--checkpoint", "net.pt", "--backbone", "transreid", "--images", "net.pt"], "neither an image nor"),
        (["--checkpoint", "net.pt", "--backbone", "transreid", "--images", "photos", "--camera", "6"], "0 to 5"),
        (["--checkpoint", "net.pt", "--backbone", "transreid", "--images", "photos", "--precision", "fp16"], "GPU"),
        (["--checkpoint", "net.pt", "--backbone", "transreid", "--image-size", "64"], "HEIGHTxWIDTH"),
        (
            ["--checkpoint", "net.pt", "--backbone", "transreid", "--images", "photos", "--out", "net.pt/f.npz"],
            "write net",
        ),
        (["--run", "0000", "--images", "photos"], "No run in"),
    ],
)
def test_bad_input_is_one_sentence(
    cli: Cli, checkpoint: Path, world: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    for name in ("photos", "empty", "bad"):
        Path(name).mkdir()
    Image.new("RGB", (32, 64)).save("photos/a.jpg")
    for name in ("x", "y"):
        Path(f"bad/{name}.jpg").write_text("not an image")
    size = [] if "--image-size" in words else ["--image-size", "64x32"]
    code, _, err = cli("embed", "--out", "f.npz", *words, *size)
    assert code in (1, 2) and message in err and "Traceback" not in err
    assert not Path("f.npz").exists() and not list(Path().glob(".*")), "nothing is left behind"


@pytest.mark.parametrize("prefix", ["", "bot."])
def test_build_options_may_name_the_backbone(cli: Cli, world: Path, tmp_path: Path, prefix: str) -> None:
    module = registry.backbone("bot").build(num_classes=3, num_cameras=1, image_size=(64, 32), width="tiny")
    torch.save(module.state_dict(), tmp_path / "net.pt")
    words = ["--backbone", "bot", "--checkpoint", tmp_path / "net.pt", "--option", f"{prefix}neck_feature=before"]
    images = world / MARKET / "query"
    code, out, err = cli("embed", *words, "--image-size", "64x32", "--images", images, "--out", tmp_path / "f.npz")
    assert code == 0 and "33 features of 512 numbers" in out, err


def test_the_file_must_be_named_npz(cli: Cli, checkpoint: Path, tmp_path: Path) -> None:
    words = ["--backbone", "transreid", "--checkpoint", checkpoint, "--images", tmp_path, "--out", tmp_path / "f.txt"]
    code, _, err = cli("embed", *words)
    assert code == 2 and "--out must name a .npz file" in err
