"""State dicts: read out of files of several kinds without running their code, unwrapped, loaded strictly."""

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

WRAPPERS = ("state_dict_ema", "model_ema", "model", "state_dict", "model_state_dict", "module", "net", "network")
"""Keys under which training code puts the state dict; averaged weights first, as timm takes them."""

COMPILED, PARALLEL = "_orig_mod.", "module."
"""What `torch.compile` and parallel training put into the names."""


def check_kind(path: Path, trust_pickle: bool = False) -> file_kinds.Kind:
    """Returns what a checkpoint is, told by its content and without torch.

    Raises:
        WeightsError: it is no file of tensors; or it is a pickle of more than tensors, and nobody trusts it.
    """
    try:
        kind = file_kinds.kind_of(path)
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise WeightsError(f"Checkpoint {path} {reason}.") from error
    if kind.form not in (file_kinds.TORCH, file_kinds.SAFETENSORS, file_kinds.NPZ):
        raise WeightsError(
            f"{path} is {kind.words}. A checkpoint is a file of torch.save, safetensors or numpy (.npz) that holds "
            "tensors by name."
        )
    if kind.runs and not trust_pickle:
        raise WeightsError(f"{path} {_untrusted(kind.runs)}")
    return kind


def load_state(path: str | os.PathLike[str], trust_pickle: bool = False) -> dict[str, Tensor]:
    """Reads a checkpoint: tensors by name, on the CPU, out of its wrapper and without prefixes of training code.

    Args:
        path: a file of safetensors, of numpy (.npz) or of `torch.save`; its content tells which, not its name.
        trust_pickle: allow a file that runs code when it is read, such as a whole pickled module.

    Raises:
        WeightsError: no such file, damaged, no tensors in it, or code in it that nobody allowed.
    """
    path = Path(path)
    kind = check_kind(path, trust_pickle)
    try:
        if kind.form == file_kinds.SAFETENSORS:
            from safetensors.torch import load_file

            return unwrap(load_file(path))
        return unwrap(_read_npz(path) if kind.form == file_kinds.NPZ else read_torch(path, trust_pickle))
    except WeightsError as error:
        raise WeightsError(f"{path} {error}") from error
    except Exception as error:  # zip, pickle, header: each format has its own kinds of damage
        reason = (str(error).splitlines() or [""])[0][:200]
        raise WeightsError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason}).") from error


def unwrap(loaded: Any) -> dict[str, Tensor]:
    """Returns the state dict inside a loaded checkpoint, without what compiling and parallel training add to names.

    Raises:
        WeightsError: there is none.
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
        f"holds no state dict: neither tensors by name, nor such a table under {', '.join(WRAPPERS)}; "
        f"found {_describe(loaded)}."
    )


def _without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`_orig_mod.` is never part of a name; `module.` is, unless all names begin with it."""
    state = {key.replace(COMPILED, ""): value for key, value in state.items()}
    while all(key.startswith(PARALLEL) for key in state):
        state = {key.removeprefix(PARALLEL): value for key, value in state.items()}
    return state


def _untrusted(runs: Iterable[str]) -> str:
    names = list(runs)
    whole = "is a whole pickled module; " if any(name.startswith("torch.nn.modules.") for name in names) else ""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return (
        f"{whole or 'holds more than tensors: '}reading it would import and call {shown}. If you trust its source, "
        "--trust-pickle allows that where a command has it; else save its state_dict() alone."
    )


def strict_load(
    module: nn.Module, state: Mapping[str, Tensor], *, ignore: Iterable[str] = (), optional: Iterable[str] = ()
) -> None:
    """Copies a state dict into a module; everything must fit but what is named here.

    Counters of batches (`num_batches_tracked`), which no score depends on, may be absent or of shape [1].

    Args:
        module: the module; unchanged where an error is raised.
        state: tensors by name.
        ignore: patterns (`base.fc.*`) of entries of `state` that the module does not have; they are left out.
        optional: patterns of entries of the module that stay as they are where `state` lacks them or holds
            another shape.

    Raises:
        WeightsError: names the first missing, unexpected and misshaped keys.
    """
    own = module.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    state = {k: v.reshape(()) if k in counters and v.shape == (1,) else v for k, v in state.items()}
    kept = {k for k in own if _matches(k, optional) and (k not in state or state[k].shape != own[k].shape)}
    kept |= counters - state.keys()
    given = {key: v for key, v in state.items() if key not in kept and (key in own or not _matches(key, ignore))}
    if replaced := sorted(kept & state.keys()):
        log.warning("%s does not fit and stays as built", ", ".join(replaced))
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
        advice = "Check that backbone, variant, image size and numbers of identities and cameras are those of the file."
        if not own.keys() & state.keys():
            advice = "They share no key: the file is another network's, or has another project's names."
        raise WeightsError(f"The checkpoint does not fit {type(module).__name__}: {'; '.join(problems)}. {advice}")
    module.load_state_dict(given, strict=False)


def _read_npz(path: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch

    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def read_torch(path: Path, trust_pickle: bool) -> Any:
    """Reads what `torch.save` wrote: tensors only, or anything where pickles are trusted."""
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
    """A pickle module in which a class that cannot be imported becomes a bare `nn.Module`: enough for its tensors."""
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
