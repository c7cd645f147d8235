"""Weights: where a starting file lies, how it is known, how a checkpoint is read and put into a module.

Finding and identifying a file never imports torch; reading one never runs its code unless the user says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cards import BackboneCard, PretrainedCard
from harness.errors import UsageError, WeightsError
from harness.places import cache_folder, expand

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

log = logging.getLogger(__name__)

STRUCTURE = ("width", "patch_size", "start")
"""Build options that need another file: a file fits their default only, unless its name holds them."""

WRAPPERS = ("model", "state_dict", "model_state_dict", "module")
"""Keys under which training code puts the state dict."""


def wanted(card: BackboneCard, options: Mapping[str, Any] | None = None) -> PretrainedCard | None:
    """Returns the card's starting file with build options filled into its names.

    `None` where the build starts at random: the card has no file, or none fits a changed option of `STRUCTURE`.
    """
    if card.pretrained is None:
        return None
    values = {**card.options, **(options or {})}
    changed = [key for key in STRUCTURE if key in card.options and values[key] != card.options[key]]
    files = [file for file in card.pretrained.files if all(f"{{{key}}}" in file for key in changed)]
    if not files:
        return None
    filled = {key: _fill(getattr(card.pretrained, key), values, card) for key in ("hub", "timm")}
    return replace(
        card.pretrained,
        files=tuple(_fill(file, values, card) for file in files),
        sha256="" if changed else card.pretrained.sha256,
        **filled,
    )


def _fill(name: str, options: Mapping[str, Any], card: BackboneCard) -> str:
    """Puts build options where their names stand in braces; nothing else in braces has a meaning."""
    if strange := sorted(set(re.findall(r"\{(.*?)\}", name)) - options.keys()):
        raise UsageError(f"The card of {card.name} names the file '{name}', but has no option '{strange[0]}'.")
    return re.sub(r"\{(.*?)\}", lambda found: str(options[found[1]]), name)


def locate(
    card: BackboneCard, weights_root: str | os.PathLike[str] | None, options: Mapping[str, Any] | None = None
) -> Path | None:
    """Returns the starting file of a build below `weights_root`, or `None` where the card has none or it is absent.

    File names of the card may hold build options: `{model}.safetensors`.

    Args:
        card: card of the backbone.
        weights_root: the folder of weights; the file lies in it or in its folder named after the backbone.
        options: build options; those left out have the card's default.
    """
    if not weights_root or not (start := wanted(card, options)):
        return None
    root = Path(expand(weights_root))
    places = [folder / name for name in start.files for folder in (root, root / card.name)]
    return next((place for place in places if place.is_file()), None)


def identity(
    card: BackboneCard,
    weights_root: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> str:
    """Returns `sha256:...` of the starting file, or `none` for a random start.

    Args:
        card: card of the backbone.
        weights_root: the folder of weights.
        options: build options.
        cache: folder where checksums are remembered by path, size and time; the user's cache by default.

    Raises:
        WeightsError: the file is not the one whose checksum is known.
    """
    if (path := locate(card, weights_root, options)) is None:
        return "none"
    digest = checksum(path, cache)
    start = wanted(card, options)
    expected = start.sha256 if start and path.name == start.files[0] else ""
    # torch.hub's convention: the name ends with the first digits of the checksum.
    expected = expected or ("".join(re.findall(r"-([0-9a-f]{8,64})\.[a-z]+$", path.name)))
    if not digest.startswith(expected):
        raise WeightsError(
            f"{path} has the checksum {digest[:16]}..., expected {expected[:16]}...; download it again"
            f"{' from ' + start.url if start and start.url else ''}, or remove it."
        )
    return f"sha256:{digest}"


def fetch(
    card: BackboneCard, weights_root: str | os.PathLike[str], options: Mapping[str, Any] | None = None
) -> Path | None:
    """Returns the starting file, from `weights_root` or, where it is absent, from the Hugging Face hub.

    Returns `None` for a backbone without a starting file.

    Raises:
        WeightsError: there is no network, or the hub does not have the file; says where to find it by hand.
    """
    if (found := locate(card, weights_root, options)) or not (start := wanted(card, options)):
        return found
    target = Path(expand(weights_root)) / start.files[0]
    by_hand = f"put {' or '.join(start.files)} into {target.parent}{' (' + start.url + ')' if start.url else ''}"
    try:
        from huggingface_hub import hf_hub_download

        repository, file = _on_hub(start)
        source = Path(hf_hub_download(repository, file))
    except Exception as error:  # the hub raises many kinds; each means that the file did not come
        raise WeightsError(
            f"The starting weights of {card.name} cannot be fetched ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no reason given'}); {by_hand}."
        ) from error
    name = next((file for file in start.files if file.endswith(source.suffix)), start.files[0])
    target = target.with_name(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, partial)
    os.replace(partial, target)
    return target


def checksum(path: Path, cache: str | os.PathLike[str] | None = None) -> str:
    """Returns the SHA-256 of a file; remembered in `cache` while its path, size and modification time stay."""
    store = Path(cache or cache_folder()) / "checksums.json"
    stat = path.stat()
    key, state = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
    known = _read_json(store)
    if isinstance(entry := known.get(key), list) and entry[:2] == state and isinstance(entry[-1], str):
        return entry[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _write_json(store, {**_read_json(store), key: [*state, digest]})
    return digest


def load_state(path: str | os.PathLike[str], trust_pickle: bool = False) -> dict[str, Tensor]:
    """Reads a checkpoint: tensors by name, on the CPU, out of its wrapper and without the prefix `module.`.

    Args:
        path: `.safetensors`, `.npz`, or what `torch.save` wrote.
        trust_pickle: allow a file that runs code when it is read, such as a whole pickled module.

    Raises:
        WeightsError: no such file, damaged, no tensors in it, or code in it that nobody allowed.
    """
    if not (path := Path(path)).is_file():
        raise WeightsError(f"Checkpoint {path} does not exist.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return unwrap(load_file(path))
        return unwrap(_read_npz(path) if path.suffix == ".npz" else _read_torch(path, trust_pickle))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except Exception as error:  # zip, pickle, header: each format has its own kinds of damage
        raise WeightsError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}).") from error


def load_features(path: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Reads features somebody else extracted: the arrays `query` and `gallery` of a `.npz`, each [N, D].

    Raises:
        WeightsError: no such file, damaged, or without these arrays of numbers.
    """
    import numpy as np

    if not (path := Path(path)).is_file():
        raise WeightsError(f"Features {path} do not exist.")
    try:
        with np.load(path, allow_pickle=False) as file:
            query, gallery = file["query"], file["gallery"]
    except Exception as error:  # zip, header, a missing name, an array of objects: each has its own kind
        reason = str(error) or type(error).__name__
        raise WeightsError(f"{path} is not a .npz with the arrays query and gallery ({reason}).") from error
    for name, features in (("query", query), ("gallery", gallery)):
        if features.ndim != 2 or features.dtype.kind not in "fiu":
            raise WeightsError(f"{path}: {name} must be numbers [N, D], found {features.dtype} {features.shape}.")
    return query, gallery


