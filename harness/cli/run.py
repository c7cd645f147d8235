"""`run`: plan, train and score, log, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.options import audit_option, execution_options, given, grid_options
from harness.cli.plan import shown
from harness.errors import UsageError
from harness.planning import plan

if TYPE_CHECKING:
    from harness.execution.settings import Asked


@grouped(
    exit_codes={
        0: "Every run is finished.",
        1: "Some run failed.",
        2: "Wrong usage, or nothing can run.",
        130: "Interrupted.",
    },
    example="python -m harness run --backbones bot --datasets msmt17 --data-root data --weights-root weights",
)
@grid_options
@execution_options
@audit_option
@option(MAIN, "--dry-run", is_flag=True, help="Show the plan and stop.")
def command(**values: Any) -> int:
    """Train and score every backbone on every dataset, log to MLflow and write the report.

    Finished runs are not repeated. An interrupted run resumes from its last epoch.
    """
    from harness.execution import run, settings, stand_ins

    found = given(values, "backbones", "datasets", "dry_run")
    asked = settings.resolve(values["backbones"], values["datasets"], found)
    pending = False
    if asked.generate:
        pending = stand_ins.draw(asked.request, asked.generate, dry_run=values["dry_run"])
    if asked.request.budget:
        return _tuned(asked, pending, dry_run=values["dry_run"])
    cells = plan.build(asked.request)
    click.echo(shown(cells, asked.request, pending=pending))
    if values["dry_run"]:
        return 0
    if all(cell.state == plan.BLOCKED for cell in cells):
        runs = f"all {len(cells)} runs of the plan are" if len(cells) > 1 else "the run is"
        raise UsageError(f"Nothing can run: {runs} blocked, see above.")
    outcome = run.run(asked.request, cells, asked.execution, keep_plan=True)
    if outcome.code == run.INTERRUPTED:
        on = "The same command resumes the rest"
        if asked.request.force:
            on = "The same command without --force resumes the runs that had begun"
        click.echo(f"Interrupted. Finished runs are kept. {on}.", err=True)
    run.write_page(asked.request, asked.execution)
    return outcome.code


def _tuned(asked: Asked, pending: bool, *, dry_run: bool) -> int:
    """Does the same for `--recipe tuned`."""
    from harness.cli import studies
    from harness.execution import run, tuned
    from harness.tuning.studies import build

    found = build(asked.request)
    click.echo(studies.shown(found, asked.request, pending=pending))
    if dry_run:
        return 0
    outcome = tuned.run(asked.request, found, asked.execution)
    if outcome.code == run.INTERRUPTED:
        click.echo("Interrupted. Finished trials are kept. The same command resumes the rest.", err=True)
    run.write_page(asked.request, asked.execution)
    return outcome.code
