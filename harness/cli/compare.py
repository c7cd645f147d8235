"""`compare A B --dataset D`: is the difference of two backbones more than chance?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.cli.groups import command as grouped
from harness.cli.options import format_option, results_option
from harness.errors import UsageError
from harness.records import per_query, store
from harness.records.schema import matched
from harness.spec.names import SCORED


@grouped(epilog="Example: python -m harness compare reidmamba transreid --dataset market1501")
@click.argument("first")
@click.argument("second")
@click.option("--dataset", required=True, help="Dataset both were scored on.")
@click.option("--recipe", default="", help="Recipe of the runs. [default: the one both have]")
@click.option("--seed", type=int, default=None, help="Seed of the runs. [default: the lowest both have]")
@click.option(
    "--source", type=click.Choice([*SCORED, "all"]), default="trained", show_default=True, help="Of the runs."
)
@click.option("--run", "ids", multiple=True, metavar="ID", help="Run to take, or the start of its id; may be repeated.")
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
    """Prints the difference in mAP with its interval, and the p-value of a paired randomisation test last."""
    found = store.index(results).values()
    name = _recorded(dataset, {entry.dataset for entry in found})
    kinds = SCORED if source == "all" or (ids and not _typed("source")) else (source,)
    entries = [e for e in found if e.status == "ok" and e.dataset == name]
    entries = [e for e in _named(entries, ids) if e.source in kinds and recipe in ("", e.recipe)]
    entries = [e for e in entries if seed in (None, e.seed)]
    a, b = _pair(entries, first, second, f"on {name} in {results}")
    outcome = _test(results, a, b)
    if form == "json":
        click.echo(json.dumps(outcome, indent=1))
        return 0
    low, high = outcome["interval"]
    scores = [f"{one} {value:.2%} mAP" for one, value in zip((first, second), outcome["mAP"], strict=True)]
    words = matched({"n_valid": outcome["queries"], "n_query": outcome["all_queries"]})
    counted = f", {words}" if words else ""
    click.echo(f"{', '.join(scores)} on {name} ({a.recipe}{counted}).")
    click.echo(f"Difference {outcome['difference']:+.2%}, 95% interval {low:+.2%} to {high:+.2%}.")
    click.echo(
        f"p = {outcome['p_value']:.4g} (paired randomisation over {outcome['identities']} identities, "
        f"{outcome['queries']} queries)."
    )
    click.echo(_words(first, second, outcome))
    return 0


def _recorded(dataset: str, recorded: set[str]) -> str:
    """The dataset's name as records have it; one whose plug-in is not at hand is known by its records alone."""
    if (name := dataset.replace("_", "-")) in recorded:
        return name
    return registry.dataset(dataset).name


def _typed(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) == click.core.ParameterSource.COMMANDLINE


def _named(entries: list[store.Entry], ids: tuple[str, ...]) -> list[store.Entry]:
    """The entries left when runs are named: of a backbone that has a named run, the named ones alone."""
    named = [e for e in entries if e.run_id.startswith(ids)] if ids else []
    for start in ids:
        if not any(e.run_id.startswith(start) for e in named):
            raise UsageError(
                f"--run {start}: no finished run on this dataset has this id; 'status' shows what is there."
            )
    return named + [e for e in entries if e.backbone not in {n.backbone for n in named}]


def _pair(entries: list[store.Entry], first: str, second: str, where: str) -> list[store.Entry]:
    """The two runs: of the one recipe that both have, and of the first seed of it.

    Raises:
        UsageError: there is none, or more than one; nothing is chosen silently.
    """
    runs: dict[str, dict[tuple[str, int], list[store.Entry]]] = {first: {}, second: {}}
    for entry in entries:
        if entry.backbone in runs:
            runs[entry.backbone].setdefault((entry.recipe, entry.seed), []).append(entry)
    for name, found in runs.items():
        if not found:
            raise UsageError(f"No finished run of {name} {where} fits; 'status' shows what is there.")
    common = sorted(runs[first].keys() & runs[second].keys())
    if not common:
        raise UsageError(f"{first} and {second} have no run of one recipe and seed {where}; run them alike.")
    recipe, seed = common[0]
    if len(recipes := sorted({recipe for recipe, _ in common})) > 1:
        raise UsageError(
            f"{first} and {second} have runs of several recipes {where}; choose one of "
            f"{', '.join(recipes)} with --recipe."
        )
    for name, found in runs.items():
        if len(several := found[common[0]]) > 1:
            shown = ", ".join(f"{e.run_id[:12]} ({e.source})" for e in several)
            raise UsageError(
                f"{name} has {len(several)} runs of recipe {recipe} and seed {seed} {where}: {shown}; "
                "choose one with --run ID, or their kind with --source."
            )
    return [runs[name][common[0]][0] for name in (first, second)]


def _test(results: Path, a: store.Entry, b: store.Entry) -> dict[str, Any]:
    import numpy as np

    from harness import stats

    tables = [per_query.read((results / entry.path).parent, "per_query.csv") for entry in (a, b)]
    if not all(np.array_equal(tables[0][name], tables[1][name]) for name in ("query", "pid")):
        raise UsageError("The two runs were scored on different queries; validate the dataset and run them again.")
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


def _words(first: str, second: str, outcome: dict[str, Any]) -> str:
    low, high = outcome["interval"]
    better = first if outcome["difference"] > 0 else second
    if low <= 0 <= high:
        said = f"The interval holds zero: these queries do not tell {first} and {second} apart."
    else:
        said = f"On other identities from the same scene, {better} would be expected to stay ahead."
    return (
        f"{said} This is about these two trained models; how much training itself varies is another matter: "
        "compare several seeds."
    )
