"""The section of `--recipe tuned`: every backbone tuned with the same budget, and what may be concluded from it."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence

from harness import stats
from harness.reporting import commands, text, tuned_plots
from harness.reporting.parallel import Drawn
from harness.reporting.rows import RunGroup
from harness.reporting.section import Context, Section, bullets, file_name, folded, paragraphs
from harness.reporting.tuned_results import Table, Tuned, importance
from harness.stats import StudyTest
from harness.tuning import cost
from harness.tuning.space import Parameter
from harness.tuning.state import DIVERGED, FAILED, FINISHED, RUNNING, STOPPED
from harness.tuning.studies import BEST, FACTORS, UNTUNED

ALPHA = 0.05
ABOUT = (
    "**One shared recipe, untuned** (recipe `unified`) shows which backbone is better under exactly these settings. "
    "It cannot show which is better when each is trained as it needs, because one recipe suits some backbones more.",
    "**Published recipes** (recipe `native`) show whether a paper's result can be reproduced. They cannot compare "
    "backbones, because authors spent unknown and unequal effort on their settings.",
    "**Equal budgets** (recipe `tuned`) show which backbone is better after the same search, chosen without the test "
    "set. They cannot show what a larger budget or another search space would give.",
)


def build(context: Context) -> Section:
    """One part per table: scores, comparisons, figures, chosen settings and costs."""
    figures: dict[str, Drawn] = {}
    parts = [_one(context, table, figures) for table in context.tuned]
    if not parts:
        return Section()
    about = f"What each kind of table can and cannot show; see {context.doc('tuning.md')}:"
    return Section(paragraphs("## Tuned with equal budgets", about, bullets(ABOUT), *parts), figures)


def _one(context: Context, table: Table, figures: dict[str, Drawn]) -> str:
    title = table.title(context.data.title(table.key.dataset))
    return paragraphs(
        f"### {text.escape(title)}",
        bullets(_facts(context, table)),
        text.table([_row(row) for row in table.rows], ("mAP", "Untuned mAP", "Gain", "rank-1", "Held-out mAP")),
        _conclusion(table),
        _comparisons(table),
        _elsewhere(context, table),
        *_curves(context, table, title, figures),
        *_sensitivity(context, table, title, figures),
        folded(
            "Settings and search space",
            "importance, choices, what was searched, and the command",
            _importances(table),
            _choices(table),
            _space(table),
            _failures(table),
            _command(table),
        ),
    )


def _facts(context: Context, table: Table) -> list[str]:
    """How the table was made."""
    key, search = table.key, table.rows[0].searches[0]
    device = "GPU" if key.device == "cuda" else "CPU"
    lines = [
        f"**mAP, rank-1**: median over studies, with the smallest and the largest, in percent. Each study is a search "
        f"of {key.trials} random trials on top of the recipe {text.escape(table.base)}; its choice was trained on the "
        "whole training set and tested once.",
        "**Untuned mAP**: the recipe as it is, with the same seeds. **Gain**: tuned minus untuned, in points.",
        f"**Held-out mAP**: of the choice, on {search.holdout.fraction:.0%} of the training identities. It is selected "
        "and on fewer people, so do not compare it with test mAP.",
        f"**{device} hours**: of all runs of the row; in brackets what measured images/s predicted, without early "
        "stopping and for training alone.",
    ]
    if key.stopping:
        after = "three quarters of their" if key.train_time else f"{key.stopping[0]} of {key.epochs}"
        lines.append(f"After {after} epochs, a trial continued if it was in the better half of those so far.")
    if key.train_time:
        epochs = (f"{text.escape(row.label)} {row.searches[0].settings.asha.epochs}" for row in table.rows)
        lines.append(f"**Epochs**: as many as fit into {key.train_time} at the measured speed: {', '.join(epochs)}.")
    if len({len(row.searches) for row in table.rows}) > 1:
        lines.append("**Not an equal budget yet**: the backbones have different numbers of studies.")
    if short := [text.escape(row.label) for row in table.rows if row.missing]:
        lines.append(f"**Not an equal budget yet**: trials of {', '.join(short)} are unfinished or failed.")
    if few := [f"{row.points} for {text.escape(row.label)}" for row in table.rows if row.points < key.trials]:
        lines.append(f"**The space has fewer points than the budget**: {', '.join(few)}.")
    if none := [
        text.escape(row.label) for row in table.rows if not row.missing and not all(s.best for s in row.searches)
    ]:
        lines.append(f"**No choice**: in a study of {', '.join(none)}, no trial finished.")
    ids = {trial.run_id for row in table.rows for s in row.searches for trial in s.trials}
    if any((r["data"] or {}).get("generated") for r in context.data.records if r["run_id"] in ids):
        lines.append("**Generated data**: the numbers say nothing about real people.")
    return lines


def _row(row: Tuned) -> dict[str, str]:
    tuned, untuned = row.scores(BEST), row.scores(UNTUNED)
    states, device = row.states(), "GPU" if row.searches[0].spec.device == "cuda" else "CPU"
    chosen = [search.best.value for search in row.searches if search.best and search.best.value is not None]
    words = (FINISHED, STOPPED, DIVERGED, FAILED, RUNNING)
    return {
        "Backbone": text.escape(row.label),
        "mAP": _median(list(tuned.values())),
        "Untuned mAP": _median(list(untuned.values())),
        "Gain": _median(row.gains, signed=True),
        "rank-1": _median(list(row.scores(BEST, "rank-1").values())),
        "Studies": f"{len(tuned)} of {len(row.searches)}",
        "Held-out mAP": _median(chosen),
        "Trials": ", ".join(f"{states[word]} {word}" for word in words if states[word]) or "none yet",
        f"{device} hours": cost.hours(row.seconds)
        + (f" ({cost.hours(row.expected)})" if row.expected is not None else ""),
    }


def _median(values: Sequence[float], *, signed: bool = False) -> str:
    """Median, smallest and largest value, in percent."""
    if not values:
        return "none yet"
    show = (lambda value: text.signed(100 * value)) if signed else text.percent
    middle, ends = show(statistics.median(values)), f" [{show(min(values))}, {show(max(values))}]"
    return middle + (ends if len(values) > 1 else "")


def _pairs(table: Table) -> list[tuple[Tuned, Tuned, StudyTest, float]]:
    """Comparisons of all backbones with complete studies, with p-values corrected by Holm's method."""
    rows = [row for row in table.complete(BEST) if len(row.searches) > 1]
    pairs = [
        (a, b, stats.compare_studies(*(_ordered(row) for row in (a, b)))) for a, b in itertools.combinations(rows, 2)
    ]
    adjusted: Sequence[float] = list(stats.holm([test.p_value for _, _, test in pairs])) if pairs else []
    return [(a, b, test, float(p)) for (a, b, test), p in zip(pairs, adjusted, strict=True)]


