"""State dicts: reads them from several file formats without running code, unwraps them and loads them strictly."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import WeightsError
from harness.weights import file_kinds

if TYPE_CHECKING:
    from torch import Tensor, nn

log = logging.getLogger(__name__)

WRAPPERS = (
    *("state_dict_ema", "model_ema", "model", "state_dict", "model_state_dict", "module", "net", "network"),
    "teacher",
)
"""Keys under which training code stores the state dict. As in timm, averaged weights (EMA) come first. Self-supervised
training (DINO) stores the network to use as `teacher`."""

READABLE = (file_kinds.TORCH, file_kinds.SAFETENSORS, file_kinds.NPZ, file_kinds.TORCHSCRIPT)
"""Forms of files with named tensors."""

COMPILED, PARALLEL = "_orig_mod.", "module."
"""Prefixes that `torch.compile` and parallel training add to names."""


def check_kind(path: Path, trust_pickle: bool = False) -> file_kinds.Kind:
    """Returns the kind of a checkpoint from its content, without importing torch.

    Args:
        path: the file.
        trust_pickle: whether pickles that run code are allowed.

    Raises:
        WeightsError: the file is missing, has no tensors, or would run code and `trust_pickle` is off.
    """
    try:
        kind = file_kinds.kind_of(path)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise WeightsError(f"Checkpoint {path} {reason}.") from error
    if kind.form not in READABLE:
        raise WeightsError(
            f"{path} is {kind.words}. Pass a file of named tensors from torch.save, safetensors or numpy (.npz)."
        )
    if kind.runs and not trust_pickle:
        raise WeightsError(f"{path} {_untrusted(kind.runs)}")
    return kind


def load_state(path: str | os.PathLike[str], trust_pickle: bool = False) -> dict[str, Tensor]:
    """Reads the state dict of a checkpoint on the CPU, without wrappers and prefixes of training code.

    Args:
        path: a file of safetensors, numpy (.npz), `torch.save` or TorchScript, detected by its content.
        trust_pickle: whether to allow files that run code when they are read, such as a pickled module.

    Raises:
        WeightsError: the file is missing, damaged, has no tensors, or would run code and `trust_pickle` is off.
    """
    path = Path(path)
    kind = check_kind(path, trust_pickle)
    try:
        if kind.form == file_kinds.SAFETENSORS:
            from safetensors.torch import load_file

            return unwrap(load_file(path))
        if kind.form == file_kinds.TORCHSCRIPT:
            from harness.weights import torchscript

            return unwrap(torchscript.read(path))
        return unwrap(_read_npz(path) if kind.form == file_kinds.NPZ else read_torch(path, trust_pickle))
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from error
    except Exception as error:  # every format raises its own exceptions for damaged files
        reason = (str(error).splitlines() or [""])[0][:200]
        raise WeightsError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason}).") from error


def unwrap(loaded: Any) -> dict[str, Tensor]:
    """Returns the state dict inside a loaded checkpoint, without the prefixes of `torch.compile` and parallel training.

    Raises:
        WeightsError: the checkpoint has no state dict.
    """
    from torch import Tensor, nn

    if isinstance(loaded, nn.Module):
        loaded = loaded.state_dict()
    if isinstance(loaded, Mapping):
        for wrapper in WRAPPERS:
            inner = loaded.get(wrapper)
            if isinstance(inner, nn.Module) or (isinstance(inner, Mapping) and inner):
                return unwrap(inner)
        if loaded and all(isinstance(key, str) and isinstance(v, Tensor) for key, v in loaded.items()):
            return _without_prefixes(dict(loaded))
    raise WeightsError(
        "contains no state dict: expected named tensors, at the top level or under one of the keys "
        f"{', '.join(WRAPPERS)}; found {_describe(loaded)}."
    )


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Removes `_orig_mod.` everywhere, and `module.` only if all names start with it."""
    state = {key.replace(COMPILED, ""): value for key, value in state.items()}
    while all(key.startswith(PARALLEL) for key in state):
        state = {key.removeprefix(PARALLEL): value for key, value in state.items()}
    return state


