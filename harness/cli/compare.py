"""`compare A B --dataset D`: is the difference of two backbones more than chance?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness import registry, store
from harness.cli.options import format_option, results_option
from harness.errors import UsageError


@click.command(epilog="Example: python -m harness compare reidmamba transreid --dataset market1501")
@click.argument("first")
@click.argument("second")
@click.option("--dataset", required=True, help="Dataset both were scored on.")
@click.option("--recipe", default="", help="Recipe of the runs. [default: the one both have]")
@click.option("--seed", type=int, default=None, help="Seed of the runs. [default: the lowest both have]")
@results_option
@format_option
def command(first: str, second: str, dataset: str, recipe: str, seed: int | None, results: Path, form: str) -> int:
    """Prints the difference in mAP with its interval, and the p-value of a paired randomisation test last."""
    name = registry.dataset(dataset).name
    a, b = _pair(results, first, second, name, recipe, seed)
    outcome = _test(results, a, b)
    if form == "json":
        click.echo(json.dumps(outcome, indent=1))
        return 0
    low, high = outcome["interval"]
    click.echo(f"{first} {outcome['mAP'][0]:.2%} mAP, {second} {outcome['mAP'][1]:.2%} mAP on {name} ({a.recipe}).")
    click.echo(f"Difference {outcome['difference']:+.2%}, 95% interval {low:+.2%} to {high:+.2%}.")
    click.echo(
        f"p = {outcome['p_value']:.4g} (paired randomisation over {outcome['identities']} identities, "
        f"{outcome['queries']} queries)."
    )
    click.echo(_words(first, second, outcome))
    return 0


def _pair(results: Path, first: str, second: str, dataset: str, recipe: str, seed: int | None) -> list[store.Entry]:
    """The two runs: same recipe and seed where both have them."""
    entries = [e for e in store.index(results).values() if e.status == "ok" and e.dataset == dataset]
    runs = {
        name: {(e.recipe, e.seed): e for e in entries if e.backbone == name and recipe in ("", e.recipe)}
        for name in (first, second)
    }
    for name, found in runs.items():
        if not found:
            raise UsageError(f"No finished run of {name} on {dataset} in {results}; 'status' shows what is there.")
    common = sorted(k for k in runs[first].keys() & runs[second].keys() if seed is None or k[1] == seed)
    if not common:
        raise UsageError(f"{first} and {second} have no run on {dataset} of one recipe and seed; run them alike.")
    return [runs[first][common[0]], runs[second][common[0]]]


def _test(results: Path, a: store.Entry, b: store.Entry) -> dict[str, Any]:
    import numpy as np

    from harness import stats

    tables = [store.read_per_query((results / entry.path).parent, "per_query.csv") for entry in (a, b)]
    if tables[0]["query"] != tables[1]["query"] or tables[0]["pid"] != tables[1]["pid"]:
        raise UsageError("The two runs were scored on different queries; validate the dataset and run them again.")
    first, second = (np.array(table["AP"]) for table in tables)
    valid = ~np.isnan(first) & ~np.isnan(second)
    groups = np.array(tables[0]["pid"])[valid]
    test = stats.paired_test(first[valid], second[valid], groups)
    return {
        "mAP": [float(first[valid].mean()), float(second[valid].mean())],
        "difference": test.difference,
        "interval": list(test.interval),
        "p_value": test.p_value,
        "queries": int(valid.sum()),
        "identities": len(set(groups.tolist())),
        "recipe": a.recipe,
        "seed": a.seed,
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
