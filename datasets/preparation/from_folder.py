"""Creates a dataset from a folder of images: a table, a card and a link to the images, which are not copied."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec import structs

from datasets import layouts
from datasets.preparation.split import FolderSettings, Photo, find_photos, split
from datasets.preparation.unpack import fresh_folder
from datasets.readers.folders import numbers
from datasets.readers.source import order, printable
from harness import registry
from harness.cards import DatasetCard, SplitCount, read_card
from harness.errors import DataError, HarnessError, UsageError
from harness.registry import DatasetEntry
from harness.spec import recipe
from harness.system import paths
from harness.system.paths import short

TABLE, IMAGES = "items.csv", "images"


@dataclass(frozen=True)
class MadeDataset:
    """The created dataset.

    Attributes:
        name: its name.
        new: whether files were written; otherwise the same dataset existed already.
        sentences: what was found and done.
        commands: shell commands to run next, each with its purpose.
        train_identities: number of identities to train on.
    """

    name: str
    new: bool
    sentences: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]
    train_identities: int


def make_dataset(
    folder: Path, out: Path, settings: FolderSettings | None = None, data_root: Path | None = None
) -> MadeDataset:
    """Creates a dataset from a folder of images. The same arguments give the same files.

    Args:
        folder: folder with one subfolder per identity, or with the identity in every path.
        out: folder for `<name>/card.toml`; pass it to `--plugins`.
        settings: name, split, identities and cameras.
        data_root: folder for `<name>/items.csv` and the link to the images; by default `out`.

    Raises:
        DataError: there are no images or too few identities, or a different dataset of this name exists.
        UsageError: a setting is wrong.
    """
    settings, folder = settings or FolderSettings(), Path(os.path.abspath(folder))
    name = _name(folder, settings.name)
    if not 0 < settings.test_fraction < 1:
        raise UsageError(f"--test-fraction must be between 0 and 1, found {settings.test_fraction:g}.")
    roots = [Path(os.path.abspath(root)) for root in (out, data_root or out)]
    for root in roots:
        if f"{os.path.realpath(root)}/".startswith(f"{os.path.realpath(folder)}/"):
            raise UsageError(
                f"The output folder {root} is inside the image folder {folder}, so its images would be listed twice. "
                "Pass another folder."
            )
    photos, sentences = find_photos(folder, settings)
    cameras = photos[0].camera != ""
    splits, how = split(photos, settings)
    files = _files(folder, name, settings, splits, cameras)
    sentences += [*how, *_counted(splits)]
    new = _write(folder, name, roots, files)
    where = " and ".join(dict.fromkeys(short(root / name) for root in roots))
    sentences.append(f"Wrote the dataset {name} to {where}." if new else f"The dataset {name} is in {where}.")
    identities = len({p.identity for p in splits["train"]})
    return MadeDataset(name, new, tuple(sentences), _commands(name, roots, identities), identities)


def _name(folder: Path, given: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", (given or folder.name).lower()).strip("-")
    if not name or (given and given.replace("_", "-") != name):
        raise UsageError(
            "The name of a dataset must consist of lower-case letters, digits and hyphens, found "
            f"'{given or folder.name}'. Pass --name {name or 'NAME'}."
        )
    if any(name in (entry.name, entry.card.group, *entry.card.aliases) for entry in registry.datasets()):
        raise UsageError(f"'{name}' is the name of a registered dataset. Pass another name with --name.")
    return name


def _counted(splits: dict[str, list[Photo]]) -> list[str]:
    rows = [f"{name} {len(part):,} of {len({p.identity for p in part}):,}" for name, part in splits.items()]
    return [f"Images and identities: {', '.join(rows)}."]


def _files(
    folder: Path, name: str, settings: FolderSettings, splits: dict[str, list[Photo]], cameras: bool
) -> dict[str, str]:
    """Returns the content of the card, the table and, for generated images, `stand-in.json`."""
    everyone = [photo for part in splits.values() for photo in part]
    pids = numbers({photo.identity for photo in everyone})
    camids = numbers({photo.camera for photo in everyone}) if cameras else {}
    options = ["first_camera = 1"] if cameras and min(camids.values()) > 0 else []
    options += [] if cameras else ["cameras = false"]
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "pid", *(["camid"] if cameras else []), "split", "identity"])
    for _, photo, part in sorted((order(p.path), p, part) for part, photos in splits.items() for p in photos):
        camera = [camids[photo.camera]] if cameras else []
        writer.writerow([f"{IMAGES}/{photo.path}", pids[photo.identity], *camera, part, photo.identity])
    counts = {part: structs.asdict(_count(photos)) for part, photos in splits.items()}
    files = {"card.toml": _card(folder, name, settings, counts, options), TABLE: table.getvalue()}
    for place in (folder, folder.parent):
        if (place / layouts.STAND_IN).is_file():  # keep the mark of generated images
            mark = json.loads((place / layouts.STAND_IN).read_text(encoding="utf-8"))
            kept = {key: value for key, value in mark.items() if key not in ("layout", "counts")}
            files[layouts.STAND_IN] = json.dumps({**kept, "counts": counts}, indent=2)
            break
    return files


def _count(photos: Sequence[Photo]) -> SplitCount:
    return SplitCount(len(photos), len({p.identity for p in photos}), len({p.camera for p in photos}))


def _card(
    folder: Path, name: str, settings: FolderSettings, counts: dict[str, dict[str, int]], options: Sequence[str]
) -> str:
    about = (
        f"Created from the folder '{printable(folder.name)}', split by identity: seed {settings.seed}, test fraction "
        f"{settings.test_fraction:g}" + (f", pattern {settings.pattern}" if settings.pattern else "")
    )
    rows = {part: ", ".join(f"{quantity} = {count}" for quantity, count in row.items()) for part, row in counts.items()}
    lines = [
        'kind = "dataset"',
        f'name = "{name}"',
        f'title = "{name}"',
        f"about = {json.dumps(about)}",  # JSON strings are valid TOML strings
        "",
        "[[layouts]]",
        f'name = "{name}"',
        'reader = "csv"',
        f'folders = ["{name}"]',
        *(["[layouts.options]", *options] if options else []),
        "",
        "[expected]",
        *(f"{part} = {{ {row} }}" for part, row in rows.items()),
    ]
    return "\n".join(lines) + "\n"


def _write(folder: Path, name: str, roots: Sequence[Path], files: dict[str, str]) -> bool:
    """Writes card and table, each folder atomically, and reads the dataset once as a check.

    Returns whether anything was written.
    """
    out, root = roots
    parts = {out / name: ["card.toml"]}
    parts.setdefault(root / name, []).extend(file for file in files if file != "card.toml")
    there = [target for target in parts if os.path.lexists(target)]
    for target in there:
        if differs := _differing(target, {file: files[file] for file in parts[target]}, folder):
            raise DataError(
                f"{target} already exists and differs in {', '.join(differs)}: it is another dataset, or its images "
                "have changed. Remove it, or pass another --name."
            )
    try:
        data = {file: text.encode() for file, text in files.items()}
    except UnicodeEncodeError as error:
        raise DataError(
            f"{folder} contains file names that are not valid Unicode: {error.reason}. Rename these files."
        ) from error
    made = []
    try:
        for target in parts:
            with fresh_folder(target) as new:
                if new is not None:
                    for file in parts[target]:
                        (new / file).write_bytes(data[file])
                    if TABLE in parts[target]:
                        (new / IMAGES).symlink_to(folder, target_is_directory=True)
                    made.append(target)
        card = read_card(out / name / "card.toml")
        assert isinstance(card, DatasetCard)
        DatasetEntry(card, out / name, name).load(root)
    except (HarnessError, OSError) as error:
        for target in made:
            shutil.rmtree(target, ignore_errors=True)  # removes only the link to the images
        if isinstance(error, OSError):
            raise DataError(f"{' and '.join(map(str, parts))} cannot be written: {error.strerror or error}.") from error
        raise
    return bool(made)


def _differing(target: Path, files: dict[str, str], folder: Path) -> list[str]:
    wrong = []
    for file, text in files.items():
        try:
            same = (target / file).read_bytes() == text.encode("utf-8", "surrogateescape")
        except OSError:
            same = False
        wrong += [] if same else [file]
    if TABLE in files and os.path.realpath(target / IMAGES) != os.path.realpath(folder):
        wrong.append(IMAGES)
    return wrong


def batch(recipe_name: str, train_identities: int) -> list[str]:
    """Returns the option that lowers the number of identities per batch, if the recipe has too many."""
    needed = recipe.load(recipe.find(recipe_name, Path())).sampler.identities
    return ["--set", f"sampler.identities={train_identities}"] if train_identities < needed else []


def _commands(name: str, roots: Sequence[Path], train_identities: int) -> tuple[tuple[str, str], ...]:
    """Returns the shell commands to run next, each with its purpose; folders in environment variables are left out."""
    where = ["--datasets", name]
    for flag, variable, root in (("--plugins", paths.PLUGINS, roots[0]), ("--data-root", paths.DATASETS, roots[1])):
        given = paths.variable(variable)
        where += [] if given and os.path.abspath(given) == str(root) else [flag, short(root)]

    few, fewer = (batch(name, train_identities) for name in ("unified", "small"))
    lines: dict[str, list[str]] = {
        "Check the images": ["validate", *where],
        "Small networks, for a CPU": ["run", "--backbones", "dummy,bot", *where, "--preset", "small", *fewer],
        "Full size; needs a GPU and starting weights": ["plan", "--backbones", "bot", *where, *few],
    }
    return tuple((purpose, shlex.join(["python", "-m", "harness", *line])) for purpose, line in lines.items())
