"""Scores a module on the test split of a dataset: features, ranking, intervals, and the rows of the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from harness import metrics, stats
from harness.contracts import PROTOCOLS, EvaluationRule, Item
from harness.data.loader import EvaluationData
from harness.errors import unknown
from harness.spec.recipe import Evaluation
from harness.system.device import precision as choose

SHOWN_RANKS = (1, 5, 10)

Emit = Callable[..., None]
LoadItems = Callable[[Sequence[Item]], EvaluationData]


@dataclass(frozen=True)
class Features:
    """Test-time features of a split, [N, D], in item order.

    Attributes:
        plain: features as the module returns them.
        flipped: mean of the features of each image and its mirror image; None without flip test.
    """

    plain: torch.Tensor
    flipped: torch.Tensor | None


@dataclass(frozen=True)
class Scored:
    """One row of the record's `evaluations`, and the per-query rows behind it."""

    row: dict[str, Any]
    per_query: list[dict[str, Any]]
    features: tuple[torch.Tensor, torch.Tensor] | None = None


def extract(module: nn.Module, data: EvaluationData, device: torch.device, *, flip: bool, emit: Emit) -> Features:
    """Extracts the features of a split in evaluation mode; `flip` adds those of the flip test."""
    plain: list[torch.Tensor] = []
    flipped: list[torch.Tensor] = []
    done, started, shown = 0, time.monotonic(), time.monotonic()
    for output, mean in features_by_batch(module, data, device, flip=flip):
        plain.append(output)
        if mean is not None:
            flipped.append(mean)
        done += len(output)
        if (now := time.monotonic()) - shown > 1.0:
            shown, rate = now, done / (now - started)
            left = (len(data.items) - done) / rate
            emit("progress", stage="evaluate", images_per_second=rate, seconds_left=left)
    return Features(torch.cat(plain), torch.cat(flipped) if flip else None)


