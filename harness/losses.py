"""Losses of re-identification, and the criterion that a recipe builds from them.

Every loss is computed in float32 (float64 stays float64), also inside autocast: in half precision, the distance
between two features of length 30 has an error of up to 1. With `autocast=True`, `triplet` and `ratr` compute their
matrix products, and RATR its tanh, in the precision of autocast, as the original code does. All other operations of
the losses are on the float32 list of CUDA's autocast and stay in float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from harness.contracts import TrainingOutput
from harness.errors import UsageError
from harness.spec.recipe import Loss

MINIMUM_SQUARED_DISTANCE = 1e-12


def _full(tensor: Tensor) -> Tensor:
    """Converts half precision to float32; float64 stays float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _no_autocast(tensor: Tensor) -> torch.autocast:
    """Returns a context that switches autocast off on the device of `tensor`."""
    return torch.autocast(tensor.device.type, enabled=False)


def _products(tensor: Tensor, autocast: bool) -> AbstractContextManager[Any]:
    """Returns the context for matrix products: the caller's autocast precision, or no autocast."""
    return contextlib.nullcontext() if autocast else _no_autocast(tensor)


def cross_entropy(logits: Tensor, pids: Tensor, label_smoothing: float, smoothing_over: str = "all") -> Tensor:
    """Cross-entropy of the identity classifier, with label smoothing.

    Args:
        logits: [B, C].
        pids: class of each image, [B].
        label_smoothing: eps, at least 0 and below 1.
        smoothing_over: "all" gives eps / C to every class (BoT, arXiv 1903.07071, section 3.3; PyTorch).
            "others" gives eps / (C - 1) to every wrong class and 1 - eps to the right one (ReIDMamba's code).

    Returns:
        The mean over the batch, a scalar.

    Raises:
        UsageError: `smoothing_over` is neither.
    """
    if smoothing_over not in ("others", "all"):
        raise UsageError(f"smoothing_over must be 'others' or 'all', found '{smoothing_over}'.")
    with _no_autocast(logits):
        log_likelihood = F.log_softmax(_full(logits), dim=1)
        right = -log_likelihood.gather(1, pids[:, None]).squeeze(1)
        if label_smoothing == 0:
            return right.mean()
        every, classes = -log_likelihood.sum(1), logits.shape[1]
        if smoothing_over == "all":
            return ((1 - label_smoothing) * right + label_smoothing / classes * every).mean()
        return ((1 - label_smoothing) * right + label_smoothing / max(classes - 1, 1) * (every - right)).mean()


def euclidean_distances(features: Tensor, *, autocast: bool = False) -> Tensor:
    """Computes the distances [B, B] between all pairs of features [B, D].

    Distances are at least 1e-6, because the square root has no finite gradient at 0. With `autocast` the inner
    products are computed in the caller's autocast precision; the squared lengths stay in float32.
    """
    with _products(features, autocast):
        features = _full(features)
        squares = features.square().sum(1)
        squared = squares[:, None] + squares[None] - 2 * (features @ features.T)
        return squared.clamp(min=MINIMUM_SQUARED_DISTANCE).sqrt()


def triplet(features: Tensor, pids: Tensor, margin: float | None, *, autocast: bool = False) -> Tensor:
    """Triplet loss with batch-hard mining (Hermans et al. 2017, arXiv 1703.07737, section 2).

    Each image is an anchor. Its positive is the farthest image of its identity (the image itself if there is no
    other), its negative the nearest image of another identity. Distances are Euclidean; features are not normalised.

    Args:
        features: [B, D], not normalised.
        pids: [B].
        margin: the loss is the mean of max(0, d_positive - d_negative + margin). `None` is the soft margin: the mean
            of log(1 + exp(d_positive - d_negative)).
        autocast: whether the inner products use autocast's precision; by default they are float32.

    Returns:
        The loss, a scalar; 0 for a batch of one identity, which has no triplets.
    """
    distances = euclidean_distances(features, autocast=autocast)
    same = pids[:, None] == pids[None]
    hardest_positive = distances.masked_fill(~same, -torch.inf).amax(1)
    hardest_negative = distances.masked_fill(same, torch.inf).amin(1)
    gap = hardest_positive - hardest_negative
    return F.softplus(gap).mean() if margin is None else F.relu(gap + margin).mean()


def center(features: Tensor, pids: Tensor, centers: Tensor) -> Tensor:
    """Center loss (Wen et al. 2016) as in BoT (arXiv 1903.07071, section 3.6).

    Args:
        features: [B, D], not normalised.
        pids: class of each image, [B].
        centers: center of each class, [C, D].

    Returns:
        Mean squared distance of each feature to the center of its class, without the factor 1/2; a scalar.
    """
    with _no_autocast(features):
        return (_full(features) - centers[pids]).square().sum(1).mean()