def _ordered(row: Tuned) -> list[float]:
    return [value for _, value in sorted(row.scores(BEST).items())]


def _comparisons(table: Table) -> str:
    lines = [
        {
            "First": text.escape(a.label),
            "Second": text.escape(b.label),
            "First minus second": text.signed(100 * test.difference),
            "95 % interval": f"[{text.signed(100 * test.interval[0])}, {text.signed(100 * test.interval[1])}]",
            "p (Holm)": f"{p:.3f}",
        }
        for a, b, test, p in _pairs(table)
    ]
    if not lines:
        return ""
    about = (
        "Differences of test mAP after tuning, in points: a paired t-test over studies, with p-values corrected for "
        "all pairs by Holm's method."
    )
    return paragraphs(about, text.table(lines, ("First minus second", "95 % interval", "p (Holm)")))


def _elsewhere(context: Context, table: Table) -> str:
    """Scores of the choices on other datasets."""
    found: dict[str, dict[str, str]] = {}
    for choice in table.choices():
        if choice.key.dataset != choice.key.trained_on:
            title = text.escape(context.data.title(choice.key.dataset))
            for row in choice.plain():
                found.setdefault(row.label, {})[title] = _median(row.values("mAP"))
    titles = list(dict.fromkeys(title for scores in found.values() for title in scores))
    lines = [
        {"Backbone": text.escape(label), **{title: scores.get(title, text.NOT_APPLICABLE) for title in titles}}
        for label, scores in found.items()
    ]
    about = "mAP of the choices on datasets that they were not trained on, median over studies:"
    return paragraphs(about, text.table(lines, titles)) if lines else ""


