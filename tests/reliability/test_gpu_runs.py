"""Whole runs on a GPU: two on one card, deterministic runs, lack of memory as a status, memory figures.

They need a CUDA device. To rehearse them on a CPU:

    HARNESS_TEST_DEVICE=cpu python -m pytest tests/reliability/test_gpu_runs.py
"""

import os
from datetime import datetime
from pathlib import Path

import pytest
import torch

from harness.efficiency import memory
from harness.records import store
from tests.support.runs import arguments

DEVICE = os.environ.get("HARNESS_TEST_DEVICE", "cuda")
pytestmark = [pytest.mark.slow, *([pytest.mark.gpu] if DEVICE == "cuda" else [])]


def records(cli, world: Path, folder: Path, *more: object, backbones: str) -> list[store.Record]:
    code, _, errors = cli(*arguments(world, folder, "--device", DEVICE, *more, backbones=backbones))
    assert code == 0, errors
    found = sorted(
        store.records(folder / "results"), key=lambda record: (record["spec"]["backbone"], record["spec"]["seed"])
    )
    assert {record["status"] for record in found} == {"ok"}
    return found


def test_two_runs_share_a_card(cli, world, tmp_path):
    share = ["--gpus-per-run", "0.5"] if DEVICE == "cuda" else ["--cpus-per-run", "1"]
    more = ["--seeds", "0,1", "--scheduler", "local", "--max-concurrent", "2", *share]
    one, two = records(cli, world, tmp_path, *more, backbones="bot:demo")
    assert (one["environment"].get("gpu") is not None) is (DEVICE == "cuda")
    times = [record["timing"] for record in (one, two)]
    began, ended = ([datetime.fromisoformat(time[key]) for time in times] for key in ("started", "ended"))
    assert max(began) < min(ended), "they ran at the same time"


def test_deterministic_runs_give_the_same_numbers(cli, world, tmp_path):
    found = [
        records(
            cli, world, tmp_path / name, "--set", "training.deterministic=true", backbones="bot:demo,reidmamba:tiny"
        )
        for name in ("one", "two")
    ]
    for first, second in zip(*found, strict=True):
        assert first["environment"]["deterministic"]
        assert first["evaluations"] == second["evaluations"]


def test_lack_of_memory_is_a_status(cli, tmp_path):
    folder = ["--results", tmp_path / "results", "--report", tmp_path / "page.md", "--no-mlflow"]
    cells = ["--image-size", "64x32", "--heights", "", "--batch", 2**24, "--train-batch", "", "--precision", "fp32"]
    code, _, errors = cli("profile", "--backbones", "bot:demo", "--device", DEVICE, "--seconds", 0.1, *cells, *folder)
    (record,) = store.records(tmp_path / "results")
    assert (code, record["status"]) == (0, "oom"), errors


def test_memory_of_a_call_is_what_it_allocates():
    device = torch.device(DEVICE)
    x = torch.zeros(4 << 20, device=device)  # 16 MiB

    def call():
        return x + 1, x + 2

    with memory.without_holes():
        call()
        needed = memory.working(call, device)
    assert needed is None or 31 << 20 <= needed <= 35 << 20
    assert memory.peak_memory_bytes(device) >= 48 << 20
