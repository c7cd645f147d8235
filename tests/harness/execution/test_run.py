"""The main line, end to end, on generated people: command to record to report, and what happens when it breaks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records import store
from harness.system.paths import REPOSITORY
from tests.support.runs import arguments, only_record, running, wait_for

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.slow
def test_a_backbone_without_training_goes_from_command_to_report(cli: Cli, world: Path, tmp_path: Path) -> None:
    code, out, err = cli(*arguments(world, tmp_path))
    assert code == 0, out + err
    record = only_record(tmp_path)
    assert record["status"] == "ok" and record["data"]["generated"]["generated"] is True
    assert {e["flip"] for e in record["evaluations"]} == {False, True}
    assert "dummy" in (tmp_path / "BENCHMARKS.md").read_text()
    code, out, _ = cli(*arguments(world, tmp_path))
    assert code == 0 and "1 cached" in out, "a finished run is never repeated"


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["bot", "transreid", "reidmamba"])
def test_each_backbone_trains_scores_and_records(
    cli: Cli, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: str
) -> None:
    code, out, err = cli(*arguments(world, tmp_path, "--preset", "smoke", backbones=backbone, scheduler="local"))
    assert code == 0, out + err
    record = only_record(tmp_path)
    assert [e["trained"] for e in record["evaluations"]] == [False, True, True]
    assert record["efficiency"]["flops"] > 0 and record["efficiency"]["inference_images_per_second"] > 0
    folder = store.folder_of(tmp_path / "results", record)
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [e["epoch"] for e in epochs] == [1, 2]
    assert (folder / "checkpoint.pt").exists()
    assert {path.name for path in (folder / "pictures").iterdir()} == {"distances.png", "ranked_lists.png"}


@pytest.mark.usefixtures("quick_runs")
@pytest.mark.parametrize(
    ("fault", "status", "stage", "message"),
    [
        ("raise", "failed", "train", "this backbone breaks"),
        ("build", "failed", "build", "cannot be built"),
        ("nan", "diverged", "train", "not finite"),
        ("nan-features", "failed", "evaluate", "NaN|finite"),
        ("memory", "oom", "train", "out of memory"),
        ("kill", "failed", None, "SIGKILL"),
    ],
)
def test_a_fault_ends_in_a_record_and_exit_code_1(
    cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path, fault: str, status: str, stage: str, message: str
) -> None:
    more = ["--plugins", plugin_folder, "--option", f"pixels.fault={fault}", "--set", "evaluation.untrained=false"]
    code, out, err = cli(*arguments(world, tmp_path, *more, backbones="pixels", scheduler="local"))
    record = only_record(tmp_path)
    assert code == 1, out + err
    assert (record["status"], record["stage"]) == (status, stage)
    assert record["error"] is not None
    import re

    assert re.search(message, record["error"]["message"])
    page = (tmp_path / "BENCHMARKS.md").read_text()
    assert status in page
    assert not list((tmp_path / "results").rglob("*.tmp"))


@pytest.mark.usefixtures("quick_runs")
def test_a_hung_run_is_ended_at_its_limit(cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path) -> None:
    more = ["--plugins", plugin_folder, "--option", "pixels.fault=hang", "--timeout", "12s"]
    code, _, _ = cli(*arguments(world, tmp_path, *more, backbones="pixels", scheduler="local"))
    record = only_record(tmp_path)
    assert code == 1 and record["status"] == "timeout" and "12 s" in record["error"]["message"]  # type: ignore[index]


@pytest.mark.usefixtures("quick_runs")
def test_a_failed_run_is_run_again(cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path) -> None:
    model = plugin_folder / "pixels" / "model.py"
    sound = model.read_text()
    model.write_text(sound.replace("return Pixels(num_classes, fault)", "raise OSError('no such luck')"))
    cli(*arguments(world, tmp_path, "--plugins", plugin_folder, backbones="pixels"))
    assert only_record(tmp_path)["status"] == "failed"
    model.write_text(sound)
    code, out, _ = cli(*arguments(world, tmp_path, "--plugins", plugin_folder, backbones="pixels"))
    assert code == 0, out


@pytest.mark.usefixtures("quick_runs")
def test_interrupted_and_resumed_equals_uninterrupted(world: Path, plugin_folder: Path, tmp_path: Path) -> None:
    more = ["--plugins", plugin_folder, "--option", "pixels.fault=slow", "--set", "training.epochs=8"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    command = [sys.executable, "-m", "harness", *arguments(world, broken, *more, backbones="pixels", scheduler="local")]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(lambda: list(broken.rglob("checkpoint.pt")))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, process.stderr.read() if process.stderr else ""
    assert only_record(broken)["status"] == "interrupted"

    for folder in (broken, whole):
        done = subprocess.run(
            [sys.executable, "-m", "harness", *arguments(world, folder, *more, backbones="pixels", scheduler="local")],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    resumed, straight = only_record(broken), only_record(whole)
    assert resumed["efficiency"]["resumed_at_epoch"] > 0
    assert resumed["efficiency"]["skipped_steps"] == 0
    epochs = [json.loads(line) for path in broken.rglob("metrics.jsonl") for line in path.read_text().splitlines()]
    assert resumed["timing"]["seconds"]["train"] >= sum(epoch["seconds"] for epoch in epochs) > 0
    assert resumed["evaluations"] == straight["evaluations"], "resumed training equals uninterrupted training"


@pytest.mark.usefixtures("quick_runs")
def test_killing_the_driver_leaves_no_process_behind(
    cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path
) -> None:
    """And the next driver finishes its grid without repeating what was finished."""
    epochs = 8  # of half a second and more: enough to be killed in the middle of
    more = ["--plugins", plugin_folder, "--option", "pixels.fault=slow", "--set", f"training.epochs={epochs}"]
    words = arguments(world, tmp_path, *more, "--max-concurrent", 1, backbones="dummy,pixels", scheduler="local")
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", *words],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: list((tmp_path / "results").rglob("checkpoint.pt")), 120)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not running(tmp_path))
    finished = only_record(tmp_path)
    assert finished["spec"]["backbone"] == "dummy" and finished["status"] == "ok"

    code, out, err = cli(*words)
    assert code == 0 and "1 cached" in out, out + err
    records = {record["spec"]["backbone"]: record for record in store.records(tmp_path / "results")}
    assert records["dummy"] == finished, "a finished run is never repeated"
    assert records["pixels"]["status"] == "ok" and 0 < records["pixels"]["efficiency"]["resumed_at_epoch"] < epochs
    assert not running(tmp_path) and not list(tmp_path.rglob("*.tmp"))


@pytest.mark.usefixtures("quick_runs")
def test_ray_runs_the_same_line(cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path) -> None:
    more = ["--plugins", plugin_folder, "--max-concurrent", 2, "--cpus-per-run", 1, "--seeds", "0,1"]
    inline, ray = tmp_path / "local", tmp_path / "ray"
    for folder, scheduler in ((inline, "local"), (ray, "ray")):
        code, out, err = cli(*arguments(world, folder, *more, backbones="pixels,dummy", scheduler=scheduler))
        assert code == 0, out + err
    scores = [{r["run_id"]: r["evaluations"] for r in store.records(folder / "results")} for folder in (inline, ray)]
    assert len(scores[0]) == 4 and scores[0] == scores[1]


def test_no_data_ends_with_2_before_anything_is_scheduled(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    code, out, err = cli(*arguments(tmp_path / "nothing", tmp_path))
    assert code == 2 and "no data" in out and "prepare --datasets market1501" in out and "blocked" in err
    assert not (tmp_path / "results").exists()


def test_driver_without_a_gpu_does_not_guess_its_cluster(
    cli: Cli, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    words = ("run", "--backbones", "dummy", "--datasets", "market1501", "--data-root", world, "--results", tmp_path)
    code, _, err = cli(*words, "--address", "127.0.0.1:1")
    assert code == 2 and "--device cuda or --device cpu" in err and err.count("\n") == 1


def test_a_results_folder_that_is_a_file_is_refused(cli: Cli, world: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    code, _, err = cli(*arguments(world, tmp_path))
    assert code == 2 and "not writable" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rum"], "Did you mean 'run'"),
        (["run", "--preset", "dmeo"], "Did you mean 'demo'"),
        (["run", "--timeout", "soon"], "90s, 30m, 10h or 2d"),
        (["run", "--set", "seed"], "KEY=VALUE"),
        (["run", "--schedular", "ray"], "No such option"),
        (["compare", "bot", "dummy", "--dataset", "market1501"], "No finished run"),
        (["validate"], "Nothing to validate"),
    ],
)
def test_wrong_words_get_one_sentence_and_exit_code_2(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = cli(*words)
    assert code == 2 and message in err and "Traceback" not in err


@pytest.mark.parametrize("words", [["list", "backbones"], ["--help"], ["list", "--help"], ["status"]])
def test_output_that_goes_nowhere_is_one_sentence(tmp_path: Path, words: list[str]) -> None:
    for buffered in ("", "1"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "harness", *words],
                cwd=tmp_path,
                env={**os.environ, "PYTHONUNBUFFERED": buffered, "PYTHONPATH": str(REPOSITORY)},
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
            )
        assert done.returncode == 1
        assert done.stderr == "Error: The output could not be written (No space left on device).\n"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "harness", *words]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.usefixtures("quick_runs")
def test_the_reason_of_a_failed_run_is_on_the_screen(
    cli: Cli, world: Path, plugin_folder: Path, tmp_path: Path
) -> None:
    more = ["--plugins", plugin_folder, "--option", "pixels.fault=build"]
    code, out, _ = cli(*arguments(world, tmp_path, *more, backbones="pixels", scheduler="local"))
    assert code == 1 and "failed (RuntimeError: it cannot be built)" in out


@pytest.mark.usefixtures("quick_runs")
def test_ray_starts_below_a_temporary_folder_with_a_long_name(world: Path, tmp_path: Path) -> None:
    """Names of sockets may have 107 letters, and Ray's own part takes 68."""
    long = tmp_path / ("x" * 100)
    long.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"}
    done = subprocess.run(
        [sys.executable, "-m", "harness", *arguments(world, tmp_path, scheduler="ray")],
        cwd=REPOSITORY,
        env={**environment, "TMPDIR": str(long)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert only_record(tmp_path)["status"] == "ok"
