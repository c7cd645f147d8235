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

    One pass: the images of each identity are shuffled and cut into groups of K (the rest is left out; an identity
    with fewer than K images gives one group, drawn with replacement). As long as P identities have a group left,
    P of them are drawn without replacement and give one group each. This is the sampler of TransReID, BoT and
    ReIDMamba alike; they differ in when an epoch ends, see `harness.spec.recipe.Sampler`. Where an epoch needs more
    batches than a pass holds, a new pass begins. Every epoch begins with a new pass.

    An epoch is a function of the labels, the settings, the seed and its number alone.

    Args:
        labels: identity of each image, [N].
        settings: P, K and the end of an epoch.
        seed: of the run.

    Raises:
        UsageError: fewer than P identities, or fewer images than one batch where an epoch is N / PK rounded down.
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
                f"A batch needs {self.identities} identities, but the training images show only {len(names)}. "
                f"Lower sampler.identities to {len(names)} or less, or use more data."
            )
        self._fixed = self._fixed_iterations(len(array))
        self._planned: tuple[int, NDArray[np.int64]] | None = None

    def iterations(self, epoch: int) -> int:
        """Number of batches of an epoch; differs between epochs for `one-pass` alone."""
        return self._fixed or len(self.batches(epoch))

    def batches(self, epoch: int) -> NDArray[np.int64]:
        """Returns the image indices of all batches of an epoch, [iterations, P * K], K of an identity in a row."""
        planned = self._planned
        if planned is None or planned[0] != epoch:
            planned = self._planned = (epoch, self._plan(generator(self.seed, "sampler", epoch)))
        return planned[1]

    def _fixed_iterations(self, images: int) -> int:
        """Batches per epoch; 0 where it is known only after drawing."""
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
        """Cuts the shuffled images of one identity into groups, [n // K, K], or [1, K] where n < K."""
        if len(members) < self.instances:
            return members[integers(rng, self.instances, len(members))][None]
        kept = len(members) // self.instances * self.instances
        return members[permutation(rng, len(members))[:kept]].reshape(-1, self.instances)
