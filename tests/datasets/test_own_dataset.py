"""A user's own dataset needs a card and no code, as in `docs/own-dataset.md`."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from datasets.readers.source import IMAGE_KINDS
from harness import registry
from harness.contracts import PROTOCOLS, Item
from harness.data.transforms import decode
from harness.errors import DataError, UsageError
from harness.registry import dataset_checks
from harness.spec.recipe import Evaluation
from harness.system.paths import REPOSITORY
from harness.worker.scoring import score_features
from tests.support import small_datasets as small

GUIDE = Path(REPOSITORY / "docs" / "own-dataset.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"( *)```{language}\n(.*?)```", GUIDE, re.DOTALL)
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
        ("0005.jpg", 7, 0), ("0006.jpg", 7, 1), ("0007.jpg", 7, 0)
    ]  # fmt: skip
    assert dataset_checks.check_counts(entry, splits) == []
    assert [f.level for f in dataset_checks.check_images(splits)] == ["info"]
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


def test_the_reader_of_the_guide_works(tmp_path: Path) -> None:
    entry = plugin(tmp_path, card("reader.py:read", 'split_file = "lines.txt"'))
    (entry.folder / "reader.py").write_text(block("python"))
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        small.picture(tmp_path / "office" / name)
    (tmp_path / "office" / "lines.txt").write_text("train 1.jpg 1 0\nquery 2.jpg 2 0\ngallery 3.jpg 2 1\n")
    splits = entry.load(tmp_path)
    assert [(item.path.name, item.pid, item.camid) for item in (*splits.train, *splits.query, *splits.gallery)] == [
        ("1.jpg", 1, 0), ("2.jpg", 2, 0), ("3.jpg", 2, 1)
    ]  # fmt: skip


CARDS: dict[str, tuple[str, str, type[Exception]]] = {
    "unknown reader": (card("markt"), "reader of office 'markt'. Did you mean 'market'", UsageError),
    "unknown option": (card("csv", "fil = 'x.csv'"), "do not fit the reader 'csv'.*'fil'", UsageError),
    "pattern that is none": (card("market", "pattern = '('"), "not a valid regular expression", UsageError),
    "pattern without camera": (
        card("market", r"pattern = '(?P<pid>\d+)'"),
        r"needs the group \(\?P<camid>",
        UsageError,
    ),
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


@pytest.mark.parametrize("name", ["cuhk03_classic", "cuhk03-clasic", "Standard"])
def test_a_protocol_that_does_not_exist_is_refused(name: str, tmp_path: Path) -> None:
    text = card("csv").replace('title = "Our office"', f'title = "Our office"\nprotocol = "{name}"')
    with pytest.raises(
        UsageError, match=f"Unknown protocol .*'{name}'. Did you mean .* Known: cuhk03-classic, standard"
    ):
        plugin(tmp_path, text)


def test_the_protocols_of_cards_are_those_that_are_scored() -> None:
    assert {entry.card.protocol for entry in registry.datasets()} == set(PROTOCOLS)
    items = [Item(Path("a.jpg"), 1, 0)]
    with pytest.raises(UsageError, match="Unknown protocol 'cuhk03_classic'"):
        score_features([[1.0]], [[1.0]], items, items, {"rerank": False}, Evaluation(), "cuhk03_classic")


HEAD = "path,pid,camid,split\n"
TABLES: dict[str, tuple[str, str]] = {
    "a column missing": ("path,pid,camid\n", r"lacks the column\(s\) split\. .*found 'path,pid,camid'"),
    "no header": ("a.jpg,1,1,train\n", r"lacks the column\(s\) path, pid, camid, split"),
    "an empty table": ("", "lacks the column"),
    "a column twice": ("path,pid,pid,camid,split\n", "has the column pid twice"),
    "a short row": (HEAD + "a.jpg,1\n", r"line 2: found 2 values, expected 4\.$"),
    "a comma without quotes": (HEAD + "a,b.jpg,1,1,train\n", r"line 2: found 5 values, expected 4\. Put .* in quotes"),
    "no camera": (HEAD + "a.jpg,1,,train\n", "line 2: camid must be a whole number from 0 to .*, found ''"),
    "a wrong split": (HEAD + "a.jpg,1,1,test\n", "line 2: split must be one of .*, found 'test'"),
    "pid -2": (HEAD + "a.jpg,-2,1,train\n", "line 2: pid must be a whole number from -1 to 9223372036854775807"),
    "a pid beyond 64 bits": (HEAD + f"a.jpg,{2**63},1,train\n", "from -1 to 9223372036854775807, found '92233"),
    "a fraction": (HEAD + "a.jpg,1.0,1,train\n", "whole number .*, found '1.0'"),
    "a path upwards": (HEAD + "../a.jpg,1,1,train\n", r"path must be below .*office, found '\.\./a.jpg'"),
    "a path upwards, Windows": (HEAD + "..\\a.jpg,1,1,train\n", "path must be below"),
    "an absolute path, Windows": (HEAD + "C:\\office\\a.jpg,1,1,train\n", "path must be below"),
    "an absolute path elsewhere": (HEAD + "/etc/a.jpg,1,1,train\n", "path must be below"),
    "an absent image": (HEAD + "b.jpg,1,1,train\n", r"1 listed image\(s\) do not exist: 'b.jpg'\.$"),
    "another case": (HEAD + "A.JPG,1,1,train\n", r"do not exist: 'A.JPG'\. 'a.jpg' exists; its name differs in case"),
    "another Unicode form": (
        HEAD + "Z\u00fcrich/e\u0301.jpg,1,1,train\n",
        "exists; its name differs .* Unicode normalisation",
    ),
    "a kind that is not read": (
        HEAD + "a.heic,1,1,train\n",
        r"1 listed file\(s\) have an unsupported format: 'a.heic'",
    ),
    "an absent one of such a kind": (HEAD + "b.heic,1,1,train\n", r"1 listed image\(s\) do not exist: 'b.heic'"),
    "a row twice": (HEAD + "a.jpg,1,1,train\n./a.jpg,2,1,train\n", "lists an image twice in one split, .train: a.jpg"),
    "no query": (HEAD + "a.jpg,1,1,train\n", "no images of the query split"),
    "an open quote": (HEAD + '"a.jpg,1,1,train\n', "line 2: not valid CSV"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_damaged_table_is_an_error(kind: str, tmp_path: Path) -> None:
    text, message = TABLES[kind]
    small.picture(tmp_path / "office" / "a.jpg")
    (tmp_path / "office" / "a.heic").touch()
    small.picture(tmp_path / "office" / "Zu\u0308rich" / "\u00e9.jpg")
    (tmp_path / "office" / "items.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        plugin(tmp_path, card("csv")).load(tmp_path)


ROWS = "{0}a.jpg{1}7{1}3{1}train\n{0}b c.JPG{1}8{1}20230001{1}query\n{0}d.png{1}20240101000001{1}4{1}gallery\n"
GOOD_TABLES = {
    "as it should be": HEAD + ROWS.format("", ","),
    "a byte-order mark": "\ufeff" + HEAD + ROWS.format("", ","),
    "names with spaces and capitals": "Path, PID ,camid,split \n" + ROWS.format("", ", "),
    "semicolons": "path;pid;camid;split\n" + ROWS.format("", ";"),
    "tabs": "path\tpid\tcamid\tsplit\n" + ROWS.format("", "\t"),
    "Windows line ends": (HEAD + ROWS.format("", ",")).replace("\n", "\r\n"),
    "old line ends": (HEAD + ROWS.format("", ",")).replace("\n", "\r"),
    "quotes": '"path","pid","camid","split"\n' + ROWS.format("", ",").replace("b c.JPG", '"b c.JPG"'),
    "blank rows": HEAD + ROWS.format("", ",") + "\n,,,\n   \n\n",
    "trailing commas": HEAD + ROWS.format("", ",").replace("\n", ",\n"),
    "further columns": "n,path,pid,camid,split,note\n" + ROWS.format("9,", ",").replace("\n", ",x\n"),
    "splits in capitals": HEAD + ROWS.format("", ",").replace("train", "Train").replace("query", "QUERY"),
    "paths that wander": HEAD + ROWS.format("./x/../", ","),
    "Windows paths": HEAD + ROWS.format(".\\", ","),
    "absolute paths": HEAD + ROWS.format("FOLDER/", ","),
}


@pytest.mark.parametrize("kind", GOOD_TABLES)
@pytest.mark.parametrize("root", ["real", "link"])
def test_a_table_in_other_words_reads_the_same(kind: str, root: str, tmp_path: Path) -> None:
    folder = tmp_path / "real" / "office"
    for shade, name in enumerate(("a.jpg", "b c.JPG", "d.png")):
        small.picture(folder / name, shade)
    (tmp_path / "link").symlink_to("real")
    (folder / "items.csv").write_bytes(GOOD_TABLES[kind].replace("FOLDER", str(folder)).encode())
    splits = plugin(tmp_path, card("csv")).load(tmp_path / root)
    assert [(i.path, i.pid, i.camid) for i in (*splits.train, *splits.query, *splits.gallery)] == [
        (tmp_path / root / "office" / "a.jpg", 7, 3),
        (tmp_path / root / "office" / "b c.JPG", 8, 20230001),
        (tmp_path / root / "office" / "d.png", 20240101000001, 4),
    ]


def test_every_kind_of_image_is_one_that_pillow_reads(tmp_path: Path) -> None:
    Image.init()
    kinds = Image.registered_extensions()
    for ending in sorted(IMAGE_KINDS):
        assert kinds[f".{ending}"] in Image.OPEN
        mode = {"pfm": "F", "pbm": "1", "pgm": "L", "j2k": "RGB"}.get(ending, "RGB")
        path = tmp_path / "office" / f"a.{ending}"
        path.parent.mkdir(exist_ok=True)
        Image.linear_gradient("L").resize((8, 16)).convert(mode).save(path)
    rows = [f"a.{ending},1,0,{split}\n" for ending in sorted(IMAGE_KINDS) for split in ("train", "query", "gallery")]
    (tmp_path / "office" / "items.csv").write_text(HEAD + "".join(rows))
    splits = plugin(tmp_path, card("csv")).load(tmp_path)
    assert len(splits.train) == len(IMAGE_KINDS) and splits.notes == {}
    sizes = {decode(item.path, (4, 2), "bilinear").shape for item in splits.train if item.path.suffix != ".pfm"}
    assert sizes == {(3, 4, 2)}


def test_bitmaps_in_market_folders(tmp_path: Path) -> None:
    """VIPeR ships as .bmp."""
    folder = small.market(tmp_path / "office")
    for path in list(folder.rglob("*.jpg")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    splits = plugin(tmp_path, card("market")).load(tmp_path)
    assert [item.path.suffix for item in splits.query] == [".bmp", ".bmp"]


def test_a_folder_of_kinds_that_are_not_read(tmp_path: Path) -> None:
    folder = small.market(tmp_path / "office")
    for path in (folder / "query").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(DataError, match=r"no images of the query split, .* 2 \.heic"):
        plugin(tmp_path, card("market")).load(tmp_path)
