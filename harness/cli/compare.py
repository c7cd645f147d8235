"""`compare A B --dataset D`: whether the difference between two backbones is more than chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.cli.groups import MAIN, option
from harness.cli.groups import command as grouped
from harness.cli.options import dataset_option, format_option, results_option
from harness.cli.tables import Column, prose, table
from harness.errors import UsageError, suggestion
from harness.records import per_query, store
from harness.records.schema import matched
from harness.spec.names import SCORED


@grouped(example="python -m harness compare reidmamba transreid --dataset market1501")
@click.argument("first")
@click.argument("second")
@dataset_option("Dataset that both were scored on.")
@option(MAIN, "--recipe", metavar="NAME", default="", show_default="the one that both have", help="Recipe of the runs.")
@option(
    MAIN,
    "--seed",
    metavar="N",
    type=int,
    default=None,
    show_default="the lowest that both have",
    help="Training seed of the runs.",
)
@option(
    MAIN,
    "--source",
    type=click.Choice([*SCORED, "all"]),
    default="trained",
    show_default=True,
    help="Kind of runs to compare.",
)
@option(MAIN, "--run", "ids", multiple=True, metavar="ID", help="Run id, or its first characters; repeatable.")
@results_option
@format_option
def command(
    first: str,
    second: str,
    dataset: str,
    recipe: str,
    seed: int | None,
    source: str,
    ids: tuple[str, ...],
    results: Path,
    form: str,
) -> int:
    """Compare the mAP of two backbones on a dataset, with an interval and a p-value.

    FIRST and SECOND are names of backbones. The p-value is that of a paired randomisation test.
    """
    found = store.index(results).values()
    if first == second:
        raise UsageError(f"Name two different backbones, found {first} twice.")
    name = _recorded(dataset, {entry.dataset for entry in found})
    kinds = SCORED if source == "all" or (ids and not _typed("source")) else (source,)
    entries = [e for e in found if e.status == "ok" and e.dataset == name]
    entries = [e for e in _named(entries, ids) if e.source in kinds and recipe in ("", e.recipe)]
    entries = [e for e in entries if seed in (None, e.seed)]
    for one in (first, second):
        if not any(entry.backbone == one and entry.status == "ok" for entry in found):
            near = suggestion(one, {entry.backbone for entry in found})
            raise UsageError(f"No finished run of '{one}' in {results}.{near} {SEE}")
    a, b = _pair(entries, first, second, f"on {name} in {results}")
    outcome = _test(results, a, b)
    if form == "json":
        click.echo(json.dumps(outcome, indent=1))
        return 0
    click.echo(_shown(name, (first, second), outcome))
    return 0


SEE = "Run `python -m harness status` to see all runs."


def _recorded(dataset: str, recorded: set[str]) -> str:
    """The dataset's name as in records; a dataset without its plug-in here is known by its records alone."""
    if (name := dataset.replace("_", "-")) in recorded:
        return name
    return registry.dataset(dataset).name


def _typed(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) == click.core.ParameterSource.COMMANDLINE


def _named(entries: list[store.Entry], ids: tuple[str, ...]) -> list[store.Entry]:
    """The entries to choose from: of a backbone that has a named run, the named runs alone."""
    named = [e for e in entries if e.run_id.startswith(ids)] if ids else []
    for start in ids:
        if not any(e.run_id.startswith(start) for e in named):
            raise UsageError(f"--run {start}: no finished run on this dataset has this id. {SEE}")
    return named + [e for e in entries if e.backbone not in {n.backbone for n in named}]


def _pair(entries: list[store.Entry], first: str, second: str, where: str) -> list[store.Entry]:
    """The two runs to compare: of the one recipe that both have, and of its first seed.

    Raises:
        UsageError: there are no such runs, or several; none is chosen silently.
    """
    runs: dict[str, dict[tuple[str, int], list[store.Entry]]] = {first: {}, second: {}}
    for entry in entries:
        if entry.backbone in runs:
            runs[entry.backbone].setdefault((entry.recipe, entry.seed), []).append(entry)
    for name, found in runs.items():
        if not found:
            raise UsageError(f"No finished run of {name} {where} fits --recipe, --seed, --source and --run. {SEE}")
    common = sorted(runs[first].keys() & runs[second].keys())
    if not common:
        raise UsageError(
            f"{first} and {second} have no runs with the same recipe and seed {where}. Run both with the same --recipe "
            "and --seeds."
        )
    recipe, seed = common[0]
    if len(recipes := sorted({recipe for recipe, _ in common})) > 1:
        raise UsageError(
            f"{first} and {second} have runs of several recipes {where}: choose one of "
            f"{', '.join(recipes)} with --recipe."
        )
    for name, found in runs.items():
        if len(several := found[common[0]]) > 1:
            shown = ", ".join(f"{e.run_id[:12]} ({e.source})" for e in several)
            raise UsageError(
                f"{name} has {len(several)} runs of recipe {recipe} and seed {seed} {where}: {shown}. "
                "Choose one with --run ID, or their kind with --source."
            )
    return [runs[name][common[0]][0] for name in (first, second)]


