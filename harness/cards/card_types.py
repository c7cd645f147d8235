"""The fields of backbone and dataset cards, and the reader of `card.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct

from harness.cards.tables import from_table, read_toml
from harness.contracts import PROTOCOLS
from harness.errors import UsageError, unknown

LONGEST_NAME = 100
"""Maximum length of the name of a dataset, backbone or variant, in bytes. Names become parts of file names."""

VARIES = "varies"
"""Value of a dataset card's `image_size` if the official images differ in size."""


class InputCard(Struct, frozen=True, forbid_unknown_fields=True):
    """The input that a backbone was designed for. Every recipe normalises images with `mean` and `std`.

    Attributes:
        image_size: (height, width) in pixels.
        mean: mean of each channel, for images in 0 .. 1.
        std: standard deviation of each channel, for images in 0 .. 1.
        channels_last: whether to use the channels-last memory format, which is faster for many CNNs.
    """

    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels_last: bool = False


STARTS = ("ImageNet-1k", "ImageNet-12k", "ImageNet-21k", "CLIP", "SigLIP", "web images")
"""Kinds of start of a training. Others are `people: NAME`, with the data set of images of people, and `none`."""

PEOPLE = "people: "


class PretrainedCard(Struct, frozen=True, forbid_unknown_fields=True):
    """A pretrained file: where to get it, and its checksum.

    Attributes:
        files: accepted file names below `--weights-root`.
        trained_on: dataset and task of the pretraining, in words.
        kind: kind of start, one of `STARTS` or `people: NAME`, as tables show it.
        kinds: kind of start by pattern of the file's name, for files that options choose. The first match counts, and
            `kind` if there is none.
        url: page that offers the file.
        urls: page by pattern, likewise.
        sha256: checksum of the file; empty if none is published.
        timm: timm model name with tag, or empty.
        hub: file on the Hugging Face hub as `owner/repository:file`, or empty.
        hubs: file on the hub by pattern, likewise.
    """

    files: tuple[str, ...]
    trained_on: str
    kind: str = ""
    kinds: dict[str, str] = {}
    url: str = ""
    urls: dict[str, str] = {}
    sha256: str = ""
    timm: str = ""
    hub: str = ""
    hubs: dict[str, str] = {}


class Requirement(Struct, frozen=True, forbid_unknown_fields=True):
    """A Python distribution that the backbone needs, or can use if `optional`.

    Attributes:
        module: module to look for; it is not imported.
        distribution: name for pip.
        optional: whether the backbone also works without it.
        why: what the backbone uses it for.
    """

    module: str
    distribution: str
    optional: bool = False
    why: str = ""


class Published(Struct, frozen=True, forbid_unknown_fields=True):
    """One published result, in percent as printed in the source.

    Attributes:
        dataset: name of the dataset.
        mAP: mean average precision.
        rank1: CMC at rank 1.
        image_size: (height, width) in pixels.
        source: where the number is printed, for example paper and table.
        setup: settings that matter for a comparison.
        variant: variant of the backbone; empty for its default.
        checkpoint: whether it is the score of a checkpoint that the authors released.
        flip: whether features were averaged over the mirrored image.
        rerank: whether the ranking was re-ranked.
        mINP: `None` if the source does not give it; the same for `rank5` and `rank10`.
        rank5: CMC at rank 5.
        rank10: CMC at rank 10.
    """

    dataset: str
    mAP: float
    rank1: float
    image_size: tuple[int, int]
    source: str
    setup: str = ""
    variant: str = ""
    checkpoint: bool = False
    flip: bool = False
    rerank: bool = False
    mINP: float | None = None
    rank5: float | None = None
    rank10: float | None = None


CostMetric = Literal["parameters", "parameters_at_test", "flops", "memory", "activations", "speed"]
"""Metrics of claims that are judged from counts and from the cells of `profile`."""

ScoreMetric = Literal["mAP"]
"""Metrics of claims that are judged from scored runs, per dataset."""

ALL = "all"
"""Comparator of a claim about every other backbone."""


class Claim(Struct, frozen=True, forbid_unknown_fields=True):
    """A claim of the source that compares the backbone with another: ours `relation` factor x theirs.

    Attributes:
        metric: what is compared. `speed` is in images per second; `parameters_at_test`, those of the test-time feature.
        relation: whether the value is claimed to be below or above that of the comparator.
        comparator: name of the other backbone, with its variant, or `all` for every other one.
        source: where the claim is made.
        text: the claim in words.
        factor: the comparator's value is multiplied by it, for example 0.5 with `below` for "less than half".
        measure: `inference` or `training`, for speed and memory.
        device: device that the claim is about, for speed and memory; empty for any.
        datasets: the datasets of a claim about scores; each is judged by itself.
        variant: variant of the backbone; empty for its default.
    """

    metric: CostMetric | ScoreMetric
    relation: Literal["below", "above"]
    comparator: str
    source: str
    text: str = ""
    factor: Annotated[float, Meta(gt=0)] = 1.0
    measure: Literal["inference", "training"] = "inference"
    device: Literal["", "cpu", "cuda"] = ""
    datasets: tuple[str, ...] = ()
    variant: str = ""


