"""`report`: BENCHMARKS.md, flat files and a website from records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.options import (
    TrackingUri,
    UserPath,
    all_results_option,
    data_root_option,
    plugins_option,
    plugins_path,
)
from harness.errors import UsageError


@grouped(
    exit_codes={
        0: "Written, or up to date.",
        1: "--check found something out of date.",
        2: "Wrong usage.",
    },
    example="python -m harness report --results demo/results --out demo/BENCHMARKS.md",
)
@all_results_option
@option(
    MAIN,
    "--out",
    default="",
    metavar="FILE",
    type=UserPath(),
    show_default="BENCHMARKS.md of the checkout for its own results, else in the results folder",
    help="Report to write.",
)
@option(MAIN, "--check", is_flag=True, help="Write nothing; exit with code 1 if the report is out of date.")
@option(
    MAIN,
    "--from-mlflow",
    default="",
    metavar="URI",
    type=TrackingUri(),
    help="Read the records from this MLflow server instead of a folder.",
)
@option(
    MAIN,
    "--csv",
    "flat",
    default="",
    metavar="DIR",
    type=UserPath(),
    help="Write the numbers as CSV files into this folder instead of the report.",
)
@option(
    MAIN,
    "--html",
    default="",
    metavar="DIR",
    type=UserPath(),
    help="Write a website into this folder instead. Open its index.html; it needs no server.",
)
@option(
    MAIN, "--with-images", is_flag=True, help="With --html, show images of people; licences may forbid sharing them."
)
@data_root_option
@plugins_option
def command(
    results: tuple[Path, ...],
    out: str,
    check: bool,
    from_mlflow: str,
    flat: str,
    html: str,
    with_images: bool,
    data_root: str,
    plugins: str,
) -> int:
    """Write the report and its plots from the records. The same records give the same bytes.

    Pass --results several times to merge the results of several people; the report then names the origin of each row.
    """
    from harness import reporting

    _refuse(out, check, flat, html, with_images)
    if len(results) > 1 and not (out or flat or html):
        raise UsageError("Several results folders have no common place for the report. Pass --out FILE.")
    page, folder = Path(out) if out else reporting.page_of(results[0]), plugins_path(plugins)
    images = Path(data_root) if with_images else None

    def write(folders: Sequence[Path]) -> int:
        return _site(folders, Path(html), folder, images) if html else _write(folders, page, folder, check, flat)

    if from_mlflow:
        import tempfile

        from harness import tracking

        with tempfile.TemporaryDirectory(prefix="harness-report-") as place:
            tracking.restore(from_mlflow, Path(place))
            return write([Path(place)])
    for each in results:
        if not each.is_dir():
            raise UsageError(
                f"The results folder {each} does not exist. Pass the folder of the records with --results."
            )
    return write(results)


def _refuse(out: str, check: bool, flat: str, html: str, with_images: bool) -> None:
    """Refuses options that do not belong together, and empty names, such as of an unset variable."""
    context = click.get_current_context()
    for name, value in {"out": out, "flat": flat, "html": html}.items():
        if not value and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise UsageError(f"--{name.replace('flat', 'csv')} is empty. Pass the path to write to.")
    if flat and (out or check):
        raise UsageError("--csv writes the CSV files alone. Leave out --out and --check, or call `report` twice.")
    if html and (out or check or flat):
        raise UsageError("--html writes the website alone. Leave out --out, --check and --csv, or call `report` twice.")
    if with_images and not html:
        raise UsageError("--with-images belongs to the website. Pass its folder with --html DIR.")


def _site(results: Sequence[Path], place: Path, plugins: Path | None, images: Path | None) -> int:
    from harness.reporting import site

    click.echo(f"Website: {site.write(results, place, plugins, images=images)}")
    return 0


def _write(results: Sequence[Path], out: Path, plugins: Path | None, check: bool, flat: str) -> int:
    from harness import reporting

    if flat:
        for path in reporting.write_flat(results, Path(flat), plugins):
            click.echo(f"CSV: {path}")
        return 0
    if not check:
        reporting.write(results, out, plugins)
        click.echo(f"Report: {out}")
        return 0
    stale = reporting.check(results, out, plugins)
    for name in stale:
        click.echo(f"{name} is out of date. Run `python -m harness report` to rewrite it.", err=True)
    if not stale:
        click.echo(f"{out} is up to date.")
    return 1 if stale else 0
