"""`run-one FOLDER`: the child process of a run."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(hidden=True)
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rank", type=int, default=0)
@click.option("--store", type=click.Path(path_type=Path), default="")
def command(folder: Path, rank: int, store: Path) -> int:
    """Runs the job in FOLDER/job.json; JSON lines on standard output. With --rank, trains beside the first process."""
    from harness.worker import main

    return main.follow(folder.absolute(), rank, store) if rank else main.main(folder.absolute())
