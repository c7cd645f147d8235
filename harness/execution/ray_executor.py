"""Runs jobs as trials of Ray Tune, which gives each run its share of the machine or cluster.

The only module that names Ray. One trial is one child process; Ray never sees the model, the data or the result.

A list of jobs is known before it starts. A search (`harness.tuning`) decides about its next job, and about stopping
one, from the events so far: Ray Tune asks its `TrialSource` as its search algorithm. Ray's own adapters for Optuna and
ASHA are not used: their state lives in Ray's experiment folder, can be restored by the same Ray on the same paths
alone, and would differ from what a search without Ray does.
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
"""How long the head of somebody's cluster may be silent, to be restarted or reached again; Ray's own patience is 60."""

LOST = (
    "Ray's head or this node's raylet is gone. Runs end with it and keep their last epoch; "
    "start the same command again to go on."
)
LONGEST_TEMPORARY = 39
"""Letters of a folder that Ray's sockets may lie below: the name of one takes 68 more, and the system allows 107."""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With 0 the servers of a Ray listen on loopback alone: its own choice on macOS and Windows, here also on Linux."""


def run_with_ray(source: TrialSource, resources: Resources, stop: threading.Event) -> None:
    """Runs what a source gives as trials of Ray Tune.

    A trial that is lost with its worker or node is started once more and resumes from its checkpoint, if the results
    folder is visible to both nodes under the same path. From a node that does not share it results are brought home.

    Raises:
        RunError: the cluster cannot be reached, has not what a run asks for, or is gone.
    """
    token = uuid.uuid4().hex
    _experiments[token] = experiment = _Experiment(source, stop)
    try:
        _fit(token, experiment, resources)
    finally:
        del _experiments[token]


class _Experiment:
    """The jobs of one experiment, from the source to Ray, and their events back."""

    def __init__(self, source: TrialSource, stop: threading.Event) -> None:
        self.source, self.stop = source, stop
        self._given: dict[str, Job] = {}
        self._started: set[str] = set()
        self.stop_trial: Callable[[str], None] = lambda key: None

    def next(self) -> tuple[Job | None, bool]:
        """The next job, and whether the experiment is over where there is none."""
        if not self.stop.is_set() and (job := self.source.next()) is not None:
            self._given[job.spec.run_id] = job
            return job, False
        return None, not self._given

    def listen(self, run_id: str, event: dict[str, Any]) -> None:
        """Passes an event on; a run that was lost gets its record here, for it cannot write one."""
        job = self._given[run_id]
        self._started.add(run_id)
        if event["event"] == "finished":
            del self._given[run_id]
            self._started.discard(run_id)
            if error := event.get("error"):
                event["status"] = process.leave_record(job, event["status"], f"Lost: {error}.")
        if self.source.event(job, event):
            self.stop_trial(_key(job))

    def is_over(self) -> bool:
        """Whether it was asked to stop and no run is under way; what waits is not started."""
        return self.stop.is_set() and not self._started


def _fit(token: str, experiment: _Experiment, resources: Resources) -> None:
    """One experiment of Ray Tune."""
    if not resources.address:
        os.environ[LOOPBACK] = "0"  # read when Ray is imported
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
            liveness.while_open(tuner.fit, _doors(), patience=patience, lost=LOST)
    except liveness.Lost:
        started_here = False  # a shutdown would wait for the head, as would what is left of a Ray of our own
        processes.end_descendants()
        atexit.register(_leave)
        raise
    finally:
        if started_here:
            ray.shutdown()


