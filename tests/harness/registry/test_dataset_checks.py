"""Checks of a dataset: every fault is named, with what was expected, what was found and examples."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from harness import registry
from harness.cards import SplitCount
from harness.contracts import Item, Splits
from harness.registry import dataset_checks
from harness.registry.findings import LEVELS, Finding
from tests.support import small_datasets as small

MARKET = "Market-1501-v15.09.15"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small.market(tmp_path / MARKET)


def entry(**changes: object) -> registry.DatasetEntry:
    """Market-1501 with the counts of the small copy."""
    found = registry.dataset("market1501")
    expected = {"train": SplitCount(4, 2, 2), "query": SplitCount(2, 2, 2), "gallery": SplitCount(3, 3, 2)}
    changes = {"expected": expected, "image_size": (16, 8), **changes}
    return dataclasses.replace(found, card=msgspec.structs.replace(found.card, **changes))


def levels(findings: list[Finding], *chosen: str) -> list[str]:
    return [finding.sentence for finding in findings if finding.level in chosen]


def test_a_good_dataset_has_no_fault(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    findings = dataset_checks.validate_dataset(entry(), folder, progress=lambda *call: calls.append(call))
    assert levels(findings, "error", "warning") == []
    assert levels(findings, "info") == [
        f"Read as market1501 from {folder}.",
        "Junk images left out of gallery: 1.",
        "2 of 2 queries have a match in the gallery from another camera.",
        "All images are 16 x 8 pixels (height x width).",
    ]
    assert calls == [(i, 9) for i in range(1, 10)]


def test_a_mismatch_is_named_exactly(folder: Path) -> None:
    (folder / "bounding_box_train" / "0007_c1s1_000003_01.jpg").unlink()
    (folder / "bounding_box_train" / "0007_c2s1_000004_01.jpg").unlink()
    assert dataset_checks.check_counts(entry(), entry().load(folder)) == [
        f"train: the card expects 4 images, but {folder} has 2 "
        "(first images: bounding_box_train/0002_c1s1_000001_01.jpg, bounding_box_train/0002_c2s1_000002_01.jpg).",
        f"train: the card expects 2 identities, but {folder} has 1 "
        "(first images: bounding_box_train/0002_c1s1_000001_01.jpg, bounding_box_train/0002_c2s1_000002_01.jpg).",
    ]


def test_an_expected_zero_is_not_checked(folder: Path) -> None:
    free = {"train": SplitCount(0, 0, 0), "query": SplitCount(0, 2, 0)}
    found = entry()
    loose = dataclasses.replace(found, card=msgspec.structs.replace(found.card, expected=free))
    assert dataset_checks.check_counts(loose, loose.load(folder)) == []


FAULTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "identity in train and test": (
        lambda f: small.picture(f / "query" / "0007_c1s1_000009_00.jpg", 90), "error",
        "1 of 2 training identities are also in the test split"
    ),
    "same picture in train and test": (
        lambda f: shutil.copy(f / "bounding_box_train" / "0002_c1s1_000001_01.jpg", f / "query" / "0001_c2s1_1_00.jpg"),
        "error", "1 image(s) of the training split are also in the test split",
    ),
    "query of nobody in the gallery": (
        lambda f: small.picture(f / "query" / "0009_c1s1_000009_00.jpg", 90), "warning",
        "1 of 3 queries have an identity that is not"
    ),
    "query matched by its own camera only": (
        lambda f: small.picture(f / "query" / "0001_c2s1_000009_00.jpg", 90), "warning",
        "1 of 3 queries have gallery images of their identity only from"
    ),
    "same picture of two people": (
        lambda f: shutil.copy(f / "query" / "0001_c1s1_000005_01.jpg", f / "bounding_box_test" / "0003_c1s1_9_01.jpg"),
        "warning", "1 image(s) appear under more than one identity",
    ),
    "same picture twice": (
        lambda f: shutil.copy(f / "query" / "0001_c1s1_000005_01.jpg", f / "query" / "0001_c1s1_9_01.jpg"),
        "warning", "1 image(s) appear more than once under the same identity",
    ),
    "same picture from two cameras": (
        lambda f: shutil.copy(f / "query" / "0001_c1s1_000005_01.jpg", f / "bounding_box_test" / "0001_c2s1_9_01.jpg"),
        "warning", "1 image(s) appear more than once under the same identity",
    ),
    "a copy of the query in the gallery": (
        lambda f: shutil.copy(f / "query" / "0001_c1s1_000005_01.jpg", f / "bounding_box_test" / "0001_c1s1_9_01.jpg"),
        "info", "1 query image(s) are also in the gallery",
    ),
    "a test camera nobody trained on": (
        lambda f: small.picture(f / "bounding_box_test" / "0001_c3s1_9_01.jpg", 90), "warning",
        "1 of 3 cameras of the test split have no training image",
    ),
    "images of two sizes": (
        lambda f: Image.new("RGB", (8, 20)).save(f / "query" / "0001_c2s1_9_01.jpg"), "info",
        "Images have 2 sizes, from 16 x 8 to 20 x 8 pixels (height x width)."
    ),
    "a folder named like an image": (
        lambda f: (f / "query" / "0001_c3s1_9_01.jpg").mkdir(), "warning",
        "Folders with names like image files were left out"
    ),
    "an empty file": (
        lambda f: (f / "query" / "0001_c1s1_000005_01.jpg").write_bytes(b""), "error",
        "1 of 9 images cannot be read: the file is empty",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_found(kind: str, folder: Path) -> None:
    change, level, sentence = FAULTS[kind]
    change(folder)
    findings = dataset_checks.validate_dataset(entry(), folder)
    assert any(found.startswith(sentence) for found in levels(findings, level)), [str(f) for f in findings]
    assert [finding.level for finding in findings] == sorted((f.level for f in findings), key=LEVELS.index)


def test_nothing_to_score_is_an_error(folder: Path) -> None:
    for name in ("0001_c2s1_000009_01.jpg", "0003_c1s1_000010_01.jpg"):
        (folder / "bounding_box_test" / name).unlink()
    findings = dataset_checks.validate_dataset(entry(), folder)
    assert any("no identity in common" in s for s in levels(findings, "error"))


def test_one_camera_for_everything_is_an_error(folder: Path) -> None:
    for path in list(folder.rglob("*_c2*")):
        path.rename(path.with_name(path.name.replace("_c2", "_c1")))
    findings = dataset_checks.validate_dataset(entry(), folder)
    assert any(s.startswith("All 5 query and gallery images are from one camera") for s in levels(findings, "error"))


def test_the_number_of_queries_with_a_match_is_given(folder: Path) -> None:
    for n in range(8):
        small.picture(folder / "query" / f"0009_c1s1_00001{n}_00.jpg", 90 + n)
    found = levels(dataset_checks.validate_dataset(entry(), folder), "info")
    assert "2 of 10 queries have a match in the gallery from another camera." in found


def test_files_of_other_kinds_are_listed(folder: Path) -> None:
    (folder / "query" / "0001_c1s1_000005_01.heic").touch()
    found = levels(dataset_checks.validate_dataset(entry(), folder), "info")
    assert "Files that are not images of a supported format were left out: 1 .heic." in found


def test_overlapping_numbers_of_msmt17_are_no_fault(tmp_path: Path) -> None:
    small.msmt17(tmp_path / "MSMT17_V1")
    splits = registry.dataset("msmt17").load(tmp_path)
    assert {item.pid for item in splits.train} & {item.pid for item in splits.query}
    assert levels(dataset_checks.check_labels(splits), "error") == []


def test_a_training_image_used_as_query() -> None:
    item = Item(Path("/x/a.jpg"), 1, 0)
    splits = Splits([item], [Item(item.path, 2, 0)], [Item(Path("/x/b.jpg"), 2, 1)], Path("/x"))
    assert "1 of 1 training images are also in query or gallery; remove them from one of the two." in levels(
        dataset_checks.check_labels(splits), "error"
    )


def test_a_dataset_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    [finding] = dataset_checks.validate_dataset(entry(), tmp_path)
    assert finding.level == "error" and "was not found below" in finding.sentence


def test_the_notice_of_a_withdrawn_dataset_is_a_warning(folder: Path) -> None:
    assert "It is withdrawn." in levels(
        dataset_checks.validate_dataset(entry(notice="It is withdrawn."), folder), "warning"
    )


def test_a_finding_reads_as_sentences() -> None:
    finding = Finding("error", "Two files are empty.", ("a.jpg", "b.jpg"))
    assert str(finding) == "Two files are empty. For example: a.jpg, b.jpg."
    assert str(Finding("info", "All is well.")) == "All is well."
