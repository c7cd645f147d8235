"""Checks a results folder of somebody else: what is wrong, what is doubtful, and what could not be checked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, RecordError, UsageError
from harness.records import store
from harness.reporting.others import merge
from harness.reporting.others.checks import CHECKS, images
from harness.reporting.others.findings import Finding, Subject, wrong
from harness.spec.run_spec import canonical

NOT_CHECKED = (
    "whether the images were those of the dataset: a fingerprint covers names, sizes and labels, not pixels",
    "whether the network was trained as its spec says: only a repetition of the run shows it",
    "whether the values of the queries come from that network: only its checkpoint shows it (`evaluate`)",
    "whether the speed was measured on the device that the record names",
)
"""What no check of records can find."""


@dataclass(frozen=True)
class Checked:
    """A record and its findings; `run_id` is empty if the record could not be read."""

    path: str
    run_id: str
    about: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> str:
        """`wrong`, `doubtful` or `ok`."""
        weights = {finding.weight for finding in self.findings}
        return next((weight for weight in ("wrong", "doubtful") if weight in weights), "ok")


@dataclass(frozen=True)
class Outcome:
    """The check of a folder.

    Attributes:
        runs: its records, sorted by path.
        repeated: duplicates of the reader's own records and contradictions to them.
        not_checked: what no check of records can find.
    """

    runs: tuple[Checked, ...]
    repeated: tuple[str, ...]
    not_checked: tuple[str, ...] = NOT_CHECKED

    @property
    def counts(self) -> dict[str, int]:
        """Number of records by verdict."""
        found = Counter(run.verdict for run in self.runs)
        return {verdict: found[verdict] for verdict in ("ok", "doubtful", "wrong")}

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        runs = [
            {
                **{"path": run.path, "run_id": run.run_id, "about": run.about, "verdict": run.verdict},
                "findings": [finding._asdict() for finding in run.findings],
            }
            for run in self.runs
        ]
        return {
            **{"counts": self.counts, "runs": runs},
            **{"repeated": list(self.repeated), "not_checked": list(self.not_checked)},
        }


def check(folder: Path, own: Path | None = None, plugins: Path | None = None) -> Outcome:
    """Checks the records of a folder.

    Args:
        folder: results folder, or a copy of some of its run folders.
        own: the reader's own results, to compare with; None or a missing folder for nothing.
        plugins: folder of further plug-ins, whose cards are used, too.

    Raises:
        UsageError: the folder does not exist or has no records.
    """
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist. Pass the results folder that you received.")
    paths = store.paths_of(folder)
    if not paths:
        raise UsageError(
            f"There are no records in {folder}. They are expected as DATASET/BACKBONE/ID/{store.RECORD} below it."
        )
    theirs, unread = _read(folder, paths)
    mine = [] if own is None or own.resolve() == folder.resolve() else list(_read(own, store.paths_of(own))[0].values())
    shared = {**_known(plugins, theirs), "fingerprints": _fingerprints(mine), "counts": images.counts(mine)}
    runs = [_one(Subject(r, Path(path).parent, **shared), folder) for path, r in theirs.items()]
    ordered = sorted([*runs, *unread], key=lambda run: run.path)
    return Outcome(tuple(ordered), tuple(_repeated(list(theirs.values()), mine)))


def _read(folder: Path, paths: list[str]) -> tuple[dict[str, Mapping[str, Any]], list[Checked]]:
    """Records by path, and findings about those that cannot be read: schema, run id or place."""
    found: dict[str, Mapping[str, Any]] = {}
    unread: list[Checked] = []
    for path in paths:
        problems: list[RecordError] = []
        for record in store.records(folder, problems.append, paths=[path]):
            found[path] = record
        where = Path(path).relative_to(folder).as_posix()
        for problem in problems:
            words = str(problem).replace(f"{folder}/", "")
            unread.append(Checked(where, "", "unreadable", (wrong(words),)))
    return found, unread


def _known(plugins: Path | None, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Cards of this checkout, and the hash of the code of the backbones in the records."""
    from harness import registry

    entries = {entry.card.name: entry for entry in registry.backbones(plugins)}
    used = {record["spec"]["backbone"].partition(":")[0] for record in records.values()}
    sources = {}
    for name in used & set(entries):
        try:
            sources[name] = entries[name].source_hash()
        except HarnessError:
            continue
    return {
        "backbones": {name: entry.card for name, entry in entries.items()},
        "datasets": {entry.card.name: entry.card for entry in registry.datasets(plugins)},
        "sources": sources,
    }


def _one(subject: Subject, folder: Path) -> Checked:
    record, spec = subject.record, subject.record["spec"]
    findings = tuple(finding for check in CHECKS for finding in check(subject))
    where = (subject.folder / store.RECORD).relative_to(folder).as_posix()
    about = f"{spec['backbone']} on {spec['dataset']}, recipe {spec['recipe']}, seed {spec['seed']}"
    return Checked(where, record["run_id"], about, findings)


def _fingerprints(records: list[Mapping[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for record in records:
        spec = record["spec"]
        if record["data"].get("generated"):
            continue
        for name, value in [(spec["dataset"], spec.get("fingerprint", "")), *(spec.get("evaluate_on") or ())]:
            if value:
                found[name].add(value)
    return found


def _repeated(theirs: list[Mapping[str, Any]], mine: list[Mapping[str, Any]]) -> list[str]:
    """Runs that both have: duplicates and contradictions."""
    own = {record["run_id"]: {**record, merge.ORIGIN: "your results"} for record in mine}
    return [
        merge.relation(own[record["run_id"]], {**record, merge.ORIGIN: "theirs"})
        for record in sorted(theirs, key=lambda r: canonical(r["spec"]))
        if record["run_id"] in own
    ]
