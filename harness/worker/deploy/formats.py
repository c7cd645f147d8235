"""Exported files: how each format is written, read and run, and what is written into it about its origin."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import RunError, UsageError, WeightsError
from harness.worker.deploy.graph import BATCH, CAMERAS, INPUT, LARGEST_BATCH, OUTPUT, Contract, Exported

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
OPSETS = (18, 23)
"""The oldest and newest opset that torch writes."""

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
KEY = "reid-harness"
"""Name of the metadata in a file: one JSON text."""


def check_format(form: str, opset: int) -> None:
    """Checks that a format can be written here.

    Raises:
        UsageError: a package is missing, or the opset is too old or too new.
    """
    low, high = OPSETS
    if form != "onnx":
        if opset != low:
            raise UsageError("--opset is for --format onnx. Leave it out.")
        return
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UsageError(f"Export to ONNX needs {', '.join(missing)}. Run: pip install --editable '.[export]'")
    if not low <= opset <= high:
        age = "too old" if opset < low else "too new"
        raise UsageError(f"The ONNX opset {opset} is {age}: torch writes opsets {low} to {high}. Pass --opset {low}.")


def trace(module: Exported) -> torch.export.ExportedProgram:
    """Traces a module with torch.export.

    Raises:
        RunError: the module does something that cannot be traced.
    """
    inputs = module.example(module.contract.batch or 2)
    batch = torch.export.Dim(BATCH, min=1, max=LARGEST_BATCH)
    shapes = None if module.contract.batch else tuple({0: batch} for _ in inputs)
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(module, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises its own exceptions for each kind of problem
        raise _cannot(error) from error


def write_onnx(program: torch.export.ExportedProgram, path: Path, opset: int) -> None:
    """Writes a traced module as one ONNX file.

    Raises:
        RunError: an operation has no form in ONNX.
    """
    names = [INPUT, CAMERAS][: len(program.graph_signature.user_inputs)]
    try:
        with torch.no_grad(), _quiet():
            found = torch.onnx.export(
                program, dynamo=True, opset_version=opset, input_names=names, output_names=[OUTPUT], verbose=False
            )
            assert found is not None
    except Exception as error:
        raise _cannot(error) from error
    found.save(path, external_data=False)


def write_torch(program: torch.export.ExportedProgram, path: Path, about: str = "") -> None:
    """Writes a traced module as one `.pt2` file, with its metadata; through memory, as torch aborts on a full disk."""
    packed = io.BytesIO()
    with _quiet():
        torch.export.save(program, packed, extra_files={f"{KEY}.json": about})
    path.write_bytes(packed.getbuffer())


def _cannot(error: Exception) -> RunError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("<class")), lines[0] if lines else "")
    return RunError(f"The network cannot be exported ({type(error).__name__}: {reason[:300]}). See docs/deploy.md.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what exporters print about their own progress."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


def describe(path: Path, about: Mapping[str, Any]) -> None:
    """Writes metadata into an exported file."""
    text = json.dumps(about, sort_keys=True)
    if path.suffix == SUFFIXES["onnx"]:
        import onnx

        model = onnx.load(path)
        del model.metadata_props[:]
        model.metadata_props.add(key=KEY, value=text)
        model.producer_name, model.doc_string = KEY, about["network"]["name"]
        onnx.save(model, path)
    else:
        write_torch(torch.export.load(path), path, text)


def description(path: Path) -> dict[str, Any]:
    """Reads the metadata of an exported file.

    Raises:
        WeightsError: it does not exist, or is not a file of `export`.
    """
    if not path.is_file():
        raise WeightsError(f"The exported file {path} does not exist.")
    try:
        text = _onnx_text(path) if path.suffix == SUFFIXES["onnx"] else _torch_text(path)
        return cast(dict[str, Any], json.loads(text))
    except Exception as error:  # both libraries raise their own exceptions for damaged files
        raise WeightsError(
            f"{path} was not written by 'python -m harness export', or is damaged ({type(error).__name__})."
        ) from error


def contract_of(path: Path) -> Contract:
    """Reads what an exported file reads and returns; errors as `description`."""
    return Contract.read(description(path)["contract"])


def _onnx_text(path: Path) -> str:
    import onnx

    model = onnx.load(path)
    return next(str(entry.value) for entry in model.metadata_props if entry.key == KEY)


def _torch_text(path: Path) -> str:
    with zipfile.ZipFile(path) as file:
        name = next(name for name in file.namelist() if name.endswith(f"{KEY}.json"))
        return file.read(name).decode()


class Deployed(nn.Module):
    """An exported file that is called like the backbone it was made from, with normalised images.

    Args:
        path: the file.
        contract: what it reads.
        threads: number of CPU threads; 0 is the library's choice.
    """

    def __init__(self, path: Path, contract: Contract, threads: int = 0) -> None:
        super().__init__()
        self.contract = contract
        run = _onnx_call if path.suffix == SUFFIXES["onnx"] else _torch_call
        self.call = run(path, threads)
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32).reshape(3, 1, 1) for values in (contract.mean, contract.std)
        )

    def forward(self, images: Tensor, camera_ids: Tensor) -> Tensor:
        """Features [N, feature_dim] of normalised images [N, 3, height, width], in the calls that the file allows."""
        size = self.contract.batch or len(images)
        parts = zip(images.split(size), camera_ids.split(size), strict=True)
        return torch.cat([self._one(part, cameras) for part, cameras in parts])

    def _one(self, images: Tensor, cameras: Tensor) -> Tensor:
        count = len(images)
        if self.contract.batch > count:  # a fixed batch is filled up with copies of the last image
            fill = [count - 1] * (self.contract.batch - count)
            images, cameras = (torch.cat([t, t[fill]]) for t in (images, cameras))
        return torch.from_numpy(self.call(self.inputs(images, cameras)))[:count]

    def inputs(self, images: Tensor, cameras: Tensor) -> dict[str, np.ndarray]:
        """The inputs of the file by name, for normalised images."""
        if self.contract.normalised:
            images = ((images * self._std + self._mean) * 255).round().clamp(0, 255).to(torch.uint8)
        found = {INPUT: images.contiguous().numpy()}
        return found | ({CAMERAS: cameras.numpy()} if self.contract.camera == "input" else {})


def _onnx_call(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would slow PyTorch's
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run([OUTPUT], inputs)[0]


def _torch_call(path: Path, threads: int) -> Any:
    module = torch.export.load(path).module()

    @torch.inference_mode()
    def call(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        found: Tensor = module(*map(torch.from_numpy, inputs.values()))
        return found.numpy()

    return call
