"""The plan of `--recipe tuned` as text: what is searched, the runs of each backbone, and what they will cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from harness.cli.problems import what_to_do
from harness.cli.spaces import space_table
from harness.cli.tables import Column, prose, table
from harness.planning.plan import BLOCKED, CACHED
from harness.planning.request import Request
from harness.tuning import space
from harness.tuning.cost import hours
from harness.tuning.studies import FACTORS, Study

COLUMNS = (
    Column("backbone", folds=True),
    Column("dataset"),
    Column("trials", right=True),
    Column("done", right=True),
    Column("further runs", right=True),
    Column("cost"),
    Column("reason", folds=True),
)


def shown(studies: Sequence[Study], request: Request, *, explain: bool = False, pending: bool = False) -> str:
    """Returns the plan as text: the space, a line per backbone and dataset, the cost, and what to do about problems.

    Args:
        studies: the plan.
        request: what was asked for.
        explain: whether to print explanations of problems in full.
        pending: whether the data will be generated before the runs.
    """
    budget, asha = request.budget, studies[0].search.settings.asha
    assert budget is not None
    groups: dict[tuple[str, str], list[Study]] = {}
    for study in studies:
        groups.setdefault((study.trial.spec.backbone, study.trial.spec.dataset), []).append(study)
    stopping = (
        f"After {asha.rungs[0]} of {asha.epochs} epochs, the worse half of the trials is stopped"
        if asha.rungs
        else "No trial is stopped early"
    )
    about = (
        f"{budget.studies} {'study' if budget.studies == 1 else 'studies'} of {budget.trials} random "
        f"{'trial' if budget.trials == 1 else 'trials'} for every backbone and dataset, on top of the "
        f"recipe {studies[0].trial.spec.recipe}. Trials are scored on {budget.holdout:.0%} of the training "
        f"identities; the test split is read by final runs only. {stopping}."
    )
    device = "GPU" if studies[0].trial.spec.device == "cuda" else "CPU"
    unmeasured = sorted({name for (name, _), group in groups.items() if group[0].search.estimate is None})
    cells = [cell for group in groups.values() for cell in (group[0].trial, group[0].untuned)]
    return "\n\n".join(
        filter(
            None,
            [
                prose(about, ""),
                space_table(space.load(budget.space)),
                table(COLUMNS, [_row(name, data, group, device) for (name, data), group in groups.items()]),
                prose(_total(studies, device, unmeasured), ""),
                what_to_do(cells, request, explain=explain, pending=pending),
            ],
        )
    )


def _row(backbone: str, dataset: str, group: Sequence[Study], device: str) -> list[str]:
    """The runs of one backbone and dataset."""
    trials = [cell for study in group for cell in study.trials()]
    done = Counter(cell.state for cell in trials)[CACHED]
    finals = sum(study.later for study in group)
    problems = [*group[0].trial.problems, *group[0].untuned.problems]
    reason = ", ".join(dict.fromkeys(problem.short for problem in problems))
    if group[0].trial.state != BLOCKED and reason:
        reason = f"final runs only: {reason}"
    estimates = [study.search.estimate for study in group]
    cost = "not measured" if None in estimates else f"{hours(sum(e or 0.0 for e in estimates))} {device} hours"
    return [backbone, dataset, str(len(trials)), str(done), str(finals), cost, reason]


def _total(studies: Sequence[Study], device: str, unmeasured: Sequence[str]) -> str:
    runs, left = sum(study.runs for study in studies), sum(study.to_do for study in studies)
    known = sum(study.search.estimate or 0.0 for study in studies)
    text = f"{runs} runs, {left} to do. Each study has its trials, its chosen point and the untuned recipe. The first "
    text += f"study of each backbone also has its choice at {len(FACTORS)} other learning rates."
    if known:
        text += f" Training all {runs} takes about {hours(known)} {device} hours without early stopping, by measured"
        text += " images/s."
    if unmeasured:
        text += f" The speed of {', '.join(unmeasured)} is not known in this results folder; `profile` or one finished"
        text += " run measures it."
    return text


def as_json(studies: Sequence[Study]) -> str:
    """All runs whose settings are known, one object each."""
    return json.dumps([cell.to_dict() for study in studies for cell in study.cells()], indent=1)
