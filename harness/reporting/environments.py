"""Hardware and software environments of the runs, with the number of runs in each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from harness.reporting import text
from harness.reporting.section import Context, Section, paragraphs
from harness.spec.run_spec import canonical

MOST_LINES = 50


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
    return Section(paragraphs("## Environments", about, text.table(lines[:MOST_LINES], ("Runs",)), rest))


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
