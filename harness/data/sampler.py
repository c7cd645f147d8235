"""PK sampling with a defined number of iterations per epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harness.data.rng import generator, integers, permutation
from harness.errors import UsageError
from harness.spec.recipe import Sampler


class PKSampler:
    """Draws batches of P identities with K images each.

    In one pass, the images of each identity are shuffled and cut into groups of K; remaining images are left out. An
    identity with fewer than K images has one group, drawn with replacement. While P identities have a group left, P of
    them are drawn without replacement, and each gives one group to the batch. TransReID, BoT and ReIDMamba all use
    this sampler; they differ in when an epoch ends, see `harness.spec.recipe.Sampler`. Every epoch starts a new pass,
    and starts further passes if it needs more batches.

    An epoch depends only on the labels, the settings, the seed and the number of the epoch.

    Args:
        labels: identity of each image, [N].
        settings: P, K and the length of an epoch.
        seed: seed of the run.

    Raises:
        UsageError: there are fewer than P identities, or fewer than P * K images where an epoch has N / (P * K)
            batches, rounded down.
    """

    def __init__(self, labels: Sequence[int] | NDArray[np.int64], settings: Sampler, *, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.identities, self.instances = settings.identities, settings.instances
        self.batch_size = self.identities * self.instances
        array = np.asarray(labels, dtype=np.int64)
        order = np.argsort(array, kind="stable")
        names, starts = np.unique(array[order], return_index=True)
        self._members = np.split(order, starts[1:])
        if len(names) < self.identities:
            raise UsageError(
                f"A batch needs {self.identities} identities, but the training split has only {len(names)}. "
                f"Lower sampler.identities to {len(names)} or less, or use more data."
            )
        self._fixed = self._fixed_iterations(len(array))
        self._planned: tuple[int, NDArray[np.int64]] | None = None

    def iterations(self, epoch: int) -> int:
        """Returns the number of batches of an epoch; it differs between epochs only for `one-pass`."""
        return self._fixed or len(self.batches(epoch))

    def batches(self, epoch: int) -> NDArray[np.int64]:
        """Returns the image indices of all batches of an epoch, [iterations, P * K], in PK order."""
        planned = self._planned
        if planned is None or planned[0] != epoch:
            planned = self._planned = (epoch, self._plan(generator(self.seed, "sampler", epoch)))
        return planned[1]

    def _fixed_iterations(self, images: int) -> int:
        """Returns the batches per epoch; 0 if the number is known only after drawing."""
        if self.settings.epoch == "one-pass":
            return 0
        if self.settings.epoch == "fixed":
            return self.settings.iterations
        if self.settings.epoch == "images-ceil":
            return math.ceil(images / self.batch_size)
        if images < self.batch_size:
            raise UsageError(
                f"There are {images} training images, fewer than one batch of {self.batch_size}. "
                "Lower sampler.identities or sampler.instances, or set sampler.epoch to images-ceil."
            )
        return images // self.batch_size

    def _plan(self, rng: np.random.Generator) -> NDArray[np.int64]:
        batches = self._one_pass(rng)
        while len(batches) < self._fixed:
            batches += self._one_pass(rng)
        return np.stack(batches[: self._fixed or None])

    def _one_pass(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        groups = [self._groups(rng, members) for members in self._members]
        left = np.array([len(group) for group in groups])
        batches = []
        while len(available := np.flatnonzero(left)) >= self.identities:
            chosen = available[permutation(rng, len(available))[: self.identities]]
            left[chosen] -= 1
            batches.append(np.concatenate([groups[i][left[i]] for i in chosen]))
        return batches

    def _groups(self, rng: np.random.Generator, members: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cuts the shuffled images of one identity into groups, [n // K, K], or [1, K] for n < K."""
        if len(members) < self.instances:
            return members[integers(rng, self.instances, len(members))][None]
        kept = len(members) // self.instances * self.instances
        return members[permutation(rng, len(members))[:kept]].reshape(-1, self.instances)
