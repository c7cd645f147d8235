"""The plug-in interface: what a dataset returns (items and splits) and what a backbone module must provide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict, cast

from harness.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.cards import InputCard

SPLITS = ("train", "query", "gallery")
UNKNOWN_CAMERAS = "unknown"
"""Value of the note `cameras` for a dataset that does not say which camera took an image."""


class EvaluationRule(NamedTuple):
    """An evaluation protocol.

    Attributes:
        scorer: name of the function in `harness.metrics` that scores features under this protocol.
        reranks: whether the protocol allows re-ranking.
    """

    scorer: str
    reranks: bool


PROTOCOLS = {
    "standard": EvaluationRule("evaluate_ranking", reranks=True),
    # CMC uses random galleries of one image per identity. Re-ranking needs the neighbours in the whole gallery.
    "cuhk03-classic": EvaluationRule("evaluate_single_shot", reranks=False),
}
"""The evaluation protocols that a dataset's card can name."""


class Item(NamedTuple):
    """One image: its path, its identity (`pid`) and its camera (`camid`, zero-based).

    A `pid` of 0 or above is an identity; -1 marks junk, which readers drop.
    """

    path: Path
    pid: int
    camid: int


@dataclass(frozen=True)
class Splits:
    """The three splits of a dataset, each sorted by path, and facts about the files they come from.

    Attributes:
        train: training images.
        query: query images of the test split.
        gallery: gallery images of the test split.
        root: the folder that holds the images; every path lies below it.
        layout: name of the detected layout, for example `msmt17-v1`.
        generated: content of `stand-in.json` for generated data, `None` for the real dataset.
        notes: facts for the record, for example how many junk images were dropped.
    """

    train: Sequence[Item]
    query: Sequence[Item]
    gallery: Sequence[Item]
    root: Path
    layout: str = ""
    generated: dict[str, Any] | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The gray values of black and white in images of more than 8 bits; `None` if the card does not give them."""
        low_high = self.notes.get("value_range")
        return (low_high[0], low_high[1]) if low_high else None

    @property
    def knows_cameras(self) -> bool:
        """Whether the cameras are known. If not, queries have one camera number and all other images another."""
        return self.notes.get("cameras") != UNKNOWN_CAMERAS

    @property
    def matched(self) -> int:
        """Number of queries with a match: a gallery image of the same identity from another camera."""
        seen_by: dict[int, set[int]] = {}
        for item in self.gallery:
            seen_by.setdefault(item.pid, set()).add(item.camid)
        return sum(not seen_by.get(item.pid, set()) <= {item.camid} for item in self.query)


@dataclass
class TrainingOutput:
    """What a backbone returns in training mode: two lists, usually with one entry per branch in each.

    A network may also have classifiers without a feature for the metric losses, or such features without a classifier.

    Attributes:
        logits: classifier outputs, each [B, num_classes].
        features: features for the metric losses, each [B, D_i], not normalised.
    """

    logits: list[Tensor]
    features: list[Tensor]


class Backbone(Protocol):
    """What the `torch.nn.Module` returned by `build` must implement."""

    def forward(self, images: Tensor, camera_ids: Tensor | None) -> TrainingOutput | Tensor:
        """Computes logits and features for training, or the test-time feature in evaluation mode.

        Args:
            images: [B, 3, H, W], normalised with the card's mean and std, on the module's device.
            camera_ids: [B], rows of the camera embedding, on the CPU; ignored by a backbone without one.

        Returns:
            In training mode a `TrainingOutput`. In evaluation mode the test-time feature [B, feature_dim]; the feature
            of an image must not depend on the other images of the batch. The harness normalises it to unit length.
        """
        ...


class BackboneExtras(Protocol):
    """Optional attributes and methods of the module. The functions below read each, or return its default."""

    feature_dim: int
    """Width of the test-time feature, if options change it; the default is the card's `feature_dim`."""

    camera_mode: str
    """How cameras are used: `on`, `off`, or `mean` for unknown cameras. An attribute of the embedding submodule."""

    def no_weight_decay(self) -> Collection[str]:
        """Names of parameters without weight decay under recipes with `no_decay = "model"`."""
        ...

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of the original code or of the harness; all keys and shapes must fit.

        In evaluation mode the classifier may be missing or have another number of classes.

        Raises:
            WeightsError: keys or shapes do not fit; the message names them.
        """
        ...

    def extra_flops(self) -> int:
        """FLOPs per image of the test-time feature that torch's FLOP counter misses, for example custom kernels."""
        ...

    def scan_implementation(self) -> str:
        """Name of the selective-scan implementation that runs on the module's device."""
        ...


