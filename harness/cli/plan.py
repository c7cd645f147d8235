"""`plan`: what a run would do."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import click

from harness.cli.groups import command as grouped
from harness.cli.groups import option
from harness.cli.options import format_option, given, grid_options
from harness.execution import settings
from harness.planning import plan


@grouped(epilog="Example: python -m harness plan --backbones reidmamba,bot --datasets market1501,msmt17")
@grid_options
@option("Machine", "--address", default="", help="Ray cluster that the runs are for, as for 'run'.")
@format_option
def command(form: str, **values: Any) -> int:
    """Shows every run of the grid: cached, to do or blocked, and why. Nothing is run."""
    found = given(values, "backbones", "datasets")
    cells = plan.build(settings.resolve(values["backbones"], values["datasets"], found).request)
    if form == "json":
        click.echo(json.dumps([cell.to_dict() for cell in cells], indent=1))
    else:
        click.echo(table(cells))
    return 0


def table(cells: list[plan.Planned]) -> str:
    """The plan as text: one line per run, and below it each reason for blocked runs once."""
    width_b = max((len(c.spec.backbone) for c in cells), default=8)
    width_d = max((len(c.spec.dataset) for c in cells), default=8)
    lines: list[str] = []
    notes: dict[str, int] = {}
    for cell in cells:
        reason, spec = cell.reason, cell.spec
        if cell.problems and len(reason) > 60:
            numbers = [notes.setdefault(problem, len(notes) + 1) for problem in cell.problems]
            reason = "see " + ", ".join(f"[{number}]" for number in numbers)
        lines.append(
            f"{cell.state:8} {spec.backbone:{width_b}}  {spec.dataset:{width_d}}  {spec.recipe}  "
            f"seed {spec.seed}  {spec.run_id[:12]}  {reason}"
        )
    lines += [f"\n[{number}] {problem}" for problem, number in notes.items()]
    counts = Counter(cell.state for cell in cells)
    total = ", ".join(f"{counts[s]} {s}" for s in (plan.CACHED, plan.TODO, plan.BLOCKED) if counts[s])
    devices = " and ".join(sorted({cell.spec.device for cell in cells})) or "nothing"
    return "\n".join([*lines, "", f"{len(cells)} runs on {devices}: {total}."])
