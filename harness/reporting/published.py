"""Published numbers: looked up for a row, printed with a footnote, and listed in a table."""

from __future__ import annotations

from collections.abc import Sequence

from harness.cards import Published
from harness.reporting import commands, text
from harness.reporting.rows import PLAIN, EvalVariant, Row, TableKey
from harness.reporting.section import Context, Section, folded, paragraphs

NUMBERS = ("mAP", "rank-1", "rank-5", "rank-10", "mINP")


def find(
    context: Context,
    backbone: str,
    key: TableKey,
    size: Sequence[int] | None,
    test: EvalVariant = PLAIN,
    *,
    checkpoint: bool = False,
) -> Published | None:
    """Looks up the published number of a backbone on a dataset with the same test.

    Of several numbers, prefers one with the same input size, then one of a checkpoint if `checkpoint` is set, then the
    first on the card.

    Args:
        context: holds the cards.
        backbone: name with its variant.
        key: the table the number is for.
        size: (height, width) of the row.
        test: how the row was scored.
        checkpoint: whether the row scores a published checkpoint.
    """
    card = context.data.backbone(backbone)
    if card is None or _cannot_apply(key) or test.untrained:
        return None
    required = (key.dataset, backbone.partition(":")[2], test.flip, test.rerank)
    fitting = [p for p in card.published if (p.dataset, p.variant, p.flip, p.rerank) == required]
    order = [(not same_size(p, size), p.checkpoint != checkpoint) for p in fitting]
    return fitting[order.index(min(order))] if fitting else None


def footnote(published: Published) -> str:
    """Text of the footnote: source and set-up of a published number."""
    setup = [f"input {text.size(published.image_size)}", *([text.escape(published.setup)] if published.setup else [])]
    return f"{text.escape_except_urls(published.source)}. Set-up: {', '.join(setup)}."


def same_size(published: Published, size: Sequence[int] | None) -> bool:
    """Whether a number was published for this input size."""
    return bool(size) and tuple(size or ()) == tuple(published.image_size)


def cell(context: Context, published: Published | None, size: Sequence[int] | None) -> str:
    """Published mAP and rank-1 with the footnote mark, and the input size if it differs from `size`."""
    if published is None:
        return text.NOT_APPLICABLE
    other = "" if same_size(published, size) else f" at {text.size(published.image_size)}"
    return f"{published.mAP:.1f} / {published.rank1:.1f}{other}{context.note(footnote(published))}"


def beside(context: Context, key: TableKey, row: Row) -> str:
    """The published number for a row, with reproduced minus published in brackets if the input size is the same."""
    if row.setting.untrained or row.test.untrained or commands.changed_options(row.setting):
        return text.NOT_APPLICABLE  # not the published network
    size, checkpoint = row.image_size(), row.setting.source == "published-checkpoint"
    known = find(context, row.setting.backbone, key, size, row.test, checkpoint=checkpoint)
    shown = cell(context, known, size)
    if known is None or not same_size(known, size):
        return shown
    pairs = ((row.mean("mAP"), known.mAP), (row.mean("rank-1"), known.rank1))
    return f"{shown} ({' / '.join(text.signed(100 * mean - value) for mean, value in pairs)})"


def build(context: Context) -> Section:
    """The published numbers on the datasets of the result tables, sorted by dataset."""
    datasets = {table.key.dataset for table in context.tables if not _cannot_apply(table.key)}
    lines = [
        {
            "Dataset": text.escape(context.data.title(p.dataset)),
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
        for card in context.data.backbones.values()
        for p in card.published
        if p.dataset in datasets
    ]
    if not lines:
        return Section(_notes(context))
    lines.sort(key=lambda line: [line[k] for k in ("Dataset", "Backbone", "Size", "Test", "mAP")])
    about = (
        "Numbers on the datasets above, in percent, as printed in the sources; “none” where a source gives no number. "
        "Data loaders, recipes and evaluation code differ between sources; the footnotes give the set-ups."
    )
    table = folded("Published numbers", "all that the cards have on these datasets", about, text.table(lines, NUMBERS))
    return Section(paragraphs(table, _notes(context)))


def _notes(context: Context) -> str:
    """The footnotes of all sections."""
    return "\n".join(f"[^{number}]: {source}" for number, source in context.noted)


def _or_none(percent: float | None) -> str:
    return "none" if percent is None else f"{percent:.1f}"


def _cannot_apply(key: TableKey) -> bool:
    """Whether no published number can apply: generated data, or a dataset that the run was not trained on."""
    return key.generated or key.dataset != key.trained_on
