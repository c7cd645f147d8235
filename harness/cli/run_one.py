"""`run-one FOLDER`: the child process of a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def command(folder: Path) -> int:
    """Runs the job in FOLDER/job.json; JSON lines on standard output."""
    from harness.worker.main import main

    return main(folder.absolute())
