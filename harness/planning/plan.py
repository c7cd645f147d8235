"""Expands backbones x datasets x seeds to run specs, each cached, to do or blocked, with the reason.

Planning is pure: the same request gives the same run ids. It opens no image and imports no torch, ray or mlflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from harness import registry, weights
from harness.contracts import SPLITS
from harness.errors import HarnessError, UsageError
from harness.planning import problems as why
from harness.planning import train_time
from harness.planning.problems import Problem
from harness.planning.request import LEAVE_ONE_OUT, Request, asked_for, check_options, chosen_options, load_recipe
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

FEWEST_OTHERS = 2
"""Number of datasets that must remain when one is left out."""


@dataclass(frozen=True)
class Planned:
    """One run of the plan.

    Attributes:
        spec: the run.
        state: `cached`, `to do` or `blocked`.
        reason: why, in full.
        folder: folder of the run's record.
        problems: why a blocked run cannot start; of other runs, the further datasets that cannot be scored.
        asked: what the user typed for it, see `asked_for`.
        input_file: a checkpoint or feature file to score instead of training.
        trust_pickle: the user allowed this file to run code when it is read.
    """

    spec: RunSpec
    state: str
    reason: str
    folder: Path
    problems: tuple[Problem, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)
    input_file: str = ""
    trust_pickle: bool = False

    @property
    def short_reason(self) -> str:
        """The reason in a few words."""
        if not self.problems:
            return self.reason
        shorts = ", ".join(dict.fromkeys(problem.short for problem in self.problems))
        return shorts if self.state == BLOCKED else f"{self.reason.partition(';')[0]}; {shorts}"

    def to_dict(self) -> dict[str, Any]:
        """The run as a JSON object."""
        return {
            "run_id": self.spec.run_id,
            "backbone": self.spec.backbone,
            "dataset": self.spec.dataset,
            "recipe": self.spec.recipe,
            "seed": self.spec.seed,
            "state": self.state,
            "reason": self.reason,
            "short_reason": self.short_reason,
        }


def build(request: Request) -> list[Planned]:
    """Expands the request, in the order backbone, dataset, seed.

    Raises:
        UsageError: an unknown name, option or recipe key, or a training time whose epochs are not known.
    """
    chosen = registry.resolve_backbones(request.backbones, request.plugins)
    pairs = trained_and_scored(request)
    for trained, _ in pairs:
        _check_reader_options(request, trained)
    check_options(request, chosen)
    seen: dict[str, _Data] = {}
    for entry in {e.name: e for trained, scored in pairs for e in [trained, *scored]}.values():
        seen[entry.name] = _look_at(entry, request)
    index = store.index(request.results)
    if request.train_time:
        request = train_time.applied(request, chosen, [trained for trained, _ in pairs], index)
    grid = _Grid(request, SpecFactory(request), seen, index)
    return [cell for backbone in chosen for trained, scored in pairs for cell in grid.cells(backbone, trained, scored)]


def trained_and_scored(request: Request) -> list[tuple[DatasetEntry, list[DatasetEntry]]]:
    """Returns each dataset to train on, with the further ones to score.

    Under `leave-one-out`, each dataset in turn is the one to score, after training on all others together.

    Raises:
        UsageError: an unknown name, or too few datasets to leave one out.
    """
    datasets = registry.resolve_datasets(request.datasets, request.plugins)
    further = registry.resolve_datasets(request.eval_datasets, request.plugins) if request.eval_datasets else []
    if request.protocol != LEAVE_ONE_OUT:
        return [(dataset, further) for dataset in datasets]
    rest = {left.name: registry.others(datasets, left) for left in datasets}
    if few := next((name for name, others in rest.items() if len(others) < FEWEST_OTHERS), None):
        raise UsageError(
            f"--protocol {LEAVE_ONE_OUT} needs datasets of at least {FEWEST_OTHERS + 1} groups of people; there are "
            f"{len(rest[few])} beside {few}. Name more with --datasets."
        )
    return [
        (registry.join(rest[left.name]), list({entry.name: entry for entry in (left, *further)}.values()))
        for left in datasets
    ]


def _check_reader_options(request: Request, trained: DatasetEntry) -> None:
    """Refuses reader options of datasets that are trained on together, because they would be ignored."""
    names = [trained.name, *(part.name for part in trained.parts)] if trained.parts else []
    if given := next((name for name in names if request.dataset_options.get(name)), None):
        raise UsageError(
            f"--data-option {given} cannot be used with {trained.name}: datasets that are trained on together are "
            "read with the options of their cards."
        )


def planned(
    request: Request,
    spec: RunSpec,
    known: Mapping[str, store.Entry],
    problems: tuple[Problem, ...] = (),
    asked: dict[str, Any] | None = None,
) -> Planned:
    """Returns one run of a plan: blocked if there are problems, else cached or to do, by its record.

    Args:
        request: where results are kept, and whether finished runs are repeated.
        spec: the run.
        known: entries of the results folder by run id.
        problems: why it cannot start.
        asked: what the user typed for it, see `asked_for`.
    """
    folder, asked = run_folder(request.results, spec), asked or {}
    if problems:
        return Planned(spec, BLOCKED, " ".join(problem.text for problem in problems), folder, problems, asked)
    status = entry.status if (entry := known.get(spec.run_id)) else ""
    if status == "ok" and not request.force:
        return Planned(spec, CACHED, "finished", folder, asked=asked)
    if status:
        reason = "finished; repeated by --force" if status == "ok" else f"{status} before"
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
        """One cell per seed: the spec, then what keeps it from starting, then what is known of it."""
        request = self.request
        chosen = load_recipe(request, backbone, dataset.name)
        options = backbone.options({**chosen.options, **chosen_options(request, backbone)})
        starting, lack = ("none", None) if request.from_scratch else _pretrained(backbone, options, request.paths)
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
        found = [*why.of_backbone(backbone), lack, self.seen[dataset.name].problem]
        # A further dataset that can be read but not scored costs its own scores alone: the run says so and goes on.
        found += [self.seen[other.name].problem for other in others if self.seen[other.name].facts is None]
        problems = tuple(p for p in (*found, *self._misfits(backbone, options, chosen, dataset)) if p)
        unscored = tuple(p for other in others if (p := self.seen[other.name].problem))
        asked = asked_for(request, backbone, chosen.about)
        specs = [structs.replace(spec, seed=seed) for seed in request.seeds]
        cells = [planned(request, one, self.index, problems, asked) for one in specs]
        return [_with_warnings(cell, unscored) if cell.state == TODO else cell for cell in cells]

    def _misfits(
        self, backbone: BackboneEntry, options: dict[str, Any], chosen: Recipe, dataset: DatasetEntry
    ) -> Iterator[Problem]:
        """Yields what backbone, recipe, dataset and device cannot do together, as far as cards and counts tell."""
        facts = self.seen[dataset.name].facts
        if backbone.embeds_cameras(options) and not dataset.card.knows_cameras:
            yield why.plain(
                f"{backbone.name} embeds the camera of every image, and the cameras of {dataset.name} are unknown: "
                "pass --camera-embedding off.",
                "unknown cameras",
            )
        elif backbone.embeds_cameras(options) and facts and facts.unseen:
            yield why.plain(
                f"{backbone.name} embeds the camera of every image, but the camera of {facts.unseen[0]} has no "
                "training image: add one, or pass --camera-embedding off.",
                "untrained camera",
            )
        if not backbone.card.trainable or not chosen.training.epochs:
            return
        if recipe.uses_ratr(chosen.loss) and backbone.has_one_branch(options):
            yield why.plain(
                f"RATR compares branches, but {backbone.name} has only one with these options: pass "
                "--set loss.ratr_intra=0 --set loss.ratr_inter=0.",
                "one branch",
            )
        if chosen.training.precision == "fp16" and self.specs.device == "cpu":
            yield why.plain("training.precision 'fp16' needs a GPU: set it to fp32 or bf16 on a CPU.", "fp16 on a CPU")
        if problem := why.uneven_parts(chosen, self.request.processes):
            yield problem
        held_out = round((self.request.holdout or {}).get("share", 0) * facts.identities) if facts else 0
        if facts and (there := facts.identities - held_out) < chosen.sampler.identities:
            yield why.plain(
                f"A batch needs {chosen.sampler.identities} identities, but the training images of {dataset.name} show "
                f"only {there}{' without those held out' if held_out else ''}: pass --set sampler.identities={there}.",
                "too few identities",
            )


@dataclass(frozen=True)
class _Data:
    """A dataset as the plan sees it; `facts` is None where it cannot be read."""

    facts: Facts | None
    problem: Problem | None = None

    @property
    def fingerprint(self) -> str:
        return self.facts.fingerprint if self.facts else ""


def _look_at(entry: DatasetEntry, request: Request) -> _Data:
    """The facts, and why the dataset cannot be trained or scored on.

    Raises:
        UsageError: a reader option that the dataset does not have.
    """
    from datasets import layouts

    options = request.dataset_options.get(entry.name, {})
    splits = ("train",) if request.holdout else SPLITS  # in a search the files of the test split may be absent
    root = Path(request.paths.data_root or ".")
    try:
        facts = layouts.facts(entry, root, splits=splits, **options)
    except UsageError as error:
        if options:  # most likely it is about them
            raise
        return _Data(None, why.plain(str(error), "wrong card"))
    except HarnessError as error:
        found = _is_complete(entry, root, str(options.get(layouts.VERSION, "")), splits)
        return _Data(None, why.of_data(entry, error, request.paths.data_root, found=found))
    if facts.queries and not facts.matched:
        return _Data(facts, why.unmatched(entry, facts.queries, request.paths.data_root))
    return _Data(facts)


def _is_complete(entry: DatasetEntry, root: Path, version: str, splits: Sequence[str]) -> bool:
    """Whether a folder of the dataset has all that must be there, so that an error is about its contents."""
    from datasets import layouts

    try:
        layouts.find(entry, root, version, splits)
    except HarnessError:
        return False
    return True


def _with_warnings(cell: Planned, unscored: tuple[Problem, ...]) -> Planned:
    """The run with the further datasets that cannot be scored."""
    return replace(cell, reason="; ".join([cell.reason, *(p.text for p in unscored)]), problems=unscored)


def _pretrained(backbone: BackboneEntry, options: dict[str, Any], paths: LocalPaths) -> tuple[str, Problem | None]:
    """Identity of the starting weights, and why they cannot be used."""
    card = backbone.card
    if (start := weights.wanted(card, options)) is None:
        return "none", None
    try:
        if (found := weights.locate(card, paths.weights_root, options)) is not None:
            weights.check_kind(found)
        identity = weights.identity(card, paths.weights_root, options)
    except HarnessError as error:
        return "missing", why.wrong_weights(backbone, error)
    if identity != "none":
        return identity, None
    return "missing", why.missing_weights(backbone, start.files, paths)