@torch.inference_mode()
def features_by_batch(
    module: nn.Module, data: EvaluationData, device: torch.device, *, flip: bool, precision: str = "fp32"
) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Yields the features [B, D] of each batch as float32, and their mean with those of the mirror images, or None.

    Every feature of the harness is computed here: those that are scored and those that `embed` writes.
    """
    module.eval()
    dtype = choose(precision, device)
    for batch in data:
        images = batch.images.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            plain = module(images, batch.camera_ids).float()
            mirrored = module(images.flip(-1), batch.camera_ids).float() if flip else None
        yield plain, None if mirrored is None else (plain + mirrored) / 2


def score_module(
    module: nn.Module,
    query: Sequence[Item],
    gallery: Sequence[Item],
    load: LoadItems,
    *,
    dataset: str,
    device: torch.device,
    settings: Evaluation,
    protocol: str = "standard",
    trained: bool = True,
    flip: bool = True,
    emit: Emit,
) -> list[Scored]:
    """Scores a module on one dataset; flip test and re-ranking are separate rows.

    Args:
        module: the backbone.
        query: query items.
        gallery: gallery items.
        load: creates the evaluation batches of a sequence of items.
        dataset: name for the rows.
        device: device of the module.
        settings: the evaluation part of the recipe.
        protocol: evaluation rule of the dataset card; a rule without re-ranking gives no re-ranked row.
        trained: False for the module before training.
        flip: False omits the flip row, regardless of the settings.
        emit: receives progress events.
    """
    flip = flip and settings.flip and trained
    queries = extract(module, load(query), device, flip=flip, emit=emit)
    galleries = extract(module, load(gallery), device, flip=flip, emit=emit)
    pairs = [(False, queries.plain, galleries.plain)]
    if queries.flipped is not None and galleries.flipped is not None:
        pairs.append((True, queries.flipped, galleries.flipped))
    return score_variants(
        pairs, query, gallery, dataset=dataset, settings=settings, protocol=protocol, trained=trained, emit=emit
    )


def score_variants(
    pairs: Sequence[tuple[bool, Any, Any]],
    query: Sequence[Item],
    gallery: Sequence[Item],
    *,
    dataset: str,
    settings: Evaluation,
    protocol: str = "standard",
    trained: bool = True,
    emit: Emit,
) -> list[Scored]:
    """Ranks features [N, D] of both splits, plain and, if set in the recipe, re-ranked.

    Args:
        pairs: (whether they are flip-averaged, query features, gallery features).
        query: query items; the other arguments are those of `score_module`.
    """
    rows = []
    if (rerank_too := settings.rerank and trained) and not rule_of(protocol).reranks:
        emit("warning", text=f"{dataset} uses the protocol {protocol}, which has no re-ranking; this row is left out.")
        rerank_too = False
    for flipped, q, g in pairs:
        for rerank in (False, True) if rerank_too else (False,):
            row = {"dataset": dataset, "trained": trained, "flip": flipped, "rerank": rerank}
            scored = score_features(q, g, query, gallery, row, settings, protocol)
            rows.append(replace(scored, features=(q, g)))
    return rows


def score_features(
    query_features: Any,
    gallery_features: Any,
    query: Sequence[Item],
    gallery: Sequence[Item],
    row: dict[str, Any],
    settings: Evaluation,
    protocol: str = "standard",
) -> Scored:
    """Ranks features [N, D] of both splits under the protocol and completes the row.

    Raises:
        UsageError: unknown protocol.
    """
    score: Callable[..., metrics.Ranking] = getattr(metrics, rule_of(protocol).scorer)
    pids, camids = _labels(query)
    gallery_pids, gallery_camids = _labels(gallery)
    labels = (pids, gallery_pids, camids, gallery_camids)
    length = max(settings.max_rank, *SHOWN_RANKS)  # the record keeps the first `max_rank` ranks of the curve
    if row["rerank"]:
        distances = metrics.rerank(query_features, gallery_features, metric=settings.metric)
        result = metrics.evaluate_distances(distances, *labels, max_rank=length)
    else:
        result = score(query_features, gallery_features, *labels, max_rank=length, metric=settings.metric)
    valid, groups = result.valid, pids[result.valid]
    per_query = {"mAP": result.average_precision[valid], "rank-1": result.first_hit[valid]}
    complete = {
        **row,
        "metric": settings.metric,
        "protocol": protocol,
        "mAP": float(result.mAP),
        "mINP": float(result.mINP),
        **{f"rank-{k}": result.rank(k) for k in SHOWN_RANKS},
        "cmc": [round(float(v), 6) for v in result.cmc[: settings.max_rank]],
        "n_query": result.n_query,
        "n_valid": result.n_valid,
        "n_gallery": len(gallery),
        "n_junk": result.n_junk,
        "tied_queries": result.tied_queries,
        "interval": _intervals(per_query, groups),
    }
    return Scored(complete, _per_query(pids, camids, result))


def rule_of(protocol: str) -> EvaluationRule:
    """Looks up an evaluation rule by name.

    Raises:
        UsageError: unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    return PROTOCOLS[protocol]


def _intervals(values: dict[str, np.ndarray], groups: np.ndarray) -> dict[str, list[float]]:
    """95 % bootstrap intervals over the identities of the queries; none for a single identity."""
    bounds = {name: stats.bootstrap_interval(scores, groups) for name, scores in values.items()}
    return {name: list(pair) for name, pair in bounds.items() if np.isfinite(pair).all()}


def _labels(items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([i.pid for i in items], dtype=np.int64), np.array([i.camid for i in items], dtype=np.int64)


def _per_query(pids: np.ndarray, camids: np.ndarray, result: metrics.Ranking) -> list[dict[str, Any]]:
    """Per-query values of a row, from which metrics and tests can be computed later without a GPU."""
    columns = {
        "query": range(len(pids)),
        "pid": pids.tolist(),
        "camid": camids.tolist(),
        "AP": result.average_precision.tolist(),
        "INP": result.inverse_negative_penalty.tolist(),
        "first_match_rank": result.first_match_rank.tolist(),
        "positives": result.n_positives.tolist(),
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
