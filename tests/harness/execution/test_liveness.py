"""Work that depends on a server ends when the server is gone; what a process started can be ended with it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time

import pytest

from harness.execution import liveness
from harness.system import processes
from harness.system.paths import REPOSITORY


@pytest.fixture
def server() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_an_address_is_host_and_port_or_nothing_to_knock_at() -> None:
    assert liveness.split("10.0.0.1:6379") == ("10.0.0.1", 6379)
    assert liveness.split("[::1]:6379") == ("::1", 6379)
    assert [liveness.split(text) for text in ("", "auto", "ray://host:10001", "host")] == [None] * 4


def test_work_ends_as_it_does_while_the_server_answers(server: socket.socket) -> None:
    done: list[int] = []
    liveness.run_while_alive(lambda: done.append(1), [server.getsockname()], patience=0.0, lost="gone")
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        liveness.run_while_alive(lambda: 1 / 0, [server.getsockname()], patience=0.0, lost="gone")


def test_work_is_left_behind_when_the_server_is_gone(server: socket.socket) -> None:
    threading.Timer(0.5, server.close).start()
    with pytest.raises(liveness.Lost, match="gone"):
        liveness.run_while_alive(lambda: time.sleep(60), [server.getsockname()], patience=0.0, lost="gone")


def test_what_work_says_of_a_lost_server_is_said_in_our_words(server: socket.socket) -> None:
    def work() -> None:
        server.close()
        raise OSError("a page of text")

    with pytest.raises(liveness.Lost, match="gone"):
        liveness.run_while_alive(work, [server.getsockname()], patience=60.0, lost="gone")


def test_all_descendants_are_found_and_no_other() -> None:
    started = subprocess.Popen(["sh", "-c", "sleep 60 & setsid sleep 61 & wait"])
    other = subprocess.Popen(["sleep", "62"])
    try:
        end = time.monotonic() + 20
        while len(found := processes.descendants(started.pid)) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert len(found) == 2 and other.pid not in found
    finally:
        for pid in (*found, started.pid, other.pid):
            subprocess.run(["kill", "-9", str(pid)], check=True)
        started.wait()
        other.wait()


def test_ending_descendants_leaves_none() -> None:
    script = (
        "import subprocess, time; from harness.system import processes; import os\n"
        "subprocess.Popen(['sh', '-c', 'sleep 60 & setsid sleep 61 & wait']); time.sleep(1)\n"
        "found = processes.descendants(os.getpid()); processes.end_descendants(); time.sleep(0.5)\n"
        "left = processes.descendants(os.getpid())\n"
        "print(len(found), {open(f'/proc/{pid}/stat').read().split(')')[1].split()[0] for pid in left} <= {'Z'})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout.split() == ["3", "True"], done.stderr
