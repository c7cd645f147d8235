"""`run`: plan, carry out, track, report."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.groups import command as grouped
from harness.cli.groups import option
from harness.cli.options import execution_options, given, grid_options
from harness.cli.plan import table
from harness.planning import plan


@grouped(
    epilog="Exit codes: 0 all ok or cached, 1 some run failed, 2 wrong usage or no data, 130 interrupted. "
    "Example: python -m harness run --backbones reidmamba,transreid --datasets all --data-root D --weights-root W"
)
@grid_options
@execution_options
@option("What", "--dry-run", is_flag=True, help="Stop after the plan.")
def command(**values: Any) -> int:
    """Trains and scores every backbone on every dataset, logs to MLflow and writes the report.

    Finished runs are never repeated; an interrupted run resumes from its last epoch.
    """
    from harness.execution import run, settings, stand_ins

    found = given(values, "backbones", "datasets", "dry_run")
    asked = settings.resolve(values["backbones"], values["datasets"], found)
    if asked.generate:
        stand_ins.draw(asked.request, asked.generate, dry_run=values["dry_run"])
    cells = plan.build(asked.request)
    click.echo(table(cells))
    if values["dry_run"]:
        return 0
    outcome = run.run(asked.request, cells, asked.execution, keep_plan=True)
    if outcome.code == run.INTERRUPTED:
        on = "without --force resumes the runs that had begun" if asked.request.force else "resumes here"
        click.echo(f"Interrupted; what was finished is kept, and the same command {on}.", err=True)
    run.write_page(asked.request, asked.execution)
    return outcome.code
