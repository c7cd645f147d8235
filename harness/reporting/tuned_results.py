"""The numbers of `--recipe tuned`: the studies of each backbone, grouped into tables of equal budgets."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from harness.records import store
from harness.reporting.report_data import ReportData
from harness.spec.run_spec import canonical
from harness.tuning.cost import spent
from harness.tuning.space import Space
from harness.tuning.state import DIVERGED, FAILED, FINISHED, RUNNING, STOPPED, Final, Search, Trial
from harness.tuning.studies import BEST, FACTORS, RATE_TIMES, UNTUNED

Records = Mapping[str, Mapping[str, Any]]

FEWEST_FOR_IMPORTANCE = 20
"""Number of trials from which the importance of parameters is computed."""


class Key(NamedTuple):
    """What the rows of a table have in common."""

    dataset: str
    recipe: str
    space: str
    trials: int
    stopping: tuple[int, ...]
    epochs: int
    device: str


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
        """Held-out mAP of the first study by factor of the chosen learning rate."""
        search = self.searches[0]
        found = {1.0: search.best.value or 0.0} if search.best else {}
        for factor in FACTORS:
            name = f"{RATE_TIMES}{factor:g}"
            record = self._record(next((final for final in search.finals if final.name == name), None))
            if record is not None and (plain := store.plain(record)):
                found[factor] = float(plain["mAP"])
        return dict(sorted(found.items())) if len(found) > 1 else {}

    def states(self) -> Counter[str]:
        """Number of trials by state."""
        return Counter(trial.state for search in self.searches for trial in search.trials)

    @property
    def missing(self) -> int:
        """Number of trials of the budget that did not run, or failed; diverged and stopped trials count as run."""
        ended = sum(self.states()[state] for state in (FINISHED, STOPPED, DIVERGED))
        return sum(search.settings.samples for search in self.searches) - ended

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
            options = {k: v for k, v in search.spec.options.items() if k not in search.space.options(_middle(search))}
            groups[_key(search)][(search.spec.backbone, canonical(options))].append(search)
    return [Table(key, _rows(groups[key], records)) for key in sorted(groups)]


def studied(data: ReportData) -> set[str]:
    """Ids of the final runs with chosen settings, which are in tables of their own."""
    searches = (search for search in data.searches if search.settings.tuned)
    return {run for search in searches for final in search.finals if final.name == BEST for run in final.run_ids}


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
            if parameter.distribution == "choice":
                kinds[axis] = CategoricalDistribution(tuple(range(len(parameter.values))))
                params[axis] = parameter.values.index(trial.point[active])
            else:
                kinds[axis], params[axis] = FloatDistribution(0.0, 1.0), parameter.position(trial.point[active])
        score = value - middle[id(search)]
        study.add_trial(optuna.trial.create_trial(params=params, distributions=kinds, value=score))
    found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    total = sum(found.values())
    return {axis: found[axis] / total for axis in axes} if total > 0 else {}


def _axes(space: Space) -> dict[str, list[str]]:
    """Names of parameters by the recipe key or build option that they set."""
    axes: dict[str, list[str]] = {}
    for name, parameter in space.parameters.items():
        axes.setdefault(parameter.key.partition(".")[2], []).append(name)
    return axes


def _middle(search: Search) -> dict[str, Any]:
    return search.space.at(dict.fromkeys(search.space.parameters, 0.5))


def _key(search: Search) -> Key:
    spec, asha = search.spec, search.settings.asha
    return Key(
        spec.dataset,
        spec.recipe,
        search.space.name,
        search.settings.samples,
        tuple(asha.rungs),
        asha.epochs,
        spec.device,
    )


def _rows(groups: Mapping[tuple[str, str], list[Search]], records: Records) -> list[Tuned]:
    """A row per backbone and options; a backbone with several options gets a label that tells them apart."""
    names = Counter(backbone for backbone, _ in groups)
    rows = []
    for (backbone, options), searches in sorted(groups.items()):
        label = backbone
        if names[backbone] > 1:
            others = [s[0].spec.options for (name, o), s in groups.items() if name == backbone and o != options]
            own = searches[0].spec.options
            different = sorted(k for k, v in own.items() if any(other.get(k) != v for other in others))
            label += f" ({', '.join(f'{key}={own[key]}' for key in different)})"
        rows.append(Tuned(label, sorted(searches, key=lambda s: s.spec.seed), records))
    return rows