class Inferred(TypedDict):
    """Arguments for `build`, inferred from a checkpoint. A number is 0 if the checkpoint does not contain it."""

    num_classes: int
    num_cameras: int
    options: dict[str, Any]


class BackboneCode(Protocol):
    """The functions of a backbone's `model.py`. Only `build` is required."""

    build: Callable[..., nn.Module]
    """`build(*, num_classes, num_cameras, image_size, pretrained=None, **options)`; `pretrained` is a path."""

    infer: Callable[[Mapping[str, Any], tuple[int, int]], Inferred]
    """`infer(state_dict, image_size)` returns the arguments of `build` that fit a checkpoint."""

    input_card: Callable[[str], InputCard]
    """`input_card(model)` of an adapter returns the input size and normalisation of one of its models."""


def inferred(code: BackboneCode, state: Mapping[str, Any], image_size: tuple[int, int]) -> Inferred | None:
    """Returns the arguments of `build` that fit a checkpoint; `None` for a backbone without `infer`.

    Raises:
        WeightsError: the checkpoint belongs to another backbone, or its tensors have shapes that no module has.
    """
    if (infer := getattr(code, "infer", None)) is None:
        return None
    try:
        found = infer(state, image_size)
    except (TypeError, ValueError, LookupError, AttributeError) as error:  # sizes are read off tensors of any shape
        raise WeightsError(
            f"The checkpoint does not fit this backbone: its sizes cannot be read off its tensors ({error}). "
            "Check that backbone and checkpoint match."
        ) from error
    return cast(Inferred, {"num_classes": 0, "num_cameras": 0, "options": {}, **found})


def feature_dim(module: nn.Module, default: int) -> int:
    """Returns the width of the module's test-time feature; `default` is the card's `feature_dim`."""
    return int(getattr(module, "feature_dim", default))


def no_weight_decay(module: nn.Module) -> set[str]:
    """Returns the names of parameters that the module exempts from weight decay."""
    return set(getattr(module, "no_weight_decay", set)())


def published_loader(module: nn.Module) -> Callable[[Mapping[str, Any]], None] | None:
    """Returns the module's `load_published`, or `None` if it has none."""
    return getattr(module, "load_published", None)


def extra_flops(module: nn.Module) -> int:
    """Returns the FLOPs per image that torch's FLOP counter misses; 0 for most backbones."""
    return int(getattr(module, "extra_flops", int)())


def scan_implementation(module: nn.Module) -> str | None:
    """Returns the name of the module's selective-scan implementation; `None` for a module without a scan."""
    asked = getattr(module, "scan_implementation", None)
    return str(asked()) if asked else None


def camera_parts(module: nn.Module, mode: str = "on") -> list[nn.Module]:
    """Returns the submodules, the module itself included, whose `camera_mode` is `mode`."""
    return [part for part in module.modules() if getattr(part, "camera_mode", None) == mode]


def set_camera_mode(module: nn.Module, mode: str, *, since: str = "on") -> list[nn.Module]:
    """Sets `camera_mode` to `mode` on every submodule whose mode is `since`, and returns these submodules."""
    parts = camera_parts(module, since)
    for part in parts:
        cast(BackboneExtras, part).camera_mode = mode
    return parts
