"""The numbers of `--recipe tuned`: the studies of each backbone, grouped into tables of equal budgets."""

from __future__ import annotations

import hashlib
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from msgspec import structs

from harness.records import store
from harness.reporting import text
from harness.reporting.report_data import ReportData
from harness.reporting.rows import RunGroup, differences, different, flatten, tables_of
from harness.reporting.rows import Table as ScoredTable
from harness.spec.run_spec import canonical
from harness.tuning import space as spaces
from harness.tuning.cost import spent
from harness.tuning.space import Space
from harness.tuning.state import DIVERGED, FAILED, FINISHED, RUNNING, STOPPED, Final, Search, Trial
from harness.tuning.studies import BEST, FACTORS, RATE_TIMES, UNTUNED

Records = Mapping[str, Mapping[str, Any]]

FEWEST_FOR_IMPORTANCE = 20
"""Number of trials from which the importance of parameters is computed."""


class Key(NamedTuple):
    """What the rows of a table have in common.

    Attributes:
        stopping: epochs after which trials are compared; empty without early stopping, `(0,)` with a train time.
        epochs: epochs of each trial; 0 with a train time, which gives each backbone a number of its own.
        train_time: time of training of each run; empty if the number of epochs is fixed.
        origin: name of the results folder, if the report merges several.
        content: hash of the parameters of the space.
    """

    dataset: str
    recipe: str
    space: str
    trials: int
    stopping: tuple[int, ...]
    epochs: int
    train_time: str
    device: str
    origin: str
    protocol: str
    content: str


@dataclass(frozen=True)
class Tuned:
    """The studies of one backbone, sorted by their seeds."""

    label: str
    searches: Sequence[Search]
    records: Records

    @property
    def backbone(self) -> str:
        """Registered name with the variant."""
        return self.searches[0].spec.backbone

    def runs(self, name: str) -> list[Mapping[str, Any]]:
        """Records of the final runs of this name, by study."""
        finals = (next((f for f in search.finals if f.name == name), None) for search in self.searches)
        return [record for final in finals if (record := self._record(final)) is not None]

    def scores(self, name: str, metric: str = "mAP") -> dict[int, float]:
        """Test scores of the final runs of this name, by study."""
        scored = ((run["spec"]["seed"], store.plain(run)) for run in self.runs(name))
        return {seed: float(plain[metric]) for seed, plain in scored if plain}

    def _record(self, final: Final | None) -> Mapping[str, Any] | None:
        found = self.records.get(final.run_ids[0]) if final else None
        return found if found is not None and found["status"] == "ok" else None

    @cached_property
    def gains(self) -> list[float]:
        """Tuned minus untuned test mAP of each study that has both."""
        tuned, untuned = self.scores(BEST), self.scores(UNTUNED)
        return [tuned[seed] - untuned[seed] for seed in sorted(tuned.keys() & untuned.keys())]

    def values(self) -> list[list[float]]:
        """Held-out mAP of the trials of each study; a stopped trial counts with its last value."""
        ended = [[value for t in search.trials if (value := value_of(t)) is not None] for search in self.searches]
        return [values for values in ended if values]

    def rates(self) -> dict[float, float]:
        """Held-out mAP of the first study by factor of the chosen learning rate; 0 for a diverged run."""
        search = self.searches[0]
        found = {1.0: search.best.value or 0.0} if search.best else {}
        for factor in FACTORS:
            final = self.rate(factor)
            record = self._record(final)
            if record is not None and (plain := store.plain(record)):
                found[factor] = float(plain["mAP"])
            elif self.state(final) == DIVERGED:
                found[factor] = 0.0
        return dict(sorted(found.items())) if len(found) > 1 else {}

    def state(self, final: Final | None) -> str:
        """How a run after the choice ended, or `not run`."""
        record = self.records.get(final.run_ids[0]) if final else None
        return str(record["status"]) if record is not None else "not run"

    def rate(self, factor: float) -> Final | None:
        """The first study's run at a factor of the chosen learning rate."""
        return next((f for f in self.searches[0].finals if f.name == f"{RATE_TIMES}{factor:g}"), None)

    def states(self) -> Counter[str]:
        """Number of trials by state."""
        return Counter(trial.state for search in self.searches for trial in search.trials)

    @property
    def missing(self) -> int:
        """Number of trials of the budget that did not run, or failed; diverged and stopped trials count as run."""
        ended = sum(self.states()[state] for state in (FINISHED, STOPPED, DIVERGED))
        return sum(len(search.points()) for search in self.searches) - ended

    @property
    def points(self) -> int:
        """Smallest number of trials of a study; less than the budget if the space has no more points."""
        return min(len(search.points()) for search in self.searches)

    @property
    def seconds(self) -> float:
        """Device seconds of all its runs."""
        ids = {trial.run_id for search in self.searches for trial in search.trials}
        ids |= {run for search in self.searches for final in search.finals for run in final.run_ids}
        return spent(self.records[run] for run in ids if run in self.records)

    @property
    def expected(self) -> float | None:
        """Expected seconds of all its runs, by measured images/s; None if they were not measured before the start."""
        estimates = [search.estimate for search in self.searches]
        return None if None in estimates else sum(e or 0.0 for e in estimates)


