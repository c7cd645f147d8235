"""`tune`: search settings on held-out training identities, then train the chosen points and test them once."""

from __future__ import annotations

from typing import Any

import click

from harness.cli.groups import command as grouped
from harness.cli.groups import option
from harness.cli.options import UserPath, execution_options, given, setting_options
from harness.tuning import sampler
from harness.tuning.space import label
from harness.tuning.state import RUNNING, Search


@grouped(
    epilog="Exit codes: 0 all well, 1 some trial or final run failed, 2 wrong usage or no data, 130 interrupted. "
    "Example: python -m harness tune --backbone reidmamba --dataset market1501 --space ratr --samples 40"
)
@option("What", "--backbone", required=True, help="Registered name, with a variant if wanted.")
@option("What", "--dataset", required=True, help="Dataset whose training split is searched on.")
@option("What", "--dry-run", is_flag=True, help="Say what would be searched, and stop.")
@option(
    "Search",
    "--space",
    default="ratr",
    show_default=True,
    type=UserPath(),
    metavar="NAME|FILE",
    help="Search space: a name of 'list spaces', or a TOML file.",
)
@option(
    "Search",
    "--samples",
    default=40,
    show_default=True,
    type=click.IntRange(1),
    help="Trials, named points included.",
)
@option(
    "Search",
    "--sampler",
    type=click.Choice(sampler.SAMPLERS),
    default="tpe",
    show_default=True,
    help="How points are chosen.",
)
@option(
    "Search",
    "--search-seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of the sampler.",
)
@option("Search", "--seed", default=0, show_default=True, help="Seed of every trial's training.")
@option("Search", "--holdout", default=0.3, show_default=True, help="Fraction of the training identities to score on.")
@option(
    "Search",
    "--holdout-seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**63 - 1),
    help="Seed of the choice of these identities.",
)
@option("Search", "--trial-epochs", default=0, help="Epochs per trial. [default: the recipe's]")
@option(
    "Search",
    "--grace-period",
    "--grace",
    "grace_period",
    default=0,
    help="Epochs before a trial may be stopped. [default: a ninth]",
)
@option(
    "Search",
    "--reduction-factor",
    "--factor",
    "reduction_factor",
    default=3,
    show_default=True,
    help="Keep the best 1/FACTOR of trials at each rung; 0 disables early stopping.",
)
@option(
    "Search",
    "--time-budget",
    default="",
    metavar="10h",
    help="End the search after this time: 90s, 30m, 10h.",
)
@option(
    "Search",
    "--final-seeds",
    default="0,1,2",
    show_default=True,
    help="Seeds of the final runs; 'none' leaves them out.",
)
@setting_options
@execution_options
def command(backbone: str, dataset: str, dry_run: bool, **values: Any) -> int:
    """Searches settings of a recipe or a backbone; the test split is not read before the choice is made.

    The same command resumes the search. More samples belong to the same search.
    """
    from harness.execution import run, settings, stand_ins
    from harness.execution.tune import SearchSettings, Tuning

    found = given(values)
    found["seeds"] = values["seed"]
    asked = settings.resolve(backbone, dataset, found, others=SearchSettings.__dataclass_fields__, table="tune")
    if asked.generate and stand_ins.draw(asked.request, asked.generate, dry_run=dry_run):
        return 0  # without data there is nothing to plan
    tuning = Tuning(asked.request, SearchSettings(**asked.others), asked.execution)
    click.echo(_summary(tuning.search))
    if dry_run:
        return 0
    outcome = tuning.run()
    if outcome.code == run.INTERRUPTED:
        click.echo("Interrupted; what was finished is kept, and the same command resumes the search.", err=True)
        return outcome.code
    search = tuning.search
    if best := search.best:
        click.echo(f"\nBest on held-out identities: {label(best.point)} (mAP {best.value:.2%}, trial {best.number}).")
    spent, full = search.epochs
    click.echo(f"{len(search.trials)} trials, {spent} epochs; without stopping they would be {full}.")
    run.write_page(asked.request, asked.execution)
    return outcome.code


def _summary(search: Search) -> str:
    settings, asha = search.settings, search.settings.asha
    done = sum(trial.state != RUNNING for trial in search.trials)
    rungs = ", ".join(map(str, asha.rungs)) or "none"
    lines = [
        f"Search {search.id}",
        f"  {search.space.about or search.space.name}",
        *(f"  {name}: {p.distribution} of {p.key}" for name, p in search.space.parameters.items()),
        f"  {settings.samples} trials by {settings.sampler}, {done} done; {asha.epochs} epochs each, rungs {rungs}",
        f"  scored on {search.holdout.fraction:.0%} of the training identities; the test split is not read",
    ]
    return "\n".join(lines)
