"""Weights as safetensors, with what is needed to build their network: the file that `publish` writes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from harness.system import files
from harness.weights import file_kinds

if TYPE_CHECKING:
    from torch import Tensor

KEY = "reid-harness"
"""Name of the facts in the header of the file."""


class Facts(msgspec.Struct, frozen=True):
    """What is needed to build a network and to feed it.

    Attributes:
        backbone: its name, with the variant.
        run_id: the run that trained it.
        options: build options.
        image_size: (height, width) in pixels.
        interpolation: filter for resizing images.
        identities: number of identities in training.
        cameras: number of cameras in training.
    """

    backbone: str
    run_id: str
    options: dict[str, Any]
    image_size: tuple[int, int]
    interpolation: Literal["bicubic", "bilinear"]
    identities: int
    cameras: int


def save(path: Path, state: Mapping[str, Tensor], facts: Facts) -> None:
    """Writes the tensors of a module, and the facts about it."""
    from safetensors.torch import save as to_bytes

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    # One entry only: safetensors writes several in random order, and equal runs should give equal files.
    files.replace(path, to_bytes(tensors, {KEY: msgspec.json.encode(facts, order="sorted").decode()}))


def facts(path: str | os.PathLike[str]) -> Facts | None:
    """Returns the facts that `save` wrote into a file; `None` for any other file."""
    try:
        if file_kinds.kind_of(Path(path)).form != file_kinds.SAFETENSORS:
            return None
        with Path(path).open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return msgspec.json.decode(header["__metadata__"][KEY], type=Facts)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
