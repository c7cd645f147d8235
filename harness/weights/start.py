"""Starting weights: where the file lies, how it is known, how it is fetched. Nothing here imports torch.

What reads files and loads them into modules is in `harness.weights.state_dicts`; plug-ins import it from here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from harness.cards import BackboneCard, PretrainedCard
from harness.errors import UsageError, WeightsError
from harness.system import files
from harness.system.paths import cache_folder, expand

log = logging.getLogger(__name__)

STRUCTURE = ("width", "patch_size", "start")
"""Build options that need another file: a file fits their default only, unless its name holds them."""


def wanted(card: BackboneCard, options: Mapping[str, Any] | None = None) -> PretrainedCard | None:
    """Returns the card's starting file with build options filled into its names.

    `None` where the build starts at random: the card has no file, or none fits a changed option of `STRUCTURE`.
    """
    if card.pretrained is None:
        return None
    values = {**card.options, **(options or {})}
    changed = [key for key in STRUCTURE if key in card.options and values[key] != card.options[key]]
    names = [name for name in card.pretrained.files if all(f"{{{key}}}" in name for key in changed)]
    if not names:
        return None
    filled = {key: _fill(getattr(card.pretrained, key), values, card) for key in ("hub", "timm")}
    return replace(
        card.pretrained,
        files=tuple(_fill(name, values, card) for name in names),
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
    card: BackboneCard, weights_root: str | os.PathLike[str] | None, options: Mapping[str, Any] | None = None
) -> str:
    """Returns `sha256:...` of the starting file, or `none` for a random start.

    Args:
        card: card of the backbone.
        weights_root: the folder of weights.
        options: build options.

    Raises:
        WeightsError: the file is not the one whose checksum is known.
    """
    if (path := locate(card, weights_root, options)) is None:
        return "none"
    digest = checksum(path)
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
    with files.replacing(target) as temporary:
        shutil.copyfile(source, temporary)
    return target


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file; remembered in the cache folder while its path, size and modification time stay.

    That of a folder is over the names and checksums of its arrays (`.npy`).
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
    """Repository and file on the hub; timm knows them for its own models."""
    if start.hub:
        repository, _, file = start.hub.partition(":")
        return repository, file
    import timm

    config = timm.get_pretrained_cfg(start.timm) if start.timm else None
    if config is None or not config.hf_hub_id:
        raise WeightsError("they are on no hub")
    return config.hf_hub_id, config.hf_hub_filename or "model.safetensors"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """A cache that cannot be written costs time, not the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.replace(path, json.dumps(content, indent=0, sort_keys=True), flush=False)
    except OSError as error:
        log.debug("checksums are not remembered: %s", error)
