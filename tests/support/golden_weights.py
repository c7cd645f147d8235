"""Reproducible weights and images from names and seeds, and the golden values of the original code for them.

A tensor depends only on (seed, key, shape). The golden files contain the results of the original code.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from harness.system.paths import REPOSITORY

torch.set_num_threads(1)  # for tiny tensors, several threads are slower

GOLDEN = REPOSITORY / "tests" / "golden"
EMBEDDINGS = ("cls_token", "pos_embed", "pos_embed_cls", "sie_embed")
CLIP = ("class_embedding", "positional_embedding", "cv_embed")
PARTS = ("part_token1", "part_token2", "part_token3", "cls_pos", "part1_pos", "part2_pos", "part3_pos")


def tensor(key: str, shape: Iterable[int], seed: int) -> Tensor:
    """Returns the tensor with this name: noise with a scale that fits its kind."""
    shape, (parent, leaf) = tuple(shape), ["", *key.split(".")][-2:]
    if leaf == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    noise = np.random.default_rng([seed, zlib.crc32(key.encode())]).standard_normal(shape).astype(np.float32)
    if leaf in ("A_log", "A_b_log"):
        noise = np.log(np.arange(1, shape[-1] + 1, dtype=np.float32)) + 0.05 * noise
    elif leaf in ("D", "D_b"):
        noise = 1 + 0.05 * noise
    elif leaf == "bias" and parent.startswith("dt_proj"):
        noise = -4.0 + 0.5 * noise
    elif leaf == "running_var":
        noise = 1 + 0.1 * np.abs(noise)
    elif leaf == "running_mean":
        noise = 0.1 * noise
    elif leaf in ("bias", "in_proj_bias"):
        noise = 0.02 * noise
    elif leaf in (*EMBEDDINGS, *PARTS, *CLIP):
        noise = 0.2 * noise
    elif leaf == "p" and shape == (1,):  # the exponent of generalised mean pooling
        noise = 3 + 0.1 * noise
    elif len(shape) == 1:
        noise = 1 + 0.1 * noise
    else:
        noise = noise / np.sqrt(int(math.prod(shape[1:])))
        if len(shape) == 4 and ".NL_" in f".{key}":  # a non-local block is cubic in its input, so five would explode
            noise = np.float32(0.7) * noise
    return torch.from_numpy(np.asarray(noise, dtype=np.float32))


def state(shapes: Mapping[str, Iterable[int]], seed: int) -> dict[str, Tensor]:
    """Returns a state dict with these keys and shapes."""
    return {key: tensor(key, shape, seed) for key, shape in shapes.items()}


def images(count: int, height: int, width: int, seed: int) -> Tensor:
    """Returns normalised noise images [count, 3, height, width]."""
    noise = np.random.default_rng([seed, 777]).standard_normal((count, 3, height, width))
    return torch.from_numpy(noise.astype(np.float32))


def scenes(count: int, height: int, width: int, seed: int) -> Tensor:
    """Returns images [count, 3, height, width] of coloured blocks and noise.

    They differ more from each other than noise does, so batch norm over pooled features amplifies rounding less.
    """
    rng = np.random.default_rng([seed, 778])
    blocks = rng.standard_normal((count, 3, height // 32, width // 32)).astype(np.float32)
    noise = rng.standard_normal((count, 3, height, width)).astype(np.float32)
    large = blocks.repeat(32, axis=2).repeat(32, axis=3)
    return torch.from_numpy(np.float32(1.5) * large + np.float32(0.5) * noise)


def shapes(name: str) -> Any:
    """Returns key names and shapes of official checkpoints."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def values(name: str) -> dict[str, Tensor]:
    """Returns golden arrays."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@contextmanager
def without_start() -> Iterator[None]:
    """Skips the initialisation of new modules, whose tensors will all be loaded."""
    names = ("trunc_normal_", "normal_", "kaiming_uniform_", "kaiming_normal_", "uniform_")
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(torch.nn.init, name, lambda tensor, *a, **k: tensor))
        yield


def difference(found: Tensor, golden: Tensor) -> float:
    """Returns the largest absolute difference."""
    return float((found.detach() - golden).abs().max())


def relative(found: Tensor, golden: Tensor) -> float:
    """Returns the largest absolute difference, divided by the largest golden value."""
    return difference(found, golden) / float(golden.abs().max())
