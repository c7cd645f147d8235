"""Draws many figures at once, in processes that do nothing else; the bytes are the same as from this process."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

Drawn = bytes | Callable[[], bytes]
"""A PNG file, or what waits for it."""

Draw = Callable[..., Drawn]
"""From a function that draws and its arguments to the figure."""

MANY = 8
"""Figures from which on processes are worth starting."""

MOST_PROCESSES = 4


@contextmanager
def at_work(expected: int) -> Iterator[Draw]:
    """Yields what draws a figure: at once, or in other processes where many are to come and forking is safe.

    Args:
        expected: about how many figures there will be.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if expected < MANY or cores < 2 or not _may_fork():
        yield draw_here
        return
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401 - once here, not once a process

    gc.freeze()  # the collector of a new process would copy all that is in memory here
    try:
        with ProcessPoolExecutor(min(cores, MOST_PROCESSES), multiprocessing.get_context("fork")) as pool:

            def draw(function: Callable[..., bytes], *values: Any) -> Drawn:
                return _Waiting(function, values, pool.submit(function, *values))

            yield draw
    finally:
        gc.unfreeze()


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps the garbage collector from walking ten thousand new records again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Waiting:
    """A figure that another process draws; should that process be ended, it is drawn here."""

    def __init__(self, function: Callable[..., bytes], values: tuple[Any, ...], future: Future[bytes]) -> None:
        self.function, self.values, self.future = function, values, future

    def __call__(self) -> bytes:
        try:
            return self.future.result()
        except BrokenProcessPool:
            return self.function(*self.values)


def draw_here(function: Callable[..., bytes], *values: Any) -> Drawn:
    """Draws at once, in this process."""
    return function(*values)


def _may_fork() -> bool:
    """Whether this process has no threads of others, whose locks a copy of it would inherit."""
    return sys.platform == "linux" and threading.active_count() == 1 and not {"ray", "torch"} & sys.modules.keys()
