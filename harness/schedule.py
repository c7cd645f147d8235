"""Gives each run its share of the machine: Ray Tune over many GPUs and nodes, or inline without Ray.

The only module that names Ray. One trial is one child process; Ray never sees the model, the data or the result.
"""

from __future__ import annotations

import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from harness import child
from harness.errors import RunError
from harness.job import Job

OnEvent = Callable[[Job, dict[str, Any]], None]


@dataclass(frozen=True)
class Resources:
    """What a run gets.

    Attributes:
        gpus: GPUs a run, fractions allowed; a fraction is book-keeping, memory is not divided.
        cpus: CPU cores a run; also its number of threads.
        max_concurrent: runs at once; 0 is as many as fit.
        timeout: hard limit of a run in seconds; 0 is none.
        address: an existing Ray cluster, or empty for one of this machine.
    """

    gpus: float = 0.0
    cpus: int = 1
    max_concurrent: int = 0
    timeout: float = 0.0
    address: str = ""


def inline(jobs: Sequence[Job], resources: Resources, on_event: OnEvent, stop: threading.Event) -> dict[str, str]:
    """Runs jobs on this machine without Ray, `max_concurrent` at a time; returns status by run id."""
    statuses: dict[str, str] = {}

    def one(job: Job) -> None:
        if stop.is_set():
            return
        on_event(job, {"event": "start"})
        statuses[job.spec.run_id] = child.run(
            job, lambda event: on_event(job, event), timeout=resources.timeout or None, stop=stop
        )
        on_event(job, {"event": "finished", "status": statuses[job.spec.run_id]})

    with ThreadPoolExecutor(max(resources.max_concurrent, 1)) as pool:
        futures = [pool.submit(one, job) for job in jobs]
        for future in futures:
            future.result()
    return statuses


def with_ray(jobs: Sequence[Job], resources: Resources, on_event: OnEvent, stop: threading.Event) -> dict[str, str]:
    """Runs jobs as trials of Ray Tune; returns status by run id.

    A trial that is lost with its worker or node is started once more and goes on from its checkpoint.

    Raises:
        RunError: the cluster cannot be reached or has not what a run asks for.
    """
    import ray
    from ray import tune

    by_id = {job.spec.run_id: job for job in jobs}
    statuses: dict[str, str] = {}

    def listen(run_id: str, event: dict[str, Any]) -> None:
        if event["event"] == "finished":
            statuses[run_id] = event["status"]
        on_event(by_id[run_id], event)

    token = uuid.uuid4().hex
    _listeners[token] = listen
    started_here = _start(resources)
    try:
        _check_fits(resources)
        gate = _stop_gate(stop)
        with tempfile.TemporaryDirectory(prefix="harness-ray-") as storage:
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(_trial, gate=gate, timeout=resources.timeout),
                    tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": resources.gpus}]),
                ),
                param_space={"job": tune.grid_search([job.to_dict() for job in jobs])},
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=resources.max_concurrent or None,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                    reuse_actors=False,
                ),
                run_config=tune.RunConfig(
                    name="runs",
                    storage_path=storage,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=1),
                    callbacks=[_callback(token)],
                ),
            )
            tuner.fit()
    finally:
        del _listeners[token]
        if started_here:
            ray.shutdown()
    for run_id in by_id.keys() - statuses.keys():
        if not stop.is_set():
            statuses[run_id] = "failed"
    return statuses


def _trial(config: dict[str, Any], gate: Any, timeout: float) -> None:
    """What Ray runs: one job in a child process; its events become reports."""
    import ray
    from ray import tune

    context = tune.get_context()
    job = replace(Job.from_dict(config["job"]), ray_trial_id=context.get_trial_id())
    stop, done = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(1.0):
            if ray.get(gate.stopped.remote()):
                stop.set()
                return

    threading.Thread(target=watch, daemon=True).start()
    tune.report({"event": {"event": "start"}})
    status = child.run(job, lambda event: tune.report({"event": event}), timeout=timeout or None, stop=stop)
    done.set()
    tune.report({"event": {"event": "finished", "status": status}})


_listeners: dict[str, Callable[[str, dict[str, Any]], None]] = {}
"""Who is told of reports, by a token: Ray pickles a callback with all it holds, and these cannot be pickled."""


def _tell(token: str, trial: Any, event: dict[str, Any]) -> None:
    _listeners[token](_run_id(trial), event)


def _callback(token: str) -> Any:
    from ray import tune

    class Forward(tune.Callback):
        """Passes reports on to the driver; a trial that ends without its last report has failed."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            _tell(token, trial, result["event"])

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            lost = {"event": "finished", "status": "failed", "error": "its Ray worker was lost twice"}
            _tell(token, trial, lost)

    return Forward()


def _run_id(trial: Any) -> str:
    return Job.from_dict(trial.config["job"]).spec.run_id


def _trial_name(trial: Any) -> str:
    return _run_id(trial)[:12]


def _stop_gate(stop: threading.Event) -> Any:
    """An actor that trials ask whether to stop; a thread of the driver opens it."""
    import ray

    @ray.remote(num_cpus=0)
    class Gate:
        def __init__(self) -> None:
            self._stopped = False

        def stop(self) -> None:
            self._stopped = True

        def stopped(self) -> bool:
            return self._stopped

    gate = Gate.remote()  # type: ignore[attr-defined]

    def watch() -> None:
        stop.wait()
        gate.stop.remote()

    threading.Thread(target=watch, daemon=True).start()
    return gate


def _start(resources: Resources) -> bool:
    """Connects to the cluster, or starts one on this machine; returns whether it was started here."""
    import logging

    import ray

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    if ray.is_initialized():
        return False
    try:
        ray.init(
            address=resources.address or None,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}},
        )
    except Exception as error:
        where = f"the Ray cluster at {resources.address}" if resources.address else "Ray on this machine"
        raise RunError(f"Cannot start {where}: {error}. --scheduler inline runs without Ray.") from error
    return True


def _check_fits(resources: Resources) -> None:
    import ray

    total = ray.cluster_resources()
    for name, wanted in (("GPU", resources.gpus), ("CPU", float(resources.cpus))):
        if wanted > total.get(name, 0):
            raise RunError(
                f"A run asks for {wanted:g} {name}, the cluster has {total.get(name, 0):g}; "
                f"lower --{'gpus' if name == 'GPU' else 'cpus'}-per-run."
            )


SCHEDULERS: dict[str, Callable[[Sequence[Job], Resources, OnEvent, threading.Event], dict[str, str]]] = {
    "ray": with_ray,
    "inline": inline,
}
