"""`plan`: what `run` would do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import click

from harness.cli.groups import HARDWARE, MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.options import format_option, given, gpus_per_run_option, grid_options
from harness.cli.tables import STATES, Column, prose, shell, table
from harness.execution import settings
from harness.planning import plan
from harness.planning.plan import Planned
from harness.planning.problems import Problem
from harness.planning.request import Request
from harness.system.redact import readable

COLUMNS = (
    Column("state", colours=STATES),
    Column("backbone", folds=True),
    Column("dataset"),
    Column("recipe", folds=True, optional=True),
    Column("seed", right=True, optional=True),
    Column("run id"),
    Column("reason", folds=True),
)


@grouped(example="python -m harness plan --backbones reidmamba,bot --datasets market1501,msmt17 --data-root data")
@grid_options
@option(MAIN, "--explain", is_flag=True, help="Explain in full why runs are blocked.")
@gpus_per_run_option
@option(HARDWARE, "--address", default="", metavar="ADDRESS", help="Ray cluster that the runs are for, as for 'run'.")
@format_option
def command(form: str, explain: bool, **values: Any) -> int:
    """Show every run of the grid and its state: cached, to do or blocked. Nothing is run.

    A cached run is finished and is not repeated. A blocked run lacks something, such as data or weights.
    """
    found = given(values, "backbones", "datasets")
    asked = settings.resolve(values["backbones"], values["datasets"], found)
    cells = plan.build(asked.request)
    if form == "json":
        click.echo(json.dumps([cell.to_dict() for cell in cells], indent=1))
        return 0
    pending = False
    if asked.generate and any(cell.state == plan.BLOCKED for cell in cells):
        from harness.execution import stand_ins

        pending = stand_ins.draw(asked.request, asked.generate, dry_run=True)
    click.echo(shown(cells, asked.request, explain=explain, pending=pending))
    return 0


def shown(cells: Sequence[Planned], request: Request, *, explain: bool = False, pending: bool = False) -> str:
    """Returns the plan as text: a line per run, the totals, and what to do about blocked runs.

    Args:
        cells: the plan.
        request: what was asked for.
        explain: whether to print the whole explanations.
        pending: whether the data will be generated before the runs, so that nothing is to be done about it.
    """
    rows = []
    for cell in cells:
        spec = cell.spec
        names = (spec.backbone, spec.dataset, spec.recipe)
        rows.append([cell.state, *names, str(spec.seed), spec.run_id[:12], readable(cell.short_reason)])
    counts = Counter(cell.state for cell in cells)
    total = ", ".join(f"{counts[s]} {s}" for s in (plan.CACHED, plan.TODO, plan.BLOCKED) if counts[s])
    devices = " and ".join(sorted({cell.spec.device for cell in cells})) or "nothing"
    parts = [table(COLUMNS, rows), f"{len(cells)} {'run' if len(cells) == 1 else 'runs'} on {devices}: {total}."]
    if pending:
        parts.append("Runs that lack only data can start after that.")
    elif problems := list(dict.fromkeys(problem for cell in cells for problem in cell.problems)):
        parts.append(_explanations(problems) if explain else _cures(problems, cells, request))
    return "\n\n".join(parts)


def _cures(problems: Sequence[Problem], cells: Sequence[Planned], request: Request) -> str:
    """A line per reason with what to do, and the command for all that it concerns."""
    subjects: dict[Problem, list[str]] = {}
    for problem in problems:
        subjects.setdefault(problem._replace(text="", subject=""), []).append(problem.subject)
    lines = ["What to do:"]
    for problem, names in subjects.items():
        lines.append(prose(readable(problem.advice), "    ", f"  {problem.short}: "))
        if problem.command:
            chosen = _as_asked(problem.command, names, cells, request)
            lines.append(shell(problem.command.replace("{names}", chosen), "      "))
    if any(len(problem.text) > len(problem.advice) for problem in problems):
        lines += ["", "Run `python -m harness plan --explain` with the same options for details."]
    return "\n".join(lines)


def _as_asked(command: str, names: list[str], cells: Sequence[Planned], request: Request) -> str:
    """The names as the user gave them where all of them are meant, such as `all`; else as a comma list."""
    asked, every = request.datasets, {cell.spec.dataset for cell in cells}
    if "--backbones" in command:
        asked, every = request.backbones, {cell.spec.backbone for cell in cells}
    return asked if set(names) == every else ",".join(names)


def _explanations(problems: Sequence[Problem]) -> str:
    """Every reason in full, as a paragraph below the few words of the table."""
    paragraphs = []
    for problem in problems:
        head = f"{problem.short}: {problem.subject}" if problem.subject else problem.short
        paragraphs.append(f"{head}\n{prose(readable(problem.text), '    ')}")
    return "\n\n".join(paragraphs)
