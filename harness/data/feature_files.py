"""Reads features that other code extracted, with the path, identity and camera of each row if the file has them.

Supported are `.npz`, MAT-files, files of `torch.save` and safetensors, and folders of `.npy`. Arrays may have the names
of this harness, of layumi's baseline (`query_f`, `query_label`, `query_cam`) or of forks of torchreid (`qf`, `q_pids`,
`q_camids`). No code in a file is run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import WeightsError
from harness.weights import file_kinds
from harness.weights.state_dicts import read_torch

LARGEST = 1 << 34
"""Maximum size of a decompressed array, in bytes."""

SIDES = {"query": "query", "q": "query", "probe": "query", "gallery": "gallery", "g": "gallery", "": ""}
PARTS = {
    "features": ("", "f", "feat", "feats", "feature", "features", "embedding", "embeddings"),
    "paths": ("path", "paths", "img_path", "img_paths", "name", "names", "file", "files", "filenames"),
    "pids": ("pid", "pids", "label", "labels", "id", "ids"),
    "camids": ("camid", "camids", "cam", "cams", "camera", "cameras"),
}
WANTED = (
    "Expected are the arrays query and gallery, each [N, D]. To identify their rows, add query_paths and "
    "gallery_paths, or query_pids, query_camids, gallery_pids and gallery_camids"
)


@dataclass(frozen=True)
class Rows:
    """Features of one split in the order of the file, with the labels that the file has.

    Attributes:
        features: real numbers [N, D].
        paths: image path of each row, or None.
        pids: identity of each row, -1 for junk, or None.
        camids: camera of each row, numbered as in the file, or None.
    """

    features: np.ndarray
    paths: list[str] | None = None
    pids: np.ndarray | None = None
    camids: np.ndarray | None = None


def read(path: Path) -> tuple[Rows, Rows]:
    """Reads the rows of query and gallery. A single feature table with paths is used for both.

    Raises:
        WeightsError: the file is missing, damaged, or lacks the arrays; names the arrays that were found.
    """
    try:
        arrays = _arrays(path)
        sides = _by_side(arrays)
        one = "" in sides and "paths" in sides[""] and "features" in sides[""]
        names = ("", "") if one and not {"query", "gallery"} & sides.keys() else ("query", "gallery")
        if any("features" not in sides.get(name, {}) for name in names):
            raise WeightsError(f"contains no features of query and gallery. {WANTED}. Found: {_found(arrays)}.")
        query, gallery = (_rows(sides[name], name) for name in names)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from error
    except Exception as error:  # every format raises its own exceptions for damaged files
        reason = (str(error).splitlines() or [""])[0][:200]
        raise WeightsError(f"{path} cannot be read as features ({type(error).__name__}: {reason}).") from error
    if query.features.shape[1] != gallery.features.shape[1]:
        q, g = query.features.shape[1], gallery.features.shape[1]
        raise WeightsError(
            f"{path}: query features have {q} dimensions and gallery features {g}; extract both with the same model."
        )
    return query, gallery


def _arrays(path: Path) -> dict[str, Any]:
    """Returns all arrays of the file by name; the names of nested tables are joined by `_`."""
    if path.is_dir():
        return {file.stem: np.load(file, allow_pickle=False) for file in sorted(path.glob("*.npy"))}
    kind = file_kinds.kind_of(path)
    if kind.form == file_kinds.NPZ:
        return _read_npz(path)
    if kind.form == file_kinds.MAT:
        from datasets.readers import matfile

        return dict(matfile.arrays(path.read_bytes(), LARGEST))
    if kind.form == file_kinds.TORCH and not kind.runs:
        try:
            return _flat(read_torch(path, trust_pickle=False))
        except WeightsError as error:
            raise WeightsError(
                f"contains Python objects other than tensors, arrays and plain values, which are not read. {WANTED}."
            ) from error
    if kind.form == file_kinds.SAFETENSORS:
        from safetensors.torch import load_file

        return _flat(load_file(path))
    if kind.form == file_kinds.NPY:
        raise WeightsError(
            "is a single numpy array, but query and gallery need one each. Pass a folder with query.npy and "
            "gallery.npy, and if possible query_pids.npy, query_camids.npy, gallery_pids.npy and gallery_camids.npy."
        )
    more = f" that would run {', '.join(kind.runs[:3])} when read" if kind.runs else ""
    raise WeightsError(f"is {kind.words}{more}. {WANTED}. Use a .npz, .mat or torch file, or a folder of .npy.")


def _read_npz(path: Path) -> dict[str, Any]:
    """Returns the arrays of a `.npz`; None for arrays of Python objects, because unpickling runs code."""
    found: dict[str, Any] = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            try:
                found[name] = file[name]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                found[name] = None
    return found


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(table, Mapping):
        return {prefix.rstrip("_") or "an unnamed object": table}
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}_")
    return flat


def _by_side(arrays: Mapping[str, Any]) -> dict[str, dict[str, tuple[str, Any]]]:
    """Returns name and content of each part (features, paths, ...) of query and gallery.

    Raises:
        WeightsError: two arrays have names for the same part, or an array holds Python objects.
    """
    sides: dict[str, dict[str, tuple[str, Any]]] = {}
    for name, value in arrays.items():
        for side, part in _meanings(name.lower()):
            if value is None:
                raise WeightsError(
                    f"stores {name} as Python objects, which are not read because unpickling runs code. Save an array "
                    "of text or numbers instead, for example np.array(paths, dtype=str)."
                )
            if part == "features" and np.ndim(_numpy(value)) < 2:
                continue
            if (taken := sides.setdefault(side, {}).get(part)) is not None:
                raise WeightsError(f"contains both {taken[0]} and {name}, which mean the same; keep one of them.")
            sides[side][part] = (name, value)
    return sides


def _meanings(name: str) -> list[tuple[str, str]]:
    """Returns the (side, part) pairs that a name may mean: `q_pids` and `query_label` are the pids of the query."""
    match = re.fullmatch(r"(query|gallery|probe|q|g|)_?(.*)", name)
    side, rest = (match[1], match[2]) if match else ("", name)
    found = [(SIDES[side], part) for part, words in PARTS.items() if rest in words and (side or rest)]
    return found if side not in ("q", "g") or rest else []


def _rows(parts: Mapping[str, tuple[str, Any]], side: str) -> Rows:
    name, value = parts["features"]
    features = _numpy(value)
    if features.ndim != 2 or features.dtype.kind not in "fiu" or 0 in features.shape:
        raise WeightsError(f"contains {name} as {_shape(value)}; features must be real numbers [N, D].")
    read = {
        part: (_texts(*parts[part]) if part == "paths" else _whole(*parts[part]))
        for part in ("paths", "pids", "camids")
        if part in parts
    }
    for part, values in read.items():
        if len(values) != len(features):
            raise WeightsError(
                f"contains {len(values)} {parts[part][0]} but {len(features)} rows of {name}; save one per row."
            )
    return Rows(features, **read)  # type: ignore[arg-type]


def _numpy(value: Any) -> np.ndarray:
    """Converts a tensor, a list or an array to numpy; torch's 16-bit and 8-bit floats become float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.dtype.is_floating_point and value.element_size() < 4 else value
    return np.asarray(value)


