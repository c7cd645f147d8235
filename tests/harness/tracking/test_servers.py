"""Which tracking server gets what: its own answer in errors, its address kept, and nothing missing in the end."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from harness import tracking
from harness.errors import HarnessError, UsageError
from harness.records import store
from harness.tracking.presence import FOLDER
from tests.harness.tracking.test_tracking import answering, children, finished, make, running, sqlite, tell
from tests.support.record_samples import spec

Cli = Callable[..., tuple[int, str, str]]


def arguments(world: Path, folder: Path, *more: object) -> list[str]:
    fixed = ["run", "--backbones", "dummy", "--datasets", "market1501", "--recipe", "smoke", "--from-scratch"]
    fixed += ["--data-root", str(world), "--results", str(folder), "--debug", "--device", "cpu"]
    return [*fixed, *map(str, more)]


def client(uri: str) -> tuple[Any, Any]:
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=uri)
    return found, found.get_experiment_by_name(tracking.EXPERIMENT)


def parents(uri: str) -> list[Any]:
    found, experiment = client(uri)
    runs = found.search_runs([experiment.experiment_id])
    return [run for run in runs if "mlflow.parentRunId" not in run.data.tags]


@pytest.mark.slow
def test_deleted_experiment_names_the_restoring_command(tmp_path: Path) -> None:
    uri, results, said = sqlite(tmp_path), tmp_path / "results", list[str]()
    finished(results, spec())
    tracking.sync(results, uri)
    found, experiment = client(uri)
    found.delete_experiment(experiment.experiment_id)
    job = finished(results, spec(seed=1))
    with pytest.raises(
        HarnessError, match=rf"was deleted.*experiments restore --experiment-id {experiment.experiment_id}"
    ):
        tracking.sync(results, uri)
    with pytest.raises(HarnessError, match="was deleted"):
        tracking.restore(uri, tmp_path / "restored")
    tracker = make(results, uri, said)
    tell(tracker, job)
    assert not tracker.close("ok") and len(said) == 1
    assert "was deleted" in said[0] and "--sync" in said[0] and "does not answer" not in said[0]
    found.restore_experiment(experiment.experiment_id)
    assert tracking.sync(results, uri) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "body", "message"),
    [
        (200, "<html><body>Welcome</body></html>", "Welcome.*Check whether this is the address"),
        (200, "{}", "is not an MLflow server. Check the address"),
        (404, "<html>Not Found</html>", "404.*Not Found.*Check whether this is the address"),
        (401, "log in first", "401.*log in first"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "not yours"}', "PERMISSION_DENIED: not yours"),
        (500, '{"error_code": "INTERNAL_ERROR", "message": "the database is gone"}', "500 .*the database is gone"),
    ],
)
def test_what_a_server_answers_is_shown(tmp_path: Path, code: int, body: str, message: str) -> None:
    finished(tmp_path, spec())
    with answering(code, 0.0, body) as uri, pytest.raises(HarnessError, match=message) as raised:
        tracking.sync(tmp_path, uri)
    assert "does not answer" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("uri", ["file:///{}/runs", "{}/runs"])
def test_a_folder_as_store_gets_mlflow_s_own_words(tmp_path: Path, uri: str) -> None:
    finished(tmp_path / "results", spec())
    with pytest.raises(HarnessError, match=r"cannot be used: .*sqlite:///"):
        tracking.sync(tmp_path / "results", uri.format(tmp_path))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("uri", ["sqlite:///", "sqlite://", "sqlite:///:memory:", "sqlite:///?mode=ro"])
def test_address_that_keeps_nothing_is_refused_first(cli: Cli, world: Path, tmp_path: Path, uri: str) -> None:
    code, _, err = cli(*arguments(world, tmp_path, "--mlflow-uri", uri))
    assert code == 2 and "names no file" in err and err.count("\n") == 1
    assert store.paths_of(tmp_path) == []
    code, _, err = cli("status", "--results", tmp_path, "--sync", "--mlflow-uri", uri)
    assert code == 2 and "names no file" in err


def test_a_database_that_is_not_there_is_not_made_by_reading(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="does not exist"):
        tracking.restore(f"sqlite:///{tmp_path}/folder/typo.db", tmp_path / "restored")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.parametrize("name", ["a?b", "a#b", "a b", "50%20", "100%", "a&b=c", "it's"])
def test_results_may_lie_below_any_name(cli: Cli, world: Path, tmp_path: Path, name: str) -> None:
    results = tmp_path / name
    code, out, err = cli(*arguments(world, results))
    assert code == 0 and "status --sync" not in out, out + err
    assert (results / "mlflow.db").is_file() and [path.name for path in tmp_path.iterdir()] == [name]
    (line,) = [line for line in out.splitlines() if line.startswith("MLflow: ")]
    words = shlex.split(line.removeprefix("MLflow: "))
    assert words[1:5] == ["-m", "mlflow", "ui", "--backend-store-uri"] and len(words) == 6
    assert tracking.file_of(words[5]) == results / "mlflow.db" and name in unquote(words[5])
    assert len(children(words[5])) == 1 and tracking.unsent(results, words[5]) == []


@pytest.mark.usefixtures("quick_runs")
def test_records_go_where_the_runs_went(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results, uri = tmp_path / "results", f"sqlite:///{tmp_path}/elsewhere.db"
    finished(results, spec())
    assert "missing in MLflow" not in cli("status", "--results", results)[1], "nobody tracks them"
    tracker = make(results, uri)
    assert tracker.close("ok")
    assert f"1 of them is missing in MLflow at {uri}" in cli("status", "--results", results)[1]
    code, out, _ = cli("status", "--results", results, "--sync")
    assert code == 0 and f"Sent 1 record to MLflow at {uri}." in out
    assert len(children(uri)) == 1 and not (results / "mlflow.db").exists()
    assert "missing in MLflow" not in cli("status", "--results", results)[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite(tmp_path))
    assert f"1 of them is missing in MLflow at {sqlite(tmp_path)}" in cli("status", "--results", results)[1]


@pytest.mark.usefixtures("quick_runs")
def test_an_address_with_a_password_is_asked_for_and_never_kept(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    finished(tmp_path, spec())
    with answering(500, 0.0) as uri:
        secret = uri.replace("//", "//me:s3cret@")
        make(tmp_path, secret).close("ok", timeout=60)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]
    code, out, _ = cli("status", "--results", tmp_path)
    assert code == 0 and "1 of them is missing in MLflow at http://***@127.0.0.1" in out
    code, _, err = cli("status", "--results", tmp_path, "--sync")
    assert code == 2 and "passwords are not stored" in err and "--mlflow-uri" in err


@pytest.fixture
def killed(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A results folder whose driver was killed between the end of its run and the tracker's last word."""
    results, uri = tmp_path / "results", sqlite(tmp_path)
    job = finished(results, spec())
    server = tracking.Server.connect(uri, results)
    parent = server.start("killed", {"harness.driver": "dead"})
    tags = {"harness.run_id": job.spec.run_id, "harness.attempt": "1"}
    server.start("half a run", tags, parent)
    (results / FOLDER).mkdir(exist_ok=True)
    (results / FOLDER / "dead").touch()
    yield results, uri