def _untrusted(runs: Iterable[str]) -> str:
    names = list(runs)
    whole = "is a pickled module; " if any(name.startswith("torch.nn.modules.") for name in names) else ""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"{whole or 'contains more than tensors: '}reading it would run {shown}. Save only its state_dict(), or pass "
        "--trust-pickle if the command has this option and you trust the file."
    )


def strict_load(
    module: nn.Module, state: Mapping[str, Tensor], *, ignore: Iterable[str] = (), optional: Iterable[str] = ()
) -> None:
    """Loads a state dict into a module. All keys and shapes must fit, except those given here.

    Batch counters (`num_batches_tracked`), which do not affect scores, may be missing or have the shape [1].

    Args:
        module: the module; it stays unchanged if an error is raised.
        state: tensors by name.
        ignore: patterns (`base.fc.*`) of entries of `state` to skip if the module does not have them.
        optional: patterns of entries of the module that keep their values if `state` lacks them or has another shape.

    Raises:
        WeightsError: keys or shapes do not fit; names the first missing, unexpected and misshaped keys.
    """
    own = module.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    state = {k: v.reshape(()) if k in counters and v.shape == (1,) else v for k, v in state.items()}
    kept = {k for k in own if _matches(k, optional) and (k not in state or state[k].shape != own[k].shape)}
    kept |= counters - state.keys()
    given = {key: v for key, v in state.items() if key not in kept and (key in own or not _matches(key, ignore))}
    if replaced := sorted(kept & state.keys()):
        log.warning("%s in the checkpoint does not fit and is not loaded.", ", ".join(replaced))
    missing = [key for key in own if key not in given and key not in kept]
    unexpected = [key for key in given if key not in own]
    misshaped = [
        f"{key} ({_shape(given[key])} in the file, {_shape(own[key])} in the model)"
        for key in given
        if key in own and given[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("misshaped", misshaped))
        if keys
    ]
    if problems:
        advice = "Check that backbone, variant, image size and numbers of identities and cameras match the checkpoint."
        if not own.keys() & state.keys():
            advice = "They share no key: the checkpoint belongs to another network or uses other names for its tensors."
        raise WeightsError(f"The checkpoint does not fit {type(module).__name__}: {'; '.join(problems)}. {advice}")
    module.load_state_dict(given, strict=False)


def _read_npz(path: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch

    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def read_torch(path: Path, trust_pickle: bool) -> Any:
    """Reads a file of `torch.save`: tensors and plain values, or any object if `trust_pickle` is on.

    Raises:
        WeightsError: the file would run code and `trust_pickle` is off.
    """
    import argparse
    import pickle

    import numpy as np
    import torch

    if trust_pickle:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_lenient_pickle())
    scalar = np.float64(0).__reduce__()[0]
    harmless: list[Any] = [argparse.Namespace, scalar, (scalar, "numpy.core.multiarray.scalar")]
    rebuild = np.zeros(0).__reduce__()[0]
    kinds = ("Bool", "Int16", "Int32", "Int64", "UInt8", "Float16", "Float32", "Float64", "Str")
    harmless += [rebuild, (rebuild, "numpy.core.multiarray._reconstruct"), np.ndarray, np.dtype]
    harmless += [getattr(np.dtypes, f"{kind}DType") for kind in kinds]
    try:
        with torch.serialization.safe_globals(harmless):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if (name := re.search(r"GLOBAL ([\w.]+)", str(error))) is None:
            raise
        raise WeightsError(_untrusted([name[1]])) from error


def _lenient_pickle() -> Any:
    """Returns a pickle module that replaces missing classes by `nn.Module`, which keeps their tensors."""
    import pickle
    import types

    from torch import nn

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            try:
                return super().find_class(module, name)
            except (ImportError, AttributeError):
                return type(name, (nn.Module,), {})

    def load(file: Any, **kwargs: Any) -> Any:
        return Unpickler(file, **kwargs).load()

    return types.SimpleNamespace(Unpickler=Unpickler, load=load, __name__="lenient_pickle")


def _matches(key: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"the keys {', '.join(map(str, list(value)[:5]))}" if value else "an empty table"
    return type(value).__name__
