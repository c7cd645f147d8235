"""Published numbers: found for a row, printed with a footnote, and listed for reference."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cards import Published
from harness.reporting import text
from harness.reporting.rows import PLAIN, EvalVariant, TableKey
from harness.reporting.section import Context, Section, paragraphs

NUMBERS = ("mAP", "rank-1", "rank-5", "rank-10", "mINP")


def find(
    context: Context,
    backbone: str,
    key: TableKey,
    size: Sequence[int] | None,
    way: EvalVariant = PLAIN,
    *,
    checkpoint: bool = False,
) -> Published | None:
    """The published number of a backbone on a dataset, scored the same way.

    If there are several, one for the same input size comes first, then one whose set-up is a released checkpoint or
    is not, as the row is, then the first of the card.

    Args:
        context: holds the cards.
        backbone: with its variant.
        key: the table the number is for.
        size: (height, width) of the row.
        way: how the row was scored.
        checkpoint: whether the row is of a published checkpoint.
    """
    card = context.material.backbone(backbone)
    if card is None or _cannot_apply(key) or way.untrained:
        return None
    wanted = (key.dataset, backbone.partition(":")[2], way.flip, way.rerank)
    fitting = [p for p in card.published if (p.dataset, p.variant, p.flip, p.rerank) == wanted]
    order = [(not same_size(p, size), ("checkpoint" in p.setup) != checkpoint) for p in fitting]
    return fitting[order.index(min(order))] if fitting else None


def footnote(published: Published) -> str:
    """Source and set-up of a published number, as a sentence; the footnote."""
    setup = [f"input {text.size(published.image_size)}", *([text.escape(published.setup)] if published.setup else [])]
    return f"{text.escape(published.source)}. Set-up: {', '.join(setup)}."


def same_size(published: Published, size: Sequence[int] | None) -> bool:
    """Whether a number was published for this input size."""
    return bool(size) and tuple(size or ()) == tuple(published.image_size)


def cell(context: Context, key: TableKey, published: Published | None, size: Sequence[int] | None) -> str:
    """MAP and rank-1 as published, the input size if it is another one, and the footnote mark."""
    if published is None:
        return text.NOT_APPLICABLE if _cannot_apply(key) else "none"
    other = "" if same_size(published, size) else f" at {text.size(published.image_size)}"
    return f"{published.mAP:.1f} / {published.rank1:.1f}{other}{context.note(footnote(published))}"


def build(context: Context) -> Section:
    """Every published number of the cards, by dataset; there before anything has been run."""
    lines = [
        {
            "Dataset": text.escape(context.material.title(p.dataset)),
            "Backbone": text.escape(f"{card.title} ({p.variant})" if p.variant else card.title),
            "Size": text.size(p.image_size),
            "Test": EvalVariant(False, p.rerank, p.flip).label,
            "mAP": f"{p.mAP:.1f}",
            "rank-1": f"{p.rank1:.1f}",
            "rank-5": _or_none(p.rank5),
            "rank-10": _or_none(p.rank10),
            "mINP": _or_none(p.mINP),
            "Source": context.note(footnote(p)),
        }
        for card in context.material.backbones.values()
        for p in card.published
    ]
    if not lines:
        return Section()
    lines.sort(key=lambda line: [line[k] for k in ("Dataset", "Backbone", "Size", "Test", "mAP")])
    about = (
        "In percent, as the sources print them; “none” where a source does not give the number. "
        "Their loaders, recipes and evaluators differ, as the footnotes say."
    )
    notes = "\n".join(f"[^{number}]: {source}" for number, source in context.noted)
    return Section(paragraphs("## Published numbers", about, text.table(lines, NUMBERS), notes))


def _or_none(percent: float | None) -> str:
    return "none" if percent is None else f"{percent:.1f}"


def _cannot_apply(key: TableKey) -> bool:
    """Nothing was published of generated data, nor of the datasets a run was not trained on."""
    return key.generated or key.dataset != key.trained_on
