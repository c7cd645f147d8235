"""Cards: what a backbone or dataset declares about itself, as data, read without importing its code."""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contracts import PROTOCOLS
from harness.errors import UsageError, unknown

LARGEST = 2**63
"""Whole numbers in files stay below it."""

LONGEST_NAME = 100
"""Of datasets, backbones and variants, in bytes: names are parts of file names."""

VARIES = "varies"
"""Of a dataset card's `image_size`: the official images have sizes of their own."""


@dataclass(frozen=True)
class InputCard:
    """Input a backbone was designed for; the harness normalises with `mean` and `std` under every recipe.

    Attributes:
        image_size: (height, width) in pixels.
        mean: of each channel.
        std: likewise.
        channels_last: whether weights lie in memory with channels last, which is faster for many CNNs.
    """

    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_last: bool = False


@dataclass(frozen=True)
class PretrainedCard:
    """A pretrained file: where it is found and how it is known to be the right one.

    Attributes:
        files: accepted file names below `--weights-root`.
        sha256: checksum of the file, or empty where nobody published one.
        timm: timm model name with tag, or empty.
        hub: `owner/repository` and file on the Hugging Face hub, as `owner/repo:file`, or empty.
        url: where a person finds it.
        trained_on: data and task, for the table.
    """

    files: tuple[str, ...]
    trained_on: str
    url: str = ""
    sha256: str = ""
    timm: str = ""
    hub: str = ""


@dataclass(frozen=True)
class Requirement:
    """A distribution the backbone needs or can use; `module` is what is looked up, never imported."""

    module: str
    distribution: str
    optional: bool = False
    why: str = ""


@dataclass(frozen=True)
class Published:
    """One published result with its set-up and source; percent, as printed in the source.

    `mINP`, `rank5` and `rank10` are `None` where the source does not give them.
    """

    dataset: str
    mAP: float
    rank1: float
    image_size: tuple[int, int]
    source: str
    setup: str = ""
    variant: str = ""
    flip: bool = False
    rerank: bool = False
    mINP: float | None = None
    rank5: float | None = None
    rank10: float | None = None


@dataclass(frozen=True)
class ParameterCount:
    """An exact parameter count and the build it belongs to; checked by the contract tests."""

    count: int
    num_classes: int
    num_cameras: int
    image_size: tuple[int, int]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """A named setting `backbone:variant`: build options, and recipe keys (dotted) that belong to it.

    `dataset` holds keys of the native recipe by the name of the dataset for which alone they are meant.
    """

    about: str
    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, dict[str, Any]] = field(default_factory=dict)
    native: bool = True


@dataclass(frozen=True)
class BackboneCard:
    """Card of a backbone. `options` holds the default of every build option; other names are refused.

    `single_branch` lists build options under which training has one branch: any of these tables, an empty one always.
    """

    name: str
    title: str
    input: InputCard
    feature_dim: int
    kind: str = "backbone"
    paper: str = ""
    url: str = ""
    licence: str = ""
    source: str = ""
    commit: str = ""
    aliases: tuple[str, ...] = ()
    side_information: tuple[str, ...] = ()
    trainable: bool = True
    adapter: bool = False
    about: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    single_branch: tuple[dict[str, Any], ...] = ()
    variants: dict[str, Variant] = field(default_factory=dict)
    requires: tuple[Requirement, ...] = ()
    pretrained: PretrainedCard | None = None
    parameters: tuple[ParameterCount, ...] = ()
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class SplitCount:
    """Expected size of a split."""

    images: int
    identities: int
    cameras: int


@dataclass(frozen=True)
class Layout:
    """One accepted place and shape of the data: `folders` below the data root, read by `reader`."""

    name: str
    reader: str
    folders: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DatasetCard:
    """Card of a dataset. `protocol` names the evaluation rule; it is never a free flag.

    `image_size` is the (height, width) of every official image in pixels, `varies`, or empty where it is unknown.
    """

    name: str
    title: str
    layouts: tuple[Layout, ...]
    kind: str = "dataset"
    protocol: str = "standard"
    access: str = "open"
    ask: str = ""
    notice: str = ""
    licence: str = ""
    reference: str = ""
    url: str = ""
    aliases: tuple[str, ...] = ()
    group: str = ""
    in_all: bool = False
    cameras: int = 0
    image_size: tuple[int, int] | str = ""
    about: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    expected: dict[str, SplitCount] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.image_size, str) and self.image_size not in ("", VARIES):
            raise UsageError(f"{self.name}: image_size must be [height, width] or 'varies', found '{self.image_size}'.")

    @property
    def knows_cameras(self) -> bool:
        """Whether the cameras of the images are known, in one layout at least."""
        return any(layout.options.get("cameras") is not False for layout in self.layouts)


