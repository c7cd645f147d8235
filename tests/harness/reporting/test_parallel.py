"""Figures drawn in other processes: the same bytes, and nothing lost when such a process is ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from harness.reporting import parallel
from harness.system.paths import REPOSITORY

CODE = """
import os
from harness.reporting import plots, parallel
looks = {"a": {"color": "#0072B2", "marker": "o"}}
draws = [(plots.cmc, f"figure {i}", [("a", "a", [0.5, 0.6, 0.7 + i / 100])], looks) for i in range(8)]
with parallel.drawing(len(draws)) as draw:
    there = [draw(*one) for one in draws]
    assert not any(isinstance(one, bytes) for one in there), "drawn in other processes"
    there = [one() for one in there]
assert there == [parallel.draw_here(*one) for one in draws] and len(set(there)) == 8
"""


@pytest.mark.slow
def test_bytes_from_another_process_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def end_unless(parent: int) -> bytes:
    """Ends every process but the one that asks."""
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return b"drawn here"


KILLED = """
import os, sys
from harness.reporting import parallel
from tests.harness.reporting.test_parallel import end_unless
with parallel.drawing(8) as draw:
    there = [draw(end_unless, os.getpid()) for _ in range(8)]
    assert [one() for one in there] == [b"drawn here"] * 8
"""


@pytest.mark.slow
def test_what_a_lost_process_should_have_drawn_is_drawn_here() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_few_figures_and_processes_with_threads_draw_here() -> None:
    with parallel.drawing(parallel.MANY - 1) as draw:
        assert draw is parallel.draw_here
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        with parallel.drawing(100) as draw:
            assert draw is parallel.draw_here
    finally:
        stop.set()
        thread.join()


BESIDE = """
import os, sys
from harness.reporting import parallel
from tests.harness.reporting.test_parallel import end_unless
with parallel.in_background(os.getpid) as there, parallel.in_background(os.getpid, worth_it=False) as few:
    assert there() != os.getpid() and few() == os.getpid()
with parallel.in_background(end_unless, os.getpid()) as there:
    assert there() == b"drawn here"
with parallel.in_background(int, "x") as there:
    try:
        there()
    except ValueError:
        print("raised here")
"""


def test_work_of_a_lost_process_is_done_here() -> None:
    done = subprocess.run([sys.executable, "-c", BESIDE], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "raised here\n", done.stderr