def _conclusion(table: Table) -> str:
    """What may be concluded, in a sentence or two."""
    pairs = _pairs(table)
    if not pairs:
        return "**Conclusion**: none yet. A comparison needs two backbones with at least two complete studies each."
    studies, seen = pairs[0][2].studies, [(a, b, test) for a, b, test, p in pairs if p < ALPHA]
    start = f"**Conclusion**: with {table.key.trials} trials and {text.count(studies, 'study')} per backbone, "
    if seen:
        words = "; ".join(
            f"{text.escape((a if test.difference > 0 else b).label)} is better than "
            f"{text.escape((b if test.difference > 0 else a).label)} by {100 * abs(test.difference):.1f} points of mAP"
            for a, b, test in seen
        )
        rest = len(pairs) - len(seen)
        start += words + "." + (f" {text.count(rest, 'other pair')} cannot be distinguished." if rest else "")
    else:
        reach = max(test.interval[1] - test.interval[0] for _, _, test, _ in pairs) / 2
        start += (
            f"no backbone is shown to be better than another. Intervals reach up to {100 * reach:.1f} points to either "
            "side, so smaller differences remain open; more studies narrow them."
        )
    return " ".join(filter(None, (start, _order(table), _lowered(table))))


def _lowered(table: Table) -> str:
    """Which backbones scored higher with the recipe as it is."""
    worse = [text.escape(row.label) for row in table.rows if row.gains and statistics.median(row.gains) < 0]
    if not worse:
        return ""
    return f"The search lowered the median of {', '.join(worse)}, so its budget may be too small."


def _order(table: Table) -> str:
    """Whether tuning changes the order of the backbones."""
    both = [row for row in table.complete(BEST) if row.scores(UNTUNED)]
    if len(both) < 2:
        return ""
    before, after = (
        [row.label for row in sorted(both, key=lambda row: -statistics.median(row.scores(name).values()))]
        for name in (UNTUNED, BEST)
    )
    if before == after:
        return "The order of the medians is the same with and without tuning."
    return (
        f"Tuning changes the order of the medians: from {text.escape(', '.join(before))} to "
        f"{text.escape(', '.join(after))}."
    )


def _curves(context: Context, table: Table, title: str, figures: dict[str, Drawn]) -> list[str]:
    lines = [
        (row.label, row.backbone, *(tuple(map(float, part)) for part in stats.expected_best_of_studies(values)))
        for row in table.rows
        if len(values := row.values()) == len(row.searches) and min(map(len, values)) > 1
    ]
    if not lines:
        return []
    name = file_name("tuned", *_stem(table), "best-of") + ".png"
    figures[name] = context.draw(tuned_plots.best_of, f"{title}: best of n trials", lines, context.looks)
    stopped = any(row.states()[STOPPED] for row in table.rows)
    bound = " A stopped trial counts with its last value, so the curves are lower bounds." if stopped else ""
    return [
        context.image(name, f"{title}: expected held-out mAP of the best of n trials"),
        "*Expected held-out mAP of the best of n trials (Dodge et al. 2019, with the unbiased estimator of Tang et al. "
        f"2020), mean over studies. Bands are 95 % intervals by a jackknife over trials.{bound} Test mAP is not shown: "
        "trials are never scored on the test set.*",
    ]


def _sensitivity(context: Context, table: Table, title: str, figures: dict[str, Drawn]) -> list[str]:
    rows = [(row, rates) for row in table.rows if (rates := row.rates())]
    if not rows:
        return []
    name = file_name("tuned", *_stem(table), "rates") + ".png"
    lines = [(row.label, row.backbone, rates) for row, rates in rows]
    figures[name] = context.draw(tuned_plots.rates, f"{title}: learning rate", lines, context.looks)
    factors = sorted([1.0, *FACTORS])
    shown = [
        {
            "Backbone": text.escape(row.label),
            **{
                f"x {factor:g}": text.percent(rates[factor]) if factor in rates else row.state(row.rate(factor))
                for factor in factors
            },
            "Largest loss": text.signed(100 * (min(rates.values()) - rates[1.0])),
        }
        for row, rates in rows
    ]
    return [
        "Sensitivity to the learning rate: held-out mAP of the first study's choice, with its learning rate times a "
        "factor. These trials came after the choice and did not change it. A diverged one counts as 0.",
        text.table(shown, [f"x {factor:g}" for factor in factors] + ["Largest loss"]),
        _better_rates(rows),
        context.image(name, f"{title}: held-out mAP by learning rate"),
    ]


