"""`prepare --from-folder` creates a dataset from a folder of images, split by identity and ready to run."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from datasets.preparation import from_folder
from datasets.preparation.from_folder import make_dataset
from datasets.preparation.split import FolderSettings
from harness import registry
from harness.cards import DatasetCard, read_card
from harness.errors import DataError, UsageError
from harness.records import store
from harness.registry import dataset_checks
from tests.support import small_datasets as small

Cli = Callable[..., tuple[int, str, str]]
PEOPLE = ("alice", "bob", "Carl", "dora", "émile", "fred")


def pictures(folder: Path, names: Iterable[str]) -> Path:
    for shade, name in enumerate(names):
        small.picture(folder / name, 1 + shade)
    return folder


def office(folder: Path, cameras: int = 2, images: int = 2) -> Path:
    """Images named by camera: `alice/cam1_0.jpg`."""
    shown = ((who, c, n) for who in PEOPLE for c in range(1, cameras + 1) for n in range(images))
    return pictures(folder, (f"{who}/cam{c}_{n}.jpg" for who, c, n in shown))


def entry(out: Path, name: str = "office") -> registry.DatasetEntry:
    card = read_card(out / name / "card.toml")
    assert isinstance(card, DatasetCard)
    return registry.DatasetEntry(card, out / name, name)


def contents(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def listing(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(p), p.stat().st_mtime_ns) for p in folder.rglob("*"))


def test_identities_are_split_and_queries_are_one_per_camera(tmp_path: Path) -> None:
    folder = office(tmp_path / "office", cameras=3)
    before = listing(folder)
    made = make_dataset(folder, tmp_path / "out")
    assert made.name == "office" and made.new and listing(folder) == before, "the images are left alone"
    assert made.sentences[:3] == (
        "Images: 36.",
        "Identities: 6 (Carl, alice, bob, dora, fred, émile), from the names of folders.",
        "Cameras: 3 (1, 2, 3), from names such as 'Carl/cam1_0.jpg'. If these are not cameras, pass --no-cameras.",
    )
    splits = entry(tmp_path / "out").load(tmp_path / "out")
    assert dataset_checks.check_counts(entry(tmp_path / "out"), splits) == []
    train, query, gallery = ({i.pid for i in part} for part in (splits.train, splits.query, splits.gallery))
    assert len(train) == 3 and query == gallery and len(query) == 3 and not train & query
    assert set(Counter((i.pid, i.camid) for i in splits.query).values()) == {1} and len(splits.query) == 9
    assert {i.camid for i in splits.gallery} == {0, 1, 2}
    assert len({*splits.train, *splits.query, *splits.gallery}) == 36
    levels = [f.level for f in dataset_checks.validate_dataset(entry(tmp_path / "out"), tmp_path / "out")]
    assert set(levels) == {"info"}
    assert {i.path.resolve() for i in splits.train} <= {p.resolve() for p in folder.rglob("*.jpg")}


def test_same_arguments_give_the_same_files(tmp_path: Path) -> None:
    folder = office(tmp_path / "office")
    make_dataset(folder, tmp_path / "a")
    first = contents(tmp_path / "a")
    again = make_dataset(folder, tmp_path / "a")
    assert contents(tmp_path / "a") == first and not again.new and "office is in " in again.sentences[-1]
    make_dataset(folder, tmp_path / "b")
    assert contents(tmp_path / "b") == first
    seeds = set()
    for seed in range(6):
        make_dataset(folder, tmp_path / f"seed-{seed}", FolderSettings(seed=seed))
        with (tmp_path / f"seed-{seed}" / "office" / "items.csv").open() as file:
            seeds.add(tuple(sorted({row["identity"] for row in csv.DictReader(file) if row["split"] == "train"})))
    assert len(seeds) > 2
    with pytest.raises(DataError, match=r"differs in card\.toml, items\.csv: it is another dataset"):
        make_dataset(folder, tmp_path / "a", FolderSettings(seed=3))
    shutil.copytree(folder, tmp_path / "copy" / "office")
    with pytest.raises(DataError, match=r"differs in .*images: it is another"):
        make_dataset(tmp_path / "copy" / "office", tmp_path / "a")
    assert contents(tmp_path / "a") == first


def test_one_image_per_camera_leaves_every_query_a_match(tmp_path: Path) -> None:
    """Like VIPeR: two cameras with one image each, in .bmp."""
    for who in range(8):
        for camera in "ab":
            path = small.picture(tmp_path / "viper" / f"{who:03d}_{camera}.png", who)
            path.rename(path.with_suffix(".bmp"))
    make_dataset(tmp_path / "viper", tmp_path / "out", FolderSettings(pattern=r"(?P<pid>\d+)_(?P<camid>[ab])\.bmp"))
    splits = entry(tmp_path / "out", "viper").load(tmp_path / "out")
    assert len(splits.train) == 8 and len(splits.query) == len(splits.gallery) == 4
    assert {i.camid for i in splits.query} == {0} and {i.camid for i in splits.gallery} == {1}
    assert "4 of 4 queries have a match in the gallery from another camera." in [
        finding.sentence for finding in dataset_checks.check_labels(splits)
    ]


def test_without_cameras(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "office", (f"{who}/{n}.jpg" for who in PEOPLE for n in range(3)))
    made = make_dataset(folder, tmp_path / "out")
    assert any(sentence.startswith("The cameras are unknown") for sentence in made.sentences)
    splits = entry(tmp_path / "out").load(tmp_path / "out")
    assert not splits.knows_cameras and len(splits.query) == 3 and len(splits.gallery) == 6
    assert not entry(tmp_path / "out").card.knows_cameras
    make_dataset(office(tmp_path / "named"), tmp_path / "out", FolderSettings(cameras=False))
    assert not entry(tmp_path / "out", "named").load(tmp_path / "out").knows_cameras


LAYOUTS: dict[str, tuple[list[str], dict[str, object], set[str], int]] = {
    "MARS, both folders": (
        [f"bbox_{part}/{p:04d}/{p:04d}C{c}T0001F00{n}.jpg" for part, ps in (("train", (1, 3, 5)), ("test", (2, 4)))
         for p in ps for c in (1, 6) for n in (1, 2)] + ["bbox_test/00-1/00-1C1T0001F001.jpg"],
        {}, {"0001", "0003", "0005"}, 2,
    ),
    "ImageFolder with the same classes": (
        [f"{part}/{who}/img{n}.jpg" for part in ("train", "val") for who in PEOPLE for n in (1, 2)], {}, set(), 1
    ),
    "ImageFolder, train alone": ([f"train/{who}/img{n}.jpg" for who in PEOPLE for n in (1, 2)], {}, set(), 1),
    "a folder around it": (
        [f"data/people/{who}/cam_{c}-{n}.JPG" for who in PEOPLE for c in (1, 2) for n in (1, 2)], {}, set(), 2
    ),
    "flat, Market's names": ([f"{p:04d}_c{c}s1_0000{n}_00.jpg" for p in range(6) for c in (1, 2) for n in (1, 2)],
                             {}, set(), 2),
    "cameras as folders of folders": (
        [f"view-{c}/{who}/{n}.jpg" for who in PEOPLE for c in "AB" for n in (1, 2)],
        {"pattern": r"^view-(?P<camid>\w)/(?P<pid>[^/]+)/"}, set(), 2,
    ),
    "huge numbers": (
        [f"2024010100000{p}/c20230{c}_{n}.jpg" for p in range(6) for c in (1, 2) for n in (1, 2)],
        {"pattern": r"c(?P<camid>\d+)"}, set(), 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_folders_as_people_keep_them(kind: str, tmp_path: Path) -> None:
    names, settings, train, cameras = LAYOUTS[kind]
    pictures(tmp_path / "office", names)
    make_dataset(tmp_path / "office", tmp_path / "out", FolderSettings(**settings))  # type: ignore[arg-type]
    splits = entry(tmp_path / "out").load(tmp_path / "out")
    everyone = [*splits.train, *splits.query, *splits.gallery]
    assert len(everyone) == len(names) - sum("00-1" in name for name in names)
    assert len({i.pid for i in splits.train}) == 3
    assert len({i.camid for i in splits.gallery}) == cameras
    assert splits.knows_cameras is (cameras == 2)
    assert not train or {i.path.parent.name for i in splits.train} == train
    assert [f.level for f in dataset_checks.check_labels(splits) if f.level != "info"] == []


REFUSED: dict[str, tuple[Iterable[str], dict[str, object], str]] = {
    "no images": ((), {}, "contains no images"),
    "one identity": ((f"bob/cam{c}.jpg" for c in (1, 2)), {}, r"found 1 in total: 'bob'"),
    "three identities": ((f"{p}/cam{c}.jpg" for p in "abc" for c in (1, 2)), {}, "found 3 in total"),
    "all singletons": ((f"{who}/1.jpg" for who in PEOPLE), {}, "Only 0 of 6 identities have two images"),
    "one camera each": (
        (f"{who}/cam{n % 2}_{i}.jpg" for n, who in enumerate(PEOPLE) for i in (1, 2)), {},
        "Only 0 of 6 identities have images from two cameras.*--no-cameras",
    ),
    "flat, no pattern": ((f"img{n}.jpg" for n in range(9)), {}, r"9 image\(s\) are not in .*--pattern"),
    "one astray": (["a.jpg", *(f"{who}/{n}.jpg" for who in PEOPLE for n in (1, 2))], {}, "1 image.* not in .*'a"),
    "a pattern that does not fit": (
        (f"{who}/{n}.jpg" for who in PEOPLE for n in (1, 2)), {"pattern": r"c(?P<camid>\d)"}, "does not fit 12 of 12"
    ),
    "a pattern without groups": (
        (f"{who}/{n}.jpg" for who in PEOPLE for n in (1, 2)), {"pattern": r"\d"}, "needs a group"
    ),
    "a fraction of all": ((f"{who}/{n}.jpg" for who in PEOPLE for n in (1, 2)), {"test_fraction": 1.0}, "between 0"),
    "a known name": ((f"{who}/{n}.jpg" for who in PEOPLE for n in (1, 2)), {"name": "market"}, "another name with"),
    "a name with a slash": ((f"{who}/{n}.jpg" for who in PEOPLE for n in (1, 2)), {"name": "../x"}, "Pass --name x"),
    "a name with a backslash": (
        [*(f"{who}/{n}.jpg" for who in PEOPLE for n in (1, 2)), "bob/a\\b.jpg"], {}, "do not exist"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_split_is_refused_with_the_reason(kind: str, tmp_path: Path) -> None:
    names, settings, message = REFUSED[kind]
    (tmp_path / "office").mkdir()
    pictures(tmp_path / "office", names)
    with pytest.raises((DataError, UsageError), match=message):
        make_dataset(tmp_path / "office", tmp_path / "out", FolderSettings(**settings))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_it_does_not_write_among_the_images(tmp_path: Path) -> None:
    folder = office(tmp_path / "office")
    with pytest.raises(UsageError, match="so its images would be listed twice"):
        make_dataset(folder, folder / "plugins")
    assert not (folder / "plugins").exists()


def test_fewer_testable_identities_than_asked_for_is_said(tmp_path: Path) -> None:
    names = [f"{who}/{n}.jpg" for who in PEOPLE for n in range(2 if who in "alice bob" else 1)]
    made = make_dataset(pictures(tmp_path / "office", names), tmp_path / "out")
    assert any("2 of 6 identities are test identities" in sentence for sentence in made.sentences)
    assert any("asks for 3, but only 2 identities" in sentence for sentence in made.sentences)


def test_generated_images_stay_generated(tmp_path: Path) -> None:
    folder = office(tmp_path / "office")
    (folder / "stand-in.json").write_text(json.dumps({"generated": True, "seed": 3, "layout": "market1501"}))
    make_dataset(folder, tmp_path / "out")
    splits = entry(tmp_path / "out").load(tmp_path / "out")
    assert splits.generated is not None and splits.generated["seed"] == 3
    assert dataset_checks.check_counts(entry(tmp_path / "out"), splits) == []


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.parametrize("named", [True, False])
def test_the_printed_commands_run(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool) -> None:
    """Also with spaces in folder names, and with a separate data root."""
    if named:
        office(tmp_path / "our office")
    else:
        pictures(tmp_path / "our office", (f"{who}/{n}.jpg" for who in PEOPLE for n in range(3)))
    monkeypatch.chdir(tmp_path)
    more = ["--data-root", tmp_path / "da ta"] if named else []
    prepare = ["prepare", "--from-folder", "our office", "--name", "office", "--test-fraction", "0.4", *more]
    code, out, err = cli(*prepare)
    assert code == 0, out + err
    assert (tmp_path / "plugins" / "office" / "card.toml").is_file()
    assert (tmp_path / ("da ta" if named else "plugins") / "office" / "items.csv").is_file()
    commands = [line.strip() for line in out.split("Next:\n")[1].splitlines() if "# " not in line]
    assert [command.split()[3] for command in commands] == ["validate", "run", "plan"]
    assert shlex.split(commands[0])[-4:] == ["--plugins", "plugins", "--data-root", "da ta" if named else "plugins"]
    quick = ["--set", "training.epochs=1", "--debug", "--no-mlflow"]
    extra = {"plan": ["--device", "cpu"], "run": [*quick, "--report", "B.md", "--cache", "cache"]}
    for command in commands:
        words = shlex.split(command)[3:]
        code, out, err = cli(*words, *extra.get(words[0], []))
        assert code == 0, command + out + err
        assert words[0] != "plan" or (out.count("blocked  ") == 1 and " no weights\n" in out)
    records = store.records(tmp_path / "results")
    assert {record["spec"]["backbone"] for record in records} == {"dummy", "bot"}
    for record in records:
        assert record["status"] == "ok" and record["spec"]["dataset"] == "office"
        assert record["data"]["splits"]["train"]["identities"] == 4
    assert all("--set sampler.identities=4" in command for command in commands[1:])
    assert cli(*prepare)[1].startswith("office: already built, unchanged\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--datasets", "nobody", "--data-root", "data", "--run", "bot"], "nobody"),
        (["--datasets", "market1501", "--run", "bot"], "No folder for the datasets"),
        (["--backbones", "nobody", "--weights-root", "weights"], "nobody"),
        (["--run", "bott"], "bott"),
        (["--run", "bot", "--", "--epochs", "3"], "No such option"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_made(
    words: list[str], message: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    office(tmp_path / "office")
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("prepare", "--from-folder", "office", *words)
    assert code == 2 and message in err, out + err
    assert [path.name for path in tmp_path.iterdir()] == ["office"]


@pytest.mark.slow
def test_one_command_makes_the_dataset_and_trains(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    office(tmp_path / "office")
    monkeypatch.chdir(tmp_path)
    settings = ["--preset", "smoke", "--set", "training.epochs=1", "--results", "results", "--scheduler", "local"]
    words = ["prepare", "--from-folder", "office", "--test-fraction", "0.34", "--run", "bot"]
    code, out, err = cli(*words, "--", *settings, "--no-mlflow")
    assert code == 0 and "office: built" in out and "Next:" not in out, err
    (record,) = store.records(tmp_path / "results")
    assert (record["spec"]["dataset"], record["spec"]["values"]["sampler"]["identities"]) == ("office", 4)


def test_what_is_run_belongs_to_a_folder(cli: Cli, tmp_path: Path) -> None:
    for words in (["--datasets", "market1501", "--run", "bot"], ["--from-folder", tmp_path, "--", "--preset", "small"]):
        code, _, err = cli("prepare", *words)
        assert code == 2 and "--run needs --from-folder" in err


def test_folders_of_environment_variables_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    office(tmp_path / "office")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins").mkdir()
    monkeypatch.setenv("REID_DATASETS", "data")
    monkeypatch.setenv("HARNESS_PLUGINS", str(tmp_path / "plugins"))
    made = make_dataset(Path("office"), Path("plugins"), data_root=Path("data"))
    assert made.commands[0][1] == "python -m harness validate --datasets office"
    other = make_dataset(Path("office"), Path("plugins"), FolderSettings(name="other"), Path("elsewhere"))
    assert other.commands[0][1] == "python -m harness validate --datasets other --data-root elsewhere"


def test_a_pattern_is_printed_only_if_the_user_gave_it(tmp_path: Path) -> None:
    flat = pictures(tmp_path / "flat", (f"{p:04d}_c{c}s1_0000.jpg" for p in range(6) for c in (1, 2)))
    said = make_dataset(flat, tmp_path / "out").sentences
    assert said[1].endswith("from names such as '0000_c1s1_0000.jpg'.") and not any("(?P<" in text for text in said)
    given = FolderSettings(name="given", pattern=r"(?P<pid>\d+)_c(?P<camid>\d)")
    said = make_dataset(flat, tmp_path / "out", given).sentences
    assert said[1] == f"Identities: 6 (0000, 0001, 0002, 0003, 0004, 0005), from the pattern '{given.pattern}'."


def test_a_file_system_without_links_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(from_folder.Path, "symlink_to", refuse)
    with pytest.raises(DataError, match="no links here"):
        make_dataset(office(tmp_path / "office"), tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []
