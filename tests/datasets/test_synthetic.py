"""Generated people depend only on a seed, have the official layouts, and are written atomically."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.synthetic import LAYOUTS, SCALES, Climate, Scale, camera, draw, generate, person, writing
from datasets.synthetic.calibration import COLOURS, Colour
from datasets.synthetic.layouts import Plan
from datasets.synthetic.people import BAGS, BOTTOMS, HAIR_STYLES, PATTERNS
from datasets.synthetic.worlds import WORLDS, camera_of
from harness import registry
from harness.errors import DataError, UsageError
from harness.metrics import evaluate_ranking

TINY = Scale(train_identities=3, test_identities=3, distractors=2, train_images=5, gallery_images=3)
SIZE = (32, 16)
NAMES = {
    "market1501": r"(bounding_box_train|query|bounding_box_test)/(\d{4}|-1)_c([1-6])s\d_\d{6}_\d{2}\.jpg",
    "synthetic": r"(bounding_box_train|query|bounding_box_test)/(\d{4}|-1)_c([1-6])s\d_\d{6}_\d{2}\.jpg",
    "dukemtmc": r"(bounding_box_train|query|bounding_box_test)/(\d{4})_c([1-8])_f\d{7}\.jpg",
    "occluded-duke": r"(bounding_box_train|query|bounding_box_test)/(\d{4})_c([1-8])_f\d{7}\.jpg",
    "msmt17": r"(train|test)/\d{4}/(\d{4})_\d{3}_(\d\d)_\d{4}(?:morning|noon|afternoon)_\d{4}_\d{1,2}(?:_ex)?\.jpg",
    "cuhk03-detected": r"(bounding_box_train|query|bounding_box_test)/(\d{4})_c([12])_[1-9]\d*\.png",
    "cuhk03-labeled": r"(bounding_box_train|query|bounding_box_test)/(\d{4})_c([12])_[1-9]\d*\.png",
}


def digest(root: Path) -> dict[str, str]:
    """Checksum of every file below ``root``."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def plan(name: str, scale: str = "demo", seed: int = 0) -> Plan:
    return LAYOUTS[name].plan(SCALES[scale], seed)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny")
    generate(root, layouts=list(LAYOUTS), scale=TINY, size=SIZE)
    return root


# -- drawing ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**40), shot=st.integers(0, 2**40), occluded=st.booleans(), misaligned=st.booleans())
def test_a_picture_is_a_function_of_its_arguments(seed: int, shot: int, occluded: bool, misaligned: bool) -> None:
    climate = Climate(indoor=0.5)
    first, again = (
        draw(person(seed), camera(seed, climate), shot, (48, 24), occluded=occluded, misaligned=misaligned)
        for _ in range(2)
    )
    assert first.shape == (48, 24, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, draw(person(seed), camera(seed, climate), shot + 1, (48, 24)))


def test_another_person_camera_or_occluder_changes_the_picture() -> None:
    base = draw(person(1), camera(1), 1)
    assert not np.array_equal(base, draw(person(2), camera(1), 1))
    assert not np.array_equal(base, draw(person(1), camera(2), 1))
    assert not np.array_equal(base, draw(person(1), camera(1), 1, occluded=True))
    assert not np.array_equal(base, draw(None, camera(1), 1))


def test_every_attribute_occurs_and_no_two_people_are_alike() -> None:
    people = [person(seed) for seed in range(400)]
    assert len(set(people)) == len(people)
    assert {one.top.pattern for one in people} == set(PATTERNS)
    assert {one.bag for one in people} == set(BAGS)
    assert {one.bottom_kind for one in people} == set(BOTTOMS)
    assert {one.hair_style for one in people} == set(HAIR_STYLES)


def test_most_people_share_their_colours() -> None:
    people = [person(seed) for seed in range(400)]
    names = np.array([dye.colour for dye in COLOURS.values()])

    def nearest(colour: Colour) -> int:
        return int(np.abs(names - np.array(colour)).sum(axis=1).argmin())

    worn = Counter((nearest(one.top.first), nearest(one.bottom.first)) for one in people)
    alone = sum(count for count in worn.values() if count == 1)
    assert alone < 0.1 * len(people)
    muted = {list(COLOURS).index(name) for name in ("black", "charcoal", "grey", "white", "navy", "denim")}
    assert np.mean([top in muted and bottom in muted for top, bottom in worn.elements()]) > 0.6


