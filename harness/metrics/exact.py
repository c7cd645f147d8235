"""Distances in float64, for pairs whose order the rounding of the matrix product does not determine.

Cosine: squared distance of the normalised features, 2 - 2 cos. Euclidean: squared distance of the features.
Both are sums of squared differences, so their error shrinks with the distance. They depend only on the two features,
not on the number of images, the threads or the device. float32 features give the same distances as the same numbers
in float64.

With u = 2^-53 and L = ceil(log2 dim), the error of a Euclidean squared distance D^2 is at most (L + 3) u D^2.
Cosine adds the rounding of the quotients, 4 u D, of copies of another length in float64, 2 u D, and of the norms,
(L + 4) u D^2 and the square of their difference. Two distances tie if they differ by at most twice this error, because
float64 cannot distinguish them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import TYPE_CHECKING

from harness.metrics.features import row_sums

if TYPE_CHECKING:
    import torch

UNIT = 2.0**-53
_ELEMENTS = {"cpu": 2**15, "cuda": 2**24}


@dataclass(frozen=True)
class TieRule:
    """Squared distances a and b tie if |a - b| <= relative m + linear sqrt(m) + floor, with m = max(a, b)."""

    relative: float
    linear: float
    floor: float

    @staticmethod
    def of(dim: int, euclidean: bool) -> TieRule:
        """Returns the rule for features of `dim` dimensions."""
        levels = depth(dim)
        relative = (4 * levels + 16) * UNIT
        return TieRule(relative, 0, 0) if euclidean else TieRule(relative, 12 * UNIT, 2 * ((levels + 8) * UNIT) ** 2)

    def slack(self, larger: torch.Tensor) -> torch.Tensor:
        """Returns the largest difference that counts as a tie, given the larger squared distance of each pair."""
        return self.relative * larger + self.linear * larger.sqrt() + self.floor


@dataclass(frozen=True)
class ExactDistances:
    """Squared distances of single pairs of a query of the block and a gallery image.

    Attributes:
        query: features of the block in float64, divided by their norms for cosine, [n_rows, dim].
        gallery: original features, junk included, [n, dim].
        index: row of `gallery` for every gallery column, [n_gallery].
        inverse: factor of each gallery feature: 1 / norm for cosine, 1 for Euclidean; float64, [n_gallery].
        rule: decides when two distances tie.
    """

    query: torch.Tensor
    gallery: torch.Tensor
    index: torch.Tensor
    inverse: torch.Tensor
    rule: TieRule

    def squared(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Returns the squared distances of pairs, float64 [n]."""
        import torch

        size = max(1, _ELEMENTS.get(self.query.device.type, 2**15) // self.query.shape[1])
        parts = [self._part(r, c) for r, c in zip(rows.split(size), columns.split(size), strict=True)]
        return torch.cat(parts) if parts else self.query.new_empty(0)

    def at_least(self, distance: torch.Tensor, of_match: torch.Tensor) -> torch.Tensor:
        """Returns whether squared distances are smaller than those of the matches or tie with them; bool [n]."""
        import torch

        return distance - of_match <= self.rule.slack(torch.maximum(distance, of_match))

    def closer(self, distance: torch.Tensor, of_match: torch.Tensor) -> torch.Tensor:
        """Returns whether squared distances are smaller than those of the matches and do not tie; bool [n]."""
        return ~self.at_least(of_match, distance)

    def _part(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        difference = self.gallery[self.index[columns]].double()
        difference *= self.inverse[columns, None]
        # Product and difference are separate operations, because a fused one rounds differently on some devices.
        difference -= self.query[rows]
        return row_sums(difference.square_()).clone()


def depth(dim: int) -> int:
    """Returns the number of consecutive additions in `row_sums`."""
    return ceil(log2(dim)) if dim > 1 else 0
