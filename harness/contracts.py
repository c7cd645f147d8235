"""What a plug-in hands to the harness: items and splits of a dataset, the training output of a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

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
