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
from harness.cli.problems import what_to_do
from harness.cli.tables import STATES, Column, table
from harness.execution import settings
from harness.planning import plan
from harness.planning.plan import Planned
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
    if asked.request.budget:
        return _tuned(asked, form, explain)
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


def _tuned(asked: settings.Asked, form: str, explain: bool) -> int:
    """Shows the plan of `--recipe tuned`."""
    from harness.cli import studies
    from harness.tuning.studies import build

    found, pending = build(asked.request), False
    if form == "json":
        click.echo(studies.as_json(found))
        return 0
    if asked.generate and any(study.trial.state == plan.BLOCKED for study in found):
        from harness.execution import stand_ins

        pending = stand_ins.draw(asked.request, asked.generate, dry_run=True)
    click.echo(studies.shown(found, asked.request, explain=explain, pending=pending))
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
    parts.append(what_to_do(cells, request, explain=explain, pending=pending))
    return "\n\n".join(filter(None, parts))
