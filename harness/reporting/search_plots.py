"""Figures of a search: held-out mAP over two parameters, and the curves of the trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.figures import style

if TYPE_CHECKING:
    from harness.tuning.space import Parameter
    from harness.tuning.state import Search, Trial

WIDTH = 0.15
"""Width of the smoothing kernel, as a fraction of an axis."""

NAMED, FREE, STOPPED = "#D55E00", "#0072B2", "#9a9a9a"


def common_epoch(search: Search) -> int:
    """Returns the last epoch that at least half of the trials reached; 0 if there is none."""
    reached = sorted((trial.epochs for trial in search.trials), reverse=True)
    epoch = reached[(len(reached) - 1) // 2] if reached else 0
    return next((e for e in range(epoch, 0, -1) if 2 * sum(e in t.curve for t in search.trials) >= len(reached)), 0)


def at_epoch(search: Search, epoch: int) -> list[tuple[Trial, float]]:
    """Trials with a score after an epoch, and that score."""
    return [(trial, trial.curve[epoch]) for trial in search.trials if epoch in trial.curve]


def axes_of(search: Search) -> list[str]:
    """The first two parameters whose values are ordered."""
    return [name for name, p in search.space.parameters.items() if p.distribution != "choice"][:2]


def contour(title: str, search: Search) -> bytes:
    """Draws held-out mAP over two parameters: trials as points on a kernel mean; white where no trial is near."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patheffects import withStroke

    epoch = common_epoch(search)
    x_name, y_name = axes_of(search)
    scored = at_epoch(search, epoch)
    places = [search.space.positions(trial.point) for trial, _ in scored]
    xs, ys = (np.array([place[name] for place in places]) for name in (x_name, y_name))
    values = np.array([100 * value for _, value in scored])
    low, high = float(values.min()), max(float(values.max()), float(values.min()) + 0.1)
    norm = Normalize(low, high)
    with style.style():
        made, (axes,) = style.figure(6.4, 4.6, title, right=1.25)
        side = np.linspace(0, 1, 101)
        mean = smooth(xs, ys, values, side)
        axes.contourf(side, side, mean, levels=np.linspace(low, high, 11), cmap="viridis", norm=norm)
        for marker, named, size in (("o", False, 34), ("D", True, 46)):
            chosen = np.array([bool(trial.name) == named for trial, _ in scored])
            if chosen.any():
                axes.scatter(
                    xs[chosen],
                    ys[chosen],
                    c=values[chosen],
                    s=size,
                    marker=marker,
                    cmap="viridis",
                    norm=norm,
                    edgecolors="white" if not named else "black",
                    linewidths=1.0,
                    zorder=3,
                )
        _axis(axes.xaxis, search.space.parameters[x_name], x_name)
        _axis(axes.yaxis, search.space.parameters[y_name], y_name)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        bar = made.add_axes((0.84, 0.16, 0.025, 0.66))
        made.colorbar(ScalarMappable(norm, "viridis"), cax=bar, label=f"held-out mAP after epoch {epoch} (%)")
        marked = [
            (float(x), float(y), trial.name or "best", "#222222")
            for (trial, _), x, y in zip(scored, xs, ys, strict=True)
            if trial.name or trial is search.best
        ]
        style.label_points(axes, marked)
        for words in axes.texts:
            words.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        drawn = [title, epoch, x_name, y_name, xs.tolist(), ys.tolist(), values.tolist(), [m[2] for m in marked]]
        return style.png(made, drawn)


def smooth(xs: np.ndarray, ys: np.ndarray, values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Gaussian kernel mean on a square grid [y, x]; masked beyond 1.5 kernel widths from every point."""
    square = (side[None, :, None] - xs) ** 2 + (side[:, None, None] - ys) ** 2
    weights = np.exp(-square / (2 * WIDTH**2))
    total = weights.sum(-1)
    return np.ma.masked_where(square.min(-1) > (1.5 * WIDTH) ** 2, (weights * values).sum(-1) / total)


def _axis(axis: Any, parameter: Parameter, name: str) -> None:
    """Sets ticks at round values; a possible zero has its own tick at the low end."""
    low, high = parameter.low, parameter.high
    if parameter.distribution == "log-uniform":
        ticks = [d * 10.0**e for e in range(-9, 10) for d in (1, 2, 5) if low <= d * 10.0**e <= high]
        ticks = ticks if len(ticks) <= 8 else [t for t in ticks if f"{t:e}".startswith("1")]
        ticks = [0.0] * (parameter.zero_probability > 0) + ticks
    else:
        ticks = [low + k * (high - low) / 4 for k in range(5)]
    axis.set_ticks([parameter.position(t) for t in ticks], [f"{t:g}" for t in ticks])
    axis.set_label_text(style.plain(f"{name} ({parameter.key})", 60))


def curves(title: str, search: Search) -> bytes:
    """Draws held-out mAP by epoch: unfinished trials end in a cross; named points and the best trial have labels."""
    best = search.best
    order = sorted(search.trials, key=lambda trial: (trial is best, bool(trial.name), trial.state == "finished"))
    shown = [trial for trial in order if trial.curve]
    labels = {trial.number: _label(trial, best) for trial in shown}
    with style.style():
        right = style.room([name for name in labels.values() if name] or ["best"])
        made, (axes,) = style.figure(5.8 + right, 4.2, title, right=right)
        ends = []
        for trial in shown:
            epochs, values = zip(*sorted((e, 100 * v) for e, v in trial.curve.items()), strict=True)
            stopped, name = trial.state != "finished", labels[trial.number]
            colour = NAMED if trial.name else STOPPED if stopped else FREE
            axes.plot(epochs, values, color=colour, linewidth=2.0 if name else 1.0, alpha=1.0 if name else 0.7)
            axes.plot(epochs[-1], values[-1], marker="x" if stopped else "o", markersize=5, color=colour)
            if name:
                ends.append((epochs[-1], values[-1], name, colour))
        for rung in search.settings.asha.rungs:
            axes.axvline(rung, color="#bbbbbb", linewidth=0.8, linestyle=":")
        highest = search.settings.asha.epochs
        axes.set_xlim(min(e for t in shown for e in t.curve) - 0.02 * highest, 1.02 * highest)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylabel("held-out mAP (%)")
        axes.autoscale(axis="y")
        style.label_line_ends(axes, ends)
        return style.png(made, [title, [[labels[t.number], t.state, sorted(t.curve.items())] for t in shown]])


def _label(trial: Trial, best: Trial | None) -> str:
    words: Sequence[str] = [word for word in (trial.name, "best" if trial is best else "") if word]
    return ", ".join(words)
