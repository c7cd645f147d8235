"""Runs a function in several processes that are connected by gloo, on this machine's CPU."""

from __future__ import annotations

import multiprocessing
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


def in_processes(size: int, work: Work, *arguments: Any, seconds: float = 60.0) -> list[Any]:
    """Returns what `work(group, *arguments)` returns in each of `size` processes, in the order of their ranks."""
    with tempfile.TemporaryDirectory() as folder:
        ends = [CONTEXT.Pipe(duplex=False) for _ in range(size)]
        children = [
            CONTEXT.Process(
                target=_one, args=(rank, size, folder, seconds, ends[rank][1], work, arguments), daemon=True
            )
            for rank in range(size)
        ]
        for child, (_, sends) in zip(children, ends, strict=True):
            child.start()
            sends.close()
        try:
            found = [receives.recv() for receives, _ in ends]
        finally:
            for child in children:
                child.kill()
                child.join()
    errors = [error for error in found if isinstance(error, Exception)]
    if errors:
        raise ExceptionGroup("in the processes", errors)
    return found


def _one(rank: int, size: int, folder: str, seconds: float, sends: Any, work: Work, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(Path(folder) / "store"), size)
    group = Processes(store, rank, size, torch.device("cpu"), seconds)
    try:
        sends.send(work(group, *arguments))
        group.from_first()
    except Exception as error:
        sends.send(error)
