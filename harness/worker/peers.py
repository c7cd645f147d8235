"""The other processes of a run that several processes train: the first one starts, watches and ends them.

They find each other through a file and train in step. Only the first one checks data, saves, scores and reports. If one
is lost, the run ends with its reason.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from harness.errors import HarnessError, RunError, out_of_memory
from harness.system import gpu
from harness.training.group import COLLECTIVE_SECONDS, Group, Processes
from harness.training.trainer import Diverged
from harness.worker.events import Progress, status_of

if TYPE_CHECKING:
    from harness.spec.job import Job

REACTION_SECONDS = 15.0
"""Seconds for the first process to fail by itself after another is lost; then it is ended, because it may hang."""
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
"""Processes of a run are on one machine, so gloo does not need to resolve its host name."""


@contextlib.contextmanager
def group_of(job: Job, folder: Path, device: torch.device, progress: Progress) -> Iterator[Group]:
    """Starts the other processes of a run and yields the group of all; yields a group of one if there are no others.

    Raises:
        RunError: too few GPUs are visible, or another process was lost.
    """
    if job.processes == 1:
        yield Group()
        return
    with tempfile.TemporaryDirectory(prefix="harness-group-", ignore_cleanup_errors=True) as place:
        store = Path(place) / "store"
        peers = _Peers(job, folder, store, progress)
        try:
            group = join(store, 0, job.processes, device)
            yield group
            peers.wait()
            group.close()
        except HarnessError:
            raise
        except Exception as error:
            if not out_of_memory(error) and (lost := peers.error(REACTION_SECONDS)) is not None:
                raise lost from error
            if "timed out" in str(error).lower():
                raise RunError(f"A process of the run did not answer for {COLLECTIVE_SECONDS:.0f} s.") from error
            raise
        finally:
            peers.end()


def join(store: Path, rank: int, size: int, device: torch.device) -> Processes:
    """Connects this process with the others of its run."""
    os.environ.update(LOOPBACK)
    return Processes(dist.FileStore(str(store), size), rank, size, device)


def _start(rank: int, job: Job, folder: Path, store: Path) -> subprocess.Popen[str]:
    """Starts one process; on GPUs, it sees only its own."""
    environment = {**os.environ, "HARNESS_PARENT": str(os.getpid())}
    if job.spec.device == "cuda":
        if len(names := gpu.names()) < job.processes:
            raise RunError(f"The run needs {job.processes} GPUs, but its process sees {len(names)}.")
        environment["CUDA_VISIBLE_DEVICES"] = names[rank]
    words = ["run-one", str(folder), "--rank", str(rank), "--store", str(store)]
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


class _Peer:
    """One other process of the run."""

    def __init__(self, rank: int, job: Job, folder: Path, store: Path) -> None:
        self.name = f"Process {rank + 1} of {job.processes}"
        self.process = _start(rank, job, folder, store)

    def error(self) -> RunError | None:
        """Returns why it was lost: what it said at its end, or how it ended. None if it runs or ended well."""
        if not (code := self.process.poll()):
            return None
        said = self._last_words
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        text = f"{self.name} of the run was lost: {said.get('error') or f'it ended with {how}.'}"
        return Diverged(text) if said.get("status") == "diverged" else RunError(text)

    @functools.cached_property
    def _last_words(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError, OSError, IndexError):
            return dict(json.loads(self.process.stdout.read().splitlines()[-1]))
        return {}


class _Peers:
    """The other processes, with a thread that watches them."""

    def __init__(self, job: Job, folder: Path, store: Path, progress: Progress) -> None:
        self._peers, self._progress = [_Peer(rank, job, folder, store) for rank in range(1, job.processes)], progress
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def error(self, seconds: float) -> RunError | None:
        """Returns why a process was lost, within some seconds; None if none was."""
        end = time.monotonic() + seconds
        while (found := self._error()) is None and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def _error(self) -> RunError | None:
        return next((error for peer in self._peers if (error := peer.error()) is not None), None)

    def wait(self) -> None:
        """Waits until all have ended by themselves.

        Raises:
            RunError: one was lost.
        """
        for peer in self._peers:
            peer.process.wait()
            if (error := peer.error()) is not None:
                raise error

    def end(self) -> None:
        """Ends all that still run."""
        self._over.set()
        for peer in self._peers:
            peer.process.kill()
            peer.process.wait()

    def _watch(self) -> None:
        """Ends the run if the first process does not notice that another was lost, as in a step of NCCL."""
        while not self._over.wait(0.5):
            if (error := self._error()) is None:
                continue
            if not self._over.wait(2 * REACTION_SECONDS):
                self._progress.emit("end", status=status_of(error), error=str(error), stage=self._progress.stage)
                os._exit(1)
