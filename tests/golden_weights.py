"""Weights anyone can rebuild: each tensor follows from a seed, its key and its shape, so no checkpoint is needed.

The values under `tests/golden/` are what the original implementations give for them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"
EMBEDDINGS = ("cls_token", "pos_embed", "pos_embed_cls", "sie_embed")


def golden_json(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text())


def golden_arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as arrays:
        return dict(arrays)


def state(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, torch.Tensor]:
    """A state dict of these shapes."""
    return {key: tensor(key, shape, seed) for key, shape in shapes.items()}


def tensor(key: str, shape: Sequence[int], seed: int) -> torch.Tensor:
    parent, _, leaf = key.rpartition(".")
    if leaf == "num_batches_tracked":
        return torch.zeros((), dtype=torch.int64)
    noise = np.random.default_rng([seed, zlib.crc32(key.encode())]).standard_normal(tuple(shape)).astype(np.float32)
    return torch.from_numpy(np.asarray(_scaled(parent.rpartition(".")[2], leaf, noise), dtype=np.float32))


def _scaled(parent: str, leaf: str, noise: np.ndarray) -> np.ndarray:
    if leaf in ("A_log", "A_b_log"):
        return np.log(np.arange(1, noise.shape[-1] + 1, dtype=np.float32)) + 0.05 * noise
    if leaf in ("D", "D_b"):
        return 1 + 0.05 * noise
    if leaf == "running_var":
        return 1 + 0.1 * np.abs(noise)
    if leaf == "running_mean":
        return 0.1 * noise
    if leaf == "bias":
        return -4.0 + 0.5 * noise if parent.startswith("dt_proj") else 0.02 * noise
    if noise.ndim == 1:
        return 1 + 0.1 * noise
    if leaf in EMBEDDINGS:
        return 0.2 * noise
    return noise / np.sqrt(int(np.prod(noise.shape[1:])))


def images(count: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Standard-normal images [count, 3, height, width]."""
    values = np.random.default_rng([seed, 777]).standard_normal((count, 3, height, width))
    return torch.from_numpy(values.astype(np.float32))
