"""Small records and per-query values for tests of the store and the report."""

from __future__ import annotations

from typing import Any

from harness.records import schema as records
from harness.spec.run_spec import RunSpec

VALUES = {"augmentation": {"image_size": [256, 128]}, "training": {"epochs": 3}}


def spec(backbone: str = "alpha", dataset: str = "market1501", seed: int = 0, **changes: Any) -> RunSpec:
    fields = {"recipe": "unified", "values": VALUES, "device": "cpu", "protocol": "1.0", "torch": "2.14"}
    return RunSpec(backbone=backbone, dataset=dataset, seed=seed, **{**fields, "fingerprint": "f" * 64, **changes})


def evaluation(dataset: str = "market1501", mAP: float = 0.5, **changes: Any) -> dict[str, Any]:
    ranks = {"rank-1": mAP + 0.1, "rank-5": mAP + 0.2, "rank-10": mAP + 0.3}
    row = {
        "dataset": dataset,
        "trained": True,
        "flip": False,
        "rerank": False,
        "metric": "cosine",
        "mAP": mAP,
        "mINP": mAP / 2,
        **ranks,
        "cmc": [mAP + 0.1] * 4 + [mAP + 0.2] * 5 + [mAP + 0.3],
        "n_query": 12,
        "n_valid": 12,
        "n_gallery": 40,
        "n_junk": 3,
        "tied_queries": 0,
        "interval": {"mAP": [mAP - 0.04, mAP + 0.04], "rank-1": [mAP, mAP + 0.15]},
        "per_query": None,
    }
    return {**row, **changes}


def ok(run: RunSpec, *evaluations: dict[str, Any], source: str = "trained", **efficiency: Any) -> dict[str, Any]:
    """Returns the record of a finished run."""
    record: dict[str, Any] = dict(records.new(run, source=source))
    numbers = {"parameters": 25_000_000, "parameters_inference": 23_500_000, "flops": 4_100_000_000}
    numbers |= {"inference_images_per_second": 120.0, "batch_size": 64, "precision": "fp32", "image_size": [256, 128]}
    record |= {
        "status": "ok",
        "stage": "record",
        "error": None,
        "evaluations": list(evaluations or [evaluation(run.dataset)]),
        "efficiency": {**numbers, "device": run.device, "peak_memory_bytes": 3 * 2**30, **efficiency},
        "environment": {
            "python": "3.11.9",
            "torch": "2.14.1",
            "cpu": "Some CPU",
            "git_commit": "abc",
            "git_dirty": False,
        },
        "timing": {
            "started": "2025-01-01T00:00:00+00:00",
            "ended": None,
            "seconds": {"train": 60.0, "evaluate": 2.5},
        },
    }
    return record


def failed(
    run: RunSpec, status: str = "oom", message: str = "CUDA out of memory", stage: str = "train"
) -> dict[str, Any]:
    error = {"type": "OutOfMemoryError", "message": message, "log_tail": "last line"}
    return {**records.new(run), "status": status, "stage": stage, "error": error}


def per_query(values: list[float], identities: int = 4, offset: int = 0) -> list[dict[str, Any]]:
    """Returns one row per query; `identities` people alternate."""
    return [
        {
            "query": i + offset,
            "pid": i % identities,
            "camid": i % 2,
            "AP": value,
            "INP": value / 2,
            "first_match_rank": 1 if value > 0.5 else 3,
            "positives": 4,
        }
        for i, value in enumerate(values)
    ]
