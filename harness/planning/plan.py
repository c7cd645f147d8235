"""Planning: backbones x datasets x seeds become run specs, each cached, to do or blocked, with the reason.

Planning is pure: the same request gives the same ids. No image is opened and no torch, ray or mlflow imported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from harness import registry, weights
from harness.contracts import SPLITS
from harness.errors import HarnessError
from harness.planning.request import Request, asked_for, check_options, chosen_options, load_recipe
from harness.planning.run_specs import SpecFactory
from harness.records import store
from harness.registry import BackboneEntry, DatasetEntry
from harness.spec import recipe
from harness.spec.job import LocalPaths, run_folder
from harness.spec.recipe import Recipe
from harness.spec.run_spec import RunSpec

if TYPE_CHECKING:
    from datasets.fingerprint_cache import Facts

CACHED, TODO, BLOCKED = "cached", "to do", "blocked"


@dataclass(frozen=True)
class Planned:
    """One cell of the plan; a blocked one tells its problems one by one.

    Attributes:
        asked: what the user typed for it, see `asked_for`.
        input_file: a checkpoint or feature file to score instead of training.
        trust_pickle: the user allowed this file to run code when it is read.
    """

    spec: RunSpec
    state: str
    reason: str
    folder: Path
    problems: tuple[str, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)
    input_file: str = ""
    trust_pickle: bool = False

    def to_dict(self) -> dict[str, Any]:
        """One JSON object a run."""
        return {
            "run_id": self.spec.run_id,
            "backbone": self.spec.backbone,
            "dataset": self.spec.dataset,
            "recipe": self.spec.recipe,
            "seed": self.spec.seed,
            "state": self.state,
            "reason": self.reason,
        }


def build(request: Request) -> list[Planned]:
    """Expands the request, in the order backbone, dataset, seed.

    Raises:
        UsageError: an unknown name, option or recipe key.
    """
    chosen = registry.resolve_backbones(request.backbones, request.plugins)
    trained_on = registry.resolve_datasets(request.datasets, request.plugins)
    scored_on = registry.resolve_datasets(request.eval_datasets, request.plugins) if request.eval_datasets else []
    check_options(request, chosen)
    seen: dict[str, _Data] = {}
    for entry in {e.name: e for e in [*trained_on, *scored_on]}.values():
        seen[entry.name] = _look_at(entry, request)
    grid = _Grid(request, SpecFactory(request), seen, store.index(request.results))
    return [cell for backbone in chosen for dataset in trained_on for cell in grid.cells(backbone, dataset, scored_on)]


def planned(
    request: Request,
    spec: RunSpec,
    known: Mapping[str, store.Entry],
    problems: tuple[str, ...] = (),
    asked: dict[str, Any] | None = None,
) -> Planned:
    """One cell of a plan: blocked if there are problems, else cached or to do, by what is on record.

    Args:
        request: where results are kept, and whether finished runs are repeated.
        spec: the run.
        known: entries of the results folder by run id.
        problems: what stands in its way, each as a sentence.
        asked: what the user typed for it, see `asked_for`.
    """
    folder, asked = run_folder(request.results, spec), asked or {}
    if problems:
        return Planned(spec, BLOCKED, " ".join(problems), folder, problems, asked)
    status = entry.status if (entry := known.get(spec.run_id)) else ""
    if status == "ok" and not request.force:
        return Planned(spec, CACHED, "finished", folder, asked=asked)
    if status:
        reason = "finished before; --force" if status == "ok" else f"{status} before"
    else:
        reason = "resumes from its checkpoint" if (folder / "checkpoint.pt").exists() else "new"
    return Planned(spec, TODO, reason, folder, asked=asked)


@dataclass(frozen=True)
class _Grid:
    """What is looked up once for the whole plan."""

    request: Request
    specs: SpecFactory
    seen: dict[str, _Data]
    index: dict[str, store.Entry]

    def cells(self, backbone: BackboneEntry, dataset: DatasetEntry, others: list[DatasetEntry]) -> list[Planned]:
        """One cell per seed: the spec, then what stands in its way, then what is known of it."""
        request = self.request
        chosen = load_recipe(request, backbone, dataset.name)
        options = backbone.options({**chosen.options, **chosen_options(request, backbone)})
        starting, problem = ("none", "") if request.from_scratch else _pretrained(backbone, options, request.paths)
        others = [other for other in others if other.name != dataset.name]
        spec = self.specs.make(
            backbone,
            dataset.name,
            chosen.name,
            chosen.values(),
            recipe_options=chosen.options,
            scored_on={other.name: self.seen[other.name].fingerprint for other in others},
            pretrained=starting,
            fingerprint=self.seen[dataset.name].fingerprint,
            purpose="search" if request.holdout else "test",
            holdout=request.holdout,
        )
        problems = [*backbone.missing(), problem, self.seen[dataset.name].problem]
        # A further dataset that can be read but not scored costs its own scores alone: the run says so and goes on.
        problems += [self.seen[other.name].problem for other in others if self.seen[other.name].facts is None]
        problems += self._misfits(backbone, options, chosen, dataset)
        found = tuple(p for p in problems if p)
        asked = asked_for(request, backbone, chosen.about)
        unscored = [p for other in others if (p := self.seen[other.name].problem)]
        cells = [planned(request, structs.replace(spec, seed=seed), self.index, found, asked) for seed in request.seeds]
        return [replace(c, reason="; ".join([c.reason, *unscored])) if c.state == TODO else c for c in cells]

    def _misfits(
        self, backbone: BackboneEntry, options: dict[str, Any], chosen: Recipe, dataset: DatasetEntry
    ) -> Iterator[str]:
        """What backbone, recipe, dataset and device cannot do together, as far as cards and counts tell."""
        facts = self.seen[dataset.name].facts
        if backbone.embeds_cameras(options) and not dataset.card.knows_cameras:
            yield (
                f"{backbone.name} embeds the camera of every image, and the cameras of {dataset.name} are unknown: "
                "pass --camera-embedding off."
            )
        elif backbone.embeds_cameras(options) and facts and facts.unseen:
            yield (
                f"{backbone.name} embeds the camera of every image, but the camera of {facts.unseen[0]} has no "
                "training image: add one, or pass --camera-embedding off."
            )
        if not backbone.card.trainable or not chosen.training.epochs:
            return
        if recipe.uses_ratr(chosen.loss) and backbone.has_one_branch(options):
            yield (
                f"RATR compares branches, and {backbone.name} has one with these options: set loss.ratr_intra and "
                "loss.ratr_inter to 0."
            )
        if chosen.training.precision == "fp16" and self.specs.device == "cpu":
            yield "training.precision 'fp16' needs a GPU; use fp32 or bf16 on a CPU."
        if facts and facts.identities < chosen.sampler.identities:
            yield (
                f"A batch needs {chosen.sampler.identities} identities, but the training images of {dataset.name} show "
                f"only {facts.identities}: set sampler.identities to {facts.identities} or less."
            )


@dataclass(frozen=True)
class _Data:
    """A dataset as the plan sees it; without facts where it cannot be read."""

    facts: Facts | None
    problem: str = ""

    @property
    def fingerprint(self) -> str:
        return self.facts.fingerprint if self.facts else ""


def _look_at(entry: DatasetEntry, request: Request) -> _Data:
    """The facts, and the reason why the dataset cannot be trained or scored on."""
    from datasets import layouts

    options = request.dataset_options.get(entry.name, {})
    splits = ("train",) if request.holdout else SPLITS  # in a search the files of the test split may be absent
    try:
        facts = layouts.facts(entry, Path(request.paths.data_root or "."), splits=splits, **options)
    except HarnessError as error:
        return _Data(None, str(error))
    if facts.queries and not facts.matched:
        return _Data(
            facts,
            f"{entry.name} cannot be scored: none of its {facts.queries:,} queries has a match, a gallery image of the "
            f"same identity from another camera. 'python -m harness validate --datasets {entry.name}' says more.",
        )
    return _Data(facts)


def _pretrained(backbone: BackboneEntry, options: dict[str, Any], paths: LocalPaths) -> tuple[str, str]:
    """Identity of the starting weights, or why there are none."""
    card = backbone.card
    if (start := weights.wanted(card, options)) is None:
        return "none", ""
    try:
        if (found := weights.locate(card, paths.weights_root, options)) is not None:
            weights.check_kind(found)
        identity = weights.identity(card, paths.weights_root, options)
    except HarnessError as error:
        return "missing", str(error)
    if identity != "none":
        return identity, ""
    where = f"below {paths.weights_root}" if paths.weights_root else "(no --weights-root given)"
    return "missing", (
        f"Starting weights of {card.name} not found {where}: {' or '.join(start.files)}. "
        f"'python -m harness prepare --backbones {backbone.name} --weights-root DIR' fetches them, "
        "--from-scratch starts without."
    )
