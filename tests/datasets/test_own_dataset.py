"""A user's own dataset: one card and no code, as `datasets/README.md` says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
import small_datasets as small

from harness import registry, validate
from harness.errors import DataError, UsageError

README = Path(registry.REPOSITORY / "datasets" / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"( *)```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return textwrap.dedent(found[2])


def plugin(tmp_path: Path, card: str, name: str = "office") -> registry.DatasetEntry:
    folder = tmp_path / "plugins" / name
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(card)
    return registry.dataset(name, tmp_path / "plugins")


def card(reader: str, options: str = "", name: str = "office") -> str:
    return f"""kind = "dataset"
name = "{name}"
title = "Our office"
[[layouts]]
name = "{name}"
reader = "{reader}"
folders = ["{name}"]
[layouts.options]
{options}
"""


def test_the_example_of_the_guide_works(tmp_path: Path) -> None:
    entry = plugin(tmp_path, block("toml"))
    table = block("csv")
    for number, line in enumerate(table.splitlines()[1:]):
        small.picture(tmp_path / "data" / "office" / line.split(",")[0], number + 1)
    (tmp_path / "data" / "office" / "items.csv").write_text(table)
    splits = entry.load(tmp_path / "data")
    assert [(item.path.name, item.pid, item.camid) for item in (*splits.query, *splits.gallery)] == [
        ("0005.jpg", 7, 0), ("0006.jpg", 7, 2), ("0007.jpg", 7, 0)
    ]  # fmt: skip
    assert validate.check_counts(entry, splits) == []
    assert [f.level for f in validate.check_images(splits)] == ["info"]
    assert len(entry.fingerprint(tmp_path / "data")) == 64


def test_market_folders_under_other_names(tmp_path: Path) -> None:
    options = (
        'train = "learn"\nquery = "ask"\ngallery = "find"\nfirst_camera = 0\n'
        "pattern = 'cam(?P<camid>\\d)-(?P<pid>\\d+)'"
    )
    entry = plugin(tmp_path, card("market", options))
    for sub in ("learn", "ask", "find"):
        small.picture(tmp_path / "office" / sub / "cam0-17.png")
    splits = entry.load(tmp_path)
    assert [(item.pid, item.camid) for item in splits.gallery] == [(17, 0)]


def test_lists_under_other_names(tmp_path: Path) -> None:
    options = (
        'train_lists = ["learn.txt"]\nquery_list = "ask.txt"\ngallery_list = "find.txt"\ntrain = ""\ntest = ""\n'
        "pattern = '.*_k(?P<camid>\\d+)'"
    )
    entry = plugin(tmp_path, card("msmt17", options))
    for name in ("learn", "ask", "find"):
        small.picture(tmp_path / "office" / name / "x_k12.png")
        (tmp_path / "office" / f"{name}.txt").write_text(f"{name}/x_k12.png 4\n")
    splits = entry.load(tmp_path)
    assert [(item.path.name, item.pid, item.camid) for item in splits.query] == [("x_k12.png", 4, 11)]


def test_a_reader_of_ones_own(tmp_path: Path) -> None:
    entry = plugin(tmp_path, card("reader.py:read", "camera = 3", "own"), "own")
    (entry.folder / "reader.py").write_text(
        "from harness.contracts import Item\n"
        "def read(source, camera):\n"
        "    items = [Item(source.folder / name, int(name[0]), camera) for name in source.images('')]\n"
        "    return {'train': items, 'query': items, 'gallery': items}\n"
    )
    small.picture(tmp_path / "own" / "5.jpg")
    assert [(item.pid, item.camid) for item in entry.load(tmp_path).train] == [(5, 3)]


CARDS: dict[str, tuple[str, str, type[Exception]]] = {
    "unknown reader": (card("markt"), "reader of office 'markt'. Did you mean 'market'", UsageError),
    "unknown option": (card("csv", "fil = 'x.csv'"), "does not fit its reader.*'fil'", UsageError),
    "pattern that is none": (card("market", "pattern = '('"), "not a regular expression", UsageError),
    "pattern without camera": (card("market", r"pattern = '(?P<pid>\d+)'"), "no group camid", UsageError),
    "no table": (card("csv"), r"it lacks items\.csv", DataError),
}


@pytest.mark.parametrize("kind", CARDS)
def test_a_card_that_does_not_fit(kind: str, tmp_path: Path) -> None:
    text, message, error = CARDS[kind]
    small.market(tmp_path / "office")
    if kind == "unknown option":
        (tmp_path / "office" / "items.csv").touch()
    with pytest.raises(error, match=message):
        plugin(tmp_path, text).load(tmp_path)


TABLES: dict[str, tuple[str, str]] = {
    "a column missing": ("path,pid,camid\n", r"lacks the column\(s\) split"),
    "no header": ("a.jpg,1,1,train\n", r"lacks the column\(s\) path, pid, camid, split"),
    "an empty table": ("", "lacks the column"),
    "a short row": ("path,pid,camid,split\na.jpg,1\n", "line 2: camid must be 0 or above, found ''"),
    "a wrong split": ("path,pid,camid,split\na.jpg,1,1,test\n", "line 2: split must be one of .*, found 'test'"),
    "pid -2": ("path,pid,camid,split\na.jpg,-2,1,train\n", "line 2: pid must be -1 or above"),
    "a fraction": ("path,pid,camid,split\na.jpg,1.0,1,train\n", "found '1.0'"),
    "a path upwards": ("path,pid,camid,split\n../a.jpg,1,1,train\n", "leaves the folder"),
    "a path upwards, Windows": ("path,pid,camid,split\n..\\a.jpg,1,1,train\n", "leaves the folder"),
    "an absent image": ("path,pid,camid,split\nb.jpg,1,1,train\n", r"1 image\(s\) that are absent: 'b.jpg'"),
    "a row twice": ("path,pid,camid,split\na.jpg,1,1,train\na.jpg,2,1,train\n", "names an image twice"),
    "no query": ("path,pid,camid,split\na.jpg,1,1,train\n", "no images .* of the query split"),
    "an open quote": ('path,pid,camid,split\n"a.jpg,1,1,train\n', "not a CSV table"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_table_is_an_error(kind: str, tmp_path: Path) -> None:
    text, message = TABLES[kind]
    small.picture(tmp_path / "office" / "a.jpg")
    (tmp_path / "office" / "items.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        plugin(tmp_path, card("csv")).load(tmp_path)
