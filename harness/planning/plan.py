"""Planning: backbones x datasets x seeds become run specs, each cached, to do or blocked, with the reason.

Planning is pure: the same request gives the same ids. No image is opened and no torch, ray or mlflow imported.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import PROTOCOL_VERSION, registry, weights
from harness.cards import LARGEST
from harness.contracts import SPLITS
from harness.errors import HarnessError, UsageError, unknown
from harness.records import store
from harness.registry import BackboneEntry, DatasetEntry, timm_names
from harness.spec import recipe
from harness.spec.job import LocalPaths, run_folder
from harness.spec.recipe import Recipe
from harness.spec.run_spec import RunSpec
from harness.system import gpu

if TYPE_CHECKING:
    from datasets.fingerprint_cache import Facts

CACHED, TODO, BLOCKED = "cached", "to do", "blocked"


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Attributes:
        backbones: comma list of names, or `all`.
        datasets: comma list of names, or `all`.
        recipe: name or path of the recipe.
        seeds: seeds to run.
        results: folder of the records.
        paths: folders of this machine.
        device: `auto`, `cpu` or `cuda`.
        options: build options, per backbone name, or under `""` for every backbone that has them.
        dataset_options: reader options, per dataset name.
        overrides: recipe keys (dotted) laid over the recipe.
        eval_datasets: further datasets every model is scored on, comma list.
        from_scratch: start from random weights instead of the card's pretrained file.
        force: run again what is finished.
        preset: name of the preset whose values the others hold, for the record alone.
        holdout: seed and share of held-out training identities; if given, runs are trials of a search, which read
            the training split alone.
    """

    backbones: str = "all"
    datasets: str = "all"
    recipe: str = "unified"
    seeds: tuple[int, ...] = (0,)
    results: Path = Path("results")
    paths: LocalPaths = field(default_factory=LocalPaths)
    device: str = "auto"
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    dataset_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    eval_datasets: str = ""
    from_scratch: bool = False
    force: bool = False
    preset: str = ""
    holdout: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """One cell of the plan; a blocked one tells its problems one by one.

    `asked` is what the user typed for it, see `asked_for`.
    """

    spec: RunSpec
    state: str
    reason: str
    folder: Path
    problems: tuple[str, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)

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
    plugins = Path(request.paths.plugins) if request.paths.plugins else None
    chosen = registry.resolve_backbones(request.backbones, plugins)
    trained_on = registry.resolve_datasets(request.datasets, plugins)
    scored_on = registry.resolve_datasets(request.eval_datasets, plugins) if request.eval_datasets else []
    check_options(request, chosen)
    seen: dict[str, _Data] = {}
    for entry in {e.name: e for e in [*trained_on, *scored_on]}.values():
        seen[entry.name] = _look_at(entry, request)
    state = _State(request, resolve_device(request.device), seen, store.index(request.results))
    return [cell for backbone in chosen for dataset in trained_on for cell in state.cells(backbone, dataset, scored_on)]


def load_recipe(request: Request, backbone: BackboneEntry, dataset: str) -> Recipe:
    """The recipe as this backbone runs it on this dataset: file, variant, then the user's overrides."""
    path = recipe.find(request.recipe, backbone.native_recipe)
    settings = backbone.settings
    own = settings.dataset.get(dataset, {}) if path == backbone.native_recipe else {}
    return recipe.load(path, dataset, {**settings.recipe, **own, **request.overrides})


def resolve_device(device: str) -> str:
    """`auto` is `cuda` where the driver shows a device that is not hidden, told without importing torch."""
    if device not in ("auto", "cpu", "cuda"):
        raise unknown("device", device, ("auto", "cpu", "cuda"))
    if device != "auto":
        return device
    return "cuda" if gpu.driver() and gpu.names() else "cpu"


@functools.cache
def torch_version() -> str:
    """Major.Minor of the installed torch, told without importing it."""
    return ".".join(importlib.metadata.version("torch").split(".")[:2])


