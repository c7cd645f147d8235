"""Our runs beside each published number of the cards, with a verdict."""

from __future__ import annotations

import functools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from harness import stats
from harness.cards import BackboneCard, Published
from harness.errors import suggestion
from harness.reporting import text
from harness.reporting.claims.rule import Outcome, Verdict, judge
from harness.reporting.claims.setup import Difference, SetUp
from harness.reporting.report_data import ReportData
from harness.reporting.rows import RunGroup, Table

METRICS = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mINP": "mINP"}
"""Names of a card's metrics in records."""


class Number(Struct, frozen=True):
    """One metric of a published result, in percent.

    Attributes:
        published: as printed.
        ours: mean over seeds; None without runs. The same for the rest.
        difference: ours minus published, in points.
        deviation: sample standard deviation over seeds; None for one seed.
        over_queries: 95 % interval over identities, ends averaged over seeds; None if not recorded.
        over_seeds: where one more run may score, as the rule says; None if one seed does not decide.
        verdict: by the rule.
        reason: why, or a caution; may be empty.
    """

    metric: str
    published: float
    ours: float | None
    difference: float | None
    deviation: float | None
    over_queries: tuple[float, float] | None
    over_seeds: tuple[float, float] | None
    verdict: Verdict
    reason: str


class Result(Struct, frozen=True):
    """A published result with our runs.

    Attributes:
        backbone: name with the variant.
        test: how features are scored: `plain`, `flip`, `re-ranking` or both.
        image_size: (height, width) of the published result.
        setup: set-up of the published result, as on the card.
        source: where it is printed.
        verdict: that of mAP.
        reason: why, or a caution; may be empty.
        differences: why our runs are not comparable.
        unchecked: parts of the set-up that could not be compared.
        recipe: recipe of our runs; empty if there are none.
        seeds: seeds of our runs.
        runs: their ids.
        numbers: one per published metric, mAP first.
    """

    backbone: str
    dataset: str
    test: str
    image_size: tuple[int, int]
    setup: str
    source: str
    verdict: Verdict
    reason: str
    differences: tuple[Difference, ...]
    unchecked: tuple[str, ...]
    recipe: str
    seeds: tuple[int, ...]
    runs: tuple[str, ...]
    numbers: tuple[Number, ...]


def results(data: ReportData, tables: Sequence[Table]) -> list[Result]:
    """Judges every published result of every card, sorted by dataset and backbone."""
    groups: dict[tuple[str, str], list[RunGroup]] = defaultdict(list)
    for table in tables:
        if table.key.dataset == table.key.trained_on:
            for group in table.settings():
                groups[(group.backbone.partition(":")[0], table.key.dataset)].append(group)
    found = [
        _result(card, published, groups.get((card.name, published.dataset), ()), data)
        for card in data.backbones.values()
        for published in card.published
    ]
    return sorted(found, key=lambda r: (r.dataset, r.backbone, r.image_size, r.test, r.source, -r.numbers[0].published))


def _result(card: BackboneCard, published: Published, groups: Sequence[RunGroup], data: ReportData) -> Result:
    setup = SetUp(card, published, data.folders.get(card.name), data.datasets.get(published.dataset))
    made = functools.partial(_made, setup)
    if published.variant and not card.adapter and published.variant not in card.variants:
        similar = suggestion(published.variant, card.variants)
        return made("not comparable", f"{card.name} has no variant '{published.variant}' here.{similar}".rstrip("."))
    if not (near := _nearest(setup, groups)):
        failed = [run for g in groups if g.backbone == setup.name for run in g.runs if run["status"] != "ok"]
        return made("not run", text.count(len(failed), "unfinished run") if failed else "")
    group, differences = near
    return made("not comparable" if differences else "", "; ".join(map(str, differences)), group, differences)


def _nearest(setup: SetUp, groups: Sequence[RunGroup]) -> tuple[RunGroup, tuple[Difference, ...]] | None:
    """The runs to compare with their differences: the comparable ones, else those of this name with the fewest.

    Of several, takes those of a checkpoint, which are comparable only if the number is of one; then the most seeds,
    then the newest.
    """
    known = [(group, tuple(setup.differences(group))) for group in groups if group.ok]
    fitting = [(group, found) for group, found in known if not found or group.backbone == setup.name]

    def rank(one: tuple[RunGroup, tuple[Difference, ...]]) -> tuple[Any, ...]:
        group, found = one
        of_checkpoint = group.source == "published-checkpoint"
        return -len(found), of_checkpoint, len(group.ok), group.started, group.ok[0]["run_id"]

    return max(fitting, key=rank, default=None)


def _made(
    setup: SetUp,
    verdict: Any,
    reason: str,
    group: RunGroup | None = None,
    differences: tuple[Difference, ...] = (),
) -> Result:
    """A result; without a verdict, that of its mAP by the rule."""
    scored = setup.evaluations(group) if group else []
    published = setup.published
    numbers = tuple(_numbers(setup, scored, group, verdict))
    trained = group is not None and group.source == "trained"
    return Result(
        backbone=setup.name,
        dataset=published.dataset,
        test=setup.test.label,
        image_size=published.image_size,
        setup=published.setup,
        source=published.source,
        verdict=verdict or numbers[0].verdict,
        reason=reason or numbers[0].reason,
        differences=differences,
        unchecked=("recipe",) if trained and setup.recipe is None else (),
        recipe=group.spec["recipe"] if group else "",
        seeds=tuple(run["spec"]["seed"] for run, _ in scored),
        runs=tuple(run["run_id"] for run, _ in scored),
        numbers=numbers,
    )


def _numbers(
    setup: SetUp, scored: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], group: RunGroup | None, verdict: Any
) -> Iterator[Number]:
    """One number per metric that the source prints."""
    checkpoint = group is not None and group.source == "published-checkpoint"
    for key, metric in METRICS.items():
        if (published := getattr(setup.published, key)) is None:
            continue
        ours = [100 * e[metric] for _, e in scored if e.get(metric) is not None]
        over_queries = _over_queries([e for _, e in scored], metric)
        if verdict:
            outcome = Outcome(verdict, "", stats.another_run(ours) if len(ours) > 1 else None)
        elif ours:
            outcome = judge(published, ours, over_queries, checkpoint=checkpoint)
        else:
            outcome = Outcome("not comparable", "not recorded", None)
        mean = statistics.fmean(ours) if ours else None
        yield Number(
            metric=metric,
            published=published,
            ours=mean,
            difference=None if mean is None else mean - published,
            deviation=statistics.stdev(ours) if len(ours) > 1 else None,
            over_queries=over_queries,
            over_seeds=outcome.interval,
            verdict=outcome.verdict,
            reason=outcome.reason,
        )


def _over_queries(scored: Sequence[Mapping[str, Any]], metric: str) -> tuple[float, float] | None:
    """The recorded interval over identities in percent, ends averaged over seeds; None if any is missing."""
    bounds = [e["interval"].get(metric) for e in scored]
    if not bounds or None in bounds:
        return None
    low, high = (100 * statistics.fmean(b[i] for b in bounds if b) for i in (0, 1))
    return low, high
