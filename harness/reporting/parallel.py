"""Draws figures, and computes beside them, in other processes; the bytes are the same as from this process."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from harness.system import processes

T = TypeVar("T")

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
    if expected < MANY or not _may_fork():
        yield draw_here
        return
    get_ready()
    gc.freeze()  # the collector of a new process would copy all that is in memory here
    try:
        with ProcessPoolExecutor(min(processes.cores(), MOST_PROCESSES), multiprocessing.get_context("fork")) as pool:

            def draw(function: Callable[..., bytes], *values: Any) -> Drawn:
                return _Waiting(function, values, pool.submit(function, *values))

            yield draw
    finally:
        gc.unfreeze()


def get_ready() -> None:
    """Imports what tables and figures need: once here, not once a process."""
    import pandas  # noqa: F401


@contextmanager
def beside(function: Callable[..., T], *values: Any, worth_it: bool = True) -> Iterator[Callable[[], T]]:
    """Yields what waits for a result that a process of its own computes meanwhile, where forking is safe.

    Where it is not, or not worth it, where the function raises or its process is ended, the result is computed here
    when it is asked for.
    """
    if not worth_it or not _may_fork():
        yield partial(function, *values)
        return
    system = multiprocessing.get_context("fork")  # values are inherited, not sent
    receive, send = system.Pipe(duplex=False)
    process = system.Process(target=_send, args=(send, function, values), daemon=True)
    process.start()
    send.close()

    def result() -> T:
        try:
            found: T = receive.recv()
        except EOFError:
            found = function(*values)
        return found

    try:
        yield result
    finally:
        process.kill()
        process.join()
        receive.close()


def _send(send: Connection, function: Callable[..., Any], values: tuple[Any, ...]) -> None:
    """What the process of `beside` does; an error is raised where its result is asked for."""
    with send, suppress(Exception), collector_paused():  # it would copy all that is inherited
        send.send(function(*values))


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
    """Whether there is a core to spare, and no thread of others, whose locks a copy of this process would inherit."""
    alone = threading.active_count() == 1 and not {"ray", "torch"} & sys.modules.keys()
    return sys.platform == "linux" and processes.cores() > 1 and alone
