"""Reads the tensors of a TorchScript program and runs nothing of it. OpenAI distributes CLIP in this form.

A program is a zip archive of the code, a pickle of the tree of modules, and one file per storage. Reading it with
`torch.jit.load` would compile the code. Here, the pickle may only name tensors, lists and modules, and a module becomes
a table of its attributes.
"""

from __future__ import annotations

import collections
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.errors import WeightsError


class _Module:
    """A module of the program: the attributes it was saved with."""

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes


def _tensor(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


def _same(value: Any, *_: Any) -> Any:
    return value


STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Number types by their names in the pickle."""

ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    **{("torch.jit._pickle", f"build_{kind}list"): _same for kind in ("int", "double", "bool", "tensor")},
    ("torch.jit._pickle", "restore_type_tag"): _same,
    **{("torch", name): dtype for name, dtype in STORAGES.items()},
}
"""What the pickle may name, and its replacement here."""


class _Reader(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Unpickles the tree of modules, with storages from the archive.

    It is Python's own, because the one in C allocates as much memory as a number in the file says.
    """

    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(archive.open(f"{folder}/data.pkl"))
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if (known := ALLOWED.get((module, name))) is not None:
            return known
        if module.split(".")[0] == "__torch__":
            return _Module
        raise WeightsError(
            f"is a TorchScript program that names {module}.{name}, which a module of tensors does not need. Nothing of "
            "it was run. Save the module's state_dict() with torch.save instead."
        )

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        content = bytearray(self.archive.read(f"{self.folder}/data/{key}"))
        return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def read(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a TorchScript program by name, also those of buffers that no state dict would contain.

    Raises:
        WeightsError: the program contains other things than modules, tensors, numbers, texts and lists of these.
    """
    with zipfile.ZipFile(path) as archive:
        folder = next(name for name in archive.namelist() if name.endswith("/data.pkl")).rpartition("/")[0]
        root = _Reader(archive, folder).load()
    if not isinstance(root, _Module):
        raise WeightsError(f"is a TorchScript program of a {type(root).__name__}, not of a module.")
    return dict(_named(root, ""))


def _named(module: _Module, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _named(value, f"{prefix}{name}.")