def _better_rates(rows: Sequence[tuple[Tuned, dict[float, float]]]) -> str:
    """Which backbones the budget did not bring to their best learning rate."""
    best = [(row, max(rates, key=lambda factor: rates[factor]), rates) for row, rates in rows]
    higher = [
        f"{text.escape(row.label)} at x {factor:g} ({text.signed(100 * (rates[factor] - rates[1.0]))} points)"
        for row, factor, rates in best
        if round(100 * (rates[factor] - rates[1.0]), 1) > 0
    ]
    return f"**Higher than the choice**: {', '.join(higher)}. A larger budget may find such a rate." if higher else ""


def _importances(table: Table) -> str:
    found = {row.label: shares for row in table.rows if (shares := importance(row.searches))}
    if not found:
        return ""
    axes = dict.fromkeys(axis for shares in found.values() for axis in shares)
    lines = [
        {
            "Parameter": text.code(axis),
            **{text.escape(label): f"{shares.get(axis, 0):.0%}" for label, shares in found.items()},
        }
        for axis in axes
    ]
    about = "Importance of each parameter for reaching the best tenth of the trials, by PED-ANOVA of Optuna:"
    return paragraphs(about, text.table(lines, [text.escape(label) for label in found]))


def _choices(table: Table) -> str:
    """The chosen point of each study, and the recipe as it is."""
    names = list(table.space.parameters)
    lines = []
    for row in table.rows:
        points = [(str(s.spec.seed + 1), s.best.point) for s in row.searches if s.best]
        untuned = next((final for final in row.searches[0].finals if final.name == UNTUNED), None)
        for study, point in [*points, *([("untuned", untuned.point)] if untuned else [])]:
            shown = {text.code(name): _value(point.get(name)) for name in names}
            lines.append({"Backbone": text.escape(row.label), "Study": study, **shown})
    return paragraphs("Chosen settings:", text.table(lines)) if lines else ""


def _space(table: Table) -> str:
    lines = [
        {"Parameter": text.code(name), "Sets": text.code(p.key), "Values": _range(p)}
        for name, p in table.space.parameters.items()
    ]
    return paragraphs("Searched, the same for every backbone:", text.table(lines))


def _range(parameter: Parameter) -> str:
    """The values of a parameter, and when it has an effect."""
    if parameter.distribution == "choice":
        shown = text.escape(", ".join(map(str, parameter.values)))
    else:
        shown = f"{parameter.low:g} to {parameter.high:g}, {parameter.distribution}"
        shown += ", times the epochs" if parameter.unit else ""
    if isinstance(parameter.active_if, dict):
        conditions = ((name, " or ".join(map(str, values))) for name, values in parameter.active_if.items())
        shown += "".join(f"; if {text.code(name)} is {text.escape(values)}" for name, values in conditions)
    return shown + ("; for backbones that declare it" if parameter.optional else "")


def _failures(table: Table) -> str:
    return bullets(
        [
            f"{text.escape(row.label)}, study {search.spec.seed + 1}, trial {trial.number + 1} "
            f"{trial.state}: {text.escape(trial.reason, limit=200)}"
            for row in table.rows
            for search in row.searches
            for trial in search.trials
            if trial.state in (FAILED, DIVERGED) and trial.reason
        ]
    )


def _command(table: Table) -> str:
    """The command of the table."""
    key, studies = table.key, max(len(row.searches) for row in table.rows)
    words = ["--budget", str(key.trials), "--studies", str(studies), "--space", table.space_word]
    words += [] if key.stopping else ["--stopping", "off"]
    groups = [RunGroup(runs) for row in table.rows if (runs := row.runs(UNTUNED))]
    return commands.of_studies(groups, words)


def _value(value: object) -> str:
    if value is None:
        return text.NOT_APPLICABLE
    return f"{value:.4g}" if isinstance(value, float) else text.escape(value)


def _stem(table: Table) -> tuple[str, ...]:
    key = table.key
    stopping = () if key.stopping else ("off",)
    length, origin = key.train_time or str(key.epochs), (key.origin,) if key.origin else ()
    return key.dataset, key.recipe, table.space_name, str(key.trials), length, *stopping, key.device, *origin