def unwrap(loaded: Any) -> dict[str, Tensor]:
    """Returns the state dict inside a loaded checkpoint, without the prefix `module.` of parallel training.

    Raises:
        WeightsError: there is none.
    """
    from torch import Tensor, nn

    if isinstance(loaded, nn.Module):
        loaded = loaded.state_dict()
    if isinstance(loaded, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(loaded.get(wrapper), Mapping | nn.Module):
                return unwrap(loaded[wrapper])
        if loaded and all(isinstance(key, str) and isinstance(v, Tensor) for key, v in loaded.items()):
            parallel = all(key.startswith("module.") for key in loaded)
            return {key.removeprefix("module.") if parallel else key: v for key, v in loaded.items()}
    raise WeightsError(
        f"holds no state dict: neither tensors by name, nor such a table under {', '.join(WRAPPERS)}; "
        f"found {_describe(loaded)}"
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


def _on_hub(start: PretrainedCard) -> tuple[str, str]:
    """Repository and file on the hub; timm knows them for its own models."""
    if start.hub:
        repository, _, file = start.hub.partition(":")
        return repository, file
    import timm

    config = timm.get_pretrained_cfg(start.timm) if start.timm else None
    if config is None or not config.hf_hub_id:
        raise WeightsError("they are on no hub")
    return config.hf_hub_id, config.hf_hub_filename or "model.safetensors"


def _read_npz(path: Path) -> dict[str, Tensor]:
    import numpy as np
    import torch

    with np.load(path, allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def _read_torch(path: Path, trust_pickle: bool) -> Any:
    """Reads what `torch.save` wrote: tensors only, or anything where pickles are trusted."""
    import argparse
    import pickle

    import numpy as np
    import torch

    if trust_pickle:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_lenient_pickle())
    scalar = np.float64(0).__reduce__()[0]
    harmless: list[Any] = [argparse.Namespace, scalar, (scalar, "numpy.core.multiarray.scalar")]
    harmless += [np.dtype, np.dtypes.Float64DType]
    try:
        with torch.serialization.safe_globals(harmless):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"holds more than tensors, and reading it would run its code ({str(error).splitlines()[0]}) "
            "If you trust its source, use --trust-pickle."
        ) from error


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


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes by rename; a cache that cannot be written costs time, not the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(json.dumps(content, indent=0, sort_keys=True), encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        log.debug("checksums are not remembered: %s", error)