def test_shots_of_one_passage_are_alike() -> None:
    within, between = [], []
    for seed in range(20):
        first, same, other = (
            draw(person(seed), camera(seed), shot, (64, 32), passage=passage).astype(float)
            for shot, passage in ((1, 1), (2, 1), (2, 2))
        )
        within.append(np.abs(first - same).mean())
        between.append(np.abs(first - other).mean())
    assert np.mean(within) < 0.75 * np.mean(between)


@pytest.mark.parametrize("seed", range(6))
def test_the_two_cameras_of_cuhk03_differ_under_every_seed(seed: int) -> None:
    first, second = (camera_of(WORLDS["cuhk"], seed, camid, 0) for camid in (0, 1))
    warmth = [one.gain[0] / one.gain[2] for one in (first, second)]
    assert max(warmth) / min(warmth) > 1.15
    assert abs(np.sin(first.yaw - second.yaw)) > 0.9, "one sees people from the side, the other from the front or back"


@pytest.mark.parametrize("name", LAYOUTS)
def test_query_and_its_matches_are_of_other_passages(name: str) -> None:
    passages: dict[int, set[tuple[int | None, int]]] = {}
    for file in plan(name).files:
        if file.seen.who is not None and file.seen.pid > 0:
            passages.setdefault(file.seen.passage, set()).add((file.seen.who, file.seen.camid))
    assert all(len(seen) == 1 for seen in passages.values()), "a passage is one person before one camera"


# -- behaviour, compared with photographs (benchmarks/people.py) ---------------------------------------------------

HISTOGRAM_ON_PHOTOGRAPHS = (
    3.1  # mAP in percent of `dummy` on the same number of photographs of CUHK03, mean of three subsets
)


@pytest.mark.slow
def test_histogram_tells_people_apart_as_badly_as_photographs() -> None:
    """Half to twice the mAP that the table of datasets/README.md gives for photographs."""
    scores = [100 * histogram_score("cuhk03-detected", seed) for seed in range(3)]
    assert HISTOGRAM_ON_PHOTOGRAPHS / 2 <= np.mean(scores) <= HISTOGRAM_ON_PHOTOGRAPHS * 2, scores


def histogram_score(name: str, seed: int) -> float:
    """mAP of the colour histogram on the test split of the demo's stand-in."""
    layout = LAYOUTS[name]
    module = registry.backbone("dummy").build(num_classes=1, num_cameras=1, image_size=(64, 32)).eval()
    features, labels = {}, []
    for split in ("query", "gallery"):
        seen = [file.seen for file in layout.plan(SCALES["demo"], seed).files if file.split == split]
        images = [np.asarray(writing.render(layout, one, seed, (64, 32)).resize((32, 64))) for one in seen]
        with torch.inference_mode():
            features[split] = module(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255)
        labels.append([np.array([getattr(one, key) for one in seen]) for key in ("pid", "camid")])
    (pids, camids), (gallery_pids, gallery_camids) = labels
    return evaluate_ranking(features["query"], features["gallery"], pids, gallery_pids, camids, gallery_camids).mAP


# -- worlds and layouts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("scale", SCALES)
def test_names_are_official_unique_and_tell_label_and_camera(name: str, scale: str) -> None:
    files = plan(name, scale).files
    assert len({file.path for file in files}) == len(files)
    for file in files:
        found = re.fullmatch(NAMES[name], file.path)
        assert found, file.path
        assert (int(found[2]), int(found[3]) - 1) == (file.seen.pid, file.seen.camid)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_query_has_a_match_in_another_camera(name: str, scale: str) -> None:
    splits: dict[str, list] = {"train": [], "val": [], "query": [], "gallery": []}
    for file in plan(name, scale).files:
        splits[file.split].append(file.seen)
    gallery = {(one.pid, one.camid) for one in splits["gallery"]}
    for query in splits["query"]:
        assert any(pid == query.pid and camid != query.camid for pid, camid in gallery)
    train, test = ({one.who for one in splits[split]} for split in ("train", "query"))
    assert train and test and not train & test


