"""Runs jobs as trials of Ray Tune, which assigns CPUs and GPUs of the machine or cluster to each run.

This is the only module that imports Ray. Each trial starts one child process; Ray handles neither models nor data.

Ray Tune asks a `TrialSource` for the next job, through a search algorithm. Ray's own integrations of Optuna and ASHA
are not used, for two reasons:

- Their state is stored in Ray's experiment folder and can only be restored by the same Ray version on the same paths.
- A search without Ray would behave differently.
"""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from harness.errors import RunError
from harness.execution import liveness, process, result_transfer
from harness.execution.options import Resources
from harness.execution.sources import TrialSource
from harness.spec.job import Job
from harness.system import processes

HEAD_SECONDS = 30.0
"""Seconds without an answer after which the head of an existing cluster counts as lost; Ray itself waits 60."""

LOST = (
    "The Ray head or the raylet of this node no longer answers. Runs have stopped and keep the checkpoint of their "
    "last epoch; start the same command again to resume them."
)
LONGEST_TEMPORARY = 39
"""Longest path, in characters, for Ray's socket folder: socket names add 68, and the system allows 107."""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0, Ray's servers listen on loopback only; this is Ray's default on macOS and Windows, and ours on Linux."""


def run_with_ray(source: TrialSource, resources: Resources, stop: threading.Event) -> None:
    """Runs the jobs of a source as trials of Ray Tune.

    A trial whose worker or node is lost is retried once. It resumes from its checkpoint if both nodes see the results
    folder under the same path. Results from nodes without access to that folder are copied to it.

    Raises:
        RunError: the cluster cannot be reached, lacks the resources of one run, or was lost.
    """
    token = uuid.uuid4().hex
    _experiments[token] = experiment = _Experiment(source, stop)
    try:
        _fit(token, experiment, resources)
    finally:
        del _experiments[token]


class _Experiment:
    """Passes jobs from the source to Ray, and events back."""

    def __init__(self, source: TrialSource, stop: threading.Event) -> None:
        self.source, self.stop = source, stop
        self._given: dict[str, Job] = {}
        self._started: set[str] = set()
        self.stop_trial: Callable[[str], None] = lambda key: None

    def next(self) -> tuple[Job | None, bool]:
        """Returns the next job, or None and whether the experiment is over."""
        if not self.stop.is_set() and (job := self.source.next()) is not None:
            self._given[job.spec.run_id] = job
            return job, False
        return None, not self._given

    def listen(self, run_id: str, event: dict[str, Any]) -> None:
        """Forwards an event; writes the record of a lost run, which could not write its own."""
        if (job := self._given.get(run_id)) is None:  # a worker was lost after it had reported the end
            return
        self._started.add(run_id)
        if event["event"] == "finished":
            del self._given[run_id]
            self._started.discard(run_id)
            if error := event.get("error"):
                event["status"] = process.leave_record(job, event["status"], f"The run was lost: {error}.")
        if self.source.event(job, event):
            self.stop_trial(_key(job))

    def is_over(self) -> bool:
        """Whether a stop was requested and no run is active; waiting jobs are not started."""
        return self.stop.is_set() and not self._started


def _fit(token: str, experiment: _Experiment, resources: Resources) -> None:
    """Runs one experiment of Ray Tune."""
    if not resources.address:
        os.environ[LOOPBACK] = "0"  # Ray reads it on import
    import ray
    from ray import tune

    started_here = _start(resources)
    try:
        at_once = _check_fits(resources)
        coordinator = _stop_coordinator(experiment.stop)
        experiment.stop_trial = coordinator.stop.remote
        with tempfile.TemporaryDirectory(prefix="harness-ray-") as storage:
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(_trial, coordinator=coordinator, timeout=resources.timeout),
                    tune.PlacementGroupFactory([{"CPU": resources.cpus, "GPU": resources.gpus}]),
                ),
                tune_config=tune.TuneConfig(
                    search_alg=_searcher(token),
                    num_samples=-1,
                    max_concurrent_trials=resources.max_concurrent or experiment.source.ahead or at_once,
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
                    stop=_stopper(token),
                ),
            )
            patience = HEAD_SECONDS if resources.address else 2.0
            liveness.run_while_alive(tuner.fit, _servers(), patience=patience, lost=LOST)
    except liveness.Lost:
        started_here = False  # ray.shutdown() would wait for the lost head
        processes.end_descendants()
        atexit.register(_exit_immediately)
        raise
    finally:
        if started_here:
            ray.shutdown()


def _exit_immediately() -> None:
    """Ends the interpreter before Ray's exit handler, which would wait a minute for the head and then abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(liveness.Lost.exit_code)


