"""`export` writes files that compute the features of PyTorch, and says in them where they come from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness import registry
from harness.errors import RunError, UsageError
from harness.worker.deploy import export, formats

Cli = Callable[..., tuple[int, str, str]]
TINY = {"width": "tiny", "patch_size": 8, "stride": 8}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a TransReID for six cameras."""
    module = registry.backbone("transreid").build(num_classes=3, num_cameras=6, image_size=(64, 32), **TINY)
    torch.save(module.state_dict(), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def exported(checkpoint: Path, **settings: Any) -> export.Result:
    out = settings.pop("out", checkpoint.with_name("net.onnx"))
    return harness.export("transreid", checkpoint=checkpoint, image_size=(64, 32), out=out, **settings)


def session(path: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["reidmamba", "transreid", "bot"])
def test_a_trained_network_keeps_its_score(trained: Any, world: Path, tmp_path: Path, backbone: str) -> None:
    run, out = trained(backbone), tmp_path / "net.onnx"
    camera = "" if backbone == "bot" else "input"
    result = harness.export(**run.where, out=out, dataset="market1501", data_root=world, camera=camera)
    data = result.about["parity"]["dataset"]
    assert data["largest_difference"] < 1e-4 and data["images"] == 79
    plain = next(row for row in run.record["evaluations"] if row["trained"] and not row["flip"])
    assert data["mAP"]["file"] == pytest.approx(plain["mAP"], abs=1e-4), "the score of the run itself"
    about = formats.description(out)
    assert about == result.about and about["record"]["run_id"] == run.run_id
    assert about["licence"]["code"] and about["contract"]["input"].startswith("images: uint8 [N, 3, 64, 32], RGB")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mobilenetv3_small_050.lamb_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"])
def test_models_of_timm(tmp_path: Path, model: str) -> None:
    entry = registry.backbone(f"timm:{model}")
    module = entry.build(num_classes=2, num_cameras=1, image_size=(64, 32), **entry.options())
    torch.save(module.state_dict(), tmp_path / "net.pt")
    result = harness.export(entry.name, checkpoint=tmp_path / "net.pt", image_size=(64, 32), out=tmp_path / "net.onnx")
    assert result.about["parity"]["generated_images"]["largest_difference"] < 1e-4


@pytest.mark.slow
def test_torch_export_needs_no_code_of_the_harness(checkpoint: Path, tmp_path: Path) -> None:
    out = exported(checkpoint, format="torch", out=tmp_path / "net.pt2", camera=3).path
    module, network = (
        torch.export.load(out).module(),
        harness.load_backbone("transreid", checkpoint, image_size=(64, 32)),
    )
    images = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(module(images), network.embed(images, [3, 3, 3]), atol=1e-5, rtol=0)
    assert formats.description(out)["contract"]["camera"] == "3"


@pytest.mark.slow
def test_normalisation_may_be_outside_and_the_batch_fixed(checkpoint: Path) -> None:
    path = exported(checkpoint, normalize=False, batch=4, camera="input").path
    inputs = [(i.name, i.type, i.shape) for i in session(path).get_inputs()]
    assert inputs == [("images", "tensor(float)", [4, 3, 64, 32]), ("camera_ids", "tensor(int64)", [4])]
    pixels = torch.randint(0, 256, (6, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    cameras = [5, 0, 1, 2, 3, 4]
    found = formats.Deployed(path, formats.contract_of(path))((pixels / 255 - 0.5) / 0.5, torch.tensor(cameras))
    expected = harness.load_backbone("transreid", checkpoint, image_size=(64, 32)).embed(pixels, cameras)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_files_report_what_they_cost(checkpoint: Path, world: Path, precision: str) -> None:
    more = {"calibration": 16} if precision == "int8" else {}
    result = exported(checkpoint, precision=precision, dataset="market1501", data_root=world, **more)
    assert result.path.stat().st_size < 0.75 * checkpoint.stat().st_size
    assert result.about["parity"]["generated_images"]["smallest_cosine"] > 0.99
    scores = result.about["parity"]["dataset"]["mAP"]
    assert f"a change of {100 * (scores['file'] - scores['pytorch']):+.2f} points" in result.sentences[-1]


def test_a_fixed_batch_may_be_larger_than_the_calibration() -> None:
    export._check(export.How(batch=256), "")


@pytest.mark.slow
def test_a_file_is_timed_beside_pytorch(checkpoint: Path, cli: Cli) -> None:
    out = exported(checkpoint).path
    code, text, err = cli("profile", "--exported", out, "--batch", "1,3", "--seconds", "0.1", "--format", "json")
    assert code == 0, err
    assert [(row["batch"], row["speedup"] > 0, row["repeats"] >= 3) for row in json.loads(text)] == [
        (1, True, True),
        (3, True, True),
    ]
    code, _, err = cli("profile", "--exported", checkpoint.with_name("none.onnx"))
    assert code == 2 and "none.onnx does not exist" in err


@pytest.mark.slow
def test_a_file_that_differs_is_not_kept(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_onnx_call", spoiled(formats._onnx_call))
    with pytest.raises(RunError, match=r"differs from PyTorch by 0\.01 .* No file was kept"):
        exported(checkpoint)
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["net.pt"]


def spoiled(make: Callable[..., Any]) -> Callable[..., Any]:
    """An engine whose first feature is off by 0.01."""

    def call(path: Path, threads: int) -> Any:
        right = make(path, threads)
        return lambda inputs: right(inputs) + np.float32(0.01) * (np.arange(right(inputs).shape[1]) == 0)

    return call


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--opset", "11"], "opset 11 is too old: torch writes opsets 18 to 23"),
        (["--opset", "40"], "opset 40 is too new"),
        (["--camera", "6"], "a trained camera from 0 to 5, found '6'"),
        (["--camera", "first"], "found 'first'"),
        (["--precision", "int8"], "calibrated on training images. Pass --dataset"),
        (["--precision", "fp16", "--format", "torch", "--out", "net.pt2"], "needs --format onnx"),
        (["--out", "net.pt2"], "must name a .onnx file"),
        (["--image-size", "4x4"], "4x4"),
        (["--image-size", "128x64"], "patch"),
        (["--batch", "70000"], "--batch must be from 0 to 65535, found 70000"),
        (["--calibration", "5"], "--calibration is for --precision int8"),
        (["--format", "torch", "--opset", "19", "--out", "net.pt2"], "--opset is for --format onnx"),
        (["--out", "net.pt/net.onnx"], "Cannot write net.pt/net.onnx (File exists). Choose another path with --out"),
        (["--dataset", "nowhere"], "Unknown dataset 'nowhere'"),
    ],
)
def test_bad_input_is_one_sentence(
    cli: Cli, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    fixed = ["--backbone", "transreid", "--checkpoint", "net.pt", "--image-size", "64x32", "--out", "net.onnx"]
    code, _, err = cli("export", *fixed, *words)
    assert code == 2 and message in err and "Traceback" not in err
    assert not Path("net.onnx").exists()


def test_cameras_of_a_backbone_without_them(tmp_path: Path) -> None:
    module = registry.backbone("bot").build(num_classes=2, num_cameras=1, image_size=(64, 32), width="tiny")
    torch.save(module.state_dict(), tmp_path / "net.pt")
    with pytest.raises(UsageError, match="bot does not use cameras"):
        harness.export(
            "bot", checkpoint=tmp_path / "net.pt", out=tmp_path / "n.onnx", camera="mean", options={"width": "tiny"}
        )


def test_a_missing_package_is_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "PACKAGES", ("onnx", "onnx_from_the_moon"))
    with pytest.raises(UsageError, match=r"needs onnx_from_the_moon. Run: pip install --editable '\.\[export\]'"):
        exported(checkpoint)


def test_a_calibration_smaller_than_its_batch_is_refused(checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="--calibration must be at least one batch of 64, found 32"):
        exported(checkpoint, precision="int8", dataset="market1501", batch=64, calibration=32)


def test_the_home_folder_is_expanded(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    with pytest.raises(UsageError, match=f"must name a .onnx file, found {checkpoint.parent}/x.txt"):
        exported(checkpoint, out="~/x.txt")


def test_options_that_a_file_does_not_use_are_refused(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("profile", "--exported", tmp_path / "net.onnx", "--backbones", "bot")
    assert code == 2 and "does not use backbones. Leave that out." in err


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(harness.errors.WeightsError, match="was not written by 'python -m harness export'"):
        formats.description(tmp_path / "x.onnx")
