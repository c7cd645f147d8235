"""`prepare`: make datasets and weights ready from what the user has."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import registry, weights
from harness.cli import completion
from harness.cli.groups import MAIN, OWN, option
from harness.cli.groups import command as grouped
from harness.cli.options import UserPath, data_root_option, plugins_option, plugins_path, weights_root_option
from harness.cli.tables import prose
from harness.errors import HarnessError, UsageError
from harness.system.redact import readable

if TYPE_CHECKING:
    from datasets.preparation.from_folder import MadeDataset


@grouped(
    exit_codes={
        0: "Everything is ready.",
        1: "Something is missing or damaged.",
        2: "Wrong usage.",
    },
    example="python -m harness prepare --datasets msmt17 --from MSMT17_V1.tar.gz --data-root data",
)
@option(
    MAIN,
    "--datasets",
    metavar="NAMES",
    default="",
    shell_complete=completion.many(completion.datasets),
    help="Comma-separated datasets to prepare, or 'all'.",
)
@option(
    MAIN,
    "--backbones",
    metavar="NAMES",
    default="",
    shell_complete=completion.many(completion.backbones),
    help="Comma-separated backbones to fetch weights for, or 'all'.",
)
@option(
    MAIN,
    "--from",
    "sources",
    multiple=True,
    metavar="FILE",
    type=UserPath(),
    help="Archive or folder that you have; repeatable.",
)
@option(OWN, "--from-folder", default="", metavar="DIR", type=UserPath(), help="Folder of images to make a dataset of.")
@option(OWN, "--name", default="", metavar="NAME", show_default="that of the folder", help="Name of the new dataset.")
@option(
    OWN,
    "--out",
    default="",
    metavar="DIR",
    type=UserPath(),
    show_default="--plugins, or plugins",
    help="Folder for its card.",
)
@option(OWN, "--seed", metavar="N", default=0, show_default=True, help="Seed that chooses test identities and queries.")
@option(
    OWN,
    "--test-fraction",
    metavar="FRACTION",
    default=0.5,
    show_default=True,
    help="Fraction of the identities to test on.",
)
@option(
    OWN,
    "--pattern",
    default="",
    metavar="REGEX",
    help="Regular expression for paths, with groups pid and camid.",
)
@option(
    OWN,
    "--run",
    "backbones_to_run",
    default="",
    metavar="NAMES",
    shell_complete=completion.many(completion.backbones),
    help="Then train these backbones on it; options after -- go to `run`.",
)
@option(OWN, "--no-cameras", is_flag=True, help="State that the cameras are unknown.")
@data_root_option
@weights_root_option
@plugins_option
@click.argument("run_options", nargs=-1, metavar="[-- OPTIONS OF RUN]", type=click.UNPROCESSED)
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
    backbones_to_run: str,
    run_options: tuple[str, ...],
    **settings: Any,
) -> int:
    """Unpack archives, extract CUHK03, build Occluded-Duke, and download pretrained weights.

    With --from-folder, make a dataset of a folder that has one folder per identity, or the identity in each file
    name. The images stay where they are. The command prints the next commands; with --run it trains at once.

    The command can be interrupted and repeated. Data behind a form, and withdrawn data, is never downloaded: the
    command says where to ask for it.
    """
    folder = plugins_path(plugins)
    if not datasets and not backbones and not from_folder:
        raise UsageError("Nothing to prepare. Pass --datasets, --backbones or --from-folder.")
    if (backbones_to_run and not from_folder) or (run_options and not backbones_to_run):
        raise UsageError("--run needs --from-folder, and options after -- need --run.")
    if datasets and not data_root:
        raise UsageError("No folder for the datasets. Pass --data-root DIR, or set REID_DATASETS.")
    if backbones and not weights_root:
        raise UsageError("No folder for the weights. Pass --weights-root DIR, or set REID_WEIGHTS.")
    asked_datasets = registry.resolve_datasets(datasets, folder) if datasets else []
    asked_backbones = registry.resolve_backbones(backbones, folder) if backbones else []
    place, good = out or plugins or "plugins", True
    if backbones_to_run:
        _check_run(backbones_to_run, place, run_options)
    if from_folder:
        settings["cameras"] = not no_cameras
        made = _from_folder(from_folder, place, data_root, proceed=bool(backbones_to_run), **settings)
    for entry in asked_datasets:
        for single in entry.singles:
            good &= _dataset(single, Path(data_root), sources)
    for backbone in asked_backbones:
        good &= _weights(backbone, weights_root)
    if good and backbones_to_run:
        return _run(backbones_to_run, made, place, data_root or place, run_options)
    return 0 if good else 1


def _dataset(entry: registry.DatasetEntry, root: Path, sources: tuple[str, ...]) -> bool:
    from datasets.preparation.prepare import prepare_dataset

    try:
        outcome = prepare_dataset(entry, root, sources=sources, progress=counter(entry.name))
    except HarnessError as error:
        click.echo(prose(readable(str(error)), "  ", f"{entry.name}: "), err=True)
        return False
    click.echo(f"{entry.name}: {outcome.status}")
    for sentence in outcome.sentences:
        click.echo(prose(readable(sentence), "    ", "  "))
    return outcome.status != "absent"


def _from_folder(folder: str, out: str, data_root: str, *, proceed: bool, **settings: Any) -> MadeDataset:
    """Makes the dataset; prints the next commands unless the program proceeds itself."""
    from datasets.preparation.from_folder import make_dataset
    from datasets.preparation.split import FolderSettings

    made = make_dataset(Path(folder), Path(out), FolderSettings(**settings), Path(data_root) if data_root else None)
    click.echo(f"{made.name}: {'built' if made.new else 'already built, unchanged'}")
    for sentence in made.sentences:
        click.echo(prose(readable(sentence), "    ", "  "))
    if not proceed:
        click.echo("Next:")
        for purpose, command in made.commands:
            click.echo(f"  # {purpose}:\n  {readable(command)}")
    return made


def _check_run(backbones: str, plugins: str, more: tuple[str, ...]) -> None:
    """Refuses names and options that `run` would refuse after the work."""
    from harness.cli import run

    registry.resolve_backbones(backbones, Path(plugins) if Path(plugins).is_dir() else None)
    run.command.make_context("run", ["--backbones", backbones, "--datasets", "made", *more])


def _run(backbones: str, made: MadeDataset, plugins: str, data_root: str, more: tuple[str, ...]) -> int:
    """Goes on with `run`, as if the user had typed it; a batch has no more identities than there are."""
    from datasets.preparation.from_folder import batch
    from harness.cli import run
    from harness.spec import preset

    words = ["--backbones", backbones, "--datasets", made.name, "--plugins", plugins, "--data-root", data_root]
    typed = run.command.make_context("run", [*words, *more]).params
    if not any(text.startswith("sampler.identities") for text in typed["overrides"]) and typed["recipe"] != "native":
        chosen = preset.load(typed["preset"])["recipe"] if typed["preset"] else typed["recipe"]
        words += batch(chosen, made.train_identities)
    return int(run.command.main([*words, *more], prog_name="python -m harness run", standalone_mode=False) or 0)


def _weights(backbone: registry.BackboneEntry, root: str) -> bool:
    try:
        if path := weights.fetch(backbone.card, root, backbone.options()):
            weights.check_kind(path)
    except HarnessError as error:
        click.echo(prose(readable(str(error)), "  ", f"{backbone.name}: "), err=True)
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
