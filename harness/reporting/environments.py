"""Hardware and software of the runs: a line per device for the overview, and a table of all environments."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from harness.reporting import text
from harness.reporting.rows import device
from harness.reporting.section import Context, Section, folded
from harness.spec.run_spec import canonical

MOST_LINES = 50
MOST_NAMES = 3

KINDS = {"search": "search trial", "profile": "efficiency measurement"}
"""What a record is called by its source; all others are scored runs."""


def places(context: Context) -> str:
    """Markdown that says what was run where: one row per device and origin, most runs first."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for record in context.data.records:
        found[context.data.origin(record), device(record)].append(record)
    several = len({origin for origin, _ in found}) > 1
    lines = []
    for (origin, name), records in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        scored = [record for record in records if record["source"] not in KINDS]
        lines.append(
            ({"Origin": text.escape(origin)} if several else {})
            | {
                "Device": text.escape(name),
                "Runs": kinds(records),
                "Backbones": _names(r["spec"]["backbone"] for r in records),
                "Datasets": _names(context.data.title(r["spec"]["dataset"]) for r in scored),
                "torch": _names(r["environment"].get("torch") or text.NOT_RECORDED for r in records),
                "Commits": _names(str(r["environment"].get("git_commit") or "")[:7] for r in records),
            }
        )
    return text.table(lines)


def kinds(records: Collection[Mapping[str, Any]]) -> str:
    """Numbers of scored runs, trials and measurements, as text."""
    counts = Counter(KINDS.get(r["source"], "scored run") for r in records)
    return ", ".join(text.count(counts[kind], kind) for kind in ("scored run", *KINDS.values()) if counts[kind])


def covered(records: Collection[Mapping[str, Any]]) -> list[str]:
    """Numbers of backbones and of datasets, as text; `profile` needs no dataset."""
    backbones = len({r["spec"]["backbone"] for r in records})
    datasets = len({r["spec"]["dataset"] for r in records if r["source"] != "profile"})
    return [text.count(backbones, "backbone"), *([text.count(datasets, "dataset")] if datasets else [])]


def _names(values: Any) -> str:
    """Up to three names, else their number."""
    names = sorted({value for value in values if value})
    return text.escape(", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)}") or text.NOT_APPLICABLE


def build(context: Context) -> Section:
    """One row per environment, most runs first."""
    found = {canonical(r["environment"]): r["environment"] for r in context.data.records}
    shown = {raw: _key(environment) for raw, environment in found.items()}
    counts = Counter(shown[canonical(r["environment"])] for r in context.data.records)
    names = ("Device", "Driver", "CUDA", "cuDNN", "Python", "torch", "Packages", "Commit", "Deterministic")
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    lines = [{**dict(zip(names, key, strict=True)), "Runs": str(number)} for key, number in order]
    if not lines:
        return Section()
    about = (
        "Hardware and software of all runs. Packages is a hash of all installed package versions; Commit is the commit "
        "of this repository."
    )
    rest = f"{text.count(len(lines) - MOST_LINES, 'more environment')} not shown." if len(lines) > MOST_LINES else ""
    return Section(folded("Environments", _summary(lines), about, text.table(lines[:MOST_LINES], ("Runs",)), rest))


def _summary(lines: Collection[Mapping[str, str]]) -> str:
    return f"{text.count(len(lines), 'combination')} of device, versions and commit"


def _key(environment: Mapping[str, Any]) -> tuple[str, ...]:
    gpu, cpu = environment.get("gpu"), environment.get("cpu")
    commit = str(environment.get("git_commit") or "")[:12]
    changed = ", with uncommitted changes" if environment.get("git_dirty") else ""
    deterministic = {True: "yes", False: "no"}.get(environment.get("deterministic"), text.NOT_RECORDED)  # type: ignore[arg-type]
    on_gpu = text.NOT_RECORDED if gpu else text.NOT_APPLICABLE
    return (
        text.escape(gpu or cpu or text.NOT_RECORDED),
        *(text.escape(environment.get(name) or on_gpu) for name in ("driver", "cuda", "cudnn")),
        *(text.escape(environment.get(name) or text.NOT_RECORDED) for name in ("python", "torch")),
        text.escape(str(environment.get("packages_hash") or text.NOT_RECORDED)[:12]),
        f"{text.code(commit)}{changed}" if commit else text.NOT_RECORDED,
        deterministic,
    )
