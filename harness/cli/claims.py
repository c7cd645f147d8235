"""`claims`: a verdict for every published number and every claim of the cards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

import harness
from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.options import format_option, plugins_option, results_option
from harness.cli.tables import Column, prose, table
from harness.reporting.claims import RULES, Claims, Number, Relation, Result
from harness.system.redact import readable

VERDICTS = {"supported": "green", "not supported": "red"}


@grouped(
    exit_codes={0: "The verdicts are printed, whatever they are.", 2: "Wrong usage."},
    example="python -m harness claims --results results --details",
)
@option(MAIN, "--details", is_flag=True, help="Show all numbers and claims, also those that were not run.")
@results_option
@plugins_option
@format_option
def command(details: bool, results: Path, plugins: str, form: str) -> int:
    """Judge the published numbers and claims of the cards from your runs.

    Each published number gets one verdict: reproduced, below, above, not comparable or not run. docs/claims.md explains
    the rule, which is printed below the verdicts.
    """
    found = harness.claims(results, plugins=plugins)
    if form == "json":
        click.echo(json.dumps(found.to_dict(), indent=1))
    else:
        click.echo(readable(_shown(found, details)))
    for problem in found.problems:
        click.echo(f"Warning: {readable(problem)}", err=True)
    return 0


def _shown(found: Claims, details: bool) -> str:
    """All parts as text; without details, numbers and claims without any record are only counted."""
    hint = prose("Run `python -m harness claims --details` for all metrics, sources, set-ups and pairs.")
    parts = [
        "Published numbers, mAP in percent",
        _numbers([result for result in found.published if result.runs]),
        _counts("published number", [result.verdict for result in found.published]),
        *(map(_block, found.published) if details else ()),
        "Claims of the cards",
        _relations([relation for relation in found.claims if relation.pairs]),
        _counts("claim", [relation.verdict for relation in found.claims]),
        *(map(_pairs, found.claims) if details else (hint,)),
        "Rule",
        "\n".join(prose(f"- {sentence}", "  ", "") for rule in RULES.values() for sentence in rule),
    ]
    return "\n\n".join(parts)


COLUMNS = (
    Column("dataset"),
    Column("backbone", folds=True),
    Column("test", optional=True),
    Column("published", right=True),
    Column("ours", right=True),
    Column("seeds", right=True),
    Column("over seeds", right=True),
    Column("over identities", right=True),
    Column("verdict", folds=True),
)


def _numbers(results: Sequence[Result]) -> str:
    """A row per published result, and the reasons below."""
    if not results:
        return "No published number has runs here."
    notes: dict[str, int] = {}
    rows = []
    for result in results:
        number, why = result.numbers[0], _why(result)
        mark = f" [{notes.setdefault(why, len(notes) + 1)}]" if why else ""
        names = [result.dataset, result.backbone, result.test, f"{number.published:g}", _mean(number)]
        intervals = [_interval(number.over_seeds), _interval(number.over_queries)]
        rows.append([*names, str(len(result.seeds)), *intervals, result.verdict + mark])
    return "\n".join(
        [table(COLUMNS, rows), "", *(prose(f"[{n}] {why}", "    ", "") for why, n in notes.items())]
    ).strip()


def _why(result: Result) -> str:
    unchecked = [f"{what} not checked" for what in result.unchecked]
    return "; ".join(filter(None, [result.reason, *unchecked]))


RELATION_COLUMNS = (
    Column("backbone"),
    Column("claim", folds=True),
    Column("verdict", colours=VERDICTS),
    Column("why", folds=True),
)


def _relations(relations: Sequence[Relation]) -> str:
    """A row per claim."""
    rows = [[r.backbone, r.words, r.verdict, r.reason] for r in relations]
    return table(RELATION_COLUMNS, rows) if rows else "No claim has records of both sides here."


def _counts(noun: str, verdicts: Sequence[str]) -> str:
    counts = ", ".join(f"{number} {verdict}" for verdict, number in Counter(verdicts).most_common())
    return prose(f"{len(verdicts)} {noun}{'s' * (len(verdicts) != 1)}{': ' + counts if counts else ''}.")


def _block(result: Result) -> str:
    """Everything about a published result."""
    height, width = result.image_size
    lines = [f"{result.backbone} on {result.dataset}, {result.test}, {height}x{width}: {result.verdict}"]
    facts = {
        "why": _why(result),
        "source": result.source,
        "set-up": result.setup,
        "recipe": result.recipe,
        "seeds": ", ".join(map(str, result.seeds)),
        "runs": ", ".join(run[:12] for run in result.runs),
    }
    facts |= {number.metric: _number(number) for number in result.numbers}
    return "\n".join([prose(lines[0]), *_facts(facts)])


def _number(number: Number) -> str:
    if number.ours is None:
        return f"{number.published:g} published"
    parts = [f"{number.published:g} published", f"{_mean(number)} ours", f"{number.difference:+.1f} points"]
    parts += [f"over seeds {_interval(number.over_seeds)}"] if number.over_seeds else []
    parts += [f"over identities {_interval(number.over_queries)}"] if number.over_queries else []
    return "; ".join([*parts, " ".join([number.verdict, f"({number.reason})" if number.reason else ""]).strip()])


def _pairs(relation: Relation) -> str:
    """A claim with every pair of records."""
    lines = [prose(f"{relation.backbone}: {relation.words}: {relation.verdict}"), *_facts({"why": relation.reason})]
    for pair in relation.pairs:
        held = {True: "holds", False: "does not hold", None: f"undecided: {pair.reason}"}[pair.holds]
        lines += [prose(f"{pair.comparator}, {pair.where}: ratio {pair.ratio:.2f}, {held}", "    ", "  ")]
    return "\n".join([*lines, *_facts({"source": relation.claim.source})])


def _facts(facts: dict[str, str]) -> list[str]:
    return [prose(f"{name}: {value}", "    ", "  ") for name, value in facts.items() if value]


def _mean(number: Number) -> str:
    if number.ours is None:
        return ""
    return f"{number.ours:.1f}" + ("" if number.deviation is None else f" ± {number.deviation:.1f}")


def _interval(bounds: tuple[float, float] | None) -> str:
    return f"{bounds[0]:.1f} to {bounds[1]:.1f}" if bounds else ""
