"""`prepare`: get data and weights ready from what the user holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness import registry, weights
from harness.cli.groups import command as grouped
from harness.cli.options import UserPath, data_root_option, plugins_option, plugins_path, weights_root_option
from harness.errors import HarnessError, UsageError
from harness.system.redact import readable


@grouped(epilog="Example: python -m harness prepare --datasets msmt17 --from MSMT17_V1.tar.gz --data-root DIR")
@click.option("--datasets", default="", help="Comma list of datasets, or 'all'.")
@click.option("--backbones", default="", help="Backbones whose starting weights to fetch, or 'all'.")
@click.option(
    "--from", "sources", multiple=True, metavar="FILE", type=UserPath(), help="Archive or folder you hold; repeatable."
)
@click.option(
    "--from-folder", default="", metavar="DIR", type=UserPath(), help="Folder of images to make a dataset of."
)
@click.option("--name", default="", help="Name of that dataset; the folder's by default.")
@click.option(
    "--out",
    default="",
    metavar="DIR",
    type=UserPath(),
    help="Folder for its card. [default: --plugins, or plugins]",
)
@click.option("--seed", default=0, show_default=True, help="Seed that chooses test identities and queries.")
@click.option("--test-fraction", default=0.5, show_default=True, help="Fraction of the identities to test on.")
@click.option("--pattern", default="", metavar="REGEX", help="Groups pid and camid, searched for in each path.")
@click.option("--no-cameras", is_flag=True, help="The cameras are unknown.")
@weights_root_option
@data_root_option
@plugins_option
def command(
    datasets: str,
    backbones: str,
    sources: tuple[str, ...],
    from_folder: str,
    out: str,
    no_cameras: bool,
    weights_root: str,
    data_root: str,
    plugins: str,
    **settings: Any,
) -> int:
    """Unpacks archives, extracts CUHK03, builds Occluded-Duke, fetches starting weights.

    With --from-folder it makes a dataset of a folder that has one folder per identity, or the identity in each file
    name. Images stay where they are. It prints the commands that come next.

    It can be repeated and interrupted. Data behind a form or withdrawn is never downloaded: the command says
    where to ask.
    """
    folder = plugins_path(plugins)
    if not datasets and not backbones and not from_folder:
        raise UsageError("Nothing to prepare: give --datasets, --backbones or --from-folder.")
    good = True
    if from_folder:
        _from_folder(from_folder, out or plugins or "plugins", data_root, cameras=not no_cameras, **settings)
    if datasets:
        if not data_root:
            raise UsageError("--data-root DIR (or $REID_DATASETS) says where the datasets go.")
        for entry in registry.resolve_datasets(datasets, folder):
            good &= _dataset(entry, Path(data_root), sources)
    if backbones:
        if not weights_root:
            raise UsageError("--weights-root DIR (or $REID_WEIGHTS) says where the weights go.")
        for backbone in registry.resolve_backbones(backbones, folder):
            good &= _weights(backbone, weights_root)
    return 0 if good else 1


def _dataset(entry: registry.DatasetEntry, root: Path, sources: tuple[str, ...]) -> bool:
    from datasets.preparation.prepare import prepare_dataset

    try:
        outcome = prepare_dataset(entry, root, sources=sources, progress=counter(entry.name))
    except HarnessError as error:
        click.echo(f"{entry.name}: {readable(str(error))}", err=True)
        return False
    click.echo(f"{entry.name}: {outcome.status}")
    for sentence in outcome.sentences:
        click.echo(f"  {readable(sentence)}")
    return outcome.status != "absent"


def _from_folder(folder: str, out: str, data_root: str, **settings: Any) -> None:
    from datasets.preparation.from_folder import make_dataset
    from datasets.preparation.split import FolderSettings

    made = make_dataset(Path(folder), Path(out), FolderSettings(**settings), Path(data_root) if data_root else None)
    click.echo(f"{made.name}: built")
    for sentence in made.sentences:
        click.echo(f"  {readable(sentence)}")
    click.echo("Next:")
    for command in made.commands:
        click.echo(f"  {readable(command)}")


def _weights(backbone: registry.BackboneEntry, root: str) -> bool:
    try:
        if path := weights.fetch(backbone.card, root, backbone.options()):
            weights.check_kind(path)
    except HarnessError as error:
        click.echo(f"{backbone.name}: {error}", err=True)
        return False
    click.echo(f"{backbone.name}: {path or 'has no starting weights'}")
    return True


def counter(name: str) -> Callable[[int, int], None]:
    """A progress callback that prints at most once a second."""
    last = [time.monotonic()]

    def show(done: int, total: int) -> None:
        if time.monotonic() - last[0] > 1.0:
            last[0] = time.monotonic()
            click.echo(f"  {name}: {done}/{total}")

    return show
