"""Scores: recomputed from the values of each query, which must be possible values themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, RecordError
from harness.records import per_query, store
from harness.reporting.others.findings import Finding, Subject, doubtful, unchecked, wrong

if TYPE_CHECKING:
    import numpy as np

ROUNDING = 2e-6
"""Largest difference by rounding: values of queries have nine digits, and a CMC curve has six decimals."""

INTERVAL = 1e-4
"""Largest difference of an end of an interval, which is computed from rounded values."""

SINGLE_SHOT = "cuhk03-classic"
"""The protocol whose values of a query are means over drawn galleries."""

Values = Mapping[str, Any]


def check(subject: Subject) -> Iterator[Finding]:
    """Every evaluation: file, counts, values, means, curve; of the plain test also the intervals, which take time."""
    without, plain = [], store.plain(subject.record)
    yield from _listed(subject)
    for evaluation in subject.record["evaluations"]:
        test = named(subject.record, evaluation)
        if not evaluation.get("per_query"):
            if evaluation is plain:
                yield doubtful(f"{test}: its values per query are missing, so its scores cannot be recomputed.")
            without.append(test)
            continue
        try:
            rows = per_query.read(subject.folder, evaluation["per_query"])
        except RecordError as error:
            yield wrong(f"{test}: {str(error).replace(f'{subject.folder}/', '')}")
            continue
        found = list(_queries(subject.record, evaluation, rows)) or list(_evaluation(evaluation, rows))
        if plain is not None and evaluation is plain and not found:
            found = list(_intervals(evaluation, rows))
        yield from (Finding(weight, f"{test}: {words}") for weight, words in found)
    if without:
        yield unchecked(f"There are no values per query of: {', '.join(without)}.")
    if any(evaluation.get("protocol") == SINGLE_SHOT for evaluation in subject.record["evaluations"]):
        yield unchecked(f"rank-1, rank-5, rank-10 and CMC curve under {SINGLE_SHOT}, because galleries are drawn.")
    if subject.record.get("audits"):
        yield unchecked("The audits, because a record has no values of their queries.")


def named(record: Values, evaluation: Values) -> str:
    """Name of an evaluation: `plain`, `flip`, `before training on msmt17`, ..."""
    words = [word for word, on in (("flip", evaluation["flip"]), ("re-ranking", evaluation["rerank"])) if on]
    name = " + ".join(words) or "plain" if evaluation["trained"] else "before training"
    other = evaluation["dataset"] != record["spec"]["dataset"]
    return f"{name} on {evaluation['dataset']}" if other else name


def _listed(subject: Subject) -> Iterator[Finding]:
    """Which tests there are: each once, of a dataset of the spec, under the protocol of its card."""
    record, spec = subject.record, subject.record["spec"]
    datasets = {spec["dataset"], *(name for name, _ in spec.get("evaluate_on") or ())}
    seen: set[str] = set()
    for evaluation in record["evaluations"]:
        name, test = evaluation["dataset"], named(record, evaluation)
        if test in seen:
            yield wrong(f"{test}: the record has two results of this test.")
        seen.add(test)
        if name not in datasets:
            yield wrong(f"{test}: the spec does not score {name}.")
        card, protocol = subject.datasets.get(name), evaluation.get("protocol")
        if card and protocol and protocol != card.protocol:
            yield doubtful(f"{test}: the protocol is {protocol}, but the card of {name} has {card.protocol}.")


def _queries(record: Values, evaluation: Values, rows: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """The queries of the file: all of them, of the identities of the split, with values if they have matches."""
    import numpy as np

    number = len(rows["query"])
    if (rows["query"] != np.arange(number)).any():
        yield wrong("the queries of the file are not numbered from 0 in order.")
    missing = (np.isnan(rows["AP"]), np.isnan(rows["INP"]), rows["positives"] < 1)
    if unlike := int((np.any(missing, axis=0) != np.all(missing, axis=0)).sum()):
        yield wrong(f"{unlike:,} of {number:,} queries have matches without values, or values without matches.")
    own = evaluation["dataset"] == record["spec"]["dataset"]
    block = record["data"] if own else (record["data"].get("evaluated") or {}).get(evaluation["dataset"]) or {}
    stated = ((block.get("splits") or {}).get("query") or {}).get("identities")
    found = len(np.unique(rows["pid"]))
    if stated is not None and stated != found:
        yield wrong(f"the file has {found:,} identities, but the query split has {stated:,}.")


def _evaluation(evaluation: Values, rows: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    import numpy as np

    ap, inp, first = rows["AP"], rows["INP"], rows["first_match_rank"]
    valid = ~np.isnan(ap)
    counts = (("n_query", len(ap)), ("n_valid", int(valid.sum())))
    differ = [f"{name} is {evaluation[name]:,}, but the file has {n:,}" for name, n in counts if evaluation[name] != n]
    if differ:
        yield wrong(f"{'; '.join(differ)}.")
        return
    if not valid.any():
        yield wrong("no query has a match, so there can be no scores.")
        return
    single_shot = evaluation.get("protocol") == SINGLE_SHOT
    if ((ap[valid] > 1) | (ap[valid] < 0) | (inp[valid] > 1) | (inp[valid] < 0)).any():
        yield wrong("an AP or INP is not between 0 and 1.")
    if not single_shot and (number := impossible(rows, valid, evaluation["n_gallery"])):
        yield wrong(f"{number:,} of {valid.sum():,} queries have an AP or INP that their ranks do not allow.")
    means = {"mAP": ap[valid].mean(), "mINP": inp[valid].mean()}
    if not single_shot:
        means |= {f"rank-{k}": (first[valid] <= k).mean() for k in (1, 5, 10)}
        means |= {f"cmc[{k}]": (first[valid] <= k + 1).mean() for k in range(len(evaluation["cmc"]))}
    stated = {**evaluation, **{f"cmc[{k}]": value for k, value in enumerate(evaluation["cmc"])}}
    for name, value in means.items():
        if stated[name] is not None and abs(stated[name] - value) > ROUNDING:
            yield wrong(f"{name} is {stated[name]:.6f}, but the values of its queries give {value:.6f}.")
            return


def impossible(rows: Mapping[str, np.ndarray], valid: np.ndarray, gallery: int) -> int:
    """Number of queries whose values contradict each other.

    With the first of P matches at rank r, the other matches follow at once in the best case. So AP lies between
    1 / (P r) and the mean of i / (r + i - 1) for i = 1 .. P, and INP is at most P / (r + P - 1). All have to fit into
    the gallery.
    """
    from scipy.special import digamma

    ap, inp = rows["AP"][valid], rows["INP"][valid]
    first, matches = rows["first_match_rank"][valid].astype(float), rows["positives"][valid].astype(float)
    if (first < 1).any() or (matches < 1).any():
        return int(((first < 1) | (matches < 1)).sum())
    before = first - 1  # i / (r + i - 1) = 1 - (r - 1) / (r + i - 1), and digamma sums the reciprocals
    most = 1 - before * (digamma(before + matches + 1) - digamma(before + 1)) / matches
    bad = (ap > most + ROUNDING) | (ap < 1 / (matches * first) - ROUNDING)
    bad |= first + matches - 1 > gallery
    bad |= inp > matches / (before + matches) + ROUNDING
    return int(bad.sum())


def _intervals(evaluation: Values, rows: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    import numpy as np

    from harness import stats

    valid = ~np.isnan(rows["AP"])
    scores = {"mAP": rows["AP"][valid]} if valid.any() else {}
    if valid.any() and evaluation.get("protocol") != SINGLE_SHOT:
        scores["rank-1"] = (rows["first_match_rank"][valid] == 1).astype(float)
    for name, values in scores.items():
        stated = evaluation["interval"].get(name)
        if not stated and len(np.unique(rows["pid"][valid])) > 1:
            yield doubtful(f"the interval of {name} is missing.")
        if not stated:
            continue
        try:
            found = stats.bootstrap_interval(values, rows["pid"][valid])
        except HarnessError as error:
            yield doubtful(f"the interval of {name} cannot be computed again: {error}")
            continue
        if max(abs(a - b) for a, b in zip(stated, found, strict=True)) > INTERVAL:
            shown, again = (f"[{low:.4f}, {high:.4f}]" for low, high in (stated, found))
            yield doubtful(
                f"the interval of {name} is {shown}, but this version computes {again}; another version computed it."
            )
