"""The weighted triplet loss and the multi-similarity loss have the values of the original code; recipes choose them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.contracts import TrainingOutput
from harness.errors import UsageError
from harness.losses import ReIDCriterion, multi_similarity, triplet, weighted_triplet
from harness.spec.recipe import Loss, from_values
from harness.system.paths import REPOSITORY

GOLDEN = json.loads((REPOSITORY / "tests" / "golden" / "pair_losses.json").read_text())
"""Value of each loss and norm of its gradient, from the code of AGW (38f5912) and LightMBN (1f4ec0d) on a CPU."""
PIDS = torch.arange(16).repeat_interleave(4)


def noise(seed: int | list[int], *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def features(name: str) -> Tensor:
    """Noise of several lengths, and noise around a vector per identity."""
    plain = noise(12, 64, 96) + 0.5 * noise([11, 0], 64, 96)
    clustered = noise(14, 16, 96)[PIDS] + 0.7 * plain
    return {"noise": plain, "near": 0.2 * plain, "far": 3 * plain, "clustered": clustered}[name]


@pytest.mark.parametrize("key", GOLDEN)
def test_values_and_gradients_are_those_of_the_originals(key: str) -> None:
    kind, *margin, name = key.replace("0.", "0,").split(".")
    found = features(name).requires_grad_()
    if kind == "weighted":
        loss = weighted_triplet(found, PIDS)
    else:
        loss = multi_similarity(found, PIDS, float(margin[0].replace(",", ".")))
    loss.backward()
    assert [loss.item(), found.grad.norm().item()] == pytest.approx(GOLDEN[key], rel=2e-5, abs=1e-7)


def test_the_weighted_loss_by_hand() -> None:
    """Points 0 and 1 on a line are one identity, 3 is another."""
    found = weighted_triplet(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1]))
    pull = math.e / (math.e + 1)  # of both images of the first identity: distances 0 and 1
    push = (2 * math.exp(-2) + 3 * math.exp(-3)) / (math.exp(-2) + math.exp(-3))  # of the other one
    expected = sum(math.log1p(math.exp(gap)) for gap in (pull - 3, pull - 2, -push)) / 3
    assert found.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1e3, 1e6])
@pytest.mark.parametrize("pids", [[0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5], [0] * 6])
def test_losses_and_gradients_are_finite_for_features_of_any_length(scale: float, pids: list[int]) -> None:
    for loss in (weighted_triplet, lambda x, labels: multi_similarity(x, labels, 0.7)):
        found = (scale * noise(3, 6, 4)).requires_grad_()
        value = loss(found, torch.tensor(pids))
        value.backward()
        assert value.isfinite() and found.grad.isfinite().all()


def test_multi_similarity_leaves_out_anchors_without_pairs() -> None:
    unit = torch.eye(4)
    alone = multi_similarity(unit, torch.arange(4), 0.1)  # no positives at all
    assert alone.item() == 0
    easy = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]]).requires_grad_()
    loss = multi_similarity(easy, torch.tensor([0, 0, 1, 1]), 0.1)
    loss.backward()
    assert loss.item() == 0 and easy.grad.isfinite().all()


def test_a_recipe_chooses_the_kind_and_the_branches() -> None:
    output = TrainingOutput([noise(i, 64, 16) for i in range(3)], [noise([7, i], 64, 8) for i in range(3)])
    expected = {
        "batch-hard": triplet(output.features[0], PIDS, 0.7),
        "weighted": weighted_triplet(output.features[0], PIDS),
        "multi-similarity": multi_similarity(output.features[0], PIDS, 0.7),
    }
    for kind, value in expected.items():
        criterion = ReIDCriterion(Loss(identity=0.0, margin=0.7, triplet_kind=kind, triplet_branches=1))
        assert criterion(output, PIDS, 16, 4)[0].item() == pytest.approx(value.item())
        assert len(criterion.used(output).features) == 1
    assert len(ReIDCriterion(Loss()).used(output).features) == 3


def test_the_multi_similarity_loss_has_no_soft_margin() -> None:
    with pytest.raises(UsageError, match="multi-similarity loss has no soft margin"):
        from_values("x", {"loss": {"triplet_kind": "multi-similarity"}})
