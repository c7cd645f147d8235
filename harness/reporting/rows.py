"""Groups records into rows: runs that differ only in the seed form one configuration; each test of it is a row."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from harness.planning.budget import TUNED
from harness.records.schema import matched
from harness.reporting import text
from harness.reporting.report_data import ReportData
from harness.spec import recipe
from harness.spec.names import SCORED
from harness.spec.run_spec import canonical

EPOCHS = "training.epochs"
CODE = "code"
FURTHER_TESTS = ("evaluation.rerank", "evaluation.untrained")
"""Keys that add tests to a run and change no other score; labels leave them out where they can."""

CAMERAS_OFF = ", camera embedding off"
"""End of the recipe of a table without camera ids."""

SHOWN_DIFFERENCES = 3
"""Number of differing keys shown in the label of a configuration; further ones are counted."""


class EvalVariant(NamedTuple):
    """How features are scored; sorts from the plain test to re-ranking, with the untrained model last."""

    untrained: bool
    rerank: bool
    flip: bool

    @property
    def label(self) -> str:
        """Text of the column Test."""
        extras = [name for name, on in (("flip", self.flip), ("re-ranking", self.rerank)) if on]
        return "before training" if self.untrained else " + ".join(extras) or "plain"


PLAIN = EvalVariant(untrained=False, rerank=False, flip=False)


class TableKey(NamedTuple):
    """What all rows of a table have in common; rows of different tables are not comparable."""

    dataset: str
    trained_on: str
    recipe: str
    generated: bool
    protocol: str


@dataclass(frozen=True)
class RunGroup:
    """A configuration: runs of one backbone, recipe and dataset that differ only in the seed; sorted by seed.

    Attributes:
        runs: their records.
        origin: name of their results folder, if the report merges several.
    """

    runs: Sequence[Mapping[str, Any]]
    origin: str = ""

    @property
    def spec(self) -> dict[str, Any]:
        """Spec of the first run."""
        return self.runs[0]["spec"]

    @property
    def backbone(self) -> str:
        """Registered name with the variant."""
        return self.spec["backbone"]

    @property
    def source(self) -> str:
        """Origin of the numbers: `trained`, `published-checkpoint` or `features`."""
        return self.runs[0]["source"]

    @cached_property
    def ok(self) -> list[Mapping[str, Any]]:
        """Finished runs."""
        return [run for run in self.runs if run["status"] == "ok"]

    @cached_property
    def flat(self) -> dict[str, Any]:
        """All parts of the spec that may differ between configurations, by dotted key."""
        spec = {k: v for k, v in self.spec.items() if k not in ("seed", "backbone", "dataset", "recipe", "protocol")}
        flat: dict[str, Any] = {"source of the numbers": self.source, "origin": self.origin}
        flatten({**spec.pop("options"), **spec.pop("values")}, "", flat)
        flatten({(CODE if k == "source" else k): v for k, v in spec.items()}, "", flat)
        return flat

    @property
    def untrained(self) -> bool:
        """Whether the starting weights were scored without training."""
        return self.source == "trained" and self.flat.get(EPOCHS) == 0

    @property
    def started(self) -> str:
        """Start of its newest finished run, which sorts by time; empty if there is none."""
        return max((str(run["timing"].get("started") or "") for run in self.ok), default="")

    @property
    def start(self) -> str:
        """Status text for starting weights that were scored without training."""
        return "pretrained start, not trained" if self.spec.get("pretrained", "none") != "none" else "not trained"

    def status(self) -> str:
        """'ok', or the number of runs per status."""
        counts = Counter(run["status"] for run in self.runs)
        if set(counts) == {"ok"}:
            return "ok"
        return ", ".join(f"{counts[s]} {s}" for s in sorted(counts, key=lambda s: (s != "ok", s)))


@dataclass(frozen=True)
class Row:
    """One configuration with one test on one dataset: its evaluations, one per finished run."""

    setting: RunGroup
    test: EvalVariant
    label: str
    scored: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]

    def values(self, name: str) -> list[float]:
        """The recorded values of a metric over the seeds."""
        return [e[name] for _, e in self.scored if e.get(name) is not None]

    def mean(self, name: str) -> float:
        """Mean of a metric over the seeds, as a fraction."""
        return statistics.fmean(self.values(name))

    def deviation(self, name: str) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        values = self.values(name)
        if len(values) < 2:
            return None
        mean = statistics.fmean(values)
        return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))

    def interval(self, name: str) -> list[float] | None:
        """Interval over the query set, with bounds averaged over the seeds; None if any is not recorded."""
        bounds = [e["interval"][name] for _, e in self.scored if e["interval"].get(name)]
        return [statistics.fmean(b[i] for b in bounds) for i in (0, 1)] if len(bounds) == len(self.scored) else None

    def efficiency(self, *names: str) -> float | None:
        """Median over the seeds of the first of these metrics that is recorded."""
        for name in names:
            values = [r["efficiency"][name] for r, _ in self.scored if r["efficiency"].get(name) is not None]
            if values:
                return statistics.median(values)
        return None

    def disturbed(self) -> bool:
        """Whether other processes used the device while the speed of any seed was measured."""
        return any(other_work(run["efficiency"]) for run, _ in self.scored)

    def matched(self) -> str:
        """Text about queries without a match; empty if all queries have one."""
        return "; ".join(sorted({matched(e) for _, e in self.scored} - {""}))

    def shown(self, name: str) -> str:
        """Mean and deviation of a metric, in percent."""
        return text.spread(self.mean(name), self.deviation(name))

    def mAP(self) -> str:
        """Mean and deviation of mAP, in percent, with a note about queries without a match."""
        return self.shown("mAP") + (f" ({words})" if (words := self.matched()) else "")

    def image_size(self) -> list[int] | None:
        """(height, width) of the input."""
        return image_size(self.scored[0][0])

    def origins(self) -> dict[str, list[str]]:
        """Commits and package hashes of its runs, if they differ."""
        environments = [run["environment"] for run, _ in self.scored]
        commits = {
            f"{str(e['git_commit'])[:12]}{'+' * bool(e.get('git_dirty'))}" for e in environments if e.get("git_commit")
        }
        packages = {str(e["packages_hash"])[:12] for e in environments if e.get("packages_hash")}
        found = {"commits": commits, "packages": packages}
        return {name: sorted(values) for name, values in found.items() if len(values) > 1}


@dataclass(frozen=True)
class Table:
    """The rows of one dataset and recipe, and its configurations without a finished run, with their labels."""

    key: TableKey
    rows: Sequence[Row]
    unfinished: Sequence[tuple[str, RunGroup]]

    def settings(self) -> list[RunGroup]:
        """All configurations, those without a finished run last."""
        found = [*(row.setting for row in self.rows), *(setting for _, setting in self.unfinished)]
        return list({id(setting): setting for setting in found}.values())

    def plain(self) -> list[Row]:
        """One row per configuration: the plain test, or else the flip test; never re-ranked or untrained."""
        best: dict[str, Row] = {}
        for row in self.rows:
            if not row.test.untrained and not row.test.rerank:
                best.setdefault(row.label, row)
        return list(best.values())


def matched_in(rows: Sequence[Row]) -> list[str]:
    """Texts about queries without a match, for all rows that have such queries."""
    return sorted({row.matched() for row in rows} - {""})


def other_work(numbers: Mapping[str, Any]) -> float:
    """CPU cores, or GiB of GPU memory, used by other processes during the measurement; 0 if negligible."""
    seen = numbers.get("conditions") or {}
    if numbers.get("device") == "cuda":
        found, least = (seen.get("foreign_gpu_bytes") or 0) / 2**30, 1.0
    else:
        found, least = seen.get("others_cores") or 0.0, 0.1
    return float(found) if found > least else 0.0


def image_size(record: Mapping[str, Any]) -> list[int] | None:
    """Input size of a run, (height, width)."""
    size = record["efficiency"].get("image_size")
    return size or record["spec"]["values"].get("augmentation", {}).get("image_size")


def device(record: Mapping[str, Any]) -> str:
    """Name of the device on which the speed of a run was measured."""
    environment, kind = record["environment"], record["efficiency"].get("device") or record["spec"]["device"]
    return str(environment.get("gpu") or kind) if str(kind).startswith("cuda") else str(environment.get("cpu") or kind)


def settings(
    records: Sequence[Mapping[str, Any]], origin: Callable[[Mapping[str, Any]], str] = lambda record: ""
) -> list[RunGroup]:
    """Groups records that differ only in the seed; the result does not depend on their order.

    Args:
        records: the records.
        origin: returns the name of a record's results folder. Runs of different folders are never in one group.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        spec = {k: v for k, v in record["spec"].items() if k != "seed"}
        groups[(spec["dataset"], spec["backbone"], record["source"], canonical(spec), origin(record))].append(record)
    return [
        RunGroup(sorted(groups[key], key=lambda r: (r["spec"]["seed"], r["run_id"])), key[-1]) for key in sorted(groups)
    ]