def test_only_occluded_duke_shares_the_people_of_duke() -> None:
    people = {name: {file.seen.who for file in plan(name, "smoke").files} - {None} for name in LAYOUTS}
    for name, who in people.items():
        for other in people.keys() - {name}:
            same = {name, other} in ({"dukemtmc", "occluded-duke"}, {"cuhk03-detected", "cuhk03-labeled"})
            assert bool(who & people[other]) == same


def test_another_seed_is_another_world() -> None:
    first, second = ({file.seen.who for file in plan("market1501", "smoke", seed).files} for seed in (0, 1))
    assert first & second <= {None}


def test_market_has_junk_and_distractors_in_the_gallery_alone() -> None:
    strange = [file for file in plan("market1501").files if file.seen.pid <= 0]
    assert Counter(file.seen.pid for file in strange) == {0: 60, -1: 60}
    assert all(file.split == "gallery" and file.seen.misaligned for file in strange)


def test_one_query_per_identity_and_camera() -> None:
    for name in ("market1501", "dukemtmc"):
        pairs = Counter((file.seen.pid, file.seen.camid) for file in plan(name).files if file.split == "query")
        assert set(pairs.values()) == {1}


def test_duke_distractors_have_ordinary_labels_and_one_camera() -> None:
    files = plan("dukemtmc").files
    searched = {file.seen.pid for file in files if file.split == "query"}
    cameras: dict[int, set[int]] = {}
    for file in files:
        if file.split == "gallery" and file.seen.pid not in searched:
            cameras.setdefault(file.seen.pid, set()).add(file.seen.camid)
    assert len(cameras) == 30 and min(cameras) > 0
    assert all(len(seen) == 1 for seen in cameras.values())
    assert max(file.seen.pid for file in files) > 2000, "labels are sparse, as in the original"


def test_all_queries_of_occluded_duke_are_occluded_and_few_other_images() -> None:
    duke, occluded = plan("dukemtmc"), plan("occluded-duke")
    queries = [file for file in occluded.files if file.split == "query"]
    assert len(queries) >= 100
    assert all(file.seen.occluded for file in queries)
    for split in ("train", "gallery"):
        share = occluded.counts()[split]["occluded"] / occluded.counts()[split]["images"]
        assert 0.05 < share < 0.15, "9 and 10 per cent in the original"
    gallery, theirs = ({file.path for file in one.files if file.split == "gallery"} for one in (occluded, duke))
    assert gallery == theirs
    train, all_train = ({file.path for file in one.files if file.split == "train"} for one in (occluded, duke))
    assert train < all_train
    assert occluded.counts()["train"]["identities"] == duke.counts()["train"]["identities"]
    assert {f"bounding_box_test/{Path(file.path).name}" for file in queries} & gallery, "copies, as in the original"


@pytest.mark.parametrize("scale", SCALES)
def test_msmt17_val_shares_identities_and_cameras(scale: str) -> None:
    made = plan("msmt17", scale)
    assert set(made.texts) == {f"list_{split}.txt" for split in ("train", "val", "query", "gallery")}
    listed = []
    for name, text in made.texts.items():
        folder = "train" if name in ("list_train.txt", "list_val.txt") else "test"
        for line in text.splitlines():
            path, pid = line.split(" ")
            assert path.startswith(f"{int(pid):04d}/")
            listed.append(f"{folder}/{path}")
    assert sorted(listed) == sorted(file.path for file in made.files)
    train, val = ([file.seen for file in made.files if file.split == split] for split in ("train", "val"))
    assert {one.pid for one in val} == {one.pid for one in train} == set(range(SCALES[scale].train_identities))
    assert {one.camid for one in val} <= {one.camid for one in train}


def test_demo_uses_every_camera() -> None:
    expected = {"market1501": 6, "dukemtmc": 8, "msmt17": 15, "cuhk03-detected": 2, "synthetic": 6}
    for name, cameras in expected.items():
        assert {plan(name).counts()[split]["cameras"] for split in ("train", "query", "gallery")} == {cameras}


