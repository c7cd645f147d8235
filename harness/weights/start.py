"""Starting weights: find the file, check its checksum, and download it. Nothing here imports torch.

`harness.weights.state_dicts` reads files and loads them into modules.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from harness.cards import BackboneCard, PretrainedCard
from harness.errors import UsageError, WeightsError
from harness.system import files
from harness.system.paths import cache_folder, expand

log = logging.getLogger(__name__)

STRUCTURE = ("width", "patch_size", "start")
"""Build options that change the shape of weights. A file fits only their defaults, unless its name contains them."""


def wanted(card: BackboneCard, options: Mapping[str, Any] | None = None) -> PretrainedCard | None:
    """Returns the card's pretrained file, with build options filled into its names.

    Returns `None` for a random start: the card has no file, or no file fits the changed options of `STRUCTURE`.

    Raises:
        UsageError: a file name in the card contains an unknown option.
    """
    if card.pretrained is None:
        return None
    values = {**card.options, **(options or {})}
    changed = [key for key in STRUCTURE if key in card.options and values[key] != card.options[key]]
    names = [name for name in card.pretrained.files if all(f"{{{key}}}" in name for key in changed)]
    if not names:
        return None
    files = tuple(_fill(name, values, card) for name in names)
    places = {
        "hub": _of_files(card.pretrained.hubs, files, card.pretrained.hub),
        "url": _of_files(card.pretrained.urls, files, card.pretrained.url),
        "timm": card.pretrained.timm,
    }
    filled = {key: _fill(place, values, card) for key, place in places.items()}
    return replace(
        card.pretrained,
        files=files,
        sha256="" if changed else card.pretrained.sha256,
        **filled,
    )


def kind_of_start(card: BackboneCard, options: Mapping[str, Any] | None = None, pretrained: str = "") -> str:
    """Returns what a training starts from: `none`, one of `harness.cards.STARTS`, `people: NAME`, or `unknown`.

    Args:
        card: card of the backbone.
        options: build options; missing options have the card's default.
        pretrained: identity of the weights in the run's spec; `none` is a random start.
    """
    if pretrained == "none" or (start := wanted(card, options)) is None:
        return "none"
    return _of_files(start.kinds, start.files, start.kind) or "unknown"


def _of_files(by_pattern: Mapping[str, str], names: Iterable[str], default: str) -> str:
    """Returns the value of the first pattern that one of the file names matches, or the default."""
    listed = list(names)
    return next((v for pattern, v in by_pattern.items() if any(fnmatchcase(n, pattern) for n in listed)), default)


def _fill(name: str, options: Mapping[str, Any], card: BackboneCard) -> str:
    """Replaces option names in braces by their values."""
    if strange := sorted(set(re.findall(r"\{(.*?)\}", name)) - options.keys()):
        raise UsageError(
            f"The card of {card.name} names the file '{name}', but it has no option '{strange[0]}'. Declare the option "
            "or change the name."
        )
    return re.sub(r"\{(.*?)\}", lambda found: str(options[found[1]]), name)


def locate(
    card: BackboneCard, weights_root: str | os.PathLike[str] | None, options: Mapping[str, Any] | None = None
) -> Path | None:
    """Returns the path of the pretrained file, or `None` if the card has none or the file does not exist.

    File names in the card may contain build options, for example `{model}.safetensors`.

    Args:
        card: card of the backbone.
        weights_root: folder of weights; the file lies directly in it or in a subfolder named after the backbone.
        options: build options; missing options have the card's default.
    """
    if not weights_root or not (start := wanted(card, options)):
        return None
    root = Path(expand(weights_root))
    places = [folder / name for name in start.files for folder in (root, root / card.name)]
    return next((place for place in places if place.is_file()), None)


def identity(
    card: BackboneCard, weights_root: str | os.PathLike[str] | None, options: Mapping[str, Any] | None = None
) -> str:
    """Returns `sha256:...` of the pretrained file, or `none` for a random start.

    Args:
        card: card of the backbone.
        weights_root: folder of weights.
        options: build options.

    Raises:
        WeightsError: the checksum differs from that in the card or in the file name.
    """
    if (path := locate(card, weights_root, options)) is None:
        return "none"
    digest = checksum(path)
    start = wanted(card, options)
    expected = start.sha256 if start and path.name == start.files[0] else ""
    # As in torch.hub, a file name may end with the first digits of the checksum.
    expected = expected or ("".join(re.findall(r"-([0-9a-f]{8,64})\.[a-z]+$", path.name)))
    if not digest.startswith(expected):
        raise WeightsError(
            f"{path} has the SHA-256 checksum {digest[:16]}..., expected {expected[:16]}... Download it again"
            f"{' from ' + start.url if start and start.url else ''}, or remove it."
        )
    return f"sha256:{digest}"


def fetch(
    card: BackboneCard, weights_root: str | os.PathLike[str], options: Mapping[str, Any] | None = None
) -> Path | None:
    """Returns the path of the pretrained file, and downloads it from the Hugging Face hub if it does not exist.

    Returns `None` for a backbone without a pretrained file.

    Raises:
        WeightsError: there is no network, or the hub does not have the file; names a page to download it from.
    """
    if (found := locate(card, weights_root, options)) or not (start := wanted(card, options)):
        return found
    target = Path(expand(weights_root)) / start.files[0]
    if not (start.hub or start.timm):
        raise WeightsError(
            f"The starting weights of {card.name} have to be downloaded by hand. {_by_hand(start, target.parent)}"
        )
    try:
        source = _download(*_on_hub(start))
    except Exception as error:  # the hub's client raises many kinds of exceptions
        what = f"the starting weights of {card.name} cannot be downloaded"
        if isinstance(error, ConnectionError):
            raise WeightsError(f"{error}: {what}. {_by_hand(start, target.parent)}") from error
        reason = str(error).splitlines()[0].rstrip(".") if str(error) else "no reason given"
        raise WeightsError(
            f"{what[0].upper()}{what[1:]} ({type(error).__name__}: {reason}). {_by_hand(start, target.parent)}"
        ) from error
    name = next((file for file in start.files if file.endswith(source.suffix)), start.files[0])
    target = target.with_name(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def _download(repository: str, file: str) -> Path:
    """Downloads a file from the hub, or takes it from the hub's cache.

    Raises:
        ConnectionError: the hub cannot be reached and its cache does not have the file. The hub's client itself would
            retry for half a minute.
    """
    import huggingface_hub as hub

    url = hub.hf_hub_url(repository, file)
    try:
        hub.get_hf_file_metadata(url)
    except Exception as error:  # an answer that is an error has a response; hf_hub_download then retries or explains
        if getattr(error, "response", None) is None:
            try:
                return Path(hub.hf_hub_download(repository, file, local_files_only=True))
            except Exception:
                raise ConnectionError(f"No connection to {urlsplit(url).hostname}") from error
    return Path(hub.hf_hub_download(repository, file))


def _by_hand(start: PretrainedCard, folder: Path) -> str:
    """Returns sentences that say which file to download, from where, and where to put it."""
    if (name := start.url.rpartition("/")[2]) in start.files:
        others = [file for file in start.files if file != name]
        also = f" Also accepted: {', '.join(others)}." if others else ""
        return f"Download {name} from {start.url} and put it into {folder}.{also}"
    page = f", see {start.url}" if start.url else ""
    return f"Download {' or '.join(start.files)}{page}, and put it into {folder}."


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file, or of a folder of `.npy` files over their names and checksums.

    Checksums are cached in the cache folder by path, size and modification time.
    """
    if path.is_dir():
        listed = [f"{file.name} {checksum(file)}\n" for file in sorted(path.glob("*.npy"))]
        return hashlib.sha256("".join(listed).encode()).hexdigest()
    store = cache_folder() / "checksums.json"
    stat = path.stat()
    key, state = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
    known = _read_json(store)
    if isinstance(entry := known.get(key), list) and entry[:2] == state and isinstance(entry[-1], str):
        return entry[-1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _write_json(store, {**_read_json(store), key: [*state, digest]})
    return digest


def _on_hub(start: PretrainedCard) -> tuple[str, str]:
    """Returns repository and file on the hub, for timm models from timm's configuration."""
    if start.hub:
        repository, _, file = start.hub.partition(":")
        return repository, file
    import timm

    config = timm.get_pretrained_cfg(start.timm) if start.timm else None
    if config is None or not config.hf_hub_id:
        raise WeightsError("the hub does not have them")
    return config.hf_hub_id, config.hf_hub_filename or "model.safetensors"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes the cache of checksums; a failure only costs time later."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, json.dumps(content, indent=0, sort_keys=True), flush=False)
    except OSError as error:
        log.debug("Checksums cannot be cached: %s", error)
