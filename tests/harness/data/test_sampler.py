"""PK sampling: properties for any labels, and counts on the official training lists."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from harness.data.sampler import PKSampler
from harness.errors import UsageError
from harness.spec.recipe import Sampler

EPOCHS = ("one-pass", "images-ceil", "images-floor", "fixed")


@st.composite
def cases(draw: st.DrawFn, epochs: tuple[str, ...] = EPOCHS) -> tuple[np.ndarray, Sampler]:
    counts = draw(st.lists(st.integers(1, 13), min_size=1, max_size=12))
    labels = np.repeat(np.arange(len(counts)), counts)
    order = np.random.default_rng(draw(st.integers(0, 2**32))).permutation(len(labels))
    wanted = Sampler(
        identities=draw(st.integers(1, len(counts))),
        instances=draw(st.integers(1, 5)),
        epoch=draw(st.sampled_from(epochs)),
        iterations=draw(st.integers(1, 9)),
    )
    assume(wanted.epoch != "images-floor" or len(labels) >= wanted.identities * wanted.instances)
    return labels[order], wanted


@given(cases(), st.integers(0, 2**40), st.integers(0, 300))
@settings(max_examples=150, deadline=None)
def test_every_batch_has_p_identities_with_k_images_in_a_row(case, seed, epoch):
    labels, wanted = case
    batches = PKSampler(labels, wanted, seed=seed).batches(epoch)
    blocks = labels[batches].reshape(-1, wanted.identities, wanted.instances)
    assert (blocks == blocks[:, :, :1]).all()
    assert all(len(set(names)) == wanted.identities for names in blocks[:, :, 0].tolist())


@given(cases(("one-pass",)), st.integers(0, 2**40))
@settings(max_examples=150, deadline=None)
def test_a_pass_uses_each_image_once_and_stops_only_when_it_must(case, seed):
    labels, wanted = case
    k = wanted.instances
    drawn = PKSampler(labels, wanted, seed=seed).batches(0)
    images = Counter(drawn.ravel().tolist())
    used = Counter(labels[drawn.reshape(-1, k)[:, 0]].tolist())
    sizes = Counter(labels.tolist())
    assert all(times == 1 for image, times in images.items() if sizes[labels[image]] >= k)
    groups_left = {pid: max(1, n // k) - used[pid] for pid, n in sizes.items()}
    assert min(groups_left.values()) >= 0
    assert sum(left > 0 for left in groups_left.values()) < wanted.identities


@given(cases(), st.integers(0, 2**40), st.integers(0, 300))
@settings(max_examples=50, deadline=None)
def test_an_epoch_depends_on_nothing_but_seed_and_number(case, seed, epoch):
    labels, wanted = case
    other = PKSampler(labels, wanted, seed=seed)
    other.batches(epoch + 1)
    assert np.array_equal(PKSampler(labels, wanted, seed=seed).batches(epoch), other.batches(epoch))
    assert other.iterations(epoch) == len(other.batches(epoch))


@given(cases(), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_iterations_per_epoch_are_as_defined(case, seed):
    labels, wanted = case
    size = wanted.identities * wanted.instances
    expected = {
        "images-ceil": math.ceil(len(labels) / size),
        "images-floor": len(labels) // size,
        "fixed": wanted.iterations,
    }
    found = PKSampler(labels, wanted, seed=seed).iterations(3)
    assert found == expected[wanted.epoch] if wanted.epoch in expected else found >= 1


def test_every_image_is_seen_about_equally_often():
    labels = np.repeat(np.arange(8), 8)
    sampler = PKSampler(labels, Sampler(4, 4, "one-pass"), seed=3)
    seen = Counter(image for epoch in range(400) for image in sampler.batches(epoch).ravel().tolist())
    epochs = sum(len(sampler.batches(epoch)) for epoch in range(400)) * 16 / 64
    assert len(seen) == 64
    assert min(seen.values()) > 0.9 * epochs
    assert max(seen.values()) < 1.1 * epochs


def test_few_images_are_drawn_with_replacement():
    labels = np.array([0, 0, 1, 1, 1, 1])
    sampler = PKSampler(labels, Sampler(2, 4, "fixed", 200), seed=0)
    of_first = sampler.batches(0).reshape(-1, 4)
    of_first = of_first[labels[of_first[:, 0]] == 0]
    kinds = Counter(int(row.sum()) for row in of_first)  # images 0 and 1: the sum counts how often the second came
    assert set(kinds) == {0, 1, 2, 3, 4}


def test_seeds_and_epochs_differ():
    labels = np.repeat(np.arange(20), 6)
    plans = [PKSampler(labels, Sampler(4, 2), seed=s).batches(e).tobytes() for s in (0, 1) for e in (0, 1)]
    assert len(set(plans)) == 4


def test_the_draws_are_the_same_on_every_machine():
    """The first epoch must not change with the version of numpy, or records would not be reproducible."""
    labels = np.repeat(np.arange(30), 7)
    plan = PKSampler(labels, Sampler(8, 4), seed=1).batches(5).astype("<i8")
    assert hashlib.sha256(plan.tobytes()).hexdigest()[:16] == "4819dfde50678747"


@pytest.mark.parametrize("epoch", EPOCHS)
def test_fewer_identities_than_p_is_an_error_not_an_endless_loop(epoch):
    with pytest.raises(UsageError, match=r"16 identities.*only 2.*sampler\.identities to 2"):
        PKSampler(np.repeat([5, 9], 50), Sampler(16, 4, epoch, 10), seed=0)


def test_rounding_down_to_no_batch_is_an_error():
    with pytest.raises(UsageError, match="fewer than one batch of 64"):
        PKSampler(np.arange(20), Sampler(16, 4, "images-floor"), seed=0)


def market(protocols: Path) -> list[str]:
    return [line.split("_")[0] for line in (protocols / "market1501/train_names.txt").read_text().split()]


def occluded_duke(protocols: Path) -> list[str]:
    return [line.split("_")[0] for line in (protocols / "occluded_duke/train.list").read_text().split()]


def msmt17(protocols: Path, parts: tuple[str, ...] = ("train", "val")) -> list[str]:
    lines = [line for part in parts for line in (protocols / f"msmt17/list_{part}.txt").read_text().splitlines()]
    return [line.split()[1] for line in lines if line]


def msmt17_train(protocols: Path) -> list[str]:
    return msmt17(protocols, ("train",))


def cuhk03(protocols: Path) -> list[str]:
    from scipy.io import loadmat

    lists = loadmat(protocols / "cuhk03/cuhk03_new_protocol_config_detected.mat")
    return [str(label) for label in lists["labels"].ravel()[lists["train_idx"].ravel() - 1]]


@pytest.mark.parametrize(
    ("read", "p", "k", "one_pass", "ceil", "floor", "coverage"),
    [
        (market, 16, 4, (183, 184), 203, 202, 90.4),
        (occluded_duke, 16, 4, (211, 213), 245, 244, 86.9),
        (msmt17_train, 16, 4, (434, 439), 473, 472, 92.3),
        (msmt17, 16, 4, (472, 475), 510, 509, 93.2),
        (cuhk03, 16, 4, (93, 93), 116, 115, 80.8),
        (market, 4, 16, (210, 211), 203, 202, 79.0),
        (cuhk03, 4, 16, (191, 191), 116, 115, 81.9),
    ],
)
def test_counts_on_the_official_lists(shared, read, p, k, one_pass, ceil, floor, coverage):
    """Batches per epoch and share of the images seen, as the originals' samplers give on the same lists."""
    _, labels = np.unique(read(shared / "protocols"), return_inverse=True)
    sampler = PKSampler(labels, Sampler(p, k, "one-pass"), seed=0)
    counts = [sampler.iterations(epoch) for epoch in range(4)]
    low, high = one_pass
    assert low - 1 <= min(counts) <= max(counts) <= high + 1  # the originals' range is that of ten seeds
    assert low <= np.median(counts) <= high
    assert 100 * len(np.unique(sampler.batches(0))) / len(labels) == pytest.approx(coverage, abs=0.5)
    for epoch, expected in (("images-ceil", ceil), ("images-floor", floor)):
        assert PKSampler(labels, Sampler(p, k, epoch), seed=0).iterations(0) == expected