def tables(data: ReportData) -> list[Table]:
    """All tables of scored runs; real before generated data, same-dataset before cross-domain tables."""
    of_table: dict[TableKey, list[RunGroup]] = defaultdict(list)
    elsewhere = _tuned(data)
    scored = [r for r in data.records if r["source"] in SCORED and r["run_id"] not in elsewhere]
    generated = {part for record in scored for part in _generated(record)}
    for setting in settings(scored, data.origin):
        for key in _keys(setting, generated):
            of_table[key].append(setting)
    made = [
        _table(key, list(zip(_labels(members), members, strict=True)))
        for key, members in _cameras_apart(of_table).items()
    ]
    return sorted(made, key=lambda t: (t.key.generated, t.key.dataset != t.key.trained_on, t.key))


def tables_of(named: Sequence[tuple[str, RunGroup]], recipe: str) -> list[Table]:
    """Tables of configurations that have labels already, one per dataset that they were scored on.

    Args:
        named: labels and runs.
        recipe: what the titles call their recipe.
    """
    generated = {part for _, setting in named for run in setting.runs for part in _generated(run)}
    of_table: dict[TableKey, list[tuple[str, RunGroup]]] = defaultdict(list)
    for label, setting in named:
        for key in _keys(setting, generated):
            of_table[key._replace(recipe=recipe)].append((label, setting))
    return [_table(key, of_table[key]) for key in sorted(of_table)]


