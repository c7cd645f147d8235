"""`results check DIR`: whether the results of somebody else can be trusted and merged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

import harness
from harness.cli.groups import command as grouped
from harness.cli.options import UserPath, format_option, plugins_option, results_option
from harness.cli.tables import Column, prose, table
from harness.reporting.others.check import Checked, Outcome
from harness.system.redact import readable

COLUMNS = (
    Column("verdict", colours={"ok": "green", "doubtful": "yellow", "wrong": "red"}),
    Column("run id"),
    Column("run", folds=True),
)


@grouped(
    exit_codes={0: "No record is wrong.", 1: "A record is wrong.", 2: "Wrong usage."},
    example="python -m harness results check theirs/results",
)
@click.argument("action", type=click.Choice(["check"]), metavar="check")
@click.argument("folder", type=UserPath(Path), metavar="DIR")
@results_option
@plugins_option
@format_option
def command(action: str, folder: Path, results: Path, plugins: str, form: str) -> int:
    """Check the results of others before you merge them with yours.

    DIR is their results folder. Schema and run ids are checked, scores are computed again from the values of each
    query, and counts, speeds and times must be possible. Nothing is changed.
    """
    found = harness.check_results(folder, results=results, plugins=plugins)
    if form == "json":
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        click.echo(readable("\n".join(_shown(found))))
    return 1 if found.counts["wrong"] else 0


def _shown(found: Outcome) -> Iterator[str]:
    yield table(COLUMNS, [[run.verdict, run.run_id[:12] or "?", run.about] for run in found.runs])
    yield ""
    for sentence, runs in _grouped(found).items():
        yield prose(f"{sentence} [{_where(runs, len(found.runs))}]", "    ", "- ")
    yield from (prose(sentence, "    ", "- ") for sentence in found.repeated)
    yield ""
    yield "What no check of records can find:"
    yield from (prose(sentence, "    ", "- ") for sentence in found.not_checked)
    yield ""
    yield f"{', '.join(f'{number} {verdict}' for verdict, number in found.counts.items())}."


def _grouped(found: Outcome) -> dict[str, list[Checked]]:
    """Findings with the records that have them, the worst first."""
    groups: dict[str, list[Checked]] = {}
    for weight in ("wrong", "doubtful", "unchecked"):
        for run in found.runs:
            for finding in run.findings:
                if finding.weight == weight:
                    runs = groups.setdefault(f"{weight}: {finding.words}", [])
                    runs += [] if run in runs[-1:] else [run]  # one dataset may say the same as another
    return groups


def _where(runs: list[Checked], number: int) -> str:
    if len(runs) == number > 1:
        return "all records"
    names = [run.run_id[:12] or run.path for run in runs[:3]]
    return ", ".join(names) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