def _test(results: Path, a: store.Entry, b: store.Entry) -> dict[str, Any]:
    import numpy as np

    from harness import stats

    _check_same_conditions(results, a, b)
    tables = [per_query.read((results / entry.path).parent, "per_query.csv") for entry in (a, b)]
    if not all(np.array_equal(tables[0][name], tables[1][name]) for name in ("query", "pid")):
        raise UsageError(
            "The two runs were scored on different queries, so the dataset has changed. Repeat both with --force."
        )
    first, second = (table["AP"] for table in tables)
    valid = ~np.isnan(first) & ~np.isnan(second)
    groups = tables[0]["pid"][valid]
    test = stats.paired_test(first[valid], second[valid], groups)
    return {
        "mAP": [float(first[valid].mean()), float(second[valid].mean())],
        "difference": test.difference,
        "interval": list(test.interval),
        "p_value": test.p_value,
        "queries": int(valid.sum()),
        "all_queries": len(valid),
        "identities": len(set(groups.tolist())),
        "recipe": a.recipe,
        "seed": a.seed,
        "runs": [a.run_id, b.run_id],
    }


def _check_same_conditions(results: Path, a: store.Entry, b: store.Entry) -> None:
    """Refuses runs whose scores differ for another reason than the backbone."""
    specs = [store.read(results / entry.path)["spec"] for entry in (a, b)]
    first, second = (spec["protocol"] for spec in specs)
    if first != second:
        raise UsageError(
            f"Scores of protocol {first} and of protocol {second} do not compare ({a.backbone}, {b.backbone}). "
            "Repeat the older run, or choose others with --run ID."
        )
    if specs[0].get("fingerprint") != specs[1].get("fingerprint"):
        raise UsageError(
            f"The files of {a.dataset} differed between the two runs: their fingerprints are not equal. "
            "Repeat both runs on the same files, or choose others with --run ID."
        )


COLUMNS = (Column("backbone", folds=True), Column("mAP", right=True), Column("run id"))


def _shown(dataset: str, names: tuple[str, str], outcome: dict[str, Any]) -> str:
    """The comparison as text; differences of percentages are points."""
    few = matched({"n_valid": outcome["queries"], "n_query": outcome["all_queries"]})
    head = ", ".join(filter(None, [dataset, f"recipe {outcome['recipe']}", f"seed {outcome['seed']}", few]))
    runs = zip(names, outcome["mAP"], outcome["runs"], strict=True)
    rows = [[name, f"{value:.2%}", run[:12]] for name, value, run in runs]
    low, high = (100 * bound for bound in outcome["interval"])
    p_value = "< 0.0001" if outcome["p_value"] < 0.0001 else f"= {outcome['p_value']:.4f}"
    return "\n".join(
        [
            prose(head, "  ", ""),
            "",
            table(COLUMNS, rows),
            "",
            prose(
                f"Difference: {100 * outcome['difference']:+.2f} points of mAP, 95% interval {low:+.2f} to {high:+.2f}."
            ),
            prose(
                f"p {p_value}, by a paired randomisation test over {outcome['identities']} identities "
                f"and {outcome['queries']} queries."
            ),
            "",
            prose(_meaning(*names, outcome)),
        ]
    )


def _meaning(first: str, second: str, outcome: dict[str, Any]) -> str:
    low, high = outcome["interval"]
    better = first if outcome["difference"] > 0 else second
    if low <= 0 <= high:
        meaning = f"The interval contains 0: these queries do not show whether {first} or {second} is better."
    else:
        meaning = (
            f"The interval excludes 0: {better} is expected to stay ahead on other identities from the same scene."
        )
    return f"{meaning} This compares two trained models. Training itself varies, so compare several seeds."
