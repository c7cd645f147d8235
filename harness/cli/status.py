"""`status`: the records of a results folder."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import click

from harness.cli.groups import TRACKING, option
from harness.cli.groups import command as grouped
from harness.cli.options import format_option, mlflow_option, results_option
from harness.cli.tables import STATUSES, Column, prose, table
from harness.records import store
from harness.records.schema import matched
from harness.records.store import Entry
from harness.spec.names import STOPPED_EARLY
from harness.system.redact import mask, readable


@grouped(example="python -m harness status --results demo/results")
@results_option
@format_option
@option(TRACKING, "--sync", is_flag=True, help="Send records to MLflow that are missing there.")
@mlflow_option
def command(results: Path, form: str, sync: bool, mlflow_uri: str) -> int:
    """Show every record: its status, its scores, or why it failed."""
    problems: list[str] = []
    entries = list(store.index(results, lambda error: problems.append(str(error))).values())
    if form == "json":
        click.echo(json.dumps([entry._asdict() for entry in entries], indent=1))
    else:
        if rows := _rows(entry for entry in entries if not _measured(entry)):
            click.echo(f"{table(COLUMNS, rows)}\n")
        if measured := _efficiency(entries):
            click.echo(prose(f"Efficiency measurements, shown by 'report': {measured}.", "  ", ""))
        counts = Counter(map(_ended, entries))
        summary = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        number = f"{len(entries)} record{'s' * (len(entries) != 1)}"
        absent = "" if results.is_dir() else ", which does not exist"
        click.echo(f"{number} in {results}{absent}{': ' + summary if summary else ''}.")
    for problem in problems:
        click.echo(f"Warning: {readable(problem)}", err=True)
    if sync or (form == "text" and entries):
        _tracked(results.absolute(), mlflow_uri, sync)
    return 0


def _tracked(results: Path, uri: str, sync: bool) -> None:
    """Sends records to MLflow that are missing there, or prints how many there are."""
    from harness import tracking

    if sync:
        from harness.reporting import summary

        uri = tracking.used_address(results, uri)
        sent = tracking.sync(results, uri, partial(summary.of_runs, results))
        click.echo(f"Sent {sent} record{'s' * (sent != 1)} to MLflow at {mask(uri)}.")
    elif uri or tracking.is_tracked(results):
        uri = tracking.used_address(results, uri, whole=False)
        if missing := tracking.unsent(results, uri):
            number = f"{len(missing)} of them {'is' if len(missing) == 1 else 'are'}"
            click.echo(f"{number} missing in MLflow at {mask(uri)}. Run `python -m harness status --sync` to send.")


COLUMNS = (
    Column("status", colours=STATUSES),
    Column("dataset"),
    Column("backbone", folds=True),
    Column("recipe", folds=True, optional=True),
    Column("seed", right=True, optional=True),
    Column("run id"),
    Column("mAP", right=True),
    Column("rank-1", right=True),
    Column("time", right=True),
    Column("note", folds=True),
)


def _rows(entries: Iterable[Entry]) -> list[list[str]]:
    """A row per record."""
    ordered = sorted(entries, key=lambda e: (e.dataset, e.backbone, e.recipe, e.seed, e.run_id))
    return [[readable(text) for text in _row(entry)] for entry in ordered]


def _measured(entry: Entry) -> bool:
    """Whether it is a finished measurement of efficiency, which has no score to show."""
    return entry.source == "profile" and entry.status == "ok"


def _efficiency(entries: Iterable[Entry]) -> str:
    """How many measurements there are of each backbone."""
    counts = Counter(entry.backbone for entry in entries if _measured(entry))
    return readable(", ".join(f"{n} of {name}" for name, n in sorted(counts.items())))


def _ended(entry: Entry) -> str:
    """As `harness.records.schema.ended`."""
    stopped = entry.source == "search" and entry.status == "interrupted" and entry.message.startswith(STOPPED_EARLY)
    return "stopped" if stopped else entry.status


def _row(entry: Entry) -> list[str]:
    names = [_ended(entry), entry.dataset, entry.backbone, entry.recipe, str(entry.seed), entry.run_id[:12]]
    if entry.status == "ok" and entry.mAP is not None:
        scores = [f"{entry.mAP:.1%}", "" if entry.rank1 is None else f"{entry.rank1:.1%}"]
        return [*names, *scores, _clock(entry.seconds), _few(entry)]
    stage = f"at {entry.stage}: " if entry.stage else ""
    note = textwrap.shorten(f"{stage}{entry.message.splitlines()[0] if entry.message else ''}", LONGEST_NOTE)
    return [*names, "", "", "", note]


def _few(entry: Entry) -> str:
    """That the scores are of people held out, or how many queries have a match, unless all have one."""
    if entry.source == "search":
        return "held-out score"
    return f"{entry.n_valid:,} of {entry.n_query:,} queries matched" if matched(entry._asdict()) else ""


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as `1:02:03`."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


LONGEST_NOTE = 200
"""Characters of the reason of a failed run; its record holds all of it."""
