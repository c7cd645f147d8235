"""Every layout of the five benchmarks at full size: the published numbers, exactly."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from datasets.readers.cuhk03 import protocol
from harness import registry
from harness.contracts import SPLITS, Item, Splits
from harness.registry import dataset_checks

pytestmark = pytest.mark.slow

COUNTS = {  # images, identities, cameras of train, query, gallery
    "market1501": [(12_936, 751, 6), (3_368, 750, 6), (15_913, 751, 6)],
    "dukemtmc": [(16_522, 702, 8), (2_228, 702, 8), (17_661, 1_110, 8)],
    "msmt17": [(32_621, 1_041, 15), (11_659, 3_060, 15), (82_161, 3_060, 15)],
    "msmt17-train": [(30_248, 1_041, 15), (11_659, 3_060, 15), (82_161, 3_060, 15)],
    "cuhk03-detected": [(7_365, 767, 2), (1_400, 700, 2), (5_332, 700, 2)],
    "cuhk03-labeled": [(7_368, 767, 2), (1_400, 700, 2), (5_328, 700, 2)],
    "occluded-duke": [(15_618, 702, 8), (2_210, 519, 8), (17_661, 1_110, 8)],
}
MSMT17_QUERY = [1882, 78, 186, 480, 1689, 524, 1202, 302, 445, 294, 1007, 381, 1246, 1511, 432]
MSMT17_GALLERY = [
    12368, 613, 1319, 3440, 11018, 4159, 8199, 2235, 3377, 1958, 7571, 3136, 9068, 10310, 3390
]  # fmt: skip
MSMT17_TRAIN = [4504, 193, 416, 1522, 3967, 1577, 3216, 738, 1316, 615, 2931, 1254, 3410, 3533, 1056]
DUKE_GALLERY = [2704, 2798, 828, 1139, 1209, 3308, 1255, 4420]
PER_CAMERA = {
    "market1501": {
        "train": [2017, 1709, 2707, 920, 2338, 3245],
        "query": [668, 530, 717, 248, 622, 583],
        "gallery": [2738, 2224, 3199, 1365, 2762, 3625],
    },
    "dukemtmc": {"gallery": DUKE_GALLERY},
    "msmt17": {"query": MSMT17_QUERY, "gallery": MSMT17_GALLERY},
    "msmt17-train": {"train": MSMT17_TRAIN, "query": MSMT17_QUERY, "gallery": MSMT17_GALLERY},
    "cuhk03-detected": {"train": [3601, 3764], "query": [700, 700], "gallery": [2617, 2715]},
    "cuhk03-labeled": {"train": [3607, 3761], "query": [700, 700], "gallery": [2615, 2713]},
    "occluded-duke": {
        "train": [1982, 3009, 1088, 1395, 1685, 3700, 1330, 1429],
        "query": [1137, 215, 97, 164, 92, 314, 80, 111],
        "gallery": DUKE_GALLERY,
    },
}
REMOVED = {"market1501": 13_115, "cuhk03-detected": 5_332, "cuhk03-labeled": 5_328, "occluded-duke": 23_095}
REMOVED |= {"msmt17": 88_450}
"""Pairs of a query and a gallery image of the same identity and camera."""


def per_camera(items: list[Item]) -> list[int]:
    return [number for _, number in sorted(Counter(item.camid for item in items).items())]


def assert_published(name: str, splits: Splits) -> None:
    assert [msgspec.structs.astuple(dataset_checks.counts(getattr(splits, split))) for split in SPLITS] == COUNTS[name]
    for split, numbers in PER_CAMERA[name].items():
        assert per_camera(getattr(splits, split)) == numbers
    for split in SPLITS:
        items = getattr(splits, split)
        assert [item.path for item in items] == sorted(item.path for item in items)
        assert {item.camid for item in items} <= set(range(registry.dataset(name).card.cameras))
    assert dataset_checks.check_counts(registry.dataset(name), splits) == []
    if name in REMOVED:
        own = Counter((item.pid, item.camid) for item in splits.gallery)
        assert sum(own[item.pid, item.camid] for item in splits.query) == REMOVED[name]


@pytest.mark.parametrize("name", COUNTS)
def test_the_usual_folders_hold_the_published_numbers(name: str, phantoms: Path) -> None:
    splits = registry.dataset(name).load(phantoms)
    assert_published(name, splits)
    levels = {finding.level for finding in dataset_checks.check_labels(splits)}
    assert "error" not in levels


def test_market_drops_its_junk_and_keeps_its_distractors(phantoms: Path) -> None:
    splits = registry.dataset("market1501").load(phantoms)
    assert splits.notes["junk"] == {"gallery": 3_819}
    assert sum(item.pid == 0 for item in splits.gallery) == 2_798
    assert splits.notes["ignored_files"] == 1


@pytest.mark.parametrize("name", ["market1501", "dukemtmc", "occluded-duke", "msmt17"])
def test_every_folder_name_of_the_card_is_found(name: str, phantoms: Path, tmp_path: Path) -> None:
    entry = registry.dataset(name)
    original = entry.load(phantoms).root
    layout = entry.card.layouts[0]
    for index, folder in enumerate(layout.folders):
        place = tmp_path / str(index) / folder
        place.parent.mkdir(parents=True)
        place.symlink_to(original, target_is_directory=True)
        splits = entry.load(tmp_path / str(index))
        assert (splits.root, splits.layout) == (place, layout.name)
        assert len(splits.query) == COUNTS[name][1][0]


def test_msmt17_v2_differs_in_folder_names_only(phantoms: Path, tmp_path: Path) -> None:
    v1, v2 = phantoms / "MSMT17_V1", tmp_path / "MSMT17_V2"
    v2.mkdir()
    for old, new in (("train", "mask_train_v2"), ("test", "mask_test_v2")):
        (v2 / new).symlink_to(v1 / old, target_is_directory=True)
    for place in v1.glob("list_*.txt"):
        (v2 / place.name).symlink_to(place)
    for name in ("msmt17", "msmt17-train"):
        splits = registry.dataset(name).load(tmp_path)
        assert splits.layout == "msmt17-v2"
        assert_published(name, splits)


def test_converted_msmt17_keeps_two_digit_cameras(phantoms: Path) -> None:
    splits = registry.dataset("msmt17").load(phantoms, version="market")
    assert (splits.layout, splits.root.name) == ("msmt17-market", "MSMT17")
    assert_published("msmt17", splits)
    wrong = dataset_checks.check_counts(
        registry.dataset("msmt17-train"), registry.dataset("msmt17-train").load(splits.root)
    )
    assert len(wrong) == 1
    assert "expects 30,248 images, but" in wrong[0] and "msmt17 has 32,621)" in wrong[0]


def test_msmt17_moved_flat_keeps_its_raw_names(phantoms: Path, tmp_path: Path) -> None:
    original = registry.dataset("msmt17-train").load(phantoms)
    for split, folder in (("train", "bounding_box_train"), ("query", "query"), ("gallery", "bounding_box_test")):
        flat = tmp_path / "MSMT17" / folder
        flat.mkdir(parents=True)
        for item in getattr(original, split):
            os.symlink(item.path, f"{flat}/{item.path.name}")
    splits = registry.dataset("msmt17-train").load(tmp_path)
    assert splits.layout == "msmt17-flat"
    assert_published("msmt17-train", splits)


@pytest.mark.parametrize("boxes", ["detected", "labeled"])
def test_cuhk03_from_extracted_images_and_the_protocol_file(boxes: str, shared: Path, tmp_path: Path) -> None:
    config = f"cuhk03_new_protocol_config_{boxes}.mat"
    images = tmp_path / "cuhk03" / f"images_{boxes}"
    images.mkdir(parents=True)
    (tmp_path / "cuhk03" / config).symlink_to(shared / "protocols" / "cuhk03" / config)
    for name in protocol(shared / "protocols" / "cuhk03" / config)["filelist"]:
        (images / name).touch()
    splits = registry.dataset(f"cuhk03-{boxes}").load(tmp_path)
    assert splits.layout == "cuhk03-release"
    assert_published(f"cuhk03-{boxes}", splits)


def test_the_two_layouts_of_cuhk03_are_the_same_data(phantoms: Path, shared: Path) -> None:
    table = protocol(shared / "protocols" / "cuhk03" / "cuhk03_new_protocol_config_detected.mat")
    splits = registry.dataset("cuhk03-detected").load(phantoms)
    numbers = {int(item.path.stem.split("_")[2]) - 1: item for item in splits.query}
    assert sorted(numbers) == sorted(table["query_idx"])
    assert all(item.pid == table["labels"][n] and item.camid == table["camId"][n] - 1 for n, item in numbers.items())


def test_nothing_here_needs_torch(phantoms: Path) -> None:
    import subprocess

    code = (
        "import sys; from harness import registry; entry = registry.dataset('cuhk03-detected'); "
        f"entry.load({str(phantoms)!r}); entry.fingerprint({str(phantoms)!r}); "
        "assert not {'torch', 'scipy', 'h5py', 'PIL'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_msmt17_fits_in_300_mb(phantoms: Path) -> None:
    import subprocess

    code = (
        "from pathlib import Path; from harness import registry; "
        f"registry.dataset('msmt17').load({str(phantoms)!r}); "
        "print(Path('/proc/self/status').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    # Not ru_maxrss, which includes the peak of the parent process, here the whole test suite.
    peak = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM:"))
    assert int(peak.split()[1]) < 300 * 1024
