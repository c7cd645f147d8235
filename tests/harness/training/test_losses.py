"""Losses have the values of the original code; their properties; the criterion of a recipe."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.contracts import TrainingOutput
from harness.errors import UsageError
from harness.losses import ReIDCriterion, center, cross_entropy, euclidean_distances, ratr, triplet
from harness.spec.recipe import Loss
from harness.system.paths import REPOSITORY

GOLDEN = json.loads((REPOSITORY / "tests" / "golden" / "losses.json").read_text())
PIDS = torch.arange(16).repeat_interleave(4)


def noise(seed: int | list[int], *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def branches() -> list[Tensor]:
    base = noise(12, 64, 96)
    return [torch.from_numpy((base + 0.5 * noise([11, i], 64, 96)).astype(np.float32)) for i in range(3)]


# The original's values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_ratr_gives_the_values_of_the_original(temperature: float) -> None:
    intra, inter = ratr(branches(), 16, 4, temperature, PIDS)
    assert intra.item() == pytest.approx(GOLDEN[f"intra_{temperature}"], rel=1e-6)
    assert inter.item() == pytest.approx(GOLDEN[f"inter_{temperature}"], rel=1e-6)


@pytest.mark.parametrize("margin", [None, 0.3, 1.2])
def test_triplet_gives_the_values_of_the_original(margin: float | None) -> None:
    assert triplet(branches()[0], PIDS, margin).item() == pytest.approx(GOLDEN[f"triplet_{margin or 0.0}"], rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_gives_the_values_of_the_original(smoothing: float) -> None:
    logits = torch.from_numpy((3 * noise(13, 64, 50)).astype(np.float32))
    loss = cross_entropy(logits, PIDS, smoothing, "others")
    assert loss.item() == pytest.approx(GOLDEN[f"ce_{smoothing}"], rel=1e-6)


# Properties -----------------------------------------------------------------------------------------------------------


def test_both_kinds_of_smoothing_are_pytorchs_up_to_scale() -> None:
    logits = torch.from_numpy(3 * noise(13, 64, 50))
    for over, smoothing in (("all", 0.1), ("others", 0.1 * 50 / 49)):
        expected = F.cross_entropy(logits, PIDS, label_smoothing=smoothing)
        assert cross_entropy(logits, PIDS, 0.1, over).item() == pytest.approx(expected.item(), rel=1e-12)


def test_floor_of_smoothed_cross_entropy_is_the_target_entropy() -> None:
    classes = 751
    logits = torch.full((1, classes), math.log(0.1 / (classes - 1)), dtype=torch.float64)
    logits[0, 7] = math.log(0.9)
    loss = cross_entropy(logits, torch.tensor([7]), 0.1, "others")
    assert loss.item() == pytest.approx(0.9871, abs=1e-4)


def slow_ratr(features: list[Tensor], p: int, k: int, temperature: float) -> tuple[float, float]:
    """RATR by its formula, one anchor and one pair at a time."""

    def tau(x: list[float], y: list[float]) -> float:
        pairs = list(itertools.combinations(range(len(x)), 2))
        return sum(
            math.tanh((x[i] - x[j]) / temperature) * math.tanh((y[i] - y[j]) / temperature) for i, j in pairs
        ) / len(pairs)

    intra: list[float] = []
    inter: list[float] = []
    normalised = [F.normalize(f, dim=1) for f in features]
    for one, other in itertools.combinations(normalised, 2):
        for anchor in range(p * k):
            own = range(anchor // k * k, anchor // k * k + k)
            inside = [[(f[anchor] @ f[i]).item() for i in own if i != anchor] for f in (one, other)]
            intra.append(tau(*inside))
            outside = []
            for f in (one, other):
                centers = [F.normalize(f[c * k : c * k + k].mean(0), dim=0) for c in range(p) if c != anchor // k]
                outside.append([(f[anchor] @ c).item() for c in centers])
            inter.append(tau(*outside))
    return float(np.mean(intra)), float(np.mean(inter))


few = settings(deadline=None, max_examples=20)


@few
@given(
    p=st.integers(3, 5),
    k=st.integers(3, 4),
    number=st.integers(2, 4),
    temperature=st.floats(0.05, 2),
    seed=st.integers(0),
)
def test_ratr_is_its_formula(p: int, k: int, number: int, temperature: float, seed: int) -> None:
    features = [torch.from_numpy(noise([seed % 2**32, b], p * k, 3 + b)) for b in range(number)]
    found = [value.item() for value in ratr(features, p, k, temperature)]
    assert found == pytest.approx(slow_ratr(features, p, k, temperature), abs=1e-9)
    assert all(-1 <= value <= 1 for value in found)


@few
@given(order=st.permutations(range(3)), scale=st.floats(0.1, 10))
def test_ratr_ignores_branch_order_and_feature_length(order: list[int], scale: float) -> None:
    features = [f[:24].double() for f in branches()]
    plain = torch.stack(ratr(features, 6, 4, 0.1))
    assert torch.allclose(torch.stack(ratr([scale * features[i] for i in order], 6, 4, 0.1)), plain, atol=1e-9)


def test_gradients_reach_every_branch() -> None:
    features = [f.requires_grad_() for f in branches()]
    same = ratr([features[0], features[0]], 16, 4, 0.01)
    assert all(value > 0.8 for value in same)
    sum(ratr(features, 16, 4, 0.1)).backward()
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in features)


def test_ratr_and_triplet_have_the_gradients_they_say() -> None:
    features = [torch.from_numpy(noise(b, 9, 4)).requires_grad_() for b in range(2)]
    pids = torch.arange(3).repeat_interleave(3)
    assert torch.autograd.gradcheck(lambda *f: ratr(f, 3, 3, 0.5), features)
    assert torch.autograd.gradcheck(lambda f: triplet(f, pids, None), features[:1])
    assert torch.autograd.gradcheck(lambda f: triplet(f, pids, 1.2), features[:1])


@few
@given(seed=st.integers(0, 2**32), margin=st.one_of(st.none(), st.floats(0, 2)))
def test_triplet_takes_the_hardest_of_the_batch(seed: int, margin: float | None) -> None:
    rng = np.random.default_rng(seed)
    features, pids = torch.from_numpy(rng.standard_normal((10, 3))), torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3, 3])
    losses = []
    for a in range(10):
        distance = (features - features[a]).norm(dim=1)
        gap = (distance[pids == pids[a]].max() - distance[pids != pids[a]].min()).item()
        losses.append(math.log1p(math.exp(gap)) if margin is None else max(0.0, gap + margin))
    shuffled = torch.from_numpy(rng.permutation(10))
    assert triplet(features[shuffled], pids[shuffled], margin).item() == pytest.approx(np.mean(losses), abs=1e-5)


def test_batch_of_one_identity_has_no_broken_gradient() -> None:
    features = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = triplet(features, torch.zeros(4), 0.3)
    loss.backward()
    assert loss.item() == 0 and not features.grad.any()


def test_losses_are_computed_in_float32_under_autocast() -> None:
    features = [20 * f for f in branches()]
    output = TrainingOutput(logits=[f[:, :16] for f in features], features=features)
    criterion = ReIDCriterion(Loss(ratr_intra=1.0, ratr_inter=1.0, center=0.1), num_classes=16)
    expected, _ = criterion(output, PIDS, 16, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = criterion(output, PIDS, 16, 4)
        half = TrainingOutput(*([t.bfloat16() for t in tensors] for tensors in (output.logits, output.features)))
        from_half, parts = criterion(half, PIDS, 16, 4)
    assert found.item() == expected.item()
    assert from_half.dtype == torch.float32 and all(part.dtype == torch.float32 for part in parts.values())


HALVES = pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])


def half_tau(similarities: list[Tensor], temperature: float) -> float:
    """Soft Kendall tau of half-precision similarities [anchors, M] as CUDA's autocast has it: summed in float32."""
    i, j = torch.triu_indices(similarities[0].shape[1], similarities[0].shape[1], 1)
    signs = [torch.tanh((one[:, i] - one[:, j]) / temperature) for one in similarities]
    return float(np.mean([(a * b).float().mean().item() for a, b in itertools.combinations(signs, 2)]))


