"""What an audit is, what it returns, and how several are run on one subject."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import audits, stats
from harness.errors import HarnessError
from harness.system.redact import mask, readable

if TYPE_CHECKING:
    from harness.audits.subject import Subject

Setting = Mapping[str, str | int | float]
"""Under what a value was measured: `{"cameras": "off"}`, `{"kind": "fog", "level": 3}`."""


@dataclass(frozen=True)
class Row:
    """One measured value.

    Rows of the same name whose settings have the same two keys are a matrix, which the report draws.

    Attributes:
        name: what is measured, such as `mAP`.
        setting: under what.
        value: the value; fractions, not percent. NaN if it is not defined.
        interval: 95 % interval by a bootstrap over identities; `None` where there is none.
        queries: number of queries behind the value; `None` where it is not about queries.
    """

    name: str
    setting: Setting
    value: float
    interval: tuple[float, float] | None = None
    queries: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the row as the record keeps it; what is not defined is `None`."""
        ends = self.interval if self.interval and all(map(math.isfinite, self.interval)) else None
        return {
            "name": self.name,
            "setting": dict(self.setting),
            "value": float(self.value) if math.isfinite(self.value) else None,
            "interval": [float(end) for end in ends] if ends else None,
            "queries": self.queries,
        }


Found = Iterable[Row | str]
"""Rows, and sentences that the reader should know, in the order of the page."""


@dataclass(frozen=True)
class Audit:
    """An audit.

    Attributes:
        run: looks at a subject; returns rows and sentences.
        about: what the audit asks, in one sentence.
        source: where its names and definitions come from.
        needs_network: whether it computes features itself, so that stored features are not enough.
        default: whether it runs if no audit is named. An audit of many passes over the images should not.
    """

    run: Callable[[Subject], Found]
    about: str
    source: str
    needs_network: bool = False
    default: bool = True


def mean_row(name: str, setting: Setting, values: Any, groups: Any, *, resamples: int = stats.RESAMPLES) -> Row:
    """Returns the mean of per-query values with its interval over identities.

    Args:
        name: what is measured.
        setting: under what.
        values: value of each query, NaN for a query without one, [n].
        groups: identity of each query, [n].
        resamples: number of bootstrap samples.
    """
    scores = np.asarray(values, dtype=np.float64)
    count = int((~np.isnan(scores)).sum())
    if not count:
        return Row(name, setting, math.nan, queries=0)
    bounds = stats.bootstrap_interval(scores, groups, resamples=resamples)
    return Row(name, setting, float(np.nanmean(scores)), bounds, count)


def run(checks: Sequence[str], subject: Subject) -> list[dict[str, Any]]:
    """Runs audits on a subject; returns one block of the record per audit.

    An audit that fails gives a block with its error, so that it does not cost the scores of a run.
    """
    blocks = []
    for done, name in enumerate(checks):
        subject.emit("progress", stage="audit", audit=name, audits_done=done, audits=len(checks))
        blocks.append(_block(name, audits.load(name), subject))
    return blocks


def _block(name: str, audit: Audit, subject: Subject) -> dict[str, Any]:
    block = {"check": name, "dataset": subject.dataset, "about": audit.about, "source": audit.source}
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    error = None
    if audit.needs_network and subject.network is None:
        notes.append("This audit needs the network and its images; stored features are not enough.")
    else:
        try:
            for one in audit.run(subject):
                notes.append(one) if isinstance(one, str) else rows.append(one.to_dict())
        except Exception as problem:  # the other audits and the scores do not depend on it
            text = str(problem) if isinstance(problem, HarnessError) else f"{type(problem).__name__}: {problem}"
            error = readable(mask(text))
            subject.emit("warning", text=f"The audit {name} failed: {error}")
    return {**block, "rows": rows, "notes": notes, "error": error}


def merge(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the blocks of both, sorted by dataset and check; a new block replaces the old one of its audit."""
    found = {(block["dataset"], block["check"]): dict(block) for block in (*old, *new)}
    return [found[key] for key in sorted(found)]