def test_cuhk03_numbers_count_all_images_by_label() -> None:
    files = plan("cuhk03-labeled").files
    numbers = [(int(re.split(r"[_.]", file.path)[-2]), file.seen.pid) for file in files]
    assert sorted(number for number, _ in numbers) == list(range(1, len(files) + 1))
    assert [pid for _, pid in sorted(numbers)] == sorted(file.seen.pid for file in files)


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_what_is_on_disk_is_what_stand_in_says(tiny: Path, name: str) -> None:
    folder = tiny / LAYOUTS[name].folder
    marker = json.loads((folder / "stand-in.json").read_text())
    assert marker["generated"] is True and marker["seed"] == 0 and marker["generator_version"] >= 1
    images = [path for path in folder.rglob("*") if path.suffix in (".jpg", ".png")]
    found = Counter()
    for path in images:
        match = re.fullmatch(NAMES[name], str(path.relative_to(folder)))
        assert match
        found["junk" if match[2] == "-1" else match[1]] += 1
        with Image.open(path) as image:
            assert image.mode == "RGB" and image.size[1] <= SIZE[0] and image.size[0] <= SIZE[1]
    counts = {split: row["images"] for split, row in marker["counts"].items()}
    if name == "msmt17":
        assert found == {"train": counts["train"] + counts["val"], "test": counts["query"] + counts["gallery"]}
    else:
        places = {"bounding_box_train": "train", "bounding_box_test": "gallery"}
        assert {places.get(place, place): number for place, number in found.items()} == counts


def test_occluded_duke_files_are_dukes(tiny: Path) -> None:
    duke, occluded = (
        digest(tiny / LAYOUTS[name].folder / "bounding_box_test") for name in ("dukemtmc", "occluded-duke")
    )
    assert duke == occluded


@pytest.mark.slow
def test_bytes_follow_from_the_seed_not_the_workers(tmp_path: Path, tiny: Path) -> None:
    generate(tmp_path / "again", layouts=["market1501", "cuhk03"], scale=TINY, size=SIZE, workers=2)
    again = digest(tmp_path / "again")
    assert again == {path: digest(tiny)[path] for path in again}
    generate(tmp_path / "other", layouts=["market1501"], scale=TINY, size=SIZE, seed=1)
    assert not set(digest(tmp_path / "other").values()) & set(again.values())


def test_a_second_call_draws_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "draw", lambda *_, **__: pytest.fail("drawn again"))
    folders = generate(tiny, layouts=list(LAYOUTS), scale=TINY, size=SIZE)
    assert set(folders) == set(LAYOUTS)


def test_interrupted_call_leaves_no_dataset(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    arguments = {"layouts": ["market1501", "msmt17"], "scale": TINY, "size": SIZE}
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, progress=interrupt, **arguments)
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    leftover = next(tmp_path.glob(".*.partial"))
    (leftover / "query").mkdir(exist_ok=True)
    (leftover / "query" / "0001_c1s1_000001_00.jpg").write_bytes(b"half")
    generate(tmp_path, **arguments)
    assert not list(tmp_path.glob(".*"))
    after = digest(tmp_path)
    assert after == {path: digest(tiny)[path] for path in after}


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    real = tmp_path / LAYOUTS["market1501"].folder
    real.mkdir()
    (real / "readme.txt").write_text("the real thing")
    with pytest.raises(DataError, match="does not contain generated data"):
        generate(tmp_path, layouts=["market1501"], scale=TINY, size=SIZE)
    generate(tmp_path, layouts=["synthetic"], scale=TINY, size=SIZE)
    with pytest.raises(DataError, match="another seed"):
        generate(tmp_path, layouts=["synthetic"], scale=TINY, size=SIZE, seed=5)
    assert (real / "readme.txt").read_text() == "the real thing"


def test_unknown_names_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="market1501"):
        generate(tmp_path, layouts=["market1502"])
    with pytest.raises(UsageError, match="demo"):
        generate(tmp_path, scale="dmeo")


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    generate(
        tmp_path, layouts=["dukemtmc", "occluded-duke"], scale=TINY, size=SIZE, progress=lambda *at: seen.append(at)
    )
    drawn = len({file.seen for file in LAYOUTS["dukemtmc"].plan(TINY, 0).files})
    assert seen == [(done, drawn) for done in range(1, drawn + 1)], "shared pictures are drawn once"