@dataclass(frozen=True)
class Table:
    """Backbones with the same search."""

    key: Key
    rows: Sequence[Tuned]
    ambiguous: bool = False

    def choices(self) -> list[ScoredTable]:
        """The chosen networks as tables of scored runs, for sections about networks such as audits."""
        named = [(row.label, RunGroup(runs, self.key.origin)) for row in self.rows if (runs := row.runs(BEST))]
        return tables_of(named, f"tuned, {self.what}")

    def title(self, dataset: str) -> str:
        """The title, with the title of the dataset."""
        return f"{dataset}: {self.what}"

    @property
    def what(self) -> str:
        """The search in a few words; no other table has the same."""
        key = self.key
        trials = f"{text.count(key.trials, 'trial')} of {key.train_time or text.count(key.epochs, 'epoch')}"
        recipe = "" if self.base == "unified" else f", recipe {self.base}"
        stopping = "" if key.stopping else ", no early stopping"
        origin = f" ({key.origin})" if key.origin else ""
        return f"{trials} in the space {self.space_name}{recipe}{stopping}{origin}"

    @property
    def base(self) -> str:
        """Name of the recipe that was searched from, without a train time."""
        key = self.key
        return key.recipe.removesuffix(f"-{key.train_time}") if key.train_time else key.recipe

    @property
    def space_name(self) -> str:
        """Name of the space; with a hash if another table would have the same title."""
        if not self.ambiguous:
            return self.key.space
        return f"{self.key.space} {hashlib.sha256(''.join(self.key[-2:]).encode()).hexdigest()[:8]}"

    @property
    def space_word(self) -> str:
        """What `--space` needs: the name of a space that comes with the harness, or of a file."""
        return self.key.space if spaces.is_shipped(self.space) else f"{self.key.space}.toml"

    @property
    def space(self) -> Space:
        """The space with every parameter that any backbone has."""
        return max((row.searches[0].space for row in self.rows), key=lambda space: len(space.parameters))

    def complete(self, name: str) -> list[Tuned]:
        """Rows whose studies all have a final run of this name."""
        most = max(len(row.searches) for row in self.rows)
        return [row for row in self.rows if len(row.scores(name)) == len(row.searches) == most]


def tables(data: ReportData) -> list[Table]:
    """All tables, sorted."""
    records = {record["run_id"]: record for record in data.records}
    groups: dict[Key, dict[tuple[str, str], list[Search]]] = defaultdict(lambda: defaultdict(list))
    for search in data.searches:
        if search.settings.tuned:
            key = _key(search, records, data.search_origins.get(search.id, ""))
            groups[key][search.spec.backbone, canonical(_same(search))].append(search)
    alike = Counter(map(_shown, groups))
    return [Table(key, _rows(groups[key], records), ambiguous=alike[_shown(key)] > 1) for key in sorted(groups)]


