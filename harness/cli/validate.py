"""`validate`: datasets against their cards, plug-ins against the contract."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.cli import completion
from harness.cli.groups import MAIN, OUTPUT, option
from harness.cli.groups import command as grouped
from harness.cli.options import UserPath, data_root_option, format_option, plugins_option, plugins_path
from harness.cli.tables import prose
from harness.errors import HarnessError, UsageError, unknown
from harness.registry import dataset_checks
from harness.registry.findings import Finding
from harness.registry.near_duplicates import check as check_near_duplicates
from harness.system import terminal
from harness.system.redact import readable


@grouped(
    exit_codes={
        0: "No errors.",
        1: "Errors were found.",
        2: "Wrong usage.",
    },
    example="python -m harness validate --datasets all --data-root data",
)
@click.argument("names", nargs=-1)
@option(
    MAIN,
    "--datasets",
    metavar="NAMES",
    default="",
    shell_complete=completion.many(completion.datasets),
    help="Comma-separated datasets, or 'all'.",
)
@option(
    MAIN,
    "--backbones",
    metavar="NAMES",
    default="",
    shell_complete=completion.many(completion.backbones),
    help="Comma-separated backbones, or 'all'.",
)
@option(MAIN, "--images/--no-images", default=True, show_default=True, help="Open every image.")
@option(MAIN, "--near-duplicates", is_flag=True, help="Also look for images that show the same picture twice.")
@option(OUTPUT, "--pairs", metavar="FILE", default="", type=UserPath(), help="CSV file for all near-duplicates.")
@option(
    OUTPUT,
    "--pictures",
    metavar="DIR",
    default="",
    type=UserPath(),
    help="Folder for pictures of 100 near-duplicates.",
)
@data_root_option
@plugins_option
@format_option
def command(
    names: tuple[str, ...],
    datasets: str,
    backbones: str,
    images: bool,
    near_duplicates: bool,
    pairs: str,
    pictures: str,
    data_root: str,
    plugins: str,
    form: str,
) -> int:
    """Check datasets against their cards, and backbones against the plug-in contract.

    NAMES are backbones or datasets.
    """
    chosen = _choose(names, datasets, backbones, plugins)
    several = sum(isinstance(entry, registry.DatasetEntry) for entry in chosen) > 1
    if (pairs or pictures) and (not near_duplicates or several):
        raise UsageError("--pairs and --pictures need --near-duplicates and one dataset.")
    findings: dict[str, list[Any]] = {}
    for entry in chosen:
        try:
            if isinstance(entry, registry.BackboneEntry):
                from harness.registry.backbone_checks import check as check_backbone  # imports torch

                findings[entry.name] = check_backbone(entry)
            else:
                findings[entry.name] = dataset_checks.validate_dataset(entry, data_root or ".", deep=images)
                if near_duplicates and not any(found.level == "error" for found in findings[entry.name]):
                    findings[entry.name] += check_near_duplicates(
                        entry,
                        data_root or ".",
                        pairs_file=Path(pairs) if pairs else None,
                        pictures=Path(pictures) if pictures else None,
                        progress=_progress(entry.name) if form == "text" else None,
                    )
        except HarnessError as error:
            findings[entry.name] = [Finding("error", str(error), ())]
        if form == "text":
            _show(entry.name, findings[entry.name])
    if form == "text" and not data_root and any(isinstance(entry, registry.DatasetEntry) for entry in chosen):
        click.echo(
            "Datasets were looked for in the current folder. Pass --data-root DIR, or set REID_DATASETS.", err=True
        )
    if form == "json":
        click.echo(json.dumps({name: [asdict(f) for f in found] for name, found in findings.items()}, indent=1))
    return 1 if any(f.level == "error" for found in findings.values() for f in found) else 0


def _choose(names: tuple[str, ...], datasets: str, backbones: str, plugins: str) -> list[Any]:
    """The plug-ins to check; a name without an option may be a backbone's or a dataset's."""
    folder = plugins_path(plugins)
    chosen: list[Any] = registry.resolve_backbones(backbones, folder) if backbones else []
    chosen += registry.resolve_datasets(datasets, folder) if datasets else []
    for name in names:
        try:
            chosen.append(registry.backbone(name, folder))
        except UsageError:
            try:
                chosen.append(registry.dataset(name, folder))
            except UsageError:
                both = [e.name for e in registry.backbones(folder)] + [e.name for e in registry.datasets(folder)]
                raise unknown("backbone or dataset", name, both) from None
    if not chosen:
        raise UsageError("Nothing to validate. Name backbones or datasets, or pass --datasets or --backbones.")
    return chosen


def _progress(name: str) -> Callable[[int, int], None]:
    """Returns a function that shows how many images were read, on a terminal."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            end = "\n" if done == total else ""
            click.echo(f"\r{name}: {done:,}/{total:,} images compared{end}", err=True, nl=False)

    return show


def _show(name: str, findings: list[Any]) -> None:
    errors = sum(f.level == "error" for f in findings)
    outcome = f"{errors} error{'s' * (errors > 1)}" if errors else "ok"
    if terminal.colours(sys.stdout):
        outcome = click.style(outcome, fg="red" if errors else "green")
    click.echo(f"{name}: {outcome}")
    for finding in findings:
        click.echo(prose(readable(finding.sentence), "    ", f"  {finding.level}: "))
        for example in finding.examples:
            click.echo(f"    {readable(example)}")
