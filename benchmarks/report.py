"""Speed and memory of the listing, the lookup and the report over many records.

    python benchmarks/report.py [--records 10000] [--backbones 8] [--keep DIR]

Prints one line a step. The numbers of the records are drawn, so nothing here says anything about a backbone.
"""

from __future__ import annotations

import argparse
import itertools
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.process import process_memory
from harness import record as records
from harness import store
from harness.registry import REPOSITORY
from harness.spec import RunSpec

DATASETS = ("market1501", "dukemtmc", "msmt17", "cuhk03-detected", "cuhk03-labeled", "occluded-duke", "synthetic")
RECIPES = ("unified", "native")
PER_QUERY_SEEDS = 3
QUERIES, IDENTITIES = 3368, 750
"""Market-1501's; per-query values are written for the first seeds of two tables."""


def populate(results: Path, number: int, backbones: int) -> None:
    """Writes drawn records: a few fail, some carry per-query values."""
    draw = random.Random(0)
    cells = list(itertools.product(DATASETS, RECIPES, range(backbones)))
    for i in range(number):
        seed, (dataset, recipe, backbone) = i // len(cells), cells[i % len(cells)]
        values = {"augmentation": {"image_size": [256, 128]}, "training": {"epochs": 120}}
        spec = RunSpec(
            backbone=f"timm:model_{backbone:02}",
            dataset=dataset,
            recipe=recipe,
            values=values,
            seed=seed,
            device="cuda",
            protocol="1.0",
            torch="2.14",
            fingerprint="0" * 64,
        )
        listed = recipe == "unified" and dataset in DATASETS[:2] and seed < PER_QUERY_SEEDS
        record = _drawn(spec, draw, backbone, listed)
        folder = store.folder_of(results, record)
        folder.mkdir(parents=True)
        (folder / store.RECORD).write_text(store.render(record), encoding="utf-8")
        if listed and record["status"] == "ok":
            lines = [f"{q},{q % IDENTITIES},{q % 6},{draw.random():.6f},0.5,1,9\n" for q in range(QUERIES)]
            header = ",".join(records.PER_QUERY_COLUMNS) + "\n"
            (folder / "per_query.csv").write_text(header + "".join(lines), encoding="utf-8")


def _drawn(spec: RunSpec, draw: random.Random, backbone: int, listed: bool) -> dict[str, Any]:
    record: dict[str, Any] = dict(records.new(spec))
    if draw.random() < 0.02:
        error = {"type": "OutOfMemoryError", "message": "CUDA out of memory.", "log_tail": "line\n" * 40}
        return {**record, "status": "oom", "stage": "train", "error": error}
    ways = itertools.product((False,), (False, True))
    rows = [_evaluation(spec.dataset, draw, flip=flip, rerank=rerank) for rerank, flip in ways]
    rows[0]["per_query"] = "per_query.csv" if listed else None
    efficiency = {
        "parameters": 10**6 * (backbone + 5),
        "parameters_inference": 9 * 10**5 * (backbone + 5),
        "flops": 10**8 * (backbone + 5),
        "inference_images_per_second": 4000 / (backbone + 5) * draw.uniform(0.9, 1.1),
        "train_images_per_second": 900 / (backbone + 5),
        "peak_memory_bytes": 2**30,
        "batch_size": 64,
        "precision": "fp16",
        "device": "cuda",
    }
    environment = {"python": "3.11", "torch": "2.14", "gpu": "Some GPU", "git_commit": "0" * 40, "git_dirty": False}
    done = {"status": "ok", "stage": "record", "error": None, "evaluations": rows}
    return {**record, **done, "efficiency": efficiency, "environment": environment}


def _evaluation(dataset: str, draw: random.Random, **way: bool) -> dict[str, Any]:
    mAP = draw.uniform(0.5, 0.9)
    cmc = [round(mAP + (1 - mAP) * (1 - 0.8 ** (k + 1)), 6) for k in range(50)]
    return {
        "dataset": dataset,
        "trained": True,
        **way,
        "metric": "cosine",
        "mAP": mAP,
        "mINP": mAP / 2,
        **{f"rank-{k}": cmc[k - 1] for k in (1, 5, 10)},
        "cmc": cmc,
        "n_query": QUERIES,
        "n_valid": QUERIES,
        "n_gallery": 15913,
        "n_junk": 0,
        "tied_queries": 0,
        "interval": {"mAP": [mAP - 0.01, mAP + 0.01], "rank-1": [cmc[0] - 0.01, cmc[0]]},
        "per_query": None,
    }


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Runs the work and prints wall clock seconds and the peak resident memory of the process so far."""
    started = time.perf_counter()
    result = work()
    peak = process_memory("VmHWM") / 2**20
    print(f"{what:<44} {time.perf_counter() - started:7.2f} s   peak {peak:6.0f} MiB", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--backbones", type=int, default=8, help="of each of 14 tables")
    parser.add_argument("--keep", type=Path, help="write here and keep it")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-report-") as place:
        base = chosen.keep or Path(place)
        results, page = base / "results", base / "BENCHMARKS.md"
        timed(f"write {chosen.records:,} records", lambda: populate(results, chosen.records, chosen.backbones))
        timed("index, first call", lambda: store.index(results))
        entries = timed("index, from its cache", lambda: store.index(results))
        timed("find 100 by run id", lambda: [store.find(results, run_id) for run_id in list(entries)[:100]])

        words = [sys.executable, "-m", "harness", "status", "--results", str(results)]
        timed("harness status", lambda: subprocess.run(words, cwd=REPOSITORY, stdout=subprocess.DEVNULL, check=True))

        from harness import report

        timed("report", lambda: report.write(results, page))
        stale = timed("report --check", lambda: report.check(results, page))
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        print(f"largest process that draws: {largest:,.0f} MiB, most of it shared with this one")
        print(f"{len(entries):,} records, page {page.stat().st_size / 1024:,.0f} KiB, stale files: {len(stale)}")


if __name__ == "__main__":
    main()
