"""Losses of re-identification, and the criterion that a recipe builds from them.

Every loss is computed in float32 (float64 stays float64), also inside autocast: in half precision the distance
between two features of length 30 is wrong by up to a whole unit. `triplet` and `ratr` take `autocast=True`, which
leaves their matrix products and the tanh of RATR to autocast, as the original code does; everything else in the
losses is on the float32 list of CUDA's autocast and stays float32.
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
    """Half precision becomes float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _no_autocast(tensor: Tensor) -> torch.autocast:
    """Switches autocast off for the device of `tensor`."""
    return torch.autocast(tensor.device.type, enabled=False)


def _products(tensor: Tensor, autocast: bool) -> AbstractContextManager[Any]:
    """Where matrix products are computed: in the precision of the autocast around, or without autocast."""
    return contextlib.nullcontext() if autocast else _no_autocast(tensor)


def cross_entropy(logits: Tensor, pids: Tensor, label_smoothing: float, smoothing_over: str = "all") -> Tensor:
    """Cross-entropy of the identity classifier, with label smoothing.

    Args:
        logits: [B, C].
        pids: Class of each image, [B].
        label_smoothing: eps, from 0 to below 1.
        smoothing_over: "all" gives eps / C to every class (BoT, arXiv 1903.07071, section 3.3; PyTorch),
            "others" eps / (C - 1) to every wrong class and 1 - eps to the right one (the code of ReIDMamba).

    Returns:
        The mean over the batch, a scalar.

    Raises:
        UsageError: an unknown `smoothing_over`.
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
    """Distances [B, B] between all pairs of features [B, D]; never below 1e-6, where the root has no slope.

    With `autocast` the inner products have the precision of the autocast around; their squared lengths do not.
    """
    with _products(features, autocast):
        features = _full(features)
        squares = features.square().sum(1)
        squared = squares[:, None] + squares[None] - 2 * (features @ features.T)
        return squared.clamp(min=MINIMUM_SQUARED_DISTANCE).sqrt()


def triplet(features: Tensor, pids: Tensor, margin: float | None, *, autocast: bool = False) -> Tensor:
    """Triplet loss with batch-hard mining (Hermans et al. 2017, arXiv 1703.07737, section 2).

    Each image is an anchor; its positive is the farthest image of its identity (itself, if it is alone), its negative
    the nearest image of another. Distances are Euclidean, between features as they are.

    Args:
        features: [B, D], not normalised.
        pids: [B].
        margin: mean of max(0, d_positive - d_negative + margin), or with `None` the soft margin
            mean of log(1 + exp(d_positive - d_negative)).
        autocast: leaves the inner products of the distances to autocast, else they are float32.

    Returns:
        A scalar; 0 for a batch of one identity, which has no triplets.
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
        pids: Class of each image, [B].
        centers: [C, D].

    Returns:
        Mean squared distance to the own class's center, without the factor one half; a scalar.
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
    """Ranking-aware triplet regularisation (RATR) of ReIDMamba (arXiv 2511.07948): branches shall rank differently.

    Each anchor ranks images by cosine similarity, in every branch. The agreement of two branches about that order is
    a soft Kendall tau,

        tau(x, y) = mean over i < j of tanh((x_i - x_j) / t) tanh((y_i - y_j) / t)

    averaged over anchors and over all pairs of branches. Intra: the K - 1 other images of the anchor's identity.
    Inter: the mean features, of unit length, of the P - 1 other identities. Both are added to the loss, so less
    agreement is better; values lie between -1 and 1.

    Args:
        features: [P * K, D] of each branch, in PK order (K images of one identity after another), not yet normalised.
        num_identities: P, at least 3.
        num_instances: K, at least 3.
        temperature: t, above 0.
        pids: [P * K]; if given, the order is verified.
        autocast: leaves the similarities and their tanh to autocast, else they are float32.

    Returns:
        (intra, inter), scalars.

    Raises:
        UsageError: a batch that is not in PK order, fewer than two branches, or nothing to rank.
    """
    if len(features) < 2:
        raise UsageError(
            f"RATR compares branches, found {len(features)}; use a backbone with two or more, or set "
            "loss.ratr_intra and loss.ratr_inter to 0."
        )
    if min(num_identities, num_instances) < 3 or temperature <= 0:
        raise UsageError(
            "RATR ranks the other K - 1 images and P - 1 identities, so it needs P and K of at least 3 and a "
            f"temperature above 0, found P {num_identities}, K {num_instances}, temperature {temperature}."
        )
    check_pk_order(len(features[0]), num_identities, num_instances, pids)
    with _products(features[0], autocast):
        groups = [F.normalize(_full(f), dim=1).unflatten(0, (num_identities, num_instances)) for f in features]
        intra = torch.stack([_similarities_in_identity(group) for group in groups])
        inter = torch.stack([_similarities_to_identities(group) for group in groups])
        return _agreement(intra, temperature), _agreement(inter, temperature)


