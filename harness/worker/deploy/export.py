"""Exports a trained network to ONNX or torch.export, and compares the file with PyTorch before it gets its name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from datasets import layouts
from harness import metrics, registry, weights
from harness.contracts import PROTOCOLS, Item, Splits
from harness.errors import DataError, RunError, UsageError
from harness.registry import DatasetEntry
from harness.system import files, paths
from harness.system.version import __version__
from harness.training.trained import check_cameras
from harness.worker.deploy import formats, smaller
from harness.worker.deploy.embedder import Embedder, load
from harness.worker.deploy.feature_file import check_out
from harness.worker.deploy.graph import LARGEST_BATCH, Contract, Exported, prepare

TOLERANCE = 1e-4
"""Largest difference to PyTorch that a float32 file may have: of a feature's component, and in mAP."""

BATCHES = (1, 2, 5)
"""Batch sizes of generated images for the comparison."""

Show = Callable[[str], None]


@dataclass(frozen=True)
class How:
    """How a network is exported.

    Attributes:
        form: `onnx` or `torch`.
        normalize: whether the file normalises and reads uint8; otherwise it reads normalised float32.
        camera: `input`, `mean`, a trained camera from 0, or empty for the mean where the backbone embeds cameras.
        batch: images per call; 0 for any number.
        opset: ONNX opset.
        precision: `fp32`, `fp16` or `int8`.
        calibration: number of training images that calibrate int8.
    """

    form: str = "onnx"
    normalize: bool = True
    camera: str = ""
    batch: int = 0
    opset: int = formats.OPSETS[0]
    precision: str = "fp32"
    calibration: int = 128


@dataclass(frozen=True)
class Result:
    """An exported file.

    Attributes:
        path: the file.
        about: its metadata: network, licence, contract, parity and versions.
        seconds: duration of tracing and writing.
    """

    path: Path
    about: dict[str, Any]
    seconds: float

    @property
    def sentences(self) -> list[str]:
        """The comparison with PyTorch in words."""
        generated, data = self.about["parity"]["generated_images"], self.about["parity"].get("dataset")
        found = [
            f"Generated images: features differ from PyTorch by at most {generated['largest_difference']:.1e}, "
            f"cosine at least {generated['smallest_cosine']:.5f}."
        ]
        if data:
            scores = data["mAP"]
            found.append(
                f"{data['name']}: features differ by at most {data['largest_difference']:.1e}. "
                f"mAP {scores['file']:.2%}, PyTorch {scores['pytorch']:.2%}: "
                f"a change of {100 * (scores['file'] - scores['pytorch']):+.2f} points."
            )
        elif self.about["precision"] != "fp32":
            found.append(f"Pass --dataset NAME to measure what {self.about['precision']} costs in mAP.")
        return found


@dataclass
class _Test:
    """A dataset to compare mAP on."""

    entry: DatasetEntry
    splits: Splits
    rows: Mapping[int, int] | None = None
    items: dict[str, list[Item]] = field(default_factory=dict)


def write(
    backbone: str,
    settings: Mapping[str, Any],
    *,
    out: str,
    how: How,
    dataset: str = "",
    data_root: str = "",
    show: Show | None = None,
) -> Result:
    """Loads a network, exports it and compares the file with PyTorch; see `harness.export`."""
    if how.form not in formats.SUFFIXES:
        raise UsageError(f"--format must be {' or '.join(formats.SUFFIXES)}, found '{how.form}'.")
    path = check_out(paths.expand(out), formats.SUFFIXES[how.form])
    formats.check_format(how.form, how.opset)
    _check(how, dataset)
    network = load(backbone, device="cpu", **settings)
    module = prepare(network, normalize=how.normalize, camera=how.camera, batch=how.batch)
    test = _test(network, module.contract, dataset, data_root) if dataset else None
    with files.writing(path, "--out"):
        return _written(network, module, test, path, how, show or (lambda _: None))


