"""Ranking-aware triplet regularisation (RATR) of ReIDMamba."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.errors import UsageError
from harness.losses.precision import full, products


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
    with products(features[0], autocast):
        groups = [F.normalize(full(f), dim=1).unflatten(0, (num_identities, num_instances)) for f in features]
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
    return full(signs[a] * signs[b]).mean()
