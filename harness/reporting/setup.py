"""Data, options and commands of the result tables; a fact of several tables is printed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.reporting import commands, data_facts, grids, text
from harness.reporting.rows import Row, Table
from harness.reporting.section import Context, Section, bullets, folded, paragraphs


def build(context: Context) -> Section:
    """Facts of all tables, then the commands that reproduce their runs."""
    if not context.tables:
        return Section()
    return Section(
        paragraphs(
            folded("Data and set-up", "images, build options, recipes and ties", bullets(_shared(context))),
            folded("Commands", "they reproduce the runs", commands.NOTE, commands.of_tables(context.tables)),
        )
    )


def _shared(context: Context) -> list[str]:
    """Facts of all tables, one line each; then one line per set of tables that share further facts."""
    where: dict[str, list[str]] = {}
    for table in context.tables:
        for fact in dict.fromkeys(_facts(table)):
            where.setdefault(fact, []).append(grids.named(context, table))
    common = [fact for fact, titles in where.items() if len(titles) == len(context.tables)]
    groups: dict[tuple[str, ...], list[str]] = {}
    for fact, titles in where.items():
        if fact not in common:
            groups.setdefault(tuple(titles), []).append(fact)
    return [*common, *(f"**{'; '.join(titles)}**: {' '.join(facts)}" for titles, facts in groups.items())]


def _facts(table: Table) -> Iterator[str]:
    yield from _recipes(table)
    yield from data_facts.lines(table)
    scored = [e for row in table.rows for _, e in row.scored]
    names = ("n_query", "n_valid", "n_gallery")
    for queries, valid, gallery in sorted({tuple(e.get(name) or 0 for name in names) for e in scored}):
        matched = f"{text.count(queries, 'query')}, of which {valid:,} have a match"
        yield f"{matched}; {text.count(gallery, 'gallery image')}."
    options = {row.label: given for row in table.plain() if (given := commands.changed_options(row.setting))}
    if options:
        words = {label: text.code(", ".join(f"{k}={v}" for k, v in given.items())) for label, given in options.items()}
        yield f"Build options: {'; '.join(f'{text.escape(label)} {given}' for label, given in words.items())}."
    tied = {f"{text.escape(row.label)}, {row.test.label}": _tied(row) for row in table.rows}
    if any(tied.values()):
        yield f"Queries with tied distances: {'; '.join(f'{name}: {n:,}' for name, n in tied.items() if n)}."


def _tied(row: Row) -> int:
    return max((e.get("tied_queries") or 0 for _, e in row.scored), default=0)


def _recipes(table: Table) -> Iterator[str]:
    """Descriptions of the recipe; `native` has one per backbone."""
    backbones: dict[str, list[str]] = {}
    for setting in table.settings():
        if about := commands.about_recipe(setting):
            backbones.setdefault(about, []).append(setting.backbone)
    for about, names in backbones.items():
        of = text.escape(table.key.recipe) if len(backbones) == 1 else f"of {_listed(names)}"
        yield f"Recipe {of}: {text.escape(about)}"


def _listed(names: Sequence[str]) -> str:
    return text.escape(", ".join(dict.fromkeys(names)))
