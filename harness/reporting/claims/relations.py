"""Judges the claims of cards that compare a backbone with others: every pair of records under equal conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from harness.cards import ALL, BackboneCard, Claim
from harness.errors import suggestion
from harness.reporting import text
from harness.reporting.claims import costs, scores
from harness.reporting.claims.pairs import Pair
from harness.reporting.report_data import ReportData
from harness.reporting.rows import Table

Verdict = Literal["supported", "supported in part", "not supported", "not comparable", "not run"]

RULE = (
    "A claim about another backbone is checked wherever both have records under equal conditions. Undecided pairs, "
    "with the reason, do not count for costs; for scores they do.",
    "supported: it holds in all pairs. supported in part: in some. not supported: in none.",
    "Scores: the difference must exclude 0 both over identities (bootstrap) and over seeds (Welch's interval), "
    "with at least two seeds each.",
)
"""The rule in words."""


MOST_REASONS = 2
"""Number of reasons beside a verdict; the pairs have all."""


class Relation(Struct, frozen=True):
    """A claim of a card with its verdict.

    Attributes:
        backbone: name with the variant.
        claim: as on the card.
        dataset: the dataset of a claim about scores, else empty.
        verdict: by the rule.
        reason: why; may be empty.
        pairs: every pair of records that was compared.
    """

    backbone: str
    claim: Claim
    dataset: str
    verdict: Verdict
    reason: str
    pairs: tuple[Pair, ...]

    @property
    def words(self) -> str:
        """The claim in words: those of the card, else its keys."""
        claim, times = self.claim, f"{self.claim.factor:g} times " if self.claim.factor != 1 else ""
        training = " in training" if claim.measure == "training" else ""
        said = claim.text or f"{claim.metric.replace('_', ' ')} {claim.relation} {times}{claim.comparator}"
        return f"{said}{training}{' on ' + self.dataset if self.dataset else ''}"


def relations(data: ReportData, tables: Sequence[Table]) -> list[Relation]:
    """Judges every claim of every card, in the order of the cards; one relation per dataset for scores."""
    return [
        _judged(card, claim, dataset, data, tables)
        for card in data.backbones.values()
        for claim in card.claims
        for dataset in claim.datasets or ("",)
    ]


def _judged(card: BackboneCard, claim: Claim, dataset: str, data: ReportData, tables: Sequence[Table]) -> Relation:
    name = f"{card.name}:{claim.variant}" if claim.variant else card.name
    if claim.comparator != ALL and data.backbone(claim.comparator) is None:
        near = suggestion(claim.comparator, data.backbones)
        reason = f"no backbone '{claim.comparator}' is registered.{near}".rstrip(".")
        return Relation(name, claim, dataset, "not comparable", reason, ())
    pairs = scores.pairs(name, claim, dataset, data, tables) if dataset else costs.pairs(name, claim, data)
    verdict, reason = _verdict(pairs, undecided_count=bool(dataset))
    return Relation(name, claim, dataset, verdict, reason, tuple(pairs))


def _verdict(pairs: Sequence[Pair], undecided_count: bool) -> tuple[Verdict, str]:
    """The verdict over all pairs, and the number of pairs that decide it."""
    if not pairs:
        return "not run", "no records of both under equal conditions"
    decided = [pair for pair in pairs if pair.holds is not None]
    reasons = list(dict.fromkeys(pair.reason for pair in pairs if pair.holds is None))
    undecided = "; ".join(reasons[:MOST_REASONS]) + ("; and others" if len(reasons) > MOST_REASONS else "")
    if not decided:
        return "not comparable", undecided
    counted: Sequence[Any] = pairs if undecided_count else decided
    holding = sum(pair.holds is True for pair in decided)
    notes = [f"in {holding} of {text.count(len(counted), 'pair')}"]
    if left := len(pairs) - len(decided):
        notes.append(f"{left} undecided: {undecided}")
    verdict: Verdict = "supported" if holding == len(counted) else "supported in part" if holding else "not supported"
    return verdict, "; ".join(notes)