@HALVES
def test_triplet_can_leave_its_products_to_autocast(half: torch.dtype) -> None:
    features = 3.3 * branches()[0]  # squared length of about 1,100, as behind ReIDMamba's norm
    squares = features.square().sum(1)
    product = features.to(half) @ features.to(half).T
    distances = (squares[:, None] + squares - 2 * product).clamp(min=1e-12).sqrt()
    same = PIDS[:, None] == PIDS
    gaps = distances.masked_fill(~same, -torch.inf).amax(1) - distances.masked_fill(same, torch.inf).amin(1)
    full = triplet(features, PIDS, 1.2).item()
    with torch.autocast("cpu", half):
        found = triplet(features, PIDS, 1.2, autocast=True)
        assert triplet(features, PIDS, 1.2).item() == full
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(F.relu(gaps + 1.2).mean().item(), rel=1e-6)
    assert abs(found.item() - full) > 5e-5
    assert triplet(features, PIDS, 1.2, autocast=True).item() == full, "there is no autocast around"


@HALVES
def test_ratr_can_leave_its_similarities_to_autocast(half: torch.dtype) -> None:
    normalised = [F.normalize(f, dim=1) for f in branches()]
    own = PIDS[:, None] == PIDS
    own.fill_diagonal_(False)
    inside = [(f.to(half) @ f.to(half).T)[own].view(64, 3) for f in normalised]
    means = [F.normalize(f.view(16, 4, -1).mean(1), dim=1) for f in normalised]
    other = PIDS[:, None] != torch.arange(16)
    outside = [(f.to(half) @ c.to(half).T)[other].view(64, 15) for f, c in zip(normalised, means, strict=True)]
    expected = [half_tau(inside, 0.1), half_tau(outside, 0.1)]
    full = [value.item() for value in ratr(branches(), 16, 4, 0.1)]
    with torch.autocast("cpu", half):
        found = ratr(branches(), 16, 4, 0.1, autocast=True)
        assert [value.item() for value in ratr(branches(), 16, 4, 0.1)] == full
    assert all(value.dtype == torch.float32 for value in found)
    assert [value.item() for value in found] == pytest.approx(expected, rel=2e-4)
    assert [value.item() for value in found] != pytest.approx(full, rel=1e-5)


