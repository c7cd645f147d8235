"""Ray clusters of real processes on this machine, started with `ray start`."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.system import processes
from tests.support.faults import NONE, Seeds, environment, wait_for

HOST = "127.0.0.1"
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "6b6f6d6d206865722c206b6f6d6d206865722c206b6f6d6d"}
"""Environment variables that nodes and drivers of a cluster share."""

Command = Callable[..., list[str]]


class Node:
    """A node, which can be killed like in a power failure.

    Args:
        words: arguments of `ray start`.
        faults: faults of runs on this node.
        inside: wraps the command, for a node with other disks.
    """

    def __init__(self, *words: str, faults: Seeds = NONE, inside: Command = lambda *words: list(words)) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short, because names of sockets are limited
        # A local Ray started earlier in this process forbids clusters beyond the loopback interface.
        whole = {k: v for k, v in environment(faults).items() if not k.startswith("RAY_")}
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--node-ip-address={HOST}", *words]
        with (self.place / "said.txt").open("w") as said:
            self._process = subprocess.Popen(
                inside(*command),
                env=whole | TOKEN | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", "RAY_USAGE_STATS_ENABLED": "0"},
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_for(lambda: "Ray runtime started" in self.said or not self.alive, 60, "for a node")
        assert self.alive, self.said

    @property
    def said(self) -> str:
        return (self.place / "said.txt").read_text()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def descendants(self) -> list[int]:
        """Returns the ids of all its processes, including those of runs."""
        return [self._process.pid, *processes.descendants(self._process.pid)]

    def kill(self, name: str = "") -> None:
        """Kills all processes of the node at once, or those with this name."""
        for pid in self.descendants if self.alive else ():
            with contextlib.suppress(OSError):  # has ended meanwhile
                if not name or Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(f"/{name}".encode()):
                    os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """Stops the node regularly."""
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait(30)
        shutil.rmtree(self.place, ignore_errors=True)


def head(address: str = "") -> tuple[Node, str]:
    """Starts a head node that runs no jobs; returns it and its address (by default a new one)."""
    address = address or f"{HOST}:{free_port()}"
    port = address.rpartition(":")[2]
    return Node("--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"), address


def free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])
