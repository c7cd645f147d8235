"""How runs are executed: scheduler, resources, tracking and report. None of this changes a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness import audits
from harness.errors import UsageError, unknown
from harness.system import durations, gpu, paths, processes

SCHEDULERS = ("ray", "local")
ALIASES = {"inline": "local"}
"""Former names of schedulers."""


@dataclass(frozen=True)
class Resources:
    """Resources per run.

    Attributes:
        gpus: GPUs per run, fractions allowed; a fraction does not limit GPU memory.
        cpus: CPU cores and threads per run.
        processes: processes that train a run together; on GPUs one per GPU.
        max_concurrent: runs at the same time; 0 means as many as fit.
        timeout: time limit per run, in seconds; 0 means none.
        address: an existing Ray cluster; empty starts Ray on this machine.
    """

    gpus: float = 0.0
    cpus: int = 1
    max_concurrent: int = 0
    timeout: float = 0.0
    address: str = ""
    processes: int = 1

    @property
    def threads(self) -> int:
        """CPU threads of each process."""
        return max(1, self.cpus // self.processes)


@dataclass(frozen=True)
class Execution:
    """How runs are executed. Each attribute is a keyword of the Python API and an option of the command line.

    Attributes:
        scheduler: `ray`, or `local` for this machine without Ray. Default `ray`.
        debug: run in this process, one run after the other, so that a debugger can stop inside a run.
        gpus_per_run: GPUs per run. A fraction shares a GPU; two and more train one run together. On a CPU, the number
            of processes that train one run. Default 1 on a GPU, 0 on a CPU.
        cpus_per_run: CPU cores and threads per run. Default 0 divides the cores among concurrent runs.
        max_concurrent: runs at the same time. Default 0 means as many as fit.
        timeout: time limit per run: seconds, or text such as `30m` and `10h`. Default none.
        address: an existing Ray cluster to join.
        workers: loader threads per run. Default 0.
        allow_count_mismatch: continue if image or identity counts differ from the dataset's card.
        mlflow: track with MLflow. Default True.
        mlflow_uri: tracking server. Default `$MLFLOW_TRACKING_URI`, or SQLite in the results folder.
        audit: audits after the evaluation: names, a comma list, `all`, or True for the default ones. Default none.
        report_path: report to write. Default `BENCHMARKS.md` in the checkout for its own results, else in the results.
    """

    scheduler: str = "ray"
    debug: bool = False
    gpus_per_run: float | None = None
    cpus_per_run: int = 0
    max_concurrent: int = 0
    timeout: float = 0.0
    address: str = ""
    workers: int = 0
    allow_count_mismatch: bool = False
    mlflow: bool = True
    mlflow_uri: str = ""
    audit: tuple[str, ...] = ()
    report_path: str = ""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Execution:
        """Reads and checks settings.

        Raises:
            UsageError: an unknown scheduler or audit, a negative number, an invalid duration, or a limit for a
                debugged run.
        """
        given = dict(settings)
        given["scheduler"] = ALIASES.get(name := given.get("scheduler", "ray"), name)
        if given["scheduler"] not in SCHEDULERS:
            raise unknown("scheduler", given["scheduler"], SCHEDULERS)
        given["audit"] = audits.parse(given.get("audit"))
        given["timeout"] = durations.seconds(given.get("timeout") or "")
        given["mlflow_uri"] = paths.expand_uri(given.get("mlflow_uri") or "")
        given["report_path"] = paths.expand(given.get("report_path") or "")
        found = cls(**given)
        if (found.gpus_per_run or 0) < 0 or found.cpus_per_run < 0 or found.max_concurrent < 0:
            raise UsageError("--gpus-per-run, --cpus-per-run and --max-concurrent must not be negative.")
        if (gpus := found.gpus_per_run or 0) > 1 and gpus != int(gpus):
            raise UsageError(f"--gpus-per-run must be a fraction below 1 or a whole number, found {gpus:g}.")
        if found.debug and found.processes > 1:
            raise UsageError("--debug runs in one process. Leave out --debug or --gpus-per-run.")
        if found.debug and found.timeout:
            raise UsageError("A time limit needs a process per run. Leave out --timeout or --debug.")
        if found.debug and found.address:
            raise UsageError("--debug runs in this process, not on a cluster. Leave out --address or --debug.")
        return found

    @property
    def processes(self) -> int:
        """Number of processes that train one run."""
        return max(1, int(self.gpus_per_run or 1))

    def check_gpus(self, device: str) -> None:
        """Checks that this machine has the GPUs of one run; for a cluster, Ray tells when the runs start.

        Raises:
            UsageError: it has fewer, or the device cannot be shared by several processes.
        """
        if self.processes > 1 and device not in ("cpu", "cuda"):
            raise UsageError(f"Several processes per run need --device cuda or cpu, found {device}.")
        here = gpu.names() if device == "cuda" and not self.address else []
        if here and self.processes > len(here):
            raise UsageError(
                f"--gpus-per-run {self.processes} was passed, but this machine shows {len(here)} GPU"
                f"{'s' * (len(here) > 1)}. Lower it, or pass the --address of a cluster with as many on one node."
            )

    def resources(self, runs: int, device: str) -> Resources:
        """Resources per run: by default one GPU, or on a CPU the cores divided by the number of concurrent runs."""
        gpus = (1.0 if self.gpus_per_run is None else self.gpus_per_run) if device == "cuda" else 0.0
        alone = self.debug or self.scheduler == "local" or (gpus == 0 and not self.address)
        at_once = self.max_concurrent or (1 if alone else 0)
        cpus = self.cpus_per_run or max(1, processes.cores() // max(1, min(runs, at_once or 1)))
        if gpus > 0 and not self.cpus_per_run:
            here = 0 if self.address else int(len(gpu.names()) / gpus)  # concurrent runs; unknown for a cluster
            cpus = max(1, min(cpus, 4 * self.processes, processes.cores() // max(1, here)))
        return Resources(gpus, cpus, at_once, self.timeout, self.address, self.processes)
