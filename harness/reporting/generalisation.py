"""What networks are worth on other datasets: a matrix of training sets and test sets per backbone."""

from __future__ import annotations

from collections import defaultdict

from harness.audits.layout import Matrix
from harness.reporting import heat_map, text
from harness.reporting.parallel import Drawn
from harness.reporting.section import Context, Section, file_name, paragraphs

KEYS = ("trained on", "tested on")

Scores = dict[tuple[str, str], float]
"""mAP by training set and test set."""


def build(context: Context) -> Section:
    """One table and picture per backbone and recipe with scores of at least two training sets on other datasets."""
    found: dict[tuple[bool, str, str, str], Scores] = defaultdict(dict)
    for table in context.tables:
        key = table.key
        for row in table.plain():
            scores = found[key.generated, key.recipe, key.protocol, row.label]
            tested = key.dataset.partition("+")[0]  # joined datasets are tested on the first
            scores[key.trained_on, tested] = row.mean("mAP")
    figures: dict[str, Drawn] = {}
    parts = [
        _one(context, key, scores, figures)
        for key, scores in sorted(found.items())
        if len({trained for trained, tested in scores if tested not in trained.split("+")}) > 1
    ]
    if not parts:
        return Section()
    about = "mAP in percent of the plain test, mean over seeds. Rows are training sets, columns are test sets."
    return Section(paragraphs("## Generalisation", about, *parts), figures)


def _one(context: Context, key: tuple[bool, str, str, str], scores: Scores, figures: dict[str, Drawn]) -> str:
    generated, recipe, protocol, label = key
    trained, tested = (sorted({pair[side] for pair in scores}) for side in (0, 1))
    titles = [text.escape(context.data.title(name)) for name in tested]
    lines = [
        {"Trained on": text.escape(context.data.title(one))}
        | {
            title: text.percent(scores[one, other]) if (one, other) in scores else text.NOT_APPLICABLE
            for title, other in zip(titles, tested, strict=True)
        }
        for one in trained
    ]
    values = [[scores.get((one, other)) for other in tested] for one in trained]
    matrix = Matrix(
        "mAP", KEYS, [context.data.title(one) for one in trained], [*map(context.data.title, tested)], values
    )
    where = f"{label}, recipe {recipe}{' (generated)' * generated}"
    where += f", protocol {protocol}" if len(context.protocols) > 1 else ""
    name = f"{file_name('generalisation', label, recipe, protocol, *(['generated'] * generated))}.png"
    figures[name] = context.draw(heat_map.draw, where, matrix)
    picture = context.image(name, f"mAP of {where}, by training set and test set")
    return paragraphs(f"### Generalisation: {text.escape(where)}", text.table(lines, titles), picture)