def check_pk_order(batch_size: int, num_identities: int, num_instances: int, pids: Tensor | None = None) -> None:
    """Refuses a batch that is not `num_identities` blocks of `num_instances` images of one identity each.

    Raises:
        UsageError: the size differs, a block mixes identities, or two blocks share one.
    """
    expected = f"{num_identities} identities of {num_instances} images each, one after another"
    if batch_size != num_identities * num_instances:
        raise UsageError(f"RATR needs a batch in PK order, {expected}; found {batch_size} images.")
    if pids is None:
        return
    blocks = pids.reshape(num_identities, num_instances)
    if bool((blocks != blocks[:, :1]).any()) or len(blocks[:, 0].unique()) != num_identities:
        raise UsageError(f"RATR needs a batch in PK order, {expected}; the identities of this batch are not.")


def _similarities_in_identity(groups: Tensor) -> Tensor:
    """Cosine similarity of each image to the others of its identity: [P, K, D] becomes [P * K, K - 1]."""
    return _without_diagonal(groups @ groups.transpose(1, 2)).flatten(0, 1)


def _similarities_to_identities(groups: Tensor) -> Tensor:
    """Cosine similarity of each image to the other identities' mean directions: [P, K, D] becomes [P * K, P - 1]."""
    means = F.normalize(groups.mean(1), dim=1)
    # [K, P, P]: image k of identity p against every identity; the own one is the diagonal.
    return _without_diagonal(groups.transpose(0, 1) @ means.T).flatten(0, 1)


def _without_diagonal(matrices: Tensor) -> Tensor:
    """Drops the diagonal of [..., M, M] and keeps the order of the rest: [..., M, M - 1]."""
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
    """The weighted sum of losses that a recipe asks for.

    Branches are averaged, or with `branches = "first-half"` half the weight goes to the first and half to the mean of
    the others (TransReID's code, which weighs the global against the local features). The center loss reads the first
    branch. Losses of weight zero are not computed.

    The centers are no parameters of the model; a training step is

        criterion.check(pids, P, K)
        loss, parts = criterion(module(images, cameras), pids, P, K)
        criterion.zero_grad(); loss.backward(); optimizer.step(); criterion.center_step()

    Args:
        settings: The `[loss]` table of a recipe.
        num_classes: Identities of the training split, for the center loss.
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
            output: What the backbone returned in training mode.
            pids: Class of each image, [B], in PK order, which `check` verifies.
            num_identities: P.
            num_instances: K.

        Returns:
            The total, and the detached value of each loss by name, before its weight.
        """
        s = self.settings
        if num_identities < 2:
            raise UsageError("A batch needs at least two identities; raise sampler.identities.")
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

    def check(self, pids: Tensor, num_identities: int, num_instances: int) -> None:
        """Refuses a batch in another order than the losses need; `pids` on the CPU, or a GPU is waited for.

        Raises:
            UsageError: as for `check_pk_order`.
        """
        if self.settings.ratr_intra > 0 or self.settings.ratr_inter > 0:
            check_pk_order(len(pids), num_identities, num_instances, pids)

    def _over_branches(self, values: list[Tensor]) -> Tensor:
        if self.settings.branches == "first-half" and len(values) > 1:
            return values[0] / 2 + torch.stack(values[1:]).mean() / 2
        return torch.stack(values).mean()

    def _centers_for(self, features: Tensor) -> Tensor:
        """The centers [C, D], drawn from N(0, 1) when the first batch shows their width."""
        assert self.centers is not None
        if isinstance(self.centers, UninitializedParameter):
            self.centers.materialize((self.num_classes, features.shape[1]), device=features.device)
            nn.init.normal_(self.centers)
        return self.centers

    @torch.no_grad()
    def center_step(self, loss_scale: Tensor | float = 1.0) -> None:
        """One step of plain SGD on the centers, with the weight of the center loss divided out again.

        Args:
            loss_scale: Factor by which a gradient scaler multiplied the loss; a gradient that overflowed is skipped.
        """
        if self.centers is None or self.centers.grad is None:
            return
        step = self.settings.center_lr * self.centers.grad / (self.settings.center * loss_scale)
        self.centers.sub_(torch.where(step.isfinite().all(), step, 0.0))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Centers of a checkpoint give the width that a new criterion does not know yet."""
        saved = state_dict.get(f"{prefix}centers")
        if saved is not None and isinstance(self.centers, UninitializedParameter):
            self.centers.materialize(tuple(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)
