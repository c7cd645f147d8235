"""Time and memory of listing, lookup, plan and report with many records.

    python benchmarks/report.py [--records 10000] [--backbones 8] [--seeds 7] [--keep DIR]

It prints one line per step. Commands run in their own processes and report their peak memory. The numbers in the
records are random and say nothing about any backbone.
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
from harness.records import per_query, store
from harness.records import schema as records
from harness.spec.run_spec import RunSpec
from harness.system.paths import REPOSITORY

QUERIES = {
    "market1501": (3368, 750),
    "dukemtmc": (2228, 702),
    "msmt17": (11659, 3060),
    "cuhk03-detected": (1400, 700),
    "cuhk03-labeled": (1400, 700),
    "occluded-duke": (2210, 519),
    "synthetic": (1000, 250),
}
"""Numbers of queries and of their identities for each dataset; those of `synthetic` are arbitrary."""

RECIPES = ("unified", "native")


def populate(results: Path, number: int, backbones: int, per_query_seeds: int) -> None:
    """Writes random records. A few are failed runs; those of the first seeds have per-query values."""
    draw = random.Random(0)
    cells = list(itertools.product(QUERIES, RECIPES, range(backbones)))
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
        listed = seed < per_query_seeds
        record = _drawn(spec, draw, backbone, listed)
        folder = store.folder_of(results, record)
        folder.mkdir(parents=True)
        (folder / store.RECORD).write_text(store.render(record), encoding="utf-8")
        if listed and record["status"] == "ok":
            (folder / "per_query.csv").write_text(_per_query(*QUERIES[dataset], draw), encoding="utf-8")


def _per_query(number: int, identities: int, draw: random.Random) -> str:
    lines = [f"{q},{q % identities},{q % 6},{draw.random():.16f},{draw.random():.16f},1,9\n" for q in range(number)]
    return ",".join(per_query.COLUMNS) + "\n" + "".join(lines)


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
        "n_query": QUERIES[dataset][0],
        "n_valid": QUERIES[dataset][0],
        "n_gallery": 15913,
        "n_junk": 0,
        "tied_queries": 0,
        "interval": {"mAP": [mAP - 0.01, mAP + 0.01], "rank-1": [cmc[0] - 0.01, cmc[0]]},
        "per_query": None,
    }


def timed(what: str, work: Callable[[], Any]) -> Any:
    """Runs a function and prints its wall-clock time and the peak resident memory of the process so far."""
    started = time.perf_counter()
    result = work()
    peak = process_memory("VmHWM") / 2**20
    print(f"{what:<44} {time.perf_counter() - started:7.2f} s   peak {peak:6.0f} MiB", flush=True)
    return result


COMMAND = (
    "import sys; from harness.cli import main; from benchmarks.process import process_memory; code = main(); "
    "print(process_memory('VmHWM'), file=sys.stderr); sys.exit(code)"
)
"""Runs a command of the harness and prints its peak memory at the end."""


def command(*words: object) -> None:
    """Runs a command in its own process and prints its wall-clock time and peak resident memory."""
    started = time.perf_counter()
    line = [sys.executable, "-c", COMMAND, *map(str, words)]
    done = subprocess.run(line, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{words[0]} failed: {done.stderr}")
    peak = int(done.stderr.split()[-1]) / 2**20
    print(f"{'harness ' + str(words[0]):<44} {seconds:7.2f} s   peak {peak:6.0f} MiB", flush=True)


def main() -> None:
    """Writes records to a folder and times the commands that read them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--backbones", type=int, default=8, help="backbones in each of 14 tables")
    parser.add_argument(
        "--seeds", type=int, default=7, help="seeds with per-query values; the report averages over five"
    )
    parser.add_argument("--keep", type=Path, help="folder to write to and keep")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="benchmark-report-") as place:
        base = chosen.keep or Path(place)
        results, page = base / "results", base / "BENCHMARKS.md"
        timed(
            f"write {chosen.records:,} records",
            lambda: populate(results, chosen.records, chosen.backbones, chosen.seeds),
        )
        timed("index, first call", lambda: store.index(results))
        entries = timed("index, from its cache", lambda: store.index(results))
        timed("find 100 by run id", lambda: [store.find(results, run_id) for run_id in list(entries)[:100]])

        seeds = ",".join(map(str, range(chosen.records // 18)))
        command("status", "--results", results)
        command("plan", "--results", results, "--device", "cpu", "--from-scratch")
        command("plan", "--results", results, "--device", "cpu", "--from-scratch", "--seeds", seeds)
        command("report", "--results", results, "--out", page)

        from harness import reporting

        stale = timed("report --check, in this process", lambda: reporting.check(results, page))
        largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
        print(f"largest process that draws figures: {largest:,.0f} MiB, most of it shared with its parent")
        print(f"{len(entries):,} records, page {page.stat().st_size / 1024:,.0f} KiB, stale files: {len(stale)}")


if __name__ == "__main__":
    main()
