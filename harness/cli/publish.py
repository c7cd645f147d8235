"""`publish RUN --to DIR|hf://user/name`: weights, model card and record of a trained network."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.options import UserPath, plugins_option, results_option
from harness.execution.publish import Package


@grouped(
    exit_codes={0: "Published.", 1: "The upload failed.", 2: "Wrong usage; nothing was sent."},
    example="python -m harness publish 3f2a91 --to published/bot-market1501",
)
@click.argument("run")
@option(
    MAIN,
    "--to",
    metavar="DIR|hf://USER/NAME",
    required=True,
    type=UserPath(),
    help="New folder, or repository on the Hugging Face hub.",
)
@option(MAIN, "--yes", is_flag=True, help="Upload without asking.")
@option(MAIN, "--public", is_flag=True, help="Make a new repository visible to everyone; private by default.")
@plugins_option
@results_option
def command(run: str, to: str, yes: bool, public: bool, plugins: str, results: Path) -> int:
    """Write weights, model card and record of a trained network into a folder, or upload them.

    RUN is a run id or its first characters; `status` lists them. Nothing is sent before you agree. The login is that
    of `hf auth login` or of HF_TOKEN.
    """
    from harness.execution import publish

    def consent(package: Package) -> bool:
        click.echo(f"To upload to {package.repository} ({'public' if package.public else 'private'} if it is new):")
        for name, size in package.files.items():
            click.echo(f"  {name}  {size / 2**20:.1f} MiB")
        return yes or (sys.stdin.isatty() and click.confirm("Upload?"))

    where = publish.publish(run, to, results=results, plugins=plugins, public=public, consent=consent)
    click.echo(f"Published: {where}")
    return 0