def value_of(trial: Trial) -> float | None:
    """Held-out mAP of a trial that ended: of a stopped one the last, of a diverged one 0; None for the others."""
    if trial.state in (FINISHED, DIVERGED):
        return trial.value
    return trial.curve[trial.epochs] if trial.curve and trial.state not in (FAILED, RUNNING) else None


def importance(searches: Sequence[Search]) -> dict[str, float]:
    """Share of importance by what is set, with PED-ANOVA of Optuna; empty if there are too few trials.

    Conditional parameters that set the same key are one axis. Values are compared within a study: its median is
    subtracted.
    """
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    trials = [(s, t, value) for s in searches for t in s.trials if (value := value_of(t)) is not None]
    if len(trials) < FEWEST_FOR_IMPORTANCE:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    middle = {id(s): statistics.median(v for t in s.trials if (v := value_of(t)) is not None) for s in searches}
    axes = _axes(searches[0].space)
    study = optuna.create_study(direction="maximize")
    for search, trial, value in trials:
        params: dict[str, Any] = {}
        kinds: dict[str, optuna.distributions.BaseDistribution] = {}
        for axis, names in axes.items():
            active = next((name for name in names if trial.point[name] is not None), names[0])
            parameter = search.space.parameters[active]
            if parameter.distribution == "choice" and len(names) == 1:
                kinds[axis] = CategoricalDistribution(tuple(range(len(parameter.values))))
                params[axis] = parameter.index(trial.point[active])
            else:
                kinds[axis], params[axis] = FloatDistribution(0.0, 1.0), parameter.position(trial.point[active])
        score = value - middle[id(search)]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=score))
    found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    total = sum(found.values())
    return {axis: found.get(axis, 0.0) / total for axis in axes} if total > 0 else {}


def _axes(space: Space) -> dict[str, list[str]]:
    """Names of parameters by the recipe key or build option that they set."""
    axes: dict[str, list[str]] = {}
    for name, parameter in space.parameters.items():
        axes.setdefault(parameter.key.partition(".")[2], []).append(name)
    return axes


def _same(search: Search) -> dict[str, Any]:
    """What the studies of a row have in common, by dotted key: everything but the seed."""
    spec = search.spec.to_dict()
    for name in ("seed", "backbone", "holdout"):
        del spec[name]
    found: dict[str, Any] = {"space": _digest(search.space), "held out": search.holdout.fraction}
    flatten({**spec.pop("options"), **spec.pop("values")}, "", found)
    flatten({("code" if key == "source" else key): value for key, value in spec.items()}, "", found)
    return found


def _digest(space: Space) -> str:
    """Hash of everything but the description."""
    space = structs.replace(space, about="")
    return hashlib.sha256(canonical(space.identity()).encode()).hexdigest()


def _key(search: Search, records: Records, origin: str) -> Key:
    spec, asha = search.spec, search.settings.asha
    asked = (records[trial.run_id].get("request") or {} for trial in search.trials if trial.run_id in records)
    time = next((given["train_time"] for given in asked if given.get("train_time")), "")
    return Key(
        spec.dataset,
        spec.recipe,
        search.space.name,
        search.settings.samples,
        (0,) if time and asha.rungs else tuple(asha.rungs),
        0 if time else asha.epochs,
        time,
        spec.device,
        origin,
        spec.protocol,
        _digest(search.space.fitting(())),
    )


def _shown(key: Key) -> Key:
    """A key as titles show it."""
    return key._replace(protocol="", content="", stopping=key.stopping[:1] and (1,))


def _rows(groups: Mapping[tuple[str, str], list[Search]], records: Records) -> list[Tuned]:
    """A row per backbone and settings; a backbone with several settings gets labels that tell them apart."""
    of_backbone: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for (backbone, _), searches in groups.items():
        of_backbone[backbone].append(_same(searches[0]))
    rows = []
    for (backbone, _), searches in sorted(groups.items()):
        keys = different(of_backbone[backbone])
        parts = differences(_same(searches[0]), keys, f"search {searches[0].id[-10:]}")
        label = f"{backbone} ({', '.join(parts)})" if parts else backbone
        rows.append(Tuned(label, sorted(searches, key=lambda s: s.spec.seed), records))
    return rows