def _convert(cls: Any, value: Any, where: str) -> Any:
    """Turns TOML values into the annotated type; unknown keys and wrong types are usage errors."""
    origin = typing.get_origin(cls)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(cls):
            return None
        choices = [a for a in typing.get_args(cls) if a is not type(None)]
        return _convert(str if isinstance(value, str) and str in choices else choices[0], value, where)
    if dataclasses.is_dataclass(cls):
        if not isinstance(value, dict):
            raise UsageError(f"{where} must be a table, found {value!r}.")
        return from_table(cls, value, where)
    if origin in (list, tuple):
        inner = typing.get_args(cls) if origin is tuple else (*typing.get_args(cls), Ellipsis)
        if not isinstance(value, list | tuple):
            raise UsageError(f"{where} must be a list such as [1, 2], found {value!r}.")
        if Ellipsis not in inner and len(value) != len(inner):
            raise UsageError(f"{where} must have {len(inner)} values, found {len(value)}.")
        of_each = itertools.repeat(inner[0]) if Ellipsis in inner else inner
        return origin(_convert(one, v, f"{where}[{i}]") for i, (one, v) in enumerate(zip(of_each, value, strict=False)))
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise UsageError(f"{where} must be a table, found {value!r}.")
        inner = typing.get_args(cls)[1]
        return {k: _convert(inner, v, f"{where}.{k}") for k, v in value.items()}
    if not is_plain(value):
        raise UsageError(f"{where} must be plain data: text, whole and finite numbers, on or off, lists and tables.")
    if cls is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if cls is Any or (isinstance(value, cls) and not (cls is int and isinstance(value, bool))):
        return value
    raise UsageError(f"{where} must be of type {cls.__name__}, found {value!r}.")


def is_plain(value: Any) -> bool:
    """Whether a value can be hashed as JSON: no dates, nothing that is not a number, no number of a thousand digits."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < LARGEST)


@functools.cache
def _fields(cls: type) -> tuple[dict[str, Any], frozenset[str]]:
    hints = typing.get_type_hints(cls)
    required = {
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}, frozenset(required)


def from_table(cls: Any, table: dict[str, Any], where: str) -> Any:
    """Builds the dataclass `cls` from a TOML table, strictly.

    Raises:
        UsageError: a key is unknown (with a suggestion), missing, or of the wrong type.
    """
    known, required = _fields(cls)
    for key in table:
        if key not in known:
            raise unknown(f"key in {where}", key, known)
    if missing := sorted(required - table.keys()):
        raise UsageError(f"{where} lacks {', '.join(missing)}.")
    return cls(**{k: _convert(known[k], v, f"{where}: {k}") for k, v in table.items()})


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file; a syntax error names the file and the line."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is a ValueError; so are endless numbers
        raise UsageError(f"{path} is not valid TOML: {error}.") from error


def read_card(path: Path) -> BackboneCard | DatasetCard:
    """Reads `card.toml`; its `kind` says whether it is a backbone's or a dataset's."""
    table = read_toml(path)
    kinds: dict[str, type] = {"backbone": BackboneCard, "dataset": DatasetCard}
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise UsageError(f"{path}: kind must be one of {', '.join(kinds)}, found {kind!r}.")
    card: BackboneCard | DatasetCard = from_table(kinds[kind], table, str(path))
    if isinstance(card, DatasetCard) and card.protocol not in PROTOCOLS:
        raise unknown(f"protocol in {path}", card.protocol, PROTOCOLS)
    for name in (card.name, *getattr(card, "variants", ())):
        if len(name.encode()) > LONGEST_NAME:
            raise UsageError(f"{path}: the name '{name[:20]}...' has {len(name)} letters; use {LONGEST_NAME} at most.")
    if card.name != path.parent.name.replace("_", "-"):
        raise UsageError(f"{path}: the card is named '{card.name}' but its folder '{path.parent.name}'.")
    return card


def same_type(value: Any, default: Any, where: str) -> Any:
    """Converts text from the command line to the type of the default, or refuses."""
    if isinstance(value, str) and isinstance(default, bool):
        value = {"on": "True", "off": "False"}.get(value.lower(), value)
    if isinstance(value, str) and not isinstance(default, str):
        try:
            value = ast.literal_eval(value.capitalize() if value.lower() in ("true", "false") else value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
            raise UsageError(f"{where} must be like {default!r}, found '{value}'.") from error
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not type(default) or not is_plain(value):
        raise UsageError(f"{where} must be like {default!r}, found {value!r}.")
    return value