def _tuned(data: ReportData) -> set[str]:
    """Ids of the runs with settings that a study chose, which are in tables of their own.

    Former choices are among them: a trial that failed and was repeated may have changed the choice.
    """
    studied = {(s.spec.backbone, s.spec.dataset) for s in data.searches if s.settings.tuned}
    runs = (record for record in data.records if record["spec"]["recipe"] == TUNED)
    return {r["run_id"] for r in runs if (r["spec"]["backbone"], r["spec"]["dataset"]) in studied}


def _cameras_apart(of_table: Mapping[TableKey, list[RunGroup]]) -> dict[TableKey, list[RunGroup]]:
    """Gives runs without camera embedding a table of their own, if one of their backbones also has runs with it.

    Backbones that never embed cameras are in both tables.
    """
    found = {}
    for key, members in of_table.items():
        embedding = {setting.backbone for setting in members if _embeds_cameras(setting)}
        off = [s for s in members if s.backbone in embedding and not _embeds_cameras(s)]
        others = [s for s in members if s.backbone not in embedding]
        found[key] = [s for s in members if s.backbone not in embedding or _embeds_cameras(s)]
        if off:
            found[key._replace(recipe=key.recipe + CAMERAS_OFF)] = sorted([*off, *others], key=members.index)
    return found


def _embeds_cameras(setting: RunGroup) -> bool:
    return setting.spec["options"].get("camera_embedding", False) not in (False, 0, "off")


def fingerprint(spec: Mapping[str, Any], dataset: str) -> str:
    """Fingerprint of a dataset that a run used; empty if not recorded."""
    return dict(_fingerprints(spec)).get(dataset, "")


