"""A small results folder with something for every view of the website; some names are attacks."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from harness.records import ranked_lists, store
from harness.tuning import state
from tests.support import record_samples as samples
from tests.support import searches

ATTACK = "<img src=x onerror=hacked()>\"'<script>hacked()</script>${hacked()}%{x}<a href=javascript:hacked()>x</a>"
"""Markup that would call `hacked` where text is taken for markup; names and messages of the records contain it."""

BACKBONES = ("alpha", "beta", "gamma", ATTACK)
QUERIES, IDENTITIES, GALLERY = 30, 10, 40


def write(results: Path) -> None:
    """Writes trained runs with curves, lists and audits, cells, a search, a failed run, and a plan."""
    draw = random.Random(0)
    for place, backbone in enumerate(BACKBONES):
        for seed in range(2):
            _trained(results, backbone, seed, 0.2 + 0.1 * place, draw)
        for batch in (1, 8, 64):
            _cell(results, backbone, batch, 100.0 * (place + 1))
    failed = samples.failed(samples.spec("delta"), message=f"out of memory {ATTACK}")
    store.write(store.folder_of(results, failed), failed)
    cell = {"backbone": "epsilon", "dataset": "dukemtmc", "recipe": "unified", "state": "blocked", "reason": ATTACK}
    store.write_plan(results, [cell])
    search = searches.new_search(samples_=4)
    searches.play(search, results)
    for path in state.every(results):
        assert state.read(path).trials


def write_pair(results: Path, queries: int, lists: str) -> None:
    """Writes two runs with the same ranked lists of all queries."""
    for backbone in ("alpha", "beta"):
        record = samples.ok(samples.spec(backbone), samples.evaluation(per_query="per_query.csv"))
        folder = store.folder_of(results, record)
        scores = [0.1 * (len(backbone) + query % 3) for query in range(queries)]
        store.write(folder, record, {"per_query.csv": samples.per_query(scores)})
        (folder / ranked_lists.file_name("market1501")).write_text(lists)


def _trained(results: Path, backbone: str, seed: int, mAP: float, draw: random.Random) -> None:
    scores = [min(1.0, max(0.0, draw.gauss(mAP, 0.2))) for _ in range(QUERIES)]
    rows = [
        samples.evaluation(mAP=mAP + 0.01 * seed, per_query="per_query.csv"),
        samples.evaluation(mAP=mAP - 0.05, flip=True),
    ]
    size = 10**6 * (5 - round(10 * mAP) % 3)
    record = samples.ok(samples.spec(backbone, seed=seed), *rows, parameters_inference=size)
    record["audits"] = [_audit(mAP)]
    record["environment"] |= {"cpu": f"CPU {ATTACK}"}
    folder = store.folder_of(results, record)
    store.write(folder, record, {"per_query.csv": samples.per_query(scores, IDENTITIES)})
    lines = [json.dumps({"epoch": e, "loss": 3.0 / e + 0.1 * seed, "lr": 0.1}) for e in range(1, 6)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / ranked_lists.file_name("market1501")).write_text(lists(np.random.default_rng(seed)))


def lists(generator: np.random.Generator) -> str:
    """Ranked lists of random images."""
    query, gallery = (
        [
            SimpleNamespace(
                path=Path(f"/data/{part}/{i:04}{ATTACK if i == 1 else ''}.jpg"), pid=i % IDENTITIES, camid=i % 3
            )
            for i in range(count)
        ]
        for part, count in (("query", QUERIES), ("gallery", GALLERY))
    )
    order = np.stack([generator.permutation(GALLERY)[: ranked_lists.LENGTH] for _ in query])
    return ranked_lists.render(order, np.sort(generator.random(order.shape), axis=1), query, gallery)


def _audit(mAP: float) -> dict[str, Any]:
    row = {"name": "mAP", "setting": {"cameras": "off"}, "value": mAP - 0.1, "interval": [mAP - 0.2, mAP], "queries": 9}
    about = {"about": "Does the score rest on cameras?", "source": "https://example.org/a", "notes": [ATTACK]}
    return {"check": "camera", "dataset": "market1501", "rows": [row], "error": None, **about}


def _cell(results: Path, backbone: str, batch: int, rate: float) -> None:
    spec = samples.spec(backbone, "random-images", purpose="profile", values={"batch_size": batch})
    numbers = {"batch_size": batch, "latency_ms": 1000 * batch / rate, "inference_images_per_second": rate}
    record = samples.ok(spec, source="profile", **numbers)
    record["evaluations"] = []
    store.write(store.folder_of(results, record), record)