@dataclass(frozen=True)
class _State:
    """What is looked up once for the whole plan."""

    request: Request
    device: str
    seen: dict[str, _Data]
    index: dict[str, store.Entry]
    sources: dict[str, str] = field(default_factory=dict)

    def cells(self, backbone: BackboneEntry, dataset: DatasetEntry, others: list[DatasetEntry]) -> list[Planned]:
        """One cell a seed: the spec, then what stands in its way, then what is known of it."""
        request = self.request
        chosen = load_recipe(request, backbone, dataset.name)
        options = backbone.options({**chosen.options, **chosen_options(request, backbone)})
        starting, problem = ("none", "") if request.from_scratch else _pretrained(backbone, options, request.paths)
        others = [other for other in others if other.name != dataset.name]
        spec = RunSpec(
            backbone=backbone.name,
            dataset=dataset.name,
            recipe=chosen.name,
            values=chosen.values(),
            seed=0,
            device=self.device,
            protocol=PROTOCOL_VERSION,
            torch=torch_version(),
            source=self._source(backbone),
            pretrained=starting,
            fingerprint=self.seen[dataset.name].fingerprint,
            dataset_options={e.name: o for e in (dataset, *others) if (o := request.dataset_options.get(e.name))},
            options=options,
            evaluate_on=tuple((other.name, self.seen[other.name].fingerprint) for other in others),
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
        cells = [replace(self._cell(replace(spec, seed=seed), found), asked=asked) for seed in request.seeds]
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
        if chosen.training.precision == "fp16" and self.device == "cpu":
            yield "training.precision 'fp16' needs a GPU; use fp32 or bf16 on a CPU."
        if facts and facts.identities < chosen.sampler.identities:
            yield (
                f"A batch needs {chosen.sampler.identities} identities, but the training images of {dataset.name} show "
                f"only {facts.identities}: set sampler.identities to {facts.identities} or less."
            )

    def _cell(self, spec: RunSpec, problems: tuple[str, ...]) -> Planned:
        folder = run_folder(self.request.results, spec)
        if problems:
            return Planned(spec, BLOCKED, " ".join(problems), folder, problems)
        return Planned(spec, *self._known(spec, folder), folder)

    def _source(self, backbone: BackboneEntry) -> str:
        name = backbone.card.name
        if name not in self.sources:  # not `setdefault`, which would hash the files once a run
            self.sources[name] = backbone.source_hash()
        return self.sources[name]

    def _known(self, spec: RunSpec, folder: Path) -> tuple[str, str]:
        entry = self.index.get(spec.run_id)
        status = entry.status if entry else ""
        if status == "ok" and not self.request.force:
            return CACHED, "finished"
        if status == "ok":
            return TODO, "finished before; --force"
        if status:
            return TODO, f"{status} before"
        return TODO, "goes on from its checkpoint" if (folder / "checkpoint.pt").exists() else "new"


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


def chosen_options(request: Request, backbone: BackboneEntry) -> dict[str, Any]:
    """The user's options for this backbone; those without a backbone's name go to all that declare them."""
    shared = {k: v for k, v in request.options.get("", {}).items() if k in backbone.card.options}
    return {**shared, **request.options.get(backbone.card.name, {}), **request.options.get(backbone.name, {})}


def asked_for(request: Request, backbone: BackboneEntry | None, about: str = "") -> dict[str, Any]:
    """What the user typed for this backbone, and the recipe's `about`; the record keeps it beside the spec.

    A recipe file or plug-in of the user cannot be looked up later, so no command could be derived from the spec alone.
    """
    options, preset = chosen_options(request, backbone) if backbone else {}, request.preset
    return {"recipe": request.recipe, "about": about, "preset": preset, "options": options, "set": request.overrides}


def check_options(request: Request, chosen: Sequence[BackboneEntry]) -> None:
    """Refuses options without a backbone's name that none of the backbones declares, and unknown names of models."""
    check_models(chosen)
    for key in request.options.get("", {}):
        if not any(key in backbone.card.options for backbone in chosen):
            raise unknown("backbone option", key, [k for b in chosen for k in b.card.options])


def check_models(chosen: Sequence[BackboneEntry]) -> None:
    """Refuses backbones named after a timm model that timm does not know."""
    for backbone in chosen:
        if backbone.names_timm_model and (problem := timm_names.problem(backbone.variant)):
            raise UsageError(problem)


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parses `0,1,2`."""
    try:
        seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError as error:
        raise UsageError(f"--seeds wants whole numbers separated by commas, found '{text[:100]}'.") from error
    if wrong := [seed for seed in seeds if not 0 <= seed < LARGEST]:
        raise UsageError(f"A seed is a whole number from 0 to 2^63 - 1, found {str(wrong[0])[:100]}.")
    return seeds