def ratr(
    features: Sequence[Tensor],
    num_identities: int,
    num_instances: int,
    temperature: float,
    pids: Tensor | None = None,
    *,
    autocast: bool = False,
) -> tuple[Tensor, Tensor]:
    """Ranking-aware triplet regularisation (RATR) of ReIDMamba (arXiv 2511.07948).

    RATR makes branches rank images differently. In every branch, each anchor ranks images by cosine similarity. The
    agreement of two branches about this order is a soft Kendall tau,

        tau(x, y) = mean over i < j of tanh((x_i - x_j) / t) tanh((y_i - y_j) / t)

    averaged over anchors and over all pairs of branches.

    - Intra: the anchor ranks the K - 1 other images of its identity.
    - Inter: the anchor ranks the P - 1 other identities, each by its mean feature scaled to unit length.

    Values lie between -1 and 1. Both are added to the loss, so training lowers the agreement.

    Args:
        features: [P * K, D] for each branch, in PK order (the K images of an identity in a row), not normalised.
        num_identities: P, at least 3.
        num_instances: K, at least 3.
        temperature: t, above 0.
        pids: [P * K]; if given, the order is checked.
        autocast: whether similarities and their tanh use autocast's precision; by default they are float32.

    Returns:
        (intra, inter), scalars.

    Raises:
        UsageError: the batch is not in PK order, there are fewer than two branches, P or K is below 3, or the
            temperature is not above 0.
    """
    if len(features) < 2:
        raise UsageError(
            f"RATR compares branches and needs at least 2; the backbone has {len(features)}. Use a backbone with two "
            "or more branches, or set loss.ratr_intra and loss.ratr_inter to 0."
        )
    if min(num_identities, num_instances) < 3 or temperature <= 0:
        raise UsageError(
            "RATR needs P and K of at least 3 (sampler.identities, sampler.instances) and a temperature above 0 "
            f"(loss.ratr_temperature); found P {num_identities}, K {num_instances}, temperature {temperature}."
        )
    check_pk_order(len(features[0]), num_identities, num_instances, pids)
    with _products(features[0], autocast):
        groups = [F.normalize(_full(f), dim=1).unflatten(0, (num_identities, num_instances)) for f in features]
        intra = torch.stack([_similarities_in_identity(group) for group in groups])
        inter = torch.stack([_similarities_to_identities(group) for group in groups])
        return _agreement(intra, temperature), _agreement(inter, temperature)


def check_pk_order(batch_size: int, num_identities: int, num_instances: int, pids: Tensor | None = None) -> None:
    """Checks that a batch is `num_identities` blocks of `num_instances` images of one identity each.

    Raises:
        UsageError: the size differs, a block mixes identities, or two blocks share an identity.
    """
    expected = f"{num_identities} identities in a row with {num_instances} images each"
    if batch_size != num_identities * num_instances:
        raise UsageError(f"RATR needs a batch in PK order ({expected}); found {batch_size} images.")
    if pids is None:
        return
    blocks = pids.reshape(num_identities, num_instances)
    if bool((blocks != blocks[:, :1]).any()) or len(blocks[:, 0].unique()) != num_identities:
        raise UsageError(f"RATR needs a batch in PK order ({expected}); the identities are in another order.")


def _similarities_in_identity(groups: Tensor) -> Tensor:
    """Cosine similarity of each image to the other images of its identity: [P, K, D] to [P * K, K - 1]."""
    return _without_diagonal(groups @ groups.transpose(1, 2)).flatten(0, 1)


def _similarities_to_identities(groups: Tensor) -> Tensor:
    """Cosine similarity of each image to the mean feature of every other identity: [P, K, D] to [P * K, P - 1]."""
    means = F.normalize(groups.mean(1), dim=1)
    # [K, P, P]: image k of identity p against every identity; its own identity is on the diagonal.
    return _without_diagonal(groups.transpose(0, 1) @ means.T).flatten(0, 1)


def _without_diagonal(matrices: Tensor) -> Tensor:
    """Drops the diagonal of [..., M, M] and keeps the order of the other entries: [..., M, M - 1]."""
    size = matrices.shape[-1]
    rest = matrices.flatten(-2)[..., 1:].unflatten(-1, (size - 1, size + 1))[..., :-1]
    return rest.reshape(*matrices.shape[:-2], size, size - 1)


def _agreement(similarities: Tensor, temperature: float) -> Tensor:
    """Soft Kendall tau of [branches, anchors, M], averaged over anchors and pairs of branches."""
    branches, _, ranked = similarities.shape
    i, j = torch.triu_indices(ranked, ranked, 1, device=similarities.device)
    signs = torch.tanh((similarities[..., i] - similarities[..., j]) / temperature)
    a, b = torch.triu_indices(branches, branches, 1, device=similarities.device)
    return _full(signs[a] * signs[b]).mean()