def _leave() -> None:
    """Ends the interpreter before Ray's own way out, which waits a minute for its head and is aborted then."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(liveness.Lost.exit_code)


def _trial(config: dict[str, Any], coordinator: Any, timeout: float) -> None:
    """What Ray runs: one job in a child process; its events become reports."""
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
        tune.report({"event": event})  # returns when the driver has heard of it
        if event["event"] == "epoch" and ray.get(coordinator.stopped.remote(_key(job))):
            stop.set()

    status = process.run(job, forward, timeout=timeout or None, stop=stop)
    done.set()
    if not ray.get(coordinator.has.remote(job.folder, result_transfer.stamp(Path(job.folder)))) and (
        problem := ray.get(coordinator.keep.remote(job.folder, result_transfer.pack(Path(job.folder))))
    ):
        status = "failed"
        forward({"event": "warning", "text": f"Results could not be brought from their node: {problem}."})
    tune.report({"event": {"event": "finished", "status": status}})


_experiments: dict[str, _Experiment] = {}
"""Experiments by a token: Ray pickles callbacks and search algorithms with all they hold, and these cannot be."""


def _experiment(token: str) -> _Experiment:
    """The experiment of a token; a function, for Ray pickles what the classes below name."""
    return _experiments[token]


def _callback(token: str) -> Any:
    from ray import tune

    class Forward(tune.Callback):
        """Passes reports on to the driver; a trial that ends without its last report has failed."""

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            _experiment(token).listen(_run_id(trial), result["event"])

        def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            text = f"Its Ray worker was lost ({_why(trial)}); it is started once more."
            _experiment(token).listen(_run_id(trial), {"event": "warning", "text": text})

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            error = f"its Ray worker was lost twice ({_why(trial)})"
            _experiment(token).listen(_run_id(trial), {"event": "finished", "status": "failed", "error": error})

    return Forward()


def _why(trial: Any) -> str:
    """The last line of a traceback, or the first one of what Ray says of a worker that is gone."""
    text = str(trial.get_pickled_error() or "no reason given").strip()
    return text.splitlines()[-1 if "Traceback" in text else 0].rstrip(".")


def _stopper(token: str) -> Any:
    """Ends the experiment when it is over."""
    from ray.tune import Stopper

    class Over(Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return _experiment(token).is_over()

    return Over()


def _searcher(token: str) -> Any:
    """A search algorithm of Ray Tune that asks the source."""
    from ray.tune.search import Searcher

    class Ask(Searcher):
        """Ray asks again later where nothing is to be started now but trials run that may change that."""

        def suggest(self, trial_id: str) -> Any:
            job, over = _experiment(token).next()
            return {"job": job.to_dict()} if job else Searcher.FINISHED if over else None

        def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
            """The source hears of it from the callback."""

        def save(self, checkpoint_path: str) -> None:
            """Nothing: the source keeps its own state."""

        def restore(self, checkpoint_path: str) -> None:
            """Nothing, likewise."""

    return Ask(metric="training_iteration", mode="max")  # a metric that is always there; nobody reads it


def _run_id(trial: Any) -> str:
    return Job.from_dict(trial.config["job"]).spec.run_id


def _key(job: Job) -> str:
    """Name of a run's attempt; a search may try a run again."""
    return f"{job.spec.run_id[:12]}-{job.attempt}"


def _trial_name(trial: Any) -> str:
    return _key(Job.from_dict(trial.config["job"]))


def _stop_coordinator(stop: threading.Event) -> Any:
    """An actor beside the driver that trials ask whether to stop, and that takes results from nodes with other disks.

    A thread of the driver stops all trials, a source single ones.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # no other is as safe

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
    """Connects to the cluster, or starts one on this machine; returns whether it was started here."""
    import logging

    import ray

    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # a run is the work of the machine, not a background task
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # the display says it in one line
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is ours: runs save and stop
    if ray.is_initialized():
        return False
    if not resources.address and len(tempfile.gettempdir()) > LONGEST_TEMPORARY and os.access("/tmp", os.W_OK):
        os.environ.setdefault("RAY_TMPDIR", "/tmp")
    try:
        if door := liveness.split(resources.address):
            liveness.knock(door)  # Ray itself would knock for minutes
        ray.init(
            address=resources.address or "local",  # None joins the last one, dead or alive
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": {"RAY_CHDIR_TO_TRIAL_DIR": "0"}},
        )
    except Exception as error:
        where = f"the Ray cluster at {resources.address}" if resources.address else "Ray on this machine"
        raise RunError(f"Cannot start {where}: {error}. --scheduler local runs without Ray.") from error
    return True


def _doors() -> list[liveness.Door]:
    """Where the cluster's head and the driver's own node listen."""
    import ray

    context = ray.get_runtime_context()
    here = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]
    head = liveness.split(context.gcs_address)
    return [*([head] if head else []), *((n["NodeManagerAddress"], n["NodeManagerPort"]) for n in here)]


def _check_fits(resources: Resources) -> int:
    """Refuses what the cluster can never run; returns how many runs it can run at once."""
    import ray

    total = ray.cluster_resources()
    for name, wanted in (("GPU", resources.gpus), ("CPU", float(resources.cpus))):
        if wanted > total.get(name, 0):
            raise RunError(
                f"A run asks for {wanted:g} {name}, the cluster has {total.get(name, 0):g}; "
                f"lower --{'gpus' if name == 'GPU' else 'cpus'}-per-run."
            )
    shares = (("GPU", resources.gpus), ("CPU", float(resources.cpus)))
    return max(1, min(int(total.get(name, 0) / wanted) for name, wanted in shares if wanted > 0))
