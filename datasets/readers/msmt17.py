"""Reader of datasets with one list file per split, with lines of `<path> <pid>`, as MSMT17."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.readers.source import Source, below, first, number, order, pattern_of, shown
from harness.contracts import SPLITS, Item
from harness.errors import DataError

PATTERN = r"(?P<pid>\d+)_\d+_(?P<camid>\d+)_"
TRAIN_LISTS = ("list_train.txt", "list_val.txt")


def needs(
    *,
    train_lists: Sequence[str] = TRAIN_LISTS,
    query_list: str = "list_query.txt",
    gallery_list: str = "list_gallery.txt",
    train: str = "train",
    test: str = "test",
    splits: Sequence[str] = SPLITS,
    **_: Any,
) -> list[str]:
    """Returns the folders and files that must exist."""
    needed = {"train": [train, *train_lists], "query": [test, query_list], "gallery": [test, gallery_list]}
    return list(dict.fromkeys(name for split in splits for name in needed[split]))


def read(
    source: Source,
    *,
    train_lists: Sequence[str] = TRAIN_LISTS,
    query_list: str = "list_query.txt",
    gallery_list: str = "list_gallery.txt",
    train: str = "train",
    test: str = "test",
    pattern: str = PATTERN,
    first_camera: int = 1,
    own_train_labels: bool = True,
) -> dict[str, list[Item]]:
    """Reads the lists. Identities come from the lists, cameras from the file names.

    Args:
        source: the dataset's folder.
        train_lists: list files of the training split.
        query_list: list file of the query split.
        gallery_list: list file of the gallery split.
        train: folder of the paths in the training lists.
        test: folder of the paths in the query and gallery lists.
        pattern: regular expression with the group `camid`, and `pid` if file names contain the identity.
        first_camera: number of the first camera in the names.
        own_train_labels: whether training and test splits use the same numbers for different people.

    Raises:
        DataError: a list is missing or damaged, contradicts a file name, or contains a missing image.
    """
    parts: dict[str, int] = {}
    splits: dict[str, list[Item]] = {}
    for split, sub, lists in (
        ("train", train, tuple(train_lists)),
        ("query", test, (query_list,)),
        ("gallery", test, (gallery_list,)),
    ):
        if split not in source.splits:
            continue
        items: list[tuple[str, int, int]] = []
        for name in lists:
            rows = _rows(source, name, sub, pattern, first_camera)
            parts[Path(name).stem.removeprefix("list_")] = len(rows)
            items += rows
        names = [row[0] for row in items]
        if len(set(names)) != len(names):
            raise DataError(
                f"{', '.join(lists)} in {source.folder}: images are listed twice: {first(_repeated(names))}. Unpack "
                "the archive again."
            )
        source.require(names, f"{', '.join(lists)} in {source.folder}", " Unpack the archive again.")
        prefix = f"{source.folder}/"
        items.sort(key=lambda row: order(row[0]))
        splits[split] = [Item(Path(prefix + name), pid, camid) for name, pid, camid in items]
    source.notes["lists"] = parts
    if own_train_labels:
        source.notes["own_train_labels"] = True
    return splits


def _rows(source: Source, name: str, sub: str, pattern: str, first_camera: int) -> list[tuple[str, int, int]]:
    """Returns relative path, identity and zero-based camera of every line."""
    fits = pattern_of(pattern, "camid")
    checks_pid = "pid" in fits.groupindex
    where = source.folder / name
    rows = []
    for line_number, line in enumerate(source.text(name).split("\n"), start=1):
        if not line.strip():
            continue
        text, _, label = line.replace("\t", " ").strip().rpartition(" ")
        path, pid = below(source.folder / sub, text.strip()), number(label)
        match = fits.match(path.rpartition("/")[2])
        camera = number(match["camid"]) if match else None
        if pid is None or pid < 0 or not path:
            raise DataError(f"{where}, line {line_number}: expected 'folder/name.jpg pid', found {shown(line)}.")
        if match is None or camera is None or camera < first_camera:
            raise DataError(
                f"{where}, line {line_number}: the name {shown(path)} has no camera from {first_camera} on."
            )
        if checks_pid and number(match["pid"]) != pid:
            raise DataError(f"{where}, line {line_number}: the identity {pid} contradicts the name {shown(path)}.")
        rows.append((f"{sub}/{path}" if sub else path, pid, camera - first_camera))
    return rows


def _repeated(names: list[str]) -> list[str]:
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
