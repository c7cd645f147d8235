"""The criterion that a recipe builds from the losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from harness.contracts import TrainingOutput
from harness.errors import UsageError
from harness.losses.identity import center, cross_entropy
from harness.losses.ratr import check_pk_order, ratr
from harness.losses.triplets import multi_similarity, triplet, weighted_triplet
from harness.spec.recipe import Loss


class ReIDCriterion(nn.Module):
    """The weighted sum of losses that a recipe defines.

    Each loss is averaged over the branches, the triplet loss over the first `triplet_branches` of them. With
    `branches = "first-half"`, half the weight goes to the first branch and half to the mean of the others, as in
    TransReID's code, where the first branch is global and the others are local. The center loss uses the first branch
    only. Losses of weight zero are not computed.

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
        autocast = s.precision == "autocast"
        parts: dict[str, tuple[float, Tensor]] = {}
        if s.identity > 0:
            values = [cross_entropy(x, pids, s.label_smoothing, s.smoothing_over) for x in output.logits]
            parts["identity"] = s.identity, self._over_branches(values)
        if s.triplet > 0:
            values = [self._triplet(f, pids) for f in self._with_triplet(output.features)]
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
        features = self._with_triplet(output.features) if s.triplet > 0 else []
        if s.ratr_intra > 0 or s.ratr_inter > 0:
            features = output.features
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

    def _with_triplet(self, features: list[Tensor]) -> list[Tensor]:
        """Returns the features of the branches that have a triplet loss."""
        return features[: self.settings.triplet_branches or len(features)]

    def _triplet(self, features: Tensor, pids: Tensor) -> Tensor:
        """Returns the triplet loss, of the kind of the recipe, of one branch."""
        s = self.settings
        autocast = s.precision == "autocast"
        if s.triplet_kind == "weighted":
            return weighted_triplet(features, pids, autocast=autocast)
        if s.triplet_kind == "multi-similarity":
            return multi_similarity(features, pids, float(s.margin), autocast=autocast)
        return triplet(features, pids, None if s.margin == "soft" else s.margin, autocast=autocast)

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
