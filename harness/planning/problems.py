"""Why a run cannot start: in two words for the table, with the cure, and in full."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import HarnessError
from harness.registry import BackboneEntry, DatasetEntry
from harness.spec.job import LocalPaths
from harness.spec.recipe import Recipe
from harness.system.paths import REPOSITORY, short

DATA, WEIGHTS = "data", "weights"
"""Folders that commands name where the user gave none."""


class Problem(NamedTuple):
    """A reason why a run cannot start, or why a model cannot be scored on a further dataset.

    Attributes:
        text: the whole explanation.
        short: the reason in a few words, for a column of a table.
        subject: the backbone or dataset that has the problem; empty if it is their combination.
        advice: what to do, as a sentence; a colon at its end announces the command.
        command: the command that helps, with `{names}` where the subjects are listed.
    """

    text: str
    short: str
    subject: str = ""
    advice: str = ""
    command: str = ""


def of_backbone(backbone: BackboneEntry) -> Iterator[Problem]:
    """Yields a problem per required distribution that is not installed."""
    for text in backbone.missing():
        name = text.partition(" ")[0]
        yield Problem(f"{text}.", f"no {name}", backbone.name, f"{text}:", f"pip install {name}")


def missing_weights(backbone: BackboneEntry, files: tuple[str, ...], paths: LocalPaths) -> Problem:
    """The problem of starting weights that are not there."""
    where = f"below {paths.weights_root}" if paths.weights_root else "(no --weights-root given)"
    text = (
        f"The starting weights of {backbone.card.name} were not found {where}. Accepted file names: "
        f"{', '.join(files)}. Download them with `python -m harness prepare --backbones {backbone.name} "
        "--weights-root DIR`, or pass --from-scratch to start from random weights."
    )
    advice = "Pass --from-scratch for random weights, or download them:"
    if not paths.weights_root:
        advice = "Pass --weights-root DIR, or --from-scratch for random weights, or download them:"
    command = f"python -m harness prepare --backbones {{names}} --weights-root {_folder(paths.weights_root, WEIGHTS)}"
    return Problem(text, "no weights", backbone.name, advice, command)


def wrong_weights(backbone: BackboneEntry, error: HarnessError) -> Problem:
    """The problem of starting weights that are there and cannot be used."""
    return Problem(str(error), "wrong weights", backbone.name, str(error))


def of_data(entry: DatasetEntry, error: HarnessError, data_root: str, *, found: bool) -> Problem:
    """The problem of a dataset that cannot be read.

    Args:
        entry: the dataset.
        error: what its reader said.
        data_root: the folder of the datasets; may be empty.
        found: whether a complete folder of the dataset is there, so that its contents are at fault.
    """
    root = Path(data_root or ".")
    command = f"python -m harness prepare --datasets {{names}} --data-root {_folder(data_root, DATA)}"
    if not root.is_dir():
        return Problem(
            str(error),
            "no data root",
            entry.name,
            f"The data root {short(root)} does not exist. Pass another --data-root, or create it:",
            command,
        )
    if found:
        return Problem(str(error), "damaged data", entry.name, str(error))
    if any((root / folder).is_dir() for layout in entry.card.layouts for folder in layout.folders):
        advice = "Something is missing in the folder of the dataset. Complete it, or see what is missing:"
        return Problem(str(error), "incomplete data", entry.name, advice, command)
    if not entry.folder.is_relative_to(REPOSITORY / "datasets"):  # a plug-in: there is no archive to unpack
        advice = f"{entry.name} was not found in {short(root)}. Pass the folder that contains it with --data-root."
        return Problem(str(error), "no data", entry.name, advice)
    advice = "Unpack archives that you have, and see where to get others:"
    if not data_root:
        advice = "Pass --data-root DIR, or unpack archives that you have and see where to get others:"
    return Problem(str(error), "no data", entry.name, advice, command)


def unmatched(entry: DatasetEntry, queries: int, data_root: str) -> Problem:
    """The problem of a dataset in which no query has a match."""
    return Problem(
        f"{entry.name} cannot be scored: none of its {queries:,} queries has a match, a gallery image of the "
        f"same identity from another camera. `python -m harness validate --datasets {entry.name}` says more.",
        "no matches",
        entry.name,
        f"{entry.name} cannot be scored: none of its {queries:,} queries has a match, a gallery image of the same "
        "identity from another camera. Check it:",
        f"python -m harness validate --datasets {{names}} --data-root {_folder(data_root, DATA)}",
    )


def uneven_parts(recipe: Recipe, processes: int) -> Problem | None:
    """The problem of a training that several processes cannot share, or None."""
    if processes > 1 and recipe.training.compile != "no":
        return plain(
            "training.compile works with one GPU per run: leave it or --gpus-per-run out.", "compiled by one GPU alone"
        )
    batch, micro_batch = recipe.sampler.identities * recipe.sampler.instances, recipe.training.micro_batch
    if batch % processes:
        return plain(
            f"A batch of {batch} images cannot be divided equally over {processes} processes: pass a --gpus-per-run "
            "that divides it, or change sampler.identities.",
            "uneven batch",
        )
    if micro_batch and (batch // processes) % micro_batch:
        return plain(
            f"training.micro_batch {micro_batch} does not divide the {batch // processes} images that each of "
            f"{processes} processes has of a batch: choose a divisor.",
            "uneven batch",
        )
    return None


def plain(text: str, short: str) -> Problem:
    """A problem whose explanation is short enough to be its own advice."""
    return Problem(text, short, advice=text)


def _folder(given: str, default: str) -> str:
    return shlex.quote(short(Path(given))) if given else default