class ReIDCriterion(nn.Module):
    """The weighted sum of losses that a recipe defines.

    Each loss is averaged over the branches. With `branches = "first-half"`, half the weight goes to the first branch
    and half to the mean of the others, as in TransReID's code, where the first branch is global and the others are
    local. The center loss uses the first branch only. Losses of weight zero are not computed.

    The centers do not belong to the model's optimiser. A training step is

        criterion.check(pids, P, K)
        loss, parts = criterion(module(images, cameras), pids, P, K)
        criterion.zero_grad(); loss.backward(); optimizer.step(); criterion.center_step()

    Args:
        settings: the `[loss]` table of a recipe.
        num_classes: number of training identities, for the center loss.
    """

    def __init__(self, settings: Loss, num_classes: int = 0) -> None:
        super().__init__()
        self.settings, self.num_classes = settings, num_classes
        self.centers = UninitializedParameter() if settings.center > 0 else None

    def forward(
        self, output: TrainingOutput, pids: Tensor, num_identities: int, num_instances: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss of one batch.

        Args:
            output: what the backbone returned in training mode.
            pids: class of each image, [B], in PK order; not checked here, see `check`.
            num_identities: P, at least 2.
            num_instances: K.

        Returns:
            The weighted total, and the detached, unweighted value of each loss by name.

        Raises:
            UsageError: fewer than two identities, or every loss has weight 0.
        """
        s = self.settings
        if num_identities < 2:
            raise UsageError(f"A batch needs at least 2 identities, found {num_identities}; raise sampler.identities.")
        margin, autocast = None if s.margin == "soft" else s.margin, s.precision == "autocast"
        parts: dict[str, tuple[float, Tensor]] = {}
        if s.identity > 0:
            values = [cross_entropy(x, pids, s.label_smoothing, s.smoothing_over) for x in output.logits]
            parts["identity"] = s.identity, self._over_branches(values)
        if s.triplet > 0:
            values = [triplet(f, pids, margin, autocast=autocast) for f in output.features]
            parts["triplet"] = s.triplet, self._over_branches(values)
        if s.ratr_intra > 0 or s.ratr_inter > 0:
            intra, inter = ratr(output.features, num_identities, num_instances, s.ratr_temperature, autocast=autocast)
            parts |= {"ratr_intra": (s.ratr_intra, intra), "ratr_inter": (s.ratr_inter, inter)}
        if s.center > 0:
            parts["center"] = s.center, center(output.features[0], pids, self._centers_for(output.features[0]))
        if not parts:
            raise UsageError("Every loss of the recipe has weight 0; raise loss.identity or loss.triplet.")
        total = torch.stack([weight * value for weight, value in parts.values()]).sum()
        return total, {name: value.detach() for name, (_, value) in parts.items()}

    def used(self, output: TrainingOutput) -> TrainingOutput:
        """Returns the part of the output that the losses use; each of its tensors gets a gradient."""
        s = self.settings
        features = output.features if s.triplet > 0 or s.ratr_intra > 0 or s.ratr_inter > 0 else []
        if s.center > 0:
            features = features or output.features[:1]
        return TrainingOutput(output.logits if s.identity > 0 else [], features)

    def check(self, pids: Tensor, num_identities: int, num_instances: int) -> None:
        """Checks that a batch has the order that the losses need.

        Pass `pids` on the CPU: on a GPU, the check would wait for all queued work.

        Raises:
            UsageError: as `check_pk_order`.
        """
        if self.settings.ratr_intra > 0 or self.settings.ratr_inter > 0:
            check_pk_order(len(pids), num_identities, num_instances, pids)

    def _over_branches(self, values: list[Tensor]) -> Tensor:
        if self.settings.branches == "first-half" and len(values) > 1:
            return values[0] / 2 + torch.stack(values[1:]).mean() / 2
        return torch.stack(values).mean()

    def _centers_for(self, features: Tensor) -> Tensor:
        """Returns the centers [C, D]. The first batch sets their width; they start from N(0, 1)."""
        assert self.centers is not None
        if isinstance(self.centers, UninitializedParameter):
            self.centers.materialize((self.num_classes, features.shape[1]), device=features.device)
            nn.init.normal_(self.centers)
        return self.centers

    @torch.no_grad()
    def center_step(self, loss_scale: Tensor | float = 1.0) -> None:
        """Updates the centers by plain SGD, with the gradient divided by the weight of the center loss.

        Args:
            loss_scale: factor by which a gradient scaler multiplied the loss. A gradient that overflowed is skipped.
        """
        if self.centers is None or self.centers.grad is None:
            return
        step = self.settings.center_lr * self.centers.grad / (self.settings.center * loss_scale)
        self.centers.sub_(torch.where(step.isfinite().all(), step, 0.0))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Creates the centers with the width that the checkpoint has, which a new criterion does not know yet."""
        saved = state_dict.get(f"{prefix}centers")
        if saved is not None and isinstance(self.centers, UninitializedParameter):
            self.centers.materialize(tuple(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)
