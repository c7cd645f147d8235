"""Gradients of the losses of a batch, also if the batch passes through the network in parts.

Triplet loss and RATR compare all images of a batch, so the sum of the losses of its parts is another loss. Therefore
each part yields its features alone. The losses are computed from the features of the whole batch, and their gradients
with respect to these features are passed back through the part (gradient caching: Gao et al. 2021, arXiv 2101.06983).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.contracts import TrainingOutput
from harness.losses import ReIDCriterion
from harness.system.seeding import random_state, set_random_state
from harness.training.group import Group, sum_of_parts
from harness.training.part_of_batch import PartOfBatch
from harness.training.running_statistics import RunningStatistics

Context = contextlib.AbstractContextManager[Any]
Losses = tuple[Tensor, dict[str, Tensor]]
LossesOf = Callable[[Sequence[TrainingOutput]], tuple[Losses, list[list[Tensor]]]]


class _Piece(NamedTuple):
    """Consecutive images of a batch of `whole` images that pass through the network together."""

    start: int
    images: Tensor
    camera_ids: Tensor
    whole: int


class _Used(nn.Module):
    """The backbone with the outputs that the losses use, because parallel training waits for a gradient of each."""

    def __init__(self, module: nn.Module, criterion: ReIDCriterion) -> None:
        super().__init__()
        self.module, self.used = module, criterion.used  # not the criterion, whose centers are no part of the network

    def forward(self, images: Tensor, camera_ids: Tensor) -> TrainingOutput:
        return self.used(self.module(images, camera_ids))


class Gradients:
    """Computes the losses of batches and adds their gradients to the parameters.

    Args:
        module: the backbone.
        criterion: the losses.
        micro_batch: images that pass through the network at once; 0 passes all images of this process.
        group: the processes that train together.
        autocast: returns the context for the precision of forward passes.
        scale: multiplies the loss by the scale of the gradient scaler.
        statistics: running statistics of the module. After a batch in parts, they are the mean over the parts.
    """

    def __init__(
        self,
        module: nn.Module,
        criterion: ReIDCriterion,
        *,
        micro_batch: int,
        group: Group,
        autocast: Callable[[], Context],
        scale: Callable[[Tensor], Tensor],
        statistics: RunningStatistics,
    ) -> None:
        self.module, self.criterion, self.micro_batch, self.group = module, criterion, micro_batch, group
        self.autocast, self.scale, self.statistics = autocast, scale, statistics
        self._used = _Used(module, criterion)
        self._parallel = sum_of_parts(self._used, group)

    def __call__(self, images: Tensor, camera_ids: Tensor, labels: Tensor, identities: int, instances: int) -> Losses:
        """Returns the loss and its parts, both of the whole batch.

        Args:
            images: the images of this process, [B / processes, 3, H, W].
            camera_ids: their cameras.
            labels: classes of all images of the batch, [B].
            identities: P.
            instances: K.
        """
        if self.group.size == 1 and self.micro_batch in (0, len(images)):
            with self.autocast():
                loss, parts = self.criterion(self.module(images, camera_ids), labels, identities, instances)
            self.scale(loss).backward()
            return loss.detach(), parts
        losses = partial(self._losses, labels=labels, identities=identities, instances=instances)
        pieces, before = self._pieces(images, camera_ids, len(labels)), self.statistics.now()
        compute = self._in_one_piece if len(pieces) == 1 else self._piece_by_piece
        found, change = compute(pieces, losses, before)
        self.group.mean(change)
        self.statistics.set(before + change)
        return found

    def _pieces(self, images: Tensor, camera_ids: Tensor, whole: int) -> list[_Piece]:
        size, first = self.micro_batch or len(images), self.group.rank * len(images)
        starts = range(first, first + len(images), size)
        parts = zip(starts, images.split(size), camera_ids.split(size), strict=True)
        return [_Piece(*part, whole) for part in parts]

    def _in_one_piece(self, pieces: Sequence[_Piece], losses: LossesOf, before: Tensor) -> tuple[Losses, Tensor]:
        """Adds the gradients of the only piece; returns the losses, and the change of the statistics."""
        output = self._forward(self._parallel, pieces[0])
        found, (gradients,) = losses([output])
        _backward(output, gradients)
        return found, self.statistics.now() - before

    def _piece_by_piece(self, pieces: Sequence[_Piece], losses: LossesOf, before: Tensor) -> tuple[Losses, Tensor]:
        """Computes all pieces for their losses, then each again for its gradients, with the same random numbers."""
        device = pieces[0].images.device
        random, outputs = random_state(device), []
        with torch.no_grad(), self.statistics.unchanged():
            for piece in pieces:
                set_random_state(random, device)
                outputs.append(self._forward(self._used, piece))
        found, all_gradients = losses(outputs)
        later, change = random_state(device), torch.zeros_like(before)
        for piece, gradients in zip(pieces, all_gradients, strict=True):
            with contextlib.nullcontext() if piece is pieces[-1] else self._local():
                set_random_state(random, device)
                output = self._forward(self._parallel, piece)
                change += (self.statistics.now() - before) / len(pieces)
                _backward(output, gradients)
        set_random_state(later, device)
        return found, change

    def _forward(self, network: nn.Module, piece: _Piece) -> TrainingOutput:
        """Computes a piece. Batch norm covers the whole batch if every process computes its part at once."""
        shares = self.group if self.group.size > 1 and not self.micro_batch else None
        with PartOfBatch(piece.start, len(piece.images), piece.whole, shares), self.autocast():
            output: TrainingOutput = network(piece.images, piece.camera_ids)
        return output

    def _losses(
        self, outputs: Sequence[TrainingOutput], labels: Tensor, identities: int, instances: int
    ) -> tuple[Losses, list[list[Tensor]]]:
        """Returns the losses of the batch, and the gradients of the outputs of each piece of this process."""
        flat = [[*output.logits, *output.features] for output in outputs]
        logits, sizes = len(outputs[0].logits), [len(tensors[0]) for tensors in flat]
        whole = [self.group.gather(torch.cat(parts)).requires_grad_() for parts in zip(*flat, strict=True)]
        with self.autocast():
            found = self.criterion(TrainingOutput(whole[:logits], whole[logits:]), labels, identities, instances)
        self.scale(found[0]).backward()
        if (centers := self.criterion.centers) is not None and centers.grad is not None:
            self.group.mean(centers.grad)  # equal in all processes but for rounding
        own = self.group.part(len(labels))
        gradients = [torch.zeros_like(t) if t.grad is None else t.grad for t in whole]
        by_piece = zip(*(gradient[own].split(sizes) for gradient in gradients), strict=True)
        return (found[0].detach(), found[1]), [list(piece) for piece in by_piece]

    @contextlib.contextmanager
    def _local(self) -> Any:
        """Leaves statistics as they were, and the sum over processes to the last piece."""
        alone: Context = self._parallel.no_sync() if self.group.size > 1 else contextlib.nullcontext()  # type: ignore
        with alone, self.statistics.unchanged():
            yield


def _backward(output: TrainingOutput, gradients: Sequence[Tensor]) -> None:
    torch.autograd.backward([*output.logits, *output.features], list(gradients))
