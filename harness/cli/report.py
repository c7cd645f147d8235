"""`report`: BENCHMARKS.md from records alone."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.groups import command as grouped
from harness.cli.options import TrackingUri, UserPath, plugins_option, plugins_path, results_option


@grouped(epilog="Example: python -m harness report --results demo/results --out demo/BENCHMARKS.md")
@results_option
@click.option(
    "--out",
    default="",
    metavar="FILE",
    type=UserPath(),
    help="The page. [default: BENCHMARKS.md of the checkout for its own results, else in the results folder]",
)
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if the page or a figure is stale.")
@click.option(
    "--from-mlflow",
    default="",
    metavar="URI",
    type=TrackingUri(),
    help="Take the records from a tracking server alone.",
)
@plugins_option
def command(results: Path, out: str, check: bool, from_mlflow: str, plugins: str) -> int:
    """Writes the page and its plots; the same records give the same bytes."""
    from harness import reporting

    page, folder = Path(out) if out else reporting.page_of(results), plugins_path(plugins)
    if from_mlflow:
        import tempfile

        from harness import tracking

        with tempfile.TemporaryDirectory(prefix="harness-report-") as place:
            tracking.restore(from_mlflow, Path(place))
            return _write(Path(place), page, folder, check)
    return _write(results, page, folder, check)


def _write(results: Path, out: Path, plugins: Path | None, check: bool) -> int:
    from harness import reporting

    if not check:
        reporting.write(results, out, plugins)
        click.echo(f"Report: {out}")
        return 0
    stale = reporting.check(results, out, plugins)
    for name in stale:
        click.echo(f"{name} is stale; 'python -m harness report' rewrites it.", err=True)
    if not stale:
        click.echo(f"{out} is up to date.")
    return 1 if stale else 0