@pytest.mark.slow
def test_the_next_driver_sends_what_a_killed_one_did_not(killed: tuple[Path, str]) -> None:
    results, uri = killed
    before = finished(results, spec())
    tracker = tracking.Tracker(results, uri, print, name="next", tags={}, folders=lambda: [Path(before.folder)])
    job = finished(results, spec(seed=1))
    tell(tracker, job)
    assert tracker.close("ok")
    assert {run.data.tags["harness.run_id"] for run in children(uri)} == {before.spec.run_id, job.spec.run_id}
    assert len(children(uri)) == 2 and all(run.info.status == "FINISHED" for run in children(uri))
    assert running(uri) == [] and tracking.unsent(results, uri) == []


@pytest.mark.usefixtures("quick_runs")
def test_so_does_a_driver_with_nothing_to_run(cli: Cli, world: Path, tmp_path: Path) -> None:
    results, uri = tmp_path / "results", sqlite(tmp_path)
    words = arguments(world, results)
    assert cli(*words, "--no-mlflow")[0] == 0, "finished, and nobody was told"
    server = tracking.Server.connect(uri, results)
    server.start("killed", {"harness.driver": "dead"})
    (results / FOLDER).mkdir(exist_ok=True)
    (results / FOLDER / "dead").touch()
    code, out, err = cli(*words, "--mlflow-uri", uri)
    assert code == 0 and "1 cached" in out and "Sent 1 finished runs to MLflow" in out, out + err
    (child,) = children(uri)
    assert child.info.status == "FINISHED" and child.data.metrics["mAP"] > 0
    assert running(uri) == [] and len(parents(uri)) == 2
    code, out, err = cli(*words, "--mlflow-uri", uri)
    assert code == 0 and "Sent" not in out and len(parents(uri)) == 2, "nothing is missing, so nothing is made"
    with answering(500, 0.0) as broken:
        code, out, _ = cli(*words, "--mlflow-uri", broken)
    assert code == 0 and "answers with an error" in out and "status --sync" in out


def test_addresses_and_files(tmp_path: Path) -> None:
    assert tracking.file_of("https://host") is None
    assert tracking.file_of("sqlite:////tmp/a%3Fb.db?timeout=3") == Path("/tmp/a?b.db")
    with pytest.raises(UsageError, match="names no file"):
        tracking.address(tmp_path, "sqlite:///")