def test_the_recipe_says_whether_losses_are_left_to_autocast() -> None:
    """Cross-entropy and center loss are float32 either way: autocast computes what they use in float32."""
    totals = {}
    for precision in ("fp32", "autocast"):
        weights = Loss(precision=precision, label_smoothing=0.1, ratr_intra=1.0, ratr_inter=1.0, center=0.1)
        criterion = ReIDCriterion(weights, num_classes=16)
        criterion(output(), PIDS, 16, 4)
        torch.nn.init.zeros_(criterion.centers)
        _, plain = criterion(output(), PIDS, 16, 4)
        with torch.autocast("cpu", torch.float16):
            total, parts = criterion(output(), PIDS, 16, 4)
        assert total.dtype == torch.float32 and all(part.dtype == torch.float32 for part in parts.values())
        totals[precision] = {name for name, part in parts.items() if part.item() != plain[name].item()}
    assert totals == {"fp32": set(), "autocast": {"triplet", "ratr_intra", "ratr_inter"}}


def test_half_precision_distances_are_off_as_documented() -> None:
    """backbones/README.md: at a squared length of 1,100, off by up to 0.4 at a distance of 1.4, by 0.1 at 5.5."""
    others = ~torch.eye(64, dtype=torch.bool)
    for apart, distance, off in ((0.03, 1.4, 0.4), (0.116, 5.5, 0.1)):
        features = torch.from_numpy(noise(5, 1, 1152) + apart * noise(6, 64, 1152)).float()
        exact = euclidean_distances(features)
        with torch.autocast("cpu", torch.float16):
            rounded = euclidean_distances(features, autocast=True)
        assert features.square().sum(1).mean().item() == pytest.approx(1100, rel=0.05)
        assert exact[others].mean().item() == pytest.approx(distance, rel=0.05)
        assert (rounded - exact)[others].abs().max().item() == pytest.approx(off, rel=0.2)


# Refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pids", "p", "k"),
    [
        (PIDS, 4, 4),
        (PIDS.flip(0)[torch.randperm(64, generator=torch.Generator().manual_seed(0))], 16, 4),
        (torch.arange(16).repeat(4), 16, 4),
        (PIDS % 15, 16, 4),
    ],
    ids=["size", "shuffled", "interleaved", "identity twice"],
)
def test_ratr_refuses_a_batch_that_is_not_in_pk_order(pids: Tensor, p: int, k: int) -> None:
    with pytest.raises(UsageError, match="PK order"):
        ratr(branches(), p, k, 0.1, pids)