class ParameterCount(Struct, frozen=True, forbid_unknown_fields=True):
    """The exact number of parameters of one build; the contract tests check it."""

    count: int
    num_classes: int
    num_cameras: int
    image_size: tuple[int, int]
    options: dict[str, Any] = {}


class Variant(Struct, frozen=True, forbid_unknown_fields=True):
    """A named setting, selected as `backbone:variant`.

    Attributes:
        about: description for listings.
        options: build options.
        recipe: recipe keys (dotted) that the variant overrides.
        native: keys of the native recipe alone, for every dataset.
        dataset: keys of the native recipe for single datasets, by dataset name.
    """

    about: str
    options: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    native: dict[str, Any] = {}
    dataset: dict[str, dict[str, Any]] = {}


class BackboneCard(Struct, frozen=True, forbid_unknown_fields=True):
    """Card of a backbone.

    Attributes:
        options: every build option with its default. Other options are refused.
        groups: groups that it belongs to, such as `vit`. `--backbones all-vit` means all trainable members.
        can_be_off: options with a number that also accept the text `off`.
        single_branch: tables of build options; training has one branch if all options of any table are set. An empty
            table always matches.
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
    groups: tuple[str, ...] = ()
    side_information: tuple[str, ...] = ()
    trainable: bool = True
    adapter: bool = False
    about: str = ""
    options: dict[str, Any] = {}
    can_be_off: tuple[str, ...] = ()
    single_branch: tuple[dict[str, Any], ...] = ()
    variants: dict[str, Variant] = {}
    requires: tuple[Requirement, ...] = ()
    pretrained: PretrainedCard | None = None
    parameters: tuple[ParameterCount, ...] = ()
    published: tuple[Published, ...] = ()
    claims: tuple[Claim, ...] = ()


class SplitCount(Struct, frozen=True, forbid_unknown_fields=True):
    """Expected number of images, identities and cameras of a split."""

    images: int
    identities: int
    cameras: int


class Layout(Struct, frozen=True, forbid_unknown_fields=True):
    """One accepted folder structure: `reader` reads one of `folders` below the data root."""

    name: str
    reader: str
    folders: tuple[str, ...]
    options: dict[str, Any] = {}


class DatasetCard(Struct, frozen=True, forbid_unknown_fields=True):
    """Card of a dataset.

    Attributes:
        protocol: name of the evaluation protocol, a key of `harness.contracts.PROTOCOLS`.
        image_size: (height, width) of every official image in pixels, `varies`, or empty if unknown.
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
        """Whether the cameras are known in at least one layout."""
        return any(layout.options.get("cameras") is not False for layout in self.layouts)


def read_card(path: Path) -> BackboneCard | DatasetCard:
    """Reads `card.toml`; its `kind` is `backbone` or `dataset`.

    Raises:
        UsageError: the file cannot be read, a key is wrong, or the name differs from the folder's.
    """
    table = read_toml(path)
    kinds: dict[str, type] = {"backbone": BackboneCard, "dataset": DatasetCard}
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise UsageError(f"{path}: kind must be one of {', '.join(kinds)}, found {kind!r}.")
    card: BackboneCard | DatasetCard = from_table(kinds[kind], table, str(path))
    if isinstance(card, DatasetCard) and card.protocol not in PROTOCOLS:
        raise unknown(f"protocol in {path}", card.protocol, PROTOCOLS)
    if isinstance(card, BackboneCard):
        _check_claims(card, path)
        _check_starts(card, path)
    for name in (card.name, *getattr(card, "variants", ())):
        if len(name.encode()) > LONGEST_NAME:
            size = len(name.encode())
            raise UsageError(f"{path}: the name '{name[:20]}...' has {size} bytes; use at most {LONGEST_NAME}.")
    if card.name != path.parent.name.replace("_", "-"):
        raise UsageError(
            f"{path}: the card is named '{card.name}' but its folder '{path.parent.name}'. Give both the same name."
        )
    return card


def _check_starts(card: BackboneCard, path: Path) -> None:
    """Raises UsageError for an unknown kind of start."""
    weights = card.pretrained
    for kind in (weights.kind, *weights.kinds.values()) if weights else ():
        if kind and kind not in STARTS and not (kind.startswith(PEOPLE) and kind != PEOPLE):
            raise UsageError(
                f"{path}: pretrained.kind must be one of {', '.join(STARTS)}, or '{PEOPLE}NAME' with the name of the "
                f"data set, found '{kind}'."
            )


def _check_claims(card: BackboneCard, path: Path) -> None:
    """Refuses claims that no record could decide.

    Raises:
        UsageError: a claim is about an unknown variant, about scores without datasets, or about costs with datasets.
    """
    for i, claim in enumerate(card.claims):
        where = f"{path}: claims[{i}]"
        if claim.variant and not card.adapter and claim.variant not in card.variants:
            raise unknown(f"variant in {where}", claim.variant, card.variants)
        if (claim.metric in get_args(ScoreMetric)) != bool(claim.datasets):
            rule = "takes no datasets. Remove the key" if claim.datasets else "needs datasets. List their names"
            raise UsageError(f"{where}: a claim about {claim.metric} {rule} `datasets`.")
        if claim.comparator.partition(":")[0] == card.name and claim.comparator.partition(":")[2] == claim.variant:
            raise UsageError(f"{where}: the comparator is the backbone itself. Name another one, or `{ALL}`.")