def _trial(config: dict[str, Any], coordinator: Any, timeout: float) -> None:
    """The trainable of Ray Tune: runs one job in a child process and reports its events."""
    import ray
    from ray import tune

    context = tune.get_context()
    job = replace(Job.from_dict(config["job"]), ray_trial_id=context.get_trial_id())
    stop, done = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            if ray.get(coordinator.stopped.remote(_key(job))):
                stop.set()
                return

    threading.Thread(target=watch, daemon=True).start()
    tune.report({"event": {"event": "start"}})

    def forward(event: dict[str, Any]) -> None:
        tune.report({"event": event})  # returns after the driver has handled it
        if event["event"] == "epoch" and ray.get(coordinator.stopped.remote(_key(job))):
            stop.set()

    status = process.run(job, forward, timeout=timeout or None, stop=stop)
    done.set()
    if not ray.get(coordinator.has.remote(job.folder, result_transfer.stamp(Path(job.folder)))) and (
        problem := ray.get(coordinator.keep.remote(job.folder, result_transfer.pack(Path(job.folder))))
    ):
        status = "failed"
        forward({"event": "warning", "text": f"The results could not be copied from the node of the run: {problem}."})
    tune.report({"event": {"event": "finished", "status": status}})


_experiments: dict[str, _Experiment] = {}
"""Experiments by token: Ray pickles callbacks and search algorithms, and an experiment cannot be pickled."""


def _experiment(token: str) -> _Experiment:
    """Looks up an experiment. This is a function because Ray pickles globals that the classes below refer to."""
    return _experiments[token]


def _callback(token: str) -> Any:
    from ray import tune

    class Forward(tune.Callback):
        """Forwards reports to the experiment; a trial that ends without its final report has failed."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            _experiment(token).listen(_run_id(trial), result["event"])

        def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            text = f"Its Ray worker was lost ({_why(trial)}); the run is retried once."
            _experiment(token).listen(_run_id(trial), {"event": "warning", "text": text})

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            error = f"its Ray worker was lost twice ({_why(trial)})"
            _experiment(token).listen(_run_id(trial), {"event": "finished", "status": "failed", "error": error})

    return Forward()


def _why(trial: Any) -> str:
    """The last line of a traceback, or the first line of Ray's message about a lost worker."""
    text = str(trial.get_pickled_error() or "no reason recorded").strip()
    return text.splitlines()[-1 if "Traceback" in text else 0].rstrip(".")


