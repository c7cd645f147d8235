"""The types of cards, and how a card is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from harness.cards.tables import from_table, read_toml
from harness.contracts import PROTOCOLS
from harness.errors import UsageError, unknown

LONGEST_NAME = 100
"""Of datasets, backbones and variants, in bytes: names are parts of file names."""

VARIES = "varies"
"""Of a dataset card's `image_size`: the official images have sizes of their own."""


class InputCard(Struct, frozen=True, forbid_unknown_fields=True):
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


class PretrainedCard(Struct, frozen=True, forbid_unknown_fields=True):
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


class Requirement(Struct, frozen=True, forbid_unknown_fields=True):
    """A distribution the backbone needs or can use; `module` is what is looked up, never imported."""

    module: str
    distribution: str
    optional: bool = False
    why: str = ""


class Published(Struct, frozen=True, forbid_unknown_fields=True):
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


class ParameterCount(Struct, frozen=True, forbid_unknown_fields=True):
    """An exact parameter count and the build it belongs to; checked by the contract tests."""

    count: int
    num_classes: int
    num_cameras: int
    image_size: tuple[int, int]
    options: dict[str, Any] = {}


class Variant(Struct, frozen=True, forbid_unknown_fields=True):
    """A named setting `backbone:variant`: build options, and recipe keys (dotted) that belong to it.

    `dataset` holds keys of the native recipe by the name of the dataset for which alone they are meant.
    """

    about: str
    options: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    dataset: dict[str, dict[str, Any]] = {}
    native: bool = True


class BackboneCard(Struct, frozen=True, forbid_unknown_fields=True):
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
    options: dict[str, Any] = {}
    single_branch: tuple[dict[str, Any], ...] = ()
    variants: dict[str, Variant] = {}
    requires: tuple[Requirement, ...] = ()
    pretrained: PretrainedCard | None = None
    parameters: tuple[ParameterCount, ...] = ()
    published: tuple[Published, ...] = ()


class SplitCount(Struct, frozen=True, forbid_unknown_fields=True):
    """Expected size of a split."""

    images: int
    identities: int
    cameras: int


class Layout(Struct, frozen=True, forbid_unknown_fields=True):
    """One accepted place and shape of the data: `folders` below the data root, read by `reader`."""

    name: str
    reader: str
    folders: tuple[str, ...]
    options: dict[str, Any] = {}


class DatasetCard(Struct, frozen=True, forbid_unknown_fields=True):
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
    image_size: tuple[int, int] | Literal["", "varies"] = ""
    about: str = ""
    options: dict[str, Any] = {}
    expected: dict[str, SplitCount] = {}

    @property
    def knows_cameras(self) -> bool:
        """Whether the cameras of the images are known, in one layout at least."""
        return any(layout.options.get("cameras") is not False for layout in self.layouts)


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
