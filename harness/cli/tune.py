"""`tune`: search hyperparameters on held-out training identities, then train and test the chosen points."""

from __future__ import annotations

from typing import Any

import click

from harness.cli import completion
from harness.cli.groups import MAIN, SEARCH, option
from harness.cli.groups import command as grouped
from harness.cli.options import (
    UserPath,
    backbone_option,
    dataset_option,
    execution_options,
    given,
    setting_options,
)
from harness.cli.spaces import space_table
from harness.cli.tables import prose
from harness.tuning import sampler
from harness.tuning.space import label
from harness.tuning.state import FAILED, RUNNING, Search


@grouped(
    exit_codes={
        0: "Everything finished.",
        1: "Some trial or final run failed.",
        2: "Wrong usage, or nothing can run.",
        130: "Interrupted.",
    },
    example="python -m harness tune --backbone reidmamba --dataset market1501 --space ratr --samples 40",
)
@backbone_option("Backbone, for example reidmamba or reidmamba:base.")
@dataset_option("Dataset whose training split is searched on.")
@option(MAIN, "--dry-run", is_flag=True, help="Show the search and stop.")
@option(
    SEARCH,
    "--space",
    default="ratr",
    show_default=True,
    type=UserPath(),
    metavar="NAME|FILE",
    shell_complete=completion.one(completion.spaces, files=True),
    help="Search space; see 'list spaces'.",
)
@option(
    SEARCH,
    "--samples",
    default=40,
    show_default=True,
    metavar="N",
    type=click.IntRange(1),
    help="Number of trials, including the named points.",
)
@option(
    SEARCH,
    "--sampler",
    type=click.Choice(sampler.SAMPLERS),
    default="tpe",
    show_default=True,
    help="Method that chooses the points.",
)
@option(
    SEARCH,
    "--search-seed",
    default=0,
    show_default=True,
    metavar="N",
    type=click.IntRange(0, 2**32 - 1),
    help="Seed of the sampler.",
)
@option(SEARCH, "--seed", metavar="N", default=0, show_default=True, help="Training seed of every trial.")
@option(
    SEARCH,
    "--holdout",
    metavar="FRACTION",
    default=0.3,
    show_default=True,
    help="Fraction of the training identities to score on.",
)
@option(
    SEARCH,
    "--holdout-seed",
    default=0,
    show_default=True,
    metavar="N",
    type=click.IntRange(0, 2**63 - 1),
    help="Seed that chooses these identities.",
)
@option(
    SEARCH,
    "--trial-epochs",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    show_default="those of the recipe",
    help="Epochs per trial.",
)
@option(
    SEARCH,
    "--grace-period",
    former=["--grace"],
    metavar="N",
    type=click.IntRange(0),
    default=0,
    show_default="a ninth",
    help="Epochs before a trial may be stopped.",
)
@option(
    SEARCH,
    "--reduction-factor",
    former=["--factor"],
    metavar="FACTOR",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Keep the best 1/FACTOR of trials per rung; 0 keeps all.",
)
@option(
    SEARCH,
    "--time-budget",
    default="",
    metavar="DURATION",
    show_default="none",
    help="Time limit of the search, such as 30m or 10h.",
)
@option(
    SEARCH,
    "--final-seeds",
    default="0,1,2",
    metavar="SEEDS",
    show_default=True,
    help="Seeds of the final runs, or 'none'.",
)
@setting_options
@execution_options
def command(backbone: str, dataset: str, dry_run: bool, **values: Any) -> int:
    """Search settings of a recipe or a backbone on held-out training identities.

    Then the chosen points train on the whole training set and are tested once. The test split is not read before.
    The same command resumes the search; a larger --samples extends it.
    """
    from harness.execution import run, settings, stand_ins
    from harness.execution.tune import SearchSettings, Tuning

    found = given(values)
    found["seeds"] = values["seed"]
    asked = settings.resolve(
        backbone, dataset, found, grid=False, others=SearchSettings.__dataclass_fields__, table="tune"
    )
    if asked.generate and stand_ins.draw(asked.request, asked.generate, dry_run=dry_run):
        return 0  # without data there is nothing to plan
    tuning = Tuning(asked.request, SearchSettings(**asked.others), asked.execution)
    click.echo(_summary(tuning.search))
    if dry_run:
        return 0
    outcome = tuning.run()
    if outcome.code == run.INTERRUPTED:
        click.echo("Interrupted. Finished trials are kept. The same command resumes the search.", err=True)
        return outcome.code
    search = tuning.search
    if best := search.best:
        click.echo(f"\nBest on held-out identities: {label(best.point)} (mAP {best.value:.2%}, trial {best.number}).")
    spent, full = search.epochs
    click.echo(f"{len(search.trials)} trials took {spent} epochs; without early stopping they would take {full}.")
    run.write_page(asked.request, asked.execution)
    return outcome.code


def _summary(search: Search) -> str:
    """What is searched and how, as a table and sentences."""
    settings, asha = search.settings, search.settings.asha
    done = sum(trial.state not in (RUNNING, FAILED) for trial in search.trials)
    rungs = " and ".join(map(str, asha.rungs))
    stopping = f"early stopping after epochs {rungs}" if rungs else "no early stopping"
    return "\n".join(
        [
            f"Search {search.id}",
            prose(search.space.about or search.space.name),
            "",
            space_table(search.space),
            "",
            prose(
                f"{settings.samples} trials by {settings.sampler}, {done} done. {asha.epochs} epochs per trial, "
                f"{stopping}. Scored on {search.holdout.fraction:.0%} of the training identities; the test split is "
                "not read."
            ),
        ]
    )
