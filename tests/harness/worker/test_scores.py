"""Rows of scores from features and items: what the recipe and the protocol of the dataset change in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.contracts import Item
from harness.data.loader import Batch, EvaluationData
from harness.spec.recipe import Evaluation
from harness.worker.scoring import Scored, score_features, score_module

ROW = {"dataset": "people", "trained": True, "flip": False, "rerank": False}
PEOPLE, IMAGES = 12, 6


def items(camera: int, images: int) -> list[Item]:
    return [Item(Path(f"{pid}_{n}.png"), pid, camera) for pid in range(PEOPLE) for n in range(images)]


def scored(settings: Evaluation, protocol: str) -> Scored:
    """Noisy features: about every other query finds its person first."""
    draw = np.random.default_rng(1)
    means = draw.normal(size=(PEOPLE, 8))
    query, gallery = (np.repeat(means, n, axis=0) for n in (2, IMAGES))
    noisy = [part + 1.5 * draw.normal(size=part.shape) for part in (query, gallery)]
    return score_features(*noisy, items(0, 2), items(1, IMAGES), ROW, settings, protocol)


def test_the_length_of_the_curve_changes_no_rank() -> None:
    for protocol in ("standard", "cuhk03-classic"):
        short, long = (scored(Evaluation(max_rank=n), protocol).row for n in (1, 50))
        assert len(short["cmc"]) == 1 and len(long["cmc"]) == 50
        assert [short[f"rank-{k}"] for k in (1, 5, 10)] == [long[f"rank-{k}"] for k in (1, 5, 10)]
        assert short["rank-1"] < short["rank-5"] < short["rank-10"]


def test_the_interval_of_rank_1_is_of_the_protocol_that_gave_it() -> None:
    standard, single = (scored(Evaluation(), protocol).row for protocol in ("standard", "cuhk03-classic"))
    assert single["rank-1"] != standard["rank-1"] and single["mAP"] == standard["mAP"]
    for row in (standard, single):
        low, high = row["interval"]["rank-1"]
        assert low < row["rank-1"] < high
    assert single["interval"]["rank-1"] != standard["interval"]["rank-1"]


def test_single_shots_are_not_reranked_and_that_is_said() -> None:
    class Noise(torch.nn.Module):
        def forward(self, images: torch.Tensor, camera_ids: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    class Batches(EvaluationData):
        def __init__(self, of: Any) -> None:
            self.items = of

        def __iter__(self) -> Any:
            draw = torch.Generator().manual_seed(len(self.items))
            images = torch.rand(len(self.items), 3, 2, 2, generator=draw)
            yield Batch(images, torch.zeros(len(self.items)), torch.zeros(len(self.items)))

    said: list[str] = []
    emit = lambda event, **values: said.append(values["text"]) if event == "warning" else None  # noqa: E731
    for protocol, kinds in (("standard", [False, True]), ("cuhk03-classic", [False])):
        rows = score_module(
            Noise(),
            items(0, 2),
            items(1, IMAGES),
            Batches,
            dataset="people",
            device=torch.device("cpu"),
            settings=Evaluation(flip=False, rerank=True),
            protocol=protocol,
            emit=emit,
        )
        assert [one.row["rerank"] for one in rows] == kinds
    assert said == ["people uses the protocol cuhk03-classic, which has no re-ranking; this row is left out."]
