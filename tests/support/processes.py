"""Runs a function in several processes that are connected as those of one run, on this machine."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from harness.training.group import Processes

Work = Callable[..., Any]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["harness.training.trainer", "tests.support.processes"])  # imports torch once


def in_processes(size: int, work: Work, *arguments: Any, device: str = "cpu", **more: Any) -> list[Any]:
    """Returns what `work(group, *arguments, **more)` returns in each of `size` processes, in the order of their ranks.

    On the device `cuda`, each process has its own GPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        store, children, ends = Path(folder) / "store", [], []
        for rank in range(size):
            receives, sends = CONTEXT.Pipe(duplex=False)
            child = CONTEXT.Process(target=_one, args=(rank, size, store, device, sends, work, arguments, more))
            child.start()
            sends.close()
            children.append(child)
            ends.append(receives)
        try:
            found = [receives.recv() for receives in ends]
        finally:
            for child in children:
                child.kill()
                child.join()
    if errors := [error for error in found if isinstance(error, Exception)]:
        raise ExceptionGroup("in the processes", errors)
    return found


def _one(
    rank: int,
    size: int,
    store: Path,
    device: str,
    sends: Any,
    work: Work,
    arguments: tuple[Any, ...],
    more: dict[str, Any],
) -> None:
    torch.set_num_threads(1)
    if device == "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = str(rank)
    group = Processes(dist.FileStore(str(store), size), rank, size, torch.device(device), seconds=60.0)
    try:
        sends.send(work(group, *arguments, **more))
        group.from_first()
    except Exception as error:
        sends.send(error)
