"""`embed`: features of images, from a trained network to a file."""

from __future__ import annotations

import shlex
import time
from typing import Any

import click

from harness.cli import completion
from harness.cli.groups import HARDWARE, MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.networks import network_options, network_settings
from harness.cli.options import (
    UserPath,
    data_root_option,
    device_option,
    given,
    reader_option,
    threads_option,
    workers_option,
)
from harness.cli.tables import prose
from harness.system.redact import readable


@grouped(
    exit_codes={0: "The file is written.", 1: "The features could not be computed.", 2: "Wrong usage or bad data."},
    example="python -m harness embed --backbone bot --run 3f2a --images crops --out crops.npz",
)
@network_options
@option(
    MAIN,
    "--images",
    default="",
    metavar="DIR|FILE",
    type=UserPath(),
    help="Folder of images, one image, or a text file of paths.",
)
@option(
    MAIN,
    "--dataset",
    default="",
    metavar="NAME",
    shell_complete=completion.one(completion.datasets),
    help="Dataset whose query and gallery to embed, in place of --images.",
)
@option(MAIN, "--out", required=True, metavar="FILE.npz", type=UserPath(), help="File to write.")
@option(MAIN, "--flip", is_flag=True, help="Average the features of each image and its mirror image.")
@option(MAIN, "--raw", is_flag=True, help="Write features as the network returns them, not of unit length.")
@option(
    MAIN,
    "--camera",
    type=int,
    metavar="N",
    show_default="those of the dataset, or the mean of the trained ones",
    help="Trained camera of all images, from 0.",
)
@option(
    HARDWARE,
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Number format of the network; fp16 needs a GPU.",
)
@option(
    HARDWARE,
    "--batch",
    "batch_size",
    type=click.IntRange(min=1),
    metavar="N",
    show_default="that of the evaluation",
    help="Images per batch; it may change the last bit.",
)
@threads_option("those of a run on the CPU, else all cores", "Number of CPU threads; it may change the last bit.")
@device_option
@data_root_option
@reader_option
@workers_option
def command(backbone: str, images: str, dataset: str, out: str, **values: Any) -> int:
    """Write the features of images to a .npz file, as the evaluation computes them.

    A folder gives the arrays features and paths. A dataset gives query and gallery with paths, identities and cameras,
    which `evaluate --features` scores. Images are crops of persons; nothing is detected.
    """
    import harness

    written = harness.embed(
        backbone,
        images=images or None,
        dataset=dataset,
        out=out,
        progress=counter(),
        **network_settings(values),
    )
    for sentence in written.sentences:
        click.echo(prose(readable(sentence), "  "))
    rows = " and ".join(f"{count:,} {name}" for name, count in written.counts.items())
    click.echo(f"Wrote {rows} of {written.dimension} numbers to {readable(str(written.path))}.")
    if dataset:
        words = ["evaluate", "--backbone", written.backbone, "--dataset", dataset, "--features", out]
        typed = given(values)
        for name in ("data_root", "plugins"):
            words += [f"--{name.replace('_', '-')}", str(typed[name])] if typed.get(name) else []
        click.echo(f"  # Score them:\n  python -m harness {readable(shlex.join(words))}")
    return 0


def counter() -> Any:
    """A progress callback for several arrays that prints at most once a second."""
    last = [time.monotonic()]

    def show(name: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] > 1.0:
            last[0] = time.monotonic()
            click.echo(f"  {name}: {done:,}/{total:,} images")

    return show