def _written(network: Embedder, module: Exported, test: _Test | None, path: Path, how: How, show: Show) -> Result:
    """Writes a file and compares it before it gets its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as temporary:
        # Both libraries choose the format by the suffix, which a temporary file does not have.
        draft = temporary.with_suffix(path.suffix)
        try:
            started = time.perf_counter()
            show("exporting")
            _export(module, draft, how)
            seconds = time.perf_counter() - started
            if how.precision != "fp32":
                show(f"converting to {how.precision}")
                _shrink(network, module.contract, test, draft, how)
            show("comparing with PyTorch")
            parity = compare(network, module, draft, test, exact=how.precision == "fp32")
            about = _about(network, module.contract, how, parity)
            formats.describe(draft, about)
            draft.replace(temporary)
        finally:
            draft.unlink(missing_ok=True)
    return Result(path, about, seconds)


def _check(how: How, dataset: str) -> None:
    if how.precision not in ("fp32", "fp16", "int8"):
        raise UsageError(f"--precision must be fp32, fp16 or int8, found '{how.precision}'.")
    if how.precision != "fp32" and how.form != "onnx":
        raise UsageError(f"--precision {how.precision} needs --format onnx.")
    if not 0 <= how.batch <= LARGEST_BATCH:
        raise UsageError(f"--batch must be from 0 to {LARGEST_BATCH}, found {how.batch}.")
    if how.precision != "int8":
        if how.calibration != How.calibration:
            raise UsageError("--calibration is for --precision int8. Leave it out.")
    elif not dataset:
        raise UsageError("--precision int8 is calibrated on training images. Pass --dataset NAME.")
    elif how.calibration < max(1, how.batch):
        raise UsageError(f"--calibration must be at least one batch of {max(1, how.batch)}, found {how.calibration}.")


def _test(network: Embedder, contract: Contract, dataset: str, data_root: str) -> _Test:
    """Reads the dataset of the comparison, with the cameras that the file will be given.

    Raises:
        DataError: the dataset cannot be read, or its cameras are not those that the file needs.
    """
    entry = registry.dataset(dataset, network.source.plugins)
    root = Path(paths.expand(data_root) or paths.variable(paths.DATASETS) or ".")
    test = _Test(entry, layouts.load(entry, root, **network.source.reader_options(entry.name)))
    for name in ("query", "gallery", "train"):
        test.items[name] = list(getattr(test.splits, name))
    if contract.camera.isdecimal():
        fixed = int(contract.camera)
        test.items = {name: [item._replace(camid=fixed) for item in items] for name, items in test.items.items()}
    elif contract.camera == "input":
        trained_on = network.source.dataset
        if trained_on and trained_on != entry.name:
            raise DataError(f"The network reads the cameras of {trained_on}, not of {entry.name}. Pass --camera mean.")
        test.rows = check_cameras(network.source.entry, network.module, network.num_cameras, test.splits)
    return test


def _export(module: Exported, path: Path, how: How) -> None:
    program = formats.trace(module)
    if how.form == "onnx":
        formats.write_onnx(program, path, how.opset)
    else:
        formats.write_torch(program, path)


def _shrink(network: Embedder, contract: Contract, test: _Test | None, path: Path, how: How) -> None:
    if how.precision == "fp16":
        return smaller.to_float16(path)
    assert test is not None
    items, batch = test.items["train"], contract.batch or min(8, how.calibration)
    if len(items) < batch:
        raise DataError(f"{test.entry.name} has {len(items)} training images; the calibration needs {batch}.")
    chosen = items[:: max(1, len(items) // how.calibration)][: how.calibration]
    data = network.data(chosen, rows=test.rows, value_range=test.splits.value_range, batch_size=batch)
    file = formats.Deployed(path, contract)
    batches = [file.inputs(b.images, b.camera_ids) for b in data if len(b.images) == data.batch_size]
    smaller.to_int8(path, batches)
    return None


def compare(network: Embedder, module: Exported, path: Path, test: _Test | None, *, exact: bool) -> dict[str, Any]:
    """Compares a file with PyTorch on generated images and, with a dataset, on its images and in mAP.

    Args:
        network: the network with the cameras of the file.
        module: the module that was exported.
        path: the file.
        test: the dataset, or `None`.
        exact: whether a difference above `TOLERANCE` is an error.

    Raises:
        RunError: the file differs from PyTorch.
    """
    file = formats.Deployed(path, module.contract)
    parity: dict[str, Any] = {"tolerance": TOLERANCE if exact else None, "generated_images": _generated(module, file)}
    if test is not None:
        parity["dataset"] = _on_dataset(network, file, test)
    found = {"features of generated images": parity["generated_images"]["largest_difference"]}
    if test is not None:
        images, scores = parity["dataset"]["largest_difference"], parity["dataset"]["mAP"]
        found |= {f"features of {test.entry.name}": images, "mAP": abs(scores["file"] - scores["pytorch"])}
    if exact and (worse := {name: value for name, value in found.items() if not value <= TOLERANCE}):
        name, value = next(iter(worse.items()))
        raise RunError(
            f"The exported file differs from PyTorch by {value:.2g} in {name}; at most {TOLERANCE:g} is allowed. "
            "No file was kept."
        )
    return parity


def _generated(module: Exported, file: formats.Deployed) -> dict[str, Any]:
    """Compares features of random images, for several batch sizes."""
    worst, closest, count = 0.0, 1.0, 0
    for seed, size in enumerate((module.contract.batch,) if module.contract.batch else BATCHES):
        inputs = module.example(size, seed)
        with torch.inference_mode():
            expected = module(*inputs)
        names = formats.INPUT, formats.CAMERAS
        found = torch.from_numpy(file.call({n: t.numpy() for n, t in zip(names, inputs, strict=False)}))
        worst = max(worst, float((found - expected).abs().max()))
        closest, count = min(closest, float((found * expected).sum(1).min())), count + size
    return {"images": count, "largest_difference": worst, "smallest_cosine": closest}


def _on_dataset(network: Embedder, file: formats.Deployed, test: _Test) -> dict[str, Any]:
    """Compares features and mAP on query and gallery."""
    there = Embedder(file, network.source, torch.device("cpu"), network.num_cameras)
    features: dict[str, list[torch.Tensor]] = {}
    for name in ("query", "gallery"):
        features[name] = [
            torch.cat([b for _, b in one.stream(test.items[name], rows=test.rows, value_range=test.splits.value_range)])
            for one in (network, there)
        ]
    scores = [_mean_ap(q, g, test) for q, g in zip(features["query"], features["gallery"], strict=True)]
    worst = max(float((a - b).abs().max()) for a, b in features.values())
    return {
        "name": test.entry.name,
        "generated": bool(test.splits.generated),
        "images": sum(len(a) for a, _ in features.values()),
        "largest_difference": worst,
        "mAP": {"pytorch": scores[0], "file": scores[1]},
    }


def _mean_ap(query: torch.Tensor, gallery: torch.Tensor, test: _Test) -> float:
    labels = [
        [getattr(item, what) for item in getattr(test.splits, split)]
        for what in ("pid", "camid")
        for split in ("query", "gallery")
    ]
    scorer = getattr(metrics, PROTOCOLS[test.entry.card.protocol].scorer)
    return float(scorer(query, gallery, *map(torch.tensor, labels)).mAP)


def _about(network: Embedder, contract: Contract, how: How, parity: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a file."""
    source, card = network.source, network.source.entry.card
    versions = {"harness": __version__, "torch": torch.__version__}
    if how.form == "onnx":
        import onnx
        import onnxruntime

        versions |= {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__, "opset": str(how.opset)}
    return {
        "network": {
            "name": source.name,
            "backbone": source.entry.name,
            "options": dict(source.options),
            "checkpoint": f"sha256:{weights.checksum(source.checkpoint)}" if source.checkpoint else None,
        },
        "record": _record(network),
        "licence": _licence(network),
        "preprocessing": {
            "resize": f"PIL, {source.interpolation}, to {source.image_size[0]}x{source.image_size[1]} (height x width)",
            "crop": "none: one person per image",
        },
        "contract": contract.described(),
        "precision": how.precision,
        "parity": dict(parity),
        "versions": versions,
        "paper": card.paper,
    }


def _record(network: Embedder) -> dict[str, Any] | None:
    """The part of the source record that says what was trained and how good it is."""
    if (record := network.source.record) is None:
        return None
    keys = {"dataset", "flip", "rerank", "mAP", "rank-1"}
    rows = [
        {key: value for key, value in row.items() if key in keys} for row in record["evaluations"] if row["trained"]
    ]
    return {"run_id": record["run_id"], "spec": record["spec"], "evaluations": rows}


def _licence(network: Embedder) -> dict[str, str]:
    """The licences of code, starting weights and training data, as far as the cards know them."""
    source, card = network.source, network.source.entry.card
    found = {"code": card.licence or "unknown"}
    random = source.record is not None and source.record["spec"].get("pretrained", "none") == "none"
    if not random and (start := weights.wanted(card, source.options)):
        found["starting_weights"] = f"{start.trained_on}, see {start.url or 'the card'}"
    if source.dataset:
        try:
            data = registry.dataset(source.dataset, source.plugins).card
            found["training_data"] = f"{data.title}: {data.licence or 'unknown'}"
        except UsageError:  # its card is in a plug-in folder that was not passed
            found["training_data"] = f"{source.dataset}: unknown"
    return found