def _texts(name: str, value: Any) -> list[str]:
    array = _numpy(value).ravel()
    if array.dtype.kind == "S":
        return [text.decode(errors="replace") for text in array.tolist()]
    if array.dtype.kind != "U":
        raise WeightsError(f"contains {name} as {_shape(value)}; paths must be text.")
    return [str(text).rstrip() for text in array.tolist()]


def _whole(name: str, value: Any) -> np.ndarray:
    """Returns whole numbers, also from text such as `0002`, `-1` or `c3`."""
    array = _numpy(value).ravel()
    if array.dtype.kind in "SU":
        found = [re.fullmatch(r"\s*[a-z_]*?(-?\d+)\s*", _decoded(text).lower()) for text in array.tolist()]
        if all(found):
            return np.array([int(match[1]) for match in found if match], dtype=np.int64)
    elif array.dtype.kind in "iuf" and np.isfinite(array).all() and (array == np.round(array)).all():
        return array.astype(np.int64)
    raise WeightsError(f"contains {name} as {_shape(value)}; identities and cameras must be whole numbers.")


def _decoded(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text


def _found(arrays: Mapping[str, Any]) -> str:
    names = [f"{name} ({_shape(value)})" for name, value in list(arrays.items())[:8]]
    return ", ".join(names) + (f" and {len(arrays) - 8} more" if len(arrays) > 8 else "") if names else "no arrays"


def _shape(value: Any) -> str:
    """Returns shape and type for messages, for example `100x512 float32`."""
    if value is None:
        return "Python objects, not read"
    if isinstance(value, str | int | float | bool):
        return type(value).__name__
    try:
        array = _numpy(value)
    except (ValueError, TypeError):
        return type(value).__name__
    kind = {"U": "text", "S": "text", "O": "objects"}.get(array.dtype.kind, str(array.dtype))
    return f"{'x'.join(map(str, array.shape)) or 'scalar'} {kind}"
