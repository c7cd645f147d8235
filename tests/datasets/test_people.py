"""The subset of photographs for the comparison with generated people."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.people import choose, link_photographs, needs
from datasets.synthetic import Scale, generate
from harness import registry
from harness.errors import DataError

WANTED = Scale(train_identities=3, test_identities=2, distractors=0, train_images=4, gallery_images=2)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with more people and images than needed."""
    root = tmp_path_factory.mktemp("photographs")
    generate(root, layouts=["cuhk03-detected"], scale=Scale(6, 5, 0, 8, 6), size=(32, 16))
    return root


def test_needs_are_the_stand_ins_counts() -> None:
    train, test = needs(WANTED)
    assert train == ({("train", 0): 2, ("train", 1): 2}, 3)
    assert test == ({("gallery", 0): 1, ("gallery", 1): 1, ("query", 0): 1, ("query", 1): 1}, 2)


def test_subset_has_the_counts_of_the_stand_in(photographs: Path) -> None:
    first, again, other = (list(choose(photographs, WANTED, seed)) for seed in (0, 0, 1))
    assert first == again and first != other
    assert Counter(split for split, _ in first) == {"train": 12, "query": 4, "gallery": 4}
    assert len({item.pid for split, item in first if split == "train"}) == 3


def test_the_subset_is_read_as_the_stand_in_is_and_holds_links(photographs: Path, tmp_path: Path) -> None:
    link_photographs(photographs, WANTED, 0, tmp_path)
    splits = registry.dataset("cuhk03-detected").load(tmp_path)
    assert (len(splits.train), len(splits.query), len(splits.gallery)) == (12, 4, 4)
    assert splits.generated is None, "photographs are not marked as generated"
    assert all(item.path.is_symlink() and item.path.exists() for item in splits.train)


def test_too_few_people_are_refused_with_the_count(photographs: Path) -> None:
    with pytest.raises(DataError, match="6 identities"):
        list(choose(photographs, Scale(7, 2, 0, 4, 2), 0))
