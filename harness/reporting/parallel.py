"""Draws figures and computes results in other processes; the results are the same as in this process."""

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
"""A PNG file, or a function that waits for it and returns it."""

Draw = Callable[..., Drawn]
"""Takes a drawing function and its arguments; returns the figure."""

MANY = 8
"""Number of figures from which starting processes saves time."""

MOST_PROCESSES = 4


@contextmanager
def drawing(expected: int) -> Iterator[Draw]:
    """Yields a function that draws figures: in other processes if there are many and forking is safe, else here.

    Args:
        expected: approximate number of figures.
    """
    if expected < MANY or not _may_fork():
        yield draw_here
        return
    gc.freeze()  # otherwise garbage collection in a child process would copy all inherited memory
    try:
        with ProcessPoolExecutor(min(processes.cores(), MOST_PROCESSES), multiprocessing.get_context("fork")) as pool:

            def draw(function: Callable[..., bytes], *values: Any) -> Drawn:
                return _Waiting(function, values, pool.submit(function, *values))

            yield draw
    finally:
        gc.unfreeze()


@contextmanager
def in_background(function: Callable[..., T], *values: Any, worth_it: bool = True) -> Iterator[Callable[[], T]]:
    """Computes a result in a child process; yields a function that waits for it and returns it.

    The result is computed in this process instead, when it is requested, if forking is unsafe, if `worth_it` is False,
    or if the child process raises or ends early.
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
    """Body of the child process of `in_background`; errors are ignored, because the parent then computes the result."""
    with send, suppress(Exception), collector_paused():  # garbage collection would copy all inherited memory
        send.send(function(*values))


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses garbage collection, which is slow while thousands of records are created."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Waiting:
    """A figure that another process draws; if that process is killed, it is drawn here."""

    def __init__(self, function: Callable[..., bytes], values: tuple[Any, ...], future: Future[bytes]) -> None:
        self.function, self.values, self.future = function, values, future

    def __call__(self) -> bytes:
        try:
            return self.future.result()
        except BrokenProcessPool:
            return self.function(*self.values)


def draw_here(function: Callable[..., bytes], *values: Any) -> Drawn:
    """Draws immediately, in this process."""
    return function(*values)


def _may_fork() -> bool:
    """Whether there is a spare core and forking is safe: other threads could hold locks, which a fork would copy."""
    alone = threading.active_count() == 1 and not {"ray", "torch"} & sys.modules.keys()
    return sys.platform == "linux" and processes.cores() > 1 and alone