def test_ratr_needs_something_to_compare() -> None:
    with pytest.raises(UsageError, match="compares branches and needs at least 2; the backbone has 1"):
        ratr(branches()[:1], 16, 4, 0.1)
    with pytest.raises(UsageError, match="at least 3"):
        ratr(branches(), 32, 2, 0.1)
    with pytest.raises(UsageError, match="above 0"):
        ratr(branches(), 16, 4, 0.0)


def test_unknown_smoothing_is_refused() -> None:
    with pytest.raises(UsageError, match="smoothing_over"):
        cross_entropy(torch.zeros(1, 2), torch.tensor([0]), 0.1, "some")


# The criterion -------------------------------------------------------------------------------------------------------


def output() -> TrainingOutput:
    features = branches()
    return TrainingOutput(logits=[f[:, :16].clone() for f in features], features=features)


def test_losses_are_weighted_and_averaged_over_branches() -> None:
    weights = Loss(identity=2.0, triplet=0.5, margin=1.2, label_smoothing=0.1, ratr_intra=0.3, ratr_inter=0.7)
    total, parts = ReIDCriterion(weights)(output(), PIDS, 16, 4)
    expected = {
        "identity": np.mean([cross_entropy(x, PIDS, 0.1, "all").item() for x in output().logits]),
        "triplet": np.mean([triplet(f, PIDS, 1.2).item() for f in output().features]),
        "ratr_intra": GOLDEN["intra_0.1"],
        "ratr_inter": GOLDEN["inter_0.1"],
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-6)
    factors = (2.0, 0.5, 0.3, 0.7)
    assert total.item() == pytest.approx(sum(w * v for w, v in zip(factors, expected.values(), strict=True)), rel=1e-6)


def test_the_first_branch_can_weigh_half() -> None:
    _, parts = ReIDCriterion(Loss(branches="first-half"))(output(), PIDS, 16, 4)
    first, *others = (triplet(f, PIDS, None).item() for f in output().features)
    assert parts["triplet"].item() == pytest.approx(first / 2 + np.mean(others) / 2, rel=1e-6)
    single = TrainingOutput(output().logits[:1], output().features[:1])
    _, parts = ReIDCriterion(Loss(branches="first-half"))(single, PIDS, 16, 4)
    assert parts["triplet"].item() == pytest.approx(first, rel=1e-6)


def test_losses_of_weight_zero_are_left_out() -> None:
    _, parts = ReIDCriterion(Loss(identity=0.0))(output(), PIDS, 16, 4)
    assert list(parts) == ["triplet"]
    with pytest.raises(UsageError, match="weight 0"):
        ReIDCriterion(Loss(identity=0.0, triplet=0.0))(output(), PIDS, 16, 4)
    with pytest.raises(UsageError, match="at least 2 identities, found 1"):
        ReIDCriterion(Loss())(output(), PIDS, 1, 64)


def test_center_loss_is_the_mean_squared_distance() -> None:
    features, centers = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert center(features, torch.tensor([0, 1]), centers).item() == (4.0 + 25.0) / 2


@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_centers_take_a_step_of_their_own(loss_scale: float) -> None:
    criterion = ReIDCriterion(Loss(center=0.0005, center_lr=0.5), num_classes=16)
    total, parts = criterion(output(), PIDS, 16, 4)
    before, feature = criterion.centers.detach().clone(), output().features[0]
    assert parts["center"].item() == pytest.approx(center(feature, PIDS, before).item())
    criterion.zero_grad()
    (loss_scale * total).backward()
    criterion.center_step(loss_scale)
    # The gradient of the unweighted loss: 2 / B for every image of the class.
    expected = before - 0.5 * 2 / 64 * (4 * before - feature.unflatten(0, (16, 4)).sum(1))
    assert torch.allclose(criterion.centers, expected, atol=1e-5)
    criterion.centers.grad.fill_(torch.inf)
    criterion.center_step(loss_scale)
    assert torch.allclose(criterion.centers, expected, atol=1e-5)


def test_centers_survive_a_checkpoint() -> None:
    weights = Loss(center=0.0005)
    first, second = (ReIDCriterion(weights, num_classes=16) for _ in range(2))
    first(output(), PIDS, 16, 4)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.centers, second.centers)
    assert second(output(), PIDS, 16, 4)[0].item() == first(output(), PIDS, 16, 4)[0].item()
    assert ReIDCriterion(Loss()).state_dict() == {}