def _generated(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and fingerprint of the generated datasets of a run."""
    spec, data = record["spec"], record["data"]
    read = {spec["dataset"]: data, **(data.get("evaluated") or {})}
    return [part for part in _fingerprints(spec) if (read.get(part[0]) or {}).get("generated")]


def _fingerprints(spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(spec["dataset"], spec.get("fingerprint", "")), *((n, f) for n, f in spec.get("evaluate_on") or ())]


def _keys(setting: RunGroup, generated: set[tuple[str, str]]) -> list[TableKey]:
    """Tables of a configuration: one per dataset it was scored on, or that of its own dataset if no run finished.

    For runs that failed before reading their data, the fingerprint shows whether it was generated.
    """
    spec, protocol = setting.spec, setting.runs[0]["protocol_version"]
    own = (spec["dataset"], spec.get("fingerprint", "")) in generated
    scored_on = {e["dataset"] for run in setting.ok for e in run["evaluations"]} or {spec["dataset"]}
    return [
        TableKey(name, spec["dataset"], spec["recipe"], own or (name, fingerprint(spec, name)) in generated, protocol)
        for name in sorted(scored_on)
    ]


def _table(key: TableKey, named: Sequence[tuple[str, RunGroup]]) -> Table:
    rows, unfinished = [], []
    for label, setting in named:
        tests: dict[EvalVariant, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = defaultdict(list)
        for run in setting.ok:
            for e in run["evaluations"]:
                if e["dataset"] == key.dataset:
                    before = not e["trained"] and not setting.untrained
                    tests[EvalVariant(before, e["rerank"], e["flip"])].append((run, e))
        rows += [Row(setting, test, label, tests[test]) for test in sorted(tests)]
        if not tests:
            unfinished.append((label, setting))
    return Table(key, rows, unfinished)


def _labels(members: Sequence[RunGroup]) -> list[str]:
    """Label of each configuration: its backbone, and its differences from others with the same backbone."""
    of_backbone: dict[str, list[RunGroup]] = defaultdict(list)
    for setting in members:
        of_backbone[setting.backbone].append(setting)
    different = {name: _different(group) for name, group in of_backbone.items()}
    return [_label(setting, different[setting.backbone]) for setting in members]


def _different(group: Sequence[RunGroup]) -> list[str]:
    """Keys whose values differ, the most telling first: without those of further tests, unless nothing else differs."""
    flats = [setting.flat for setting in group]
    # The label of an untrained configuration already says that it has no epochs.
    epochs = {canonical(setting.flat.get(EPOCHS)) for setting in group if not setting.untrained}
    keys = [key for key in different(flats) if key != EPOCHS or len(epochs) > 1]
    telling = sorted((key for key in keys if key not in FURTHER_TESTS), key=lambda key: (key == CODE, key))
    told = {canonical([one.untrained, *(one.flat.get(key) for key in telling)]) for one in group}
    if len(told) == len(group):
        return telling
    return [*telling, *(key for key in keys if key in FURTHER_TESTS)]


def _label(setting: RunGroup, keys: Sequence[str]) -> str:
    parts = ["not trained"] if setting.untrained else []
    parts += differences(setting.flat, keys, f"run {setting.runs[0]['run_id'][:8]}")
    return f"{setting.backbone} ({', '.join(parts)})" if parts else setting.backbone


def different(flats: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys whose values differ, sorted."""
    keys = sorted({key for flat in flats for key in flat})
    return [key for key in keys if len({canonical(flat.get(key)) for flat in flats}) > 1]


def differences(flat: Mapping[str, Any], keys: Sequence[str], name: str) -> list[str]:
    """Values of the first few keys; if there are more keys, their number, and the name that tells rows apart."""
    parts = [f"{key}={_short(flat.get(key))}" for key in keys[:SHOWN_DIFFERENCES]]
    if len(keys) > SHOWN_DIFFERENCES:
        parts += [f"and {text.count(len(keys) - SHOWN_DIFFERENCES, 'more difference')}", name]
    return parts


def _short(value: Any) -> str:
    """A value in a label; hashes are shortened to eight digits."""
    words = value if isinstance(value, str) else canonical(value)
    return words[:8] if len(words) > 24 and all(c in "0123456789abcdef" for c in words) else words


def flatten(value: Any, prefix: str, flat: dict[str, Any]) -> None:
    """Adds the leaves of nested tables to `flat`, by dotted key."""
    for key, inner in value.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(inner, dict):
            flatten(inner, name, flat)
        else:
            flat[name] = recipe.shown(name, inner)
