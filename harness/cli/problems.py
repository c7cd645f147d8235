"""What to do about the blocked runs of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cli.tables import prose, shell
from harness.planning.plan import Planned
from harness.planning.problems import Problem
from harness.planning.request import Request
from harness.system.redact import readable


def what_to_do(cells: Sequence[Planned], request: Request, *, explain: bool = False, pending: bool = False) -> str:
    """Returns what to do about blocked runs; empty if there is nothing.

    Args:
        cells: the plan.
        request: what was asked for.
        explain: whether to print the whole explanations.
        pending: whether the data will be generated before the runs, so that nothing is to be done about it.
    """
    if pending:
        return "Runs that lack only data can start after that."
    if problems := list(dict.fromkeys(problem for cell in cells for problem in cell.problems)):
        return _explanations(problems) if explain else _cures(problems, cells, request)
    return ""


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
