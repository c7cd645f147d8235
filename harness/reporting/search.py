"""Searches: trials scored on held-out training identities, and final runs scored on the test split."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness import stats
from harness.errors import HarnessError
from harness.records import store
from harness.records.schema import matched
from harness.reporting import commands, search_plots, text
from harness.reporting.parallel import Drawn
from harness.reporting.scores import mean_ap
from harness.reporting.section import Context, Section, bullets, file_name, paragraphs
from harness.tuning.space import Point
from harness.tuning.state import DIVERGED, FINISHED, STOPPED, Final, Search, Trial

MOST_POINTS = 5
FEWEST_FOR_IMPORTANCE = 8
RIDGE = 1e-2


def build(context: Context) -> Section:
    """One part per search: points, importance of parameters, figures and final runs."""
    figures: dict[str, Drawn] = {}
    parts = [
        _one(context, search, figures)
        for search in context.data.searches
        if search.trials and not search.settings.tuned
    ]
    if not parts:
        return Section()
    about = (
        "Trials train on part of the training identities and are scored on the held-out rest. The test split is only "
        "used for the final runs. Do not compare held-out mAP with the tables above."
    )
    return Section(paragraphs("## Searches", about, *parts), figures)


def _one(context: Context, search: Search, figures: dict[str, Drawn]) -> str:
    spec = search.spec
    title = f"{search.space.name}: {spec.backbone} on {context.data.title(spec.dataset)}, recipe {spec.recipe}"
    return paragraphs(
        f"### Search {text.escape(title)}",
        text.escape(search.space.about) if search.space.about else "",
        bullets(_facts(context, search)),
        text.table(_points(search), ("Trial", "Held-out mAP", "Epochs", *map(text.escape, search.space.parameters))),
        _importance(search),
        *_pictures(context, search, title, figures),
        _finals(context, search),
        _bad(search),
        commands.of_search(search, context.by_id),
    )


def _facts(context: Context, search: Search) -> list[str]:
    """Numbers of trials and epochs, the held-out part, and the search file."""
    settings, (spent, full) = search.settings, search.epochs
    ends = {word: sum(t.state == word for t in search.trials) for word in dict.fromkeys(t.state for t in search.trials)}
    words = ", ".join(f"{number} {word}" for word, number in ends.items())
    lines = [
        f"Trials: {len(search.trials)} of {settings.samples}, sampler {settings.sampler}; {words}.",
        f"Epochs: {spent:,} of {full:,} without early stopping ({spent / max(1, full):.0%}).",
        f"Scored on {search.holdout.fraction:.0%} of the training identities (seed {search.holdout.seed}).",
    ]
    runs = {trial.run_id for trial in search.trials}
    if any((r["data"] or {}).get("generated") for r in context.data.records if r["run_id"] in runs):
        lines.append("**Generated data**: the numbers say nothing about real people.")
    return [*lines, f"Search file: {text.code(f'searches/{search.id}/search.json')}."]


def _points(search: Search) -> list[dict[str, str]]:
    """Table rows of the best finished points and of all named points."""
    finished = sorted((t for t in search.trials if t.state == FINISHED), key=lambda t: (-(t.value or 0.0), t.number))
    shown = [*finished[:MOST_POINTS], *(t for t in search.trials if t.name and t not in finished[:MOST_POINTS])]
    return [
        {
            "Trial": str(trial.number),
            "Name": text.escape(trial.name) or text.NOT_APPLICABLE,
            **{text.escape(name): _value(trial.point, name) for name in search.space.parameters},
            "Held-out mAP": text.percent(trial.value) if trial.state == FINISHED else text.escape(trial.state),
            "Epochs": f"{trial.epochs} of {search.settings.asha.epochs}",
        }
        for trial in (shown or search.trials[:MOST_POINTS])
    ]


def _value(point: Point, name: str) -> str:
    value = point[name]
    return f"{value:.4g}" if isinstance(value, float) else text.escape(value)


def importance(search: Search) -> tuple[dict[str, float], int, int]:
    """Share of the variance of held-out mAP that each parameter explains: a functional ANOVA of a quadratic fit.

    The features are Legendre polynomials of degree one and two of each parameter's position, and one column per value
    of a choice. They are fitted by ridge regression to held-out mAP at the last epoch that half of the trials reached.
    The squared coefficients are shares of variance over the whole space, not only over the sampled points.

    Returns:
        Share by parameter (they sum to one), the number of trials, and the epoch. There are no shares if there are too
        few trials.
    """
    epoch = search_plots.common_epoch(search)
    scored = search_plots.at_epoch(search, epoch)
    columns: list[np.ndarray] = []
    owners: list[str] = []
    for name, parameter in search.space.parameters.items():
        if parameter.distribution == "choice":
            made = [np.array([float(t.point[name] == value) for t, _ in scored]) for value in parameter.values]
            made = [column - column.mean() for column in made] if scored else made
        else:
            x = np.array([2 * parameter.position(t.point[name]) - 1 for t, _ in scored])
            made = [np.sqrt(3) * x, np.sqrt(5) * (3 * x**2 - 1) / 2]
        columns += made
        owners += [name] * len(made)
    if len(scored) < max(FEWEST_FOR_IMPORTANCE, len(columns) + 2):
        return {}, len(scored), epoch
    design = np.stack(columns, axis=1)
    design = design - design.mean(0)
    target = np.array([value for _, value in scored])
    gram = design.T @ design + RIDGE * len(scored) * np.eye(len(owners))
    effects = np.linalg.solve(gram, design.T @ (target - target.mean())) ** 2
    total = effects.sum()
    if not total > 0:
        return {}, len(scored), epoch
    names = search.space.parameters
    shares = {name: float(sum(e for e, o in zip(effects, owners, strict=True) if o == name) / total) for name in names}
    return shares, len(scored), epoch


def _importance(search: Search) -> str:
    if len(search.space.parameters) < 2:
        return ""
    shares, trials, epoch = importance(search)
    if not shares:
        return f"Importance of the parameters: not computed, {text.count(trials, 'scored trial')} are too few."
    lines = [
        {"Parameter": text.escape(name), "Share of the explained variance": f"{share:.0%}"}
        for name, share in sorted(shares.items(), key=lambda pair: -pair[1])
    ]
    about = (
        f"Importance of the parameters, by a functional ANOVA of a quadratic fit to held-out mAP after epoch {epoch} "
        f"({text.count(trials, 'trial')}):"
    )
    return paragraphs(about, text.table(lines, ("Share of the explained variance",)))


def _pictures(context: Context, search: Search, title: str, figures: dict[str, Drawn]) -> list[str]:
    links: list[str] = []
    epoch = search_plots.common_epoch(search)
    if len(search_plots.axes_of(search)) == 2 and len(search_plots.at_epoch(search, epoch)) >= 4:
        name = file_name("search", search.id, "contour") + ".png"
        figures[name] = context.draw(search_plots.contour, title, search)
        x, y = (text.escape(axis) for axis in search_plots.axes_of(search))
        links += [
            context.image(name, f"Held-out mAP over {x} and {y}"),
            f"*Held-out mAP over {x} and {y} after epoch {epoch}, the last that half of the trials reached. Points are "
            "trials, diamonds are named points. The background is a kernel mean over the trials, averaged over other "
            "parameters; it is white where no trial is near.*",
        ]
    if any(trial.curve for trial in search.trials):
        name = file_name("search", search.id, "curves") + ".png"
        figures[name] = context.draw(search_plots.curves, title, search)
        links += [
            context.image(name, "Held-out mAP of every trial by epoch"),
            "*Held-out mAP of every trial by epoch. Grey curves that end in a cross did not finish. Dotted lines mark "
            "the rungs, where trials may be stopped. Named points (orange) are never stopped.*",
        ]
    return links


def _finals(context: Context, search: Search) -> str:
    """The chosen points on the test split, with comparisons between the best and each other point."""
    if not search.finals:
        return "There are no final runs yet."
    records = context.by_id
    best = next((final for final in search.finals if final.name == "best"), None)
    lines = []
    for final in search.finals:
        plain = [_plain(records[run]) for run in final.run_ids if _ok(records.get(run))]
        scores = [row["mAP"] for row in plain]
        counted = "".join(f" ({words})" for words in sorted({matched(row) for row in plain}) if words)
        mean = statistics.fmean(scores) if scores else None
        spread = statistics.stdev(scores) if len(scores) > 1 else None
        lines.append(
            {
                "Point": text.escape(final.name),
                **{text.escape(name): _value(final.point, name) for name in search.space.parameters},
                "Seeds": f"{len(scores)} of {len(final.run_ids)}",
                "Test mAP": text.spread(mean, spread) + counted if mean is not None else "no finished run",
                **_against(context, best, final, records),
            }
        )
    about = (
        "Final runs: the chosen points, trained on the whole training set and scored on the test split. “Best minus "
        "this” is the difference in mAP, in percentage points, on the same queries and averaged over seeds. The 95 % "
        "interval is a bootstrap over query identities; p is of a paired randomisation test, not corrected for several "
        "rows."
    )
    return paragraphs(about, text.table(lines, ("Seeds", "Test mAP", "Best minus this", "p")))


def _against(
    context: Context, best: Final | None, final: Final, records: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    columns = ("Best minus this", "95 % interval", "p")
    if best is None or final.point == best.point:
        return dict.fromkeys(columns, text.NOT_APPLICABLE)
    try:
        runs = [[records[r] for r in f.run_ids if _ok(records.get(r))] for f in (best, final)]
        if not all(runs):
            return dict.fromkeys(columns, "not comparable")
        one, other = (mean_ap(context.data, [(run, _plain(run)) for run in each]) for each in runs)
        if not one.comparable(other):
            return dict.fromkeys(columns, "not comparable")
        test = stats.paired_test(one.ap, other.ap, one.queries["pid"])
    except HarnessError as error:
        return {**dict.fromkeys(columns, text.NOT_APPLICABLE), "p": text.escape(error, limit=80)}
    low, high = (text.signed(100 * bound) for bound in test.interval)
    return dict(
        zip(columns, (text.signed(100 * test.difference), f"[{low}, {high}]", f"{test.p_value:.4f}"), strict=True)
    )


def _ok(record: Mapping[str, Any] | None) -> bool:
    return record is not None and record["status"] == "ok" and bool(store.plain(record))


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    return store.plain(record) or {}


def _bad(search: Search) -> str:
    """Failed and diverged trials with their reasons."""
    bad: list[Trial] = [t for t in search.trials if t.state not in (FINISHED, STOPPED) and t.reason]
    worst = "counted as mAP 0: " if any(t.state == DIVERGED for t in bad) else ""
    return bullets([f"Trial {t.number} {t.state}, {worst}{text.escape(t.reason, limit=200)}" for t in bad])
