"""What plug-ins hand to the harness: images and splits of a dataset, the module of a backbone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict, cast

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.cards import InputCard

SPLITS = ("train", "query", "gallery")
UNKNOWN_CAMERAS = "unknown"
"""Value of the note `cameras` where nobody knows which camera took an image."""


class EvaluationRule(NamedTuple):
    """An evaluation protocol.

    Attributes:
        scorer: the function of `harness.metrics` that ranks features under it.
        reranks: whether re-ranking is defined for it.
    """

    scorer: str
    reranks: bool


PROTOCOLS = {
    "standard": EvaluationRule("evaluate_ranking", reranks=True),
    # CMC over drawn galleries of one image per identity: neighbours in the whole gallery are not those of a drawn one.
    "cuhk03-classic": EvaluationRule("evaluate_single_shot", reranks=False),
}
"""The evaluation protocols that a dataset's card can name."""


class Item(NamedTuple):
    """One image: where it lies, who is on it (`pid`), which camera took it (`camid`, zero-based).

    A `pid` of 0 or above is an identity; -1 is junk, which readers drop.
    """

    path: Path
    pid: int
    camid: int


@dataclass(frozen=True)
class Splits:
    """The three splits of a dataset, each sorted by path, and what was read to get them.

    Attributes:
        root: the folder that holds the images; every path lies below it.
        layout: name of the layout that was found, for example `msmt17-v1`.
        generated: the `stand-in.json` of generated data, `None` for the real dataset.
        notes: facts worth recording, for example how many junk images were dropped.
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
        """The gray values that become black and white in images of more than 8 bits, where the card gives them."""
        low_high = self.notes.get("value_range")
        return (low_high[0], low_high[1]) if low_high else None

    @property
    def knows_cameras(self) -> bool:
        """Whether camera numbers are facts; else queries have another number than all other images."""
        return self.notes.get("cameras") != UNKNOWN_CAMERAS

    @property
    def matched(self) -> int:
        """Queries with a match: a gallery image of the same identity from another camera."""
        seen_by: dict[int, set[int]] = {}
        for item in self.gallery:
            seen_by.setdefault(item.pid, set()).add(item.camid)
        return sum(not seen_by.get(item.pid, set()) <= {item.camid} for item in self.query)


@dataclass
class TrainingOutput:
    """What a backbone returns in training mode: equal lists, one entry per branch.

    Attributes:
        logits: classifier outputs, each [B, num_classes].
        features: features for the metric losses, each [B, D_i], not normalised.
    """

    logits: list[Tensor]
    features: list[Tensor]


class Backbone(Protocol):
    """What the module that `build` returns must do. It is a `torch.nn.Module`."""

    def forward(self, images: Tensor, camera_ids: Tensor | None) -> TrainingOutput | Tensor:
        """Computes what training or ranking needs.

        Args:
            images: [B, 3, H, W], normalised as the card says, on the module's device.
            camera_ids: [B], rows of a camera embedding, on the CPU; ignored by a backbone without one.

        Returns:
            In training mode a `TrainingOutput`; in evaluation mode the test-time feature [B, feature_dim], which for
            an image is the same whoever shares its batch. The harness normalises its length.
        """
        ...


class BackboneExtras(Protocol):
    """What that module may have. The functions at the end of this file read each part, or what stands for it."""

    feature_dim: int
    """Width of the test-time feature where options change it; else it is the card's."""

    camera_mode: str
    """How cameras are used: `on`, `off`, or `mean` where they are unknown. On the part that embeds them, if any."""

    def no_weight_decay(self) -> Collection[str]:
        """Names of parameters that recipes with `no_decay = "model"` leave alone."""
        ...

    def load_published(self, state_dict: Mapping[str, Any]) -> None:
        """Loads a checkpoint of the original code or of the harness, strictly.

        In evaluation mode the classifier may be absent, or be over other classes.

        Raises:
            WeightsError: names the keys that do not fit.
        """
        ...

    def extra_flops(self) -> int:
        """FLOPs per image of the test-time feature that torch's counter does not see."""
        ...

    def scan_implementation(self) -> str:
        """Which selective scan runs on the module's device."""
        ...


class Inferred(TypedDict):
    """What a checkpoint says about the build of its module: a number is 0 where the file does not say."""

    num_classes: int
    num_cameras: int
    options: dict[str, Any]


class BackboneCode(Protocol):
    """The functions of a backbone's `model.py`. Only `build` must be there."""

    build: Callable[..., nn.Module]
    """`build(*, num_classes, num_cameras, image_size, pretrained=None, **options)`; `pretrained` is a path."""

    infer: Callable[[Mapping[str, Any], tuple[int, int]], Inferred]
    """`infer(state_dict, image_size)` reads off a checkpoint how to build its module."""

    input_card: Callable[[str], InputCard]
    """`input_card(model)` of an adapter: input size and normalisation of one of its models."""


def inferred(code: BackboneCode, state: Mapping[str, Any], image_size: tuple[int, int]) -> Inferred | None:
    """What the checkpoint says about its build; `None` for a backbone that cannot tell.

    Raises:
        WeightsError: the checkpoint is another backbone's.
    """
    if (infer := getattr(code, "infer", None)) is None:
        return None
    return cast(Inferred, {"num_classes": 0, "num_cameras": 0, "options": {}, **infer(state, image_size)})


def feature_dim(module: nn.Module, default: int) -> int:
    """Width of the test-time feature; `default` is the card's."""
    return int(getattr(module, "feature_dim", default))


def no_weight_decay(module: nn.Module) -> set[str]:
    """Parameters that the module exempts from weight decay."""
    return set(getattr(module, "no_weight_decay", set)())


def published_loader(module: nn.Module) -> Callable[[Mapping[str, Any]], None] | None:
    """The module's `load_published`, or `None`."""
    return getattr(module, "load_published", None)


def extra_flops(module: nn.Module) -> int:
    """FLOPs per image that torch's counter does not see; 0 for most."""
    return int(getattr(module, "extra_flops", int)())


def scan_implementation(module: nn.Module) -> str | None:
    """Which selective scan the module runs on its device; `None` for one without a scan."""
    asked = getattr(module, "scan_implementation", None)
    return str(asked()) if asked else None


def camera_parts(module: nn.Module, mode: str = "on") -> list[nn.Module]:
    """The module and the parts of it that use cameras in this mode."""
    return [part for part in module.modules() if getattr(part, "camera_mode", None) == mode]


def set_camera_mode(module: nn.Module, mode: str, *, since: str = "on") -> list[nn.Module]:
    """Changes how cameras are used on every part that is in the mode `since`; returns those parts."""
    parts = camera_parts(module, since)
    for part in parts:
        cast(BackboneExtras, part).camera_mode = mode
    return parts
