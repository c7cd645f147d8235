"""Work done ahead by threads, handed over in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_order(make: Callable[[A], B], tasks: Iterable[A], *, threads: int, ahead: int = 1) -> Iterator[B]:
    """Yields `make(task)` for each task in order, up to `threads + ahead` of them under way or waiting.

    Threads suffice: decoding, numpy and torch let go of the interpreter's lock. An exception reaches the caller in
    its turn; a caller who stops early leaves no work behind.
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