def _stopper(token: str) -> Any:
    """Returns a stopper that ends the experiment when it is over."""
    from ray.tune import Stopper

    class Over(Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return _experiment(token).is_over()

    return Over()


def _searcher(token: str) -> Any:
    """Returns a search algorithm of Ray Tune that asks the source for jobs."""
    from ray.tune.search import Searcher

    class Ask(Searcher):
        """Returns None while there is no job but running trials may lead to one; Ray then asks again."""

        def suggest(self, trial_id: str) -> Any:
            job, over = _experiment(token).next()
            return {"job": job.to_dict()} if job else Searcher.FINISHED if over else None

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """Does nothing: the callback informs the source."""

        def save(self, checkpoint_path: str) -> None:
            """Does nothing: the source stores its own state."""

        def restore(self, checkpoint_path: str) -> None:
            """Does nothing: the source stores its own state."""

    return Ask(metric="training_iteration", mode="max")  # required by Ray; this metric always exists and is not used


def _run_id(trial: Any) -> str:
    return Job.from_dict(trial.config["job"]).spec.run_id


def _key(job: Job) -> str:
    """Name of one attempt of a run; a search may retry runs."""
    return f"{job.spec.run_id[:12]}-{job.attempt}"


def _trial_name(trial: Any) -> str:
    return _key(Job.from_dict(trial.config["job"]))


def _stop_coordinator(stop: threading.Event) -> Any:
    """Starts an actor on the driver's node that trials ask whether to stop, and that receives copied results.

    A thread of the driver stops all trials; a source stops single ones.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)

    @ray.remote(num_cpus=0, scheduling_strategy=here)  # type: ignore[call-overload]
    class Coordinator:
        def __init__(self) -> None:
            self._stopped: set[str] = set()

        def stop(self, key: str) -> None:
            self._stopped.add(key)

        def stopped(self, key: str) -> bool:
            return not self._stopped.isdisjoint((key, "all"))

        def has(self, folder: str, stamp: str) -> bool:
            return result_transfer.stamp(Path(folder)) == stamp

        def keep(self, folder: str, files: dict[str, bytes]) -> str:
            return result_transfer.unpack(Path(folder), files)

    coordinator = Coordinator.remote()  # type: ignore[attr-defined]

    def watch() -> None:
        stop.wait()
        coordinator.stop.remote("all")

    threading.Thread(target=watch, daemon=True).start()
    return coordinator


def _start(resources: Resources) -> bool:
    """Connects to the cluster, or starts Ray on this machine; returns whether Ray was initialised here."""
    import logging

    import ray

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default lowers the priority of runs
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # the progress display shows errors in one line
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # the driver handles Ctrl-C
    if ray.is_initialized():
        return False
    if not resources.address and len(tempfile.gettempdir()) > LONGEST_TEMPORARY and os.access("/tmp", os.W_OK):
        os.environ.setdefault("RAY_TMPDIR", "/tmp")
    try:
        if address := liveness.split(resources.address):
            liveness.probe(address)  # fails at once, where Ray would retry for minutes
        ray.init(
            address=resources.address or "local",  # None would join the last cluster, even if it is gone
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}},
        )
    except Exception as error:
        what = f"connect to the Ray cluster at {resources.address}" if resources.address else "start Ray here"
        raise RunError(f"Cannot {what}: {error}. Pass --scheduler local to run without Ray.") from error
    return True


def _servers() -> list[liveness.Address]:
    """Addresses of the cluster's head and of the raylet on the driver's node."""
    import ray

    context = ray.get_runtime_context()
    here = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
    head = liveness.split(context.gcs_address)
    return [*([head] if head else []), *((n["NodeManagerAddress"], n["NodeManagerPort"]) for n in here)]


def _check_fits(resources: Resources) -> int:
    """Returns how many runs fit on the cluster at once.

    Raises:
        RunError: not even one run fits.
    """
    import ray

    total, nodes = ray.cluster_resources(), [node["Resources"] for node in ray.nodes() if node["Alive"]]
    required = [(name, number) for name, number in (("GPU", resources.gpus), ("CPU", resources.cpus)) if number > 0]
    for name, number in required:
        lower = f"Lower --{'gpus' if name == 'GPU' else 'cpus'}-per-run."
        if number > total.get(name, 0):
            raise RunError(f"A run needs {number:g} {name}, but the cluster has {total.get(name, 0):g}. {lower}")
        if number > (most := max(node.get(name, 0) for node in nodes)):
            raise RunError(f"A run needs {number:g} {name} on one node, but no node has more than {most:g}. {lower}")
    return max(1, sum(min(int(node.get(name, 0) / number) for name, number in required) for node in nodes))
