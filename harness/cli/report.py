"""`report`: BENCHMARKS.md from records alone."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.options import (
    TrackingUri,
    UserPath,
    data_root_option,
    plugins_option,
    plugins_path,
    results_option,
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
@results_option
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
    "--html",
    default="",
    metavar="DIR",
    type=UserPath(),
    help="Write a website into this folder instead. Open its index.html; it needs no server.",
)
@option(
    MAIN, "--with-images", is_flag=True, help="With --html, show images of people; licences may forbid to share them."
)
@data_root_option
@plugins_option
def command(
    results: Path,
    out: str,
    check: bool,
    from_mlflow: str,
    html: str,
    with_images: bool,
    data_root: str,
    plugins: str,
) -> int:
    """Write the report and its plots from the records. The same records give the same bytes."""
    from harness import reporting

    if html and (out or check):
        raise UsageError("--html writes the website alone. Leave out --out and --check, or call `report` twice.")
    if with_images and not html:
        raise UsageError("--with-images belongs to the website. Pass its folder with --html DIR.")
    page, folder = Path(out) if out else reporting.page_of(results), plugins_path(plugins)
    images = Path(data_root) if with_images else None
    if from_mlflow:
        import tempfile

        from harness import tracking

        with tempfile.TemporaryDirectory(prefix="harness-report-") as place:
            tracking.restore(from_mlflow, Path(place))
            return _site(Path(place), Path(html), folder, images) if html else _write(Path(place), page, folder, check)
    if not results.is_dir():
        raise UsageError(f"The results folder {results} does not exist. Pass the folder of the records with --results.")
    return _site(results, Path(html), folder, images) if html else _write(results, page, folder, check)


def _site(results: Path, place: Path, plugins: Path | None, images: Path | None) -> int:
    from harness.reporting import site

    click.echo(f"Website: {site.write(results, place, plugins, images=images)}")
    return 0


def _write(results: Path, out: Path, plugins: Path | None, check: bool) -> int:
    from harness import reporting

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
