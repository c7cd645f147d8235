"""Reads features that somebody else extracted, with the paths, identities and cameras of their rows where given.

Read are `.npz`, MAT-files, files of `torch.save` and safetensors, and folders of `.npy`, under the names that
this harness, layumi's baseline (`query_f`, `query_label`, `query_cam`) and forks of torchreid (`qf`, `q_pids`,
`q_camids`) use. Nothing in a file is run.
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
"""Bytes that a compressed array may have."""

SIDES = {"query": "query", "q": "query", "probe": "query", "gallery": "gallery", "g": "gallery", "": ""}
PARTS = {
    "features": ("", "f", "feat", "feats", "feature", "features", "embedding", "embeddings"),
    "paths": ("path", "paths", "img_path", "img_paths", "name", "names", "file", "files", "filenames"),
    "pids": ("pid", "pids", "label", "labels", "id", "ids"),
    "camids": ("camid", "camids", "cam", "cams", "camera", "cameras"),
}
WANTED = (
    "Expected are the arrays query and gallery, each [N, D], and for the order of their rows query_paths and "
    "gallery_paths, or query_pids, query_camids, gallery_pids and gallery_camids"
)


@dataclass(frozen=True)
class Rows:
    """Features [N, D] of one split in the order of the file, and what the file says of each row.

    Attributes:
        features: real numbers [N, D].
        paths: image of each row, or None.
        pids: identity of each row, -1 for junk, or None.
        camids: camera of each row, counted as the file does, or None.
    """

    features: np.ndarray
    paths: list[str] | None = None
    pids: np.ndarray | None = None
    camids: np.ndarray | None = None


def read(path: Path) -> tuple[Rows, Rows]:
    """Reads the rows of query and gallery; one table of features with paths serves both.

    Raises:
        WeightsError: no such file, damaged, or without such arrays; names the arrays that were found.
    """
    try:
        arrays = _arrays(path)
        sides = _by_side(arrays)
        one = "" in sides and "paths" in sides[""] and "features" in sides[""]
        names = ("", "") if one and not {"query", "gallery"} & sides.keys() else ("query", "gallery")
        if any("features" not in sides.get(name, {}) for name in names):
            raise WeightsError(f"lacks features. {WANTED}; found are {_found(arrays)}.")
        query, gallery = (_rows(sides[name], name) for name in names)
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from error
    except Exception as error:  # zip, header, a cut off array: each format has its own kinds of damage
        reason = (str(error).splitlines() or [""])[0][:200]
        raise WeightsError(f"{path} cannot be read as features ({type(error).__name__}: {reason}).") from error
    if query.features.shape[1] != gallery.features.shape[1]:
        q, g = query.features.shape[1], gallery.features.shape[1]
        raise WeightsError(f"{path}: query features have {q} numbers and gallery features {g}; they must agree.")
    return query, gallery


def _arrays(path: Path) -> dict[str, Any]:
    """Everything in the file, by name; tables in tables are joined by `_`."""
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
            raise WeightsError(f"holds more than tensors, arrays and plain values. {WANTED} as such.") from error
    if kind.form == file_kinds.SAFETENSORS:
        from safetensors.torch import load_file

        return _flat(load_file(path))
    if kind.form == file_kinds.NPY:
        raise WeightsError(
            "is a single numpy array, and query and gallery are two. Pass a folder that holds query.npy and "
            "gallery.npy, and if possible query_pids.npy, query_camids.npy and the same of the gallery."
        )
    more = f" that needs {', '.join(kind.runs[:3])} to be read" if kind.runs else ""
    raise WeightsError(f"is {kind.words}{more}. {WANTED}, in a .npz, .mat or torch file, or a folder of .npy.")


def _read_npz(path: Path) -> dict[str, Any]:
    """The arrays of a `.npz`; None for those that hold Python objects, which reading would run."""
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
        return {prefix.rstrip("_") or "an object without names": table}
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}_")
    return flat


def _by_side(arrays: Mapping[str, Any]) -> dict[str, dict[str, tuple[str, Any]]]:
    """Name and content of each part (features, paths, ...) of each side.

    Raises:
        WeightsError: two arrays for one part.
    """
    sides: dict[str, dict[str, tuple[str, Any]]] = {}
    for name, value in arrays.items():
        for side, part in _meanings(name.lower()):
            if value is None:
                raise WeightsError(
                    f"holds {name} as Python objects, which are not read because reading runs code. Save an array of "
                    "text or numbers instead, for example np.array(paths, dtype=str)."
                )
            if part == "features" and np.ndim(_numpy(value)) < 2:
                continue
            if (taken := sides.setdefault(side, {}).get(part)) is not None:
                raise WeightsError(f"holds both {taken[0]} and {name}; keep one of them.")
            sides[side][part] = (name, value)
    return sides


def _meanings(name: str) -> list[tuple[str, str]]:
    """What a name may stand for: `q_pids` and `query_label` are the pids of the query."""
    match = re.fullmatch(r"(query|gallery|probe|q|g|)_?(.*)", name)
    side, rest = (match[1], match[2]) if match else ("", name)
    found = [(SIDES[side], part) for part, words in PARTS.items() if rest in words and (side or rest)]
    return found if side not in ("q", "g") or rest else []


def _rows(parts: Mapping[str, tuple[str, Any]], side: str) -> Rows:
    name, value = parts["features"]
    features = _numpy(value)
    if features.ndim != 2 or features.dtype.kind not in "fiu" or 0 in features.shape:
        raise WeightsError(f"holds {name} as {_shape(value)}; features are real numbers [N, D].")
    read = {
        part: (_texts(*parts[part]) if part == "paths" else _whole(*parts[part]))
        for part in ("paths", "pids", "camids")
        if part in parts
    }
    for part, values in read.items():
        if len(values) != len(features):
            raise WeightsError(f"holds {len(values)} {parts[part][0]} for the {len(features)} rows of {name}.")
    return Rows(features, **read)  # type: ignore[arg-type]


def _numpy(value: Any) -> np.ndarray:
    """An array of a tensor, a list or an array; half precision of torch's own kinds becomes float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if value.dtype.is_floating_point and value.element_size() < 4 else value
    return np.asarray(value)


def _texts(name: str, value: Any) -> list[str]:
    array = _numpy(value).ravel()
    if array.dtype.kind == "S":
        return [text.decode(errors="replace") for text in array.tolist()]
    if array.dtype.kind != "U":
        raise WeightsError(f"holds {name} as {_shape(value)}; paths are text.")
    return [str(text).rstrip() for text in array.tolist()]


def _whole(name: str, value: Any) -> np.ndarray:
    """Whole numbers, also out of text such as `0002`, `-1` or `c3`."""
    array = _numpy(value).ravel()
    if array.dtype.kind in "SU":
        found = [re.fullmatch(r"\s*[a-z_]*?(-?\d+)\s*", _decoded(text).lower()) for text in array.tolist()]
        if all(found):
            return np.array([int(match[1]) for match in found if match], dtype=np.int64)
    elif array.dtype.kind in "iuf" and np.isfinite(array).all() and (array == np.round(array)).all():
        return array.astype(np.int64)
    raise WeightsError(f"holds {name} as {_shape(value)}; identities and cameras are whole numbers.")


def _decoded(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text


def _found(arrays: Mapping[str, Any]) -> str:
    names = [f"{name} ({_shape(value)})" for name, value in list(arrays.items())[:8]]
    return ", ".join(names) + (f" and {len(arrays) - 8} more" if len(arrays) > 8 else "") if names else "no arrays"


def _shape(value: Any) -> str:
    """Shape and type for messages: `100x512 float32`."""
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
