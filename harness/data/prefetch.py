"""Runs tasks ahead of time in threads and returns their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_order(make: Callable[[A], B], tasks: Iterable[A], *, threads: int, ahead: int = 1) -> Iterator[B]:
    """Yields `make(task)` for each task, in order; at most `threads + ahead` tasks are running or finished.

    Threads are enough, because image decoding, numpy and torch release the global interpreter lock. An exception is
    raised when its task's turn comes. If the caller stops early, pending tasks are cancelled.

    Args:
        make: function to run in the threads.
        tasks: its arguments.
        threads: number of threads.
        ahead: number of results to compute beyond those in progress.
    """
    tasks = iter(tasks)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        waiting: deque[Future[B]] = deque(pool.submit(make, task) for task in islice(tasks, threads + ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(make, task) for task in islice(tasks, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
