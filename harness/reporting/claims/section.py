"""The section of the report about published numbers and claims; it is omitted if no run is about any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.reporting import text
from harness.reporting.claims import RULES, Number, Relation, Result, judge
from harness.reporting.section import Context, Section, bullets, folded, paragraphs

RIGHT = ("Published mAP", "Our mAP", "Seeds")


def build(context: Context) -> Section:
    """Tables of verdicts, with the rules."""
    found = judge(context.data, context.tables)
    results = [result for result in found.published if result.runs and not _is_generated(result)]
    relations = [relation for relation in found.claims if relation.pairs]
    if not (results or relations):
        return Section()
    parts = ["## Claims", f"Verdicts of `python -m harness claims`. {context.doc('claims.md')} derives the rule."]
    if results:
        counts = _counted("published number", [r.verdict for r in found.published])
        table = text.table([_line(context, result) for result in results], RIGHT)
        parts.append(folded("Published numbers and our runs", counts, "mAP in percent.", table, *_rules("published")))
    if relations:
        counts = _counted("claim", [r.verdict for r in found.claims])
        table = text.table([_relation(relation) for relation in relations])
        parts.append(folded("Claims of the cards", counts, table, _pairs(relations), *_rules("claims")))
    return Section(paragraphs(*parts))


def _is_generated(result: Result) -> bool:
    """Whether our runs saw generated images only, to which no published number applies; they are counted only."""
    return any((found.setting, found.ours) == ("images", "generated") for found in result.differences)


def _rules(kind: str) -> tuple[str, str]:
    return "The rule:", bullets(RULES[kind])


def _counted(noun: str, verdicts: Sequence[str]) -> str:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in Counter(verdicts).most_common())
    return f"{text.count(len(verdicts), noun)} on the cards: {counts}"


def _line(context: Context, result: Result) -> dict[str, str]:
    number = result.numbers[0]
    notes = [*([result.reason] if result.reason else []), *(f"{what} not checked" for what in result.unchecked)]
    return {
        "Dataset": text.escape(context.data.title(result.dataset)),
        "Backbone": text.escape(result.backbone),
        "Test": result.test,
        "Published mAP": f"{number.published:g}{context.note(_source(result))}",
        "Our mAP": _ours(number),
        "Seeds": str(len(result.seeds)),
        "Over seeds": _interval(number.over_seeds),
        "Over identities": _interval(number.over_queries),
        "Verdict": result.verdict,
        "Why": text.escape("; ".join(notes)) or text.NOT_APPLICABLE,
    }


def _source(result: Result) -> str:
    """The footnote of the published number, as in the other sections."""
    setup = [f"input {text.size(result.image_size)}", *([text.escape(result.setup)] if result.setup else [])]
    return f"{text.escape_except_urls(result.source)}. Set-up: {', '.join(setup)}."


def _ours(number: Number) -> str:
    if number.ours is None:
        return text.NOT_RECORDED
    return text.spread(number.ours / 100, None if number.deviation is None else number.deviation / 100)


def _interval(bounds: tuple[float, float] | None) -> str:
    return text.interval([bound / 100 for bound in bounds]) if bounds else text.NOT_APPLICABLE


def _relation(relation: Relation) -> dict[str, str]:
    return {
        "Backbone": text.escape(relation.backbone),
        "Claim": text.escape(relation.words),
        "Source": text.escape(relation.claim.source),
        "Verdict": relation.verdict,
        "Why": text.escape(relation.reason) or text.NOT_APPLICABLE,
    }


def _pairs(relations: Sequence[Relation]) -> str:
    """The ratio of every pair, ours to the comparator's; without those of speeds that decide nothing."""
    lines = []
    for relation in relations:
        shown = [pair for pair in relation.pairs if pair.holds is not None or relation.claim.metric != "speed"]
        ratios = [f"{pair.ratio:.2f} ({text.escape(f'{pair.comparator}, {pair.where}')})" for pair in shown]
        lines += [f"Ratios of “{text.escape(relation.words)}”: {', '.join(ratios)}."] if ratios else []
    return bullets(lines)
