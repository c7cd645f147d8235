"""Differences between the set-up of our runs and that of a published number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct

from harness import weights
from harness.cards import BackboneCard, DatasetCard, Published
from harness.errors import HarnessError
from harness.planning.request import Request, load_recipe
from harness.registry import BackboneEntry
from harness.reporting.rows import EvalVariant, RunGroup, flatten
from harness.spec.recipe import Recipe
from harness.spec.run_spec import canonical

NATIVE = "native"
AT_TEST = ("augmentation.interpolation_test", "evaluation.metric")
"""Recipe keys that also change the score of a checkpoint."""

APART = ("name", "augmentation.image_size", "training.deterministic")
"""Recipe keys that are no difference of training, or are compared by themselves."""

Evaluation = Mapping[str, Any]


class Difference(Struct, frozen=True):
    """A setting that differs: our value, and that of the published number."""

    setting: str
    ours: Any
    published: Any

    def __str__(self) -> str:
        return f"{self.setting} {_shown(self.ours)} instead of {_shown(self.published)}"


@dataclass(frozen=True)
class SetUp:
    """What a run must be to be comparable with a published number.

    Attributes:
        card: card of the backbone.
        published: the number.
        folder: folder of the backbone's plug-in, for its native recipe; None if unknown.
        dataset: card of the dataset, if known.
    """

    card: BackboneCard
    published: Published
    folder: Path | None = None
    dataset: DatasetCard | None = None

    @property
    def name(self) -> str:
        """Name of the backbone with the variant of the number."""
        return f"{self.card.name}:{self.published.variant}" if self.published.variant else self.card.name

    @property
    def test(self) -> EvalVariant:
        """The test that gave the number."""
        return EvalVariant(False, self.published.rerank, self.published.flip)

    @cached_property
    def recipe(self) -> Recipe | None:
        """The backbone's own recipe for the dataset; None if it has none."""
        if self.folder is None or not self._entry.native_recipe.is_file():
            return None
        return load_recipe(Request(recipe=NATIVE), self._entry, self.published.dataset)

    @cached_property
    def options(self) -> dict[str, Any]:
        """Build options of the published network."""
        return self._entry.options(dict(self.recipe.options) if self.recipe else None)

    @property
    def _entry(self) -> BackboneEntry:
        return BackboneEntry(self.card, self.folder or Path(), "", self.published.variant)

    def evaluations(self, group: RunGroup) -> list[tuple[Mapping[str, Any], Evaluation]]:
        """Finished runs of a group with their evaluation under the published test, sorted by seed."""
        return [
            (run, e)
            for run in group.ok
            for e in run["evaluations"]
            if e["dataset"] == self.published.dataset and _test(e) == self.test
        ]

    def differences(self, group: RunGroup) -> list[Difference]:
        """All differences of a group of runs; they are comparable with the number if there is none."""
        try:
            return [
                *self._data(group),
                *self._evaluation(group),
                *self._network(group),
                *(self._training(group) if group.source == "trained" else self._scored_file(group)),
            ]
        except HarnessError as error:  # the card or its recipe does not fit the variant
            return [Difference("card", str(error), "a card that can be checked")]

    def _data(self, group: RunGroup) -> Iterator[Difference]:
        data = group.ok[0]["data"]
        if data.get("generated"):
            yield Difference("images", "generated", "original")
        if (data.get("notes") or {}).get("image_sizes"):
            yield Difference("images", "resized", "original")
        if data.get("count_mismatch"):
            yield Difference("images", "with other counts", "original")
        for name, options in sorted((group.spec.get("dataset_options") or {}).items()):
            for key, value in sorted(options.items()):
                yield Difference(f"reader option {name}.{key}", value, "the default")

    def _evaluation(self, group: RunGroup) -> Iterator[Difference]:
        if not (found := self.evaluations(group)):
            tests = sorted({_test(e) for run in group.ok for e in run["evaluations"]})
            yield Difference("test", tests[0].label if tests else "none", self.test.label)
        rule = self.dataset.protocol if self.dataset else ""
        if others := sorted({e["protocol"] for _, e in found if rule and e.get("protocol") not in (None, rule)}):
            yield Difference("protocol", others[0], rule)

    def _network(self, group: RunGroup) -> Iterator[Difference]:
        if group.source == "features":  # only their names are known
            return
        size = group.flat.get("augmentation.image_size")
        if size is None or tuple(size) != self.published.image_size:
            yield Difference("size", size, list(self.published.image_size))
        ours = group.spec["options"]
        for key in sorted(ours.keys() | self.options.keys()):
            if canonical(ours.get(key)) != canonical(self.options.get(key)):
                yield Difference(key.replace("_", " "), ours.get(key), self.options.get(key))

    def _training(self, group: RunGroup) -> Iterator[Difference]:
        if weights.wanted(self.card, self.options) and group.spec.get("pretrained", "none") == "none":
            yield Difference("start", "random", "pretrained")
        if group.untrained:
            yield Difference("training", "none", "trained")
            return
        found = self._recipe(group)
        if found and group.spec["recipe"] != NATIVE:
            yield Difference("recipe", group.spec["recipe"], NATIVE)
        else:
            yield from found

    def _scored_file(self, group: RunGroup) -> Iterator[Difference]:
        if group.source == "features":
            yield Difference("source", "stored features", "a training run")
        elif not self.published.checkpoint:
            yield Difference("source", "a checkpoint", "a training run")
        yield from (each for each in self._recipe(group) if each.setting in AT_TEST)

    def _recipe(self, group: RunGroup) -> list[Difference]:
        """Recipe keys that differ from the backbone's own recipe."""
        ours, theirs = _flat(group.spec["values"]), _flat(self.recipe.values()) if self.recipe else {}
        return [
            Difference(key, ours.get(key), theirs.get(key))
            for key in sorted(ours.keys() | theirs.keys() if theirs else ())
            if canonical(ours.get(key)) != canonical(theirs.get(key))
        ]


def _test(evaluation: Evaluation) -> EvalVariant:
    return EvalVariant(not evaluation["trained"], evaluation["rerank"], evaluation["flip"])


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key, without those that do not count as a difference of training."""
    flat: dict[str, Any] = {}
    flatten(values, "", flat)
    return {
        key: value
        for key, value in flat.items()
        if key not in APART and (key in AT_TEST or not key.startswith("evaluation."))
    }


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return "x".join(map(str, value))
    if value is None:
        return "not recorded"
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
