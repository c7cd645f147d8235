"""The Python API: the same runs as from the command line, and networks that embed images."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.errors import UsageError
from harness.system.paths import REPOSITORY

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The variables of the example in docs/python.md, in the folder where it ran."""
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "python.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.chdir(folder := tmp_path_factory.mktemp("example")):
        exec(code, names)
        yield names | {"folder": folder / names["folder"]}


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    """A record but for what differs between two runs on one machine, and for the words that asked for it."""
    left = {key: value for key, value in record.items() if key not in ("timing", "request", "efficiency")}
    left["parameters"] = record["efficiency"]["parameters"]
    return left


def test_the_example_in_the_docs_runs(example: dict[str, Any]) -> None:
    assert example["record"]["status"] == "ok"
    assert example["features"].shape == (4, example["network"].module.feature_dim)
    assert example["features"].norm(dim=1).tolist() == pytest.approx([1, 1, 1, 1], abs=1e-6)


def test_the_command_line_makes_the_same_record(example: dict[str, Any], cli: Cli, tmp_path: Path) -> None:
    words = ["--preset", "smoke", "--data-root", example["folder"] / "data", "--results", tmp_path / "results"]
    words += ["--scheduler", "local", "--no-mlflow", "--backbones", "bot", "--datasets", "market1501"]
    code, _, err = cli("run", *words)
    assert code == 0, err
    (there,) = harness.run("bot", "market1501", **{**example["settings"], "results": tmp_path / "results"})
    assert there["run_id"] == example["record"]["run_id"]
    assert without_times(dict(there)) == without_times(dict(example["record"]))


def test_features_of_a_loaded_network_score_as_its_run(example: dict[str, Any], tmp_path: Path) -> None:
    import numpy as np

    from harness import registry

    splits = registry.dataset("market1501").load(example["folder"] / "data")
    arrays: dict[str, Any] = {}
    for split in ("query", "gallery"):
        items = getattr(splits, split)
        arrays[split] = example["network"].embed([item.path for item in items]).numpy()
        arrays[f"{split}_pids"] = [item.pid for item in items]
        arrays[f"{split}_camids"] = [item.camid for item in items]
    np.savez(tmp_path / "features.npz", **arrays)
    scored = harness.evaluate(
        "bot", "market1501", features=tmp_path / "features.npz", **{**example["settings"], "results": tmp_path / "r"}
    )
    (there,) = [row["mAP"] for row in scored["evaluations"] if not row["flip"]]
    (here,) = [row["mAP"] for row in example["record"]["evaluations"] if row["trained"] and not row["flip"]]
    assert there == pytest.approx(here, abs=1e-6)


def test_images_may_be_tensors_pictures_or_paths(example: dict[str, Any]) -> None:
    import torch
    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    network, path = example["network"], example["images"][0]
    height, width = network.image_size
    with Image.open(path) as image:
        pixels = pil_to_tensor(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))[None]
        same = [network.embed(one) for one in ([path], [image], pixels, pixels / 255)]
    for one in same[1:]:
        torch.testing.assert_close(one, same[0], atol=1e-5, rtol=0)
    with pytest.raises(UsageError, match="shape"):
        network.embed(pixels[..., 1:])
    with pytest.raises(UsageError, match="2 camera ids for 1 images"):
        network.embed([path], [0, 1])


@pytest.mark.usefixtures("quick_runs")
def test_a_run_of_a_backbone_that_cannot_read_checkpoints_is_loaded(
    plugin_folder: Path, world: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "scheduler": "local",
        "mlflow": False,
        "results": tmp_path / "results",
        "preset": "smoke",
    }
    (record,) = harness.run("pixels", "market1501", data_root=world, plugins=plugin_folder, **settings)
    network = harness.load_backbone(run=record["run_id"], results=tmp_path / "results", plugins=plugin_folder)
    images = sorted((world / "Market-1501-v15.09.15").glob("query/*.jpg"))[:2]
    assert network.embed(images).shape == (2, 24)


def test_cameras_are_known_or_averaged(world: Path) -> None:
    network = harness.load_backbone("transreid", options={"width": "tiny", "patch_size": 8, "stride": 8})
    images = sorted((world / "Market-1501-v15.09.15").glob("query/*.jpg"))[:2]
    assert network.embed(images).shape == network.embed(images, [0, 0]).shape
    with pytest.raises(UsageError, match="trained on 1 cameras"):
        network.embed(images, [0, 1])


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, harness; assert callable(harness.run); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, timeout=60)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: harness.plan("bto"), "Did you mean 'bot'"),
        (lambda: harness.plan("bot", recpie="unified"), "Did you mean 'recipe'"),
        (lambda: harness.plan("bot", preset="smoek"), "Did you mean 'smoke'"),
        (lambda: harness.run("bot", scheduler="slurm"), "Unknown scheduler"),
        (lambda: harness.plan("bot", data_options={"version": "v2"}), "without a dataset"),
        (lambda: harness.evaluate("bot", "market1501"), "either"),
        (
            lambda: harness.run("bot", "market1501", data_root="/nonexistent", from_scratch=True),
            "Nothing can run.*nonexistent",
        ),
        (lambda: harness.load_backbone(run="0000", results="/nonexistent"), "No run in /nonexistent has"),
    ],
)
def test_wrong_words_are_named(call: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        call()
