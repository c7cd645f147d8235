"""The efficiency study: its plan, one process a cell, want of memory as a result."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from harness.cli import profile as command
from harness.errors import UsageError
from harness.planning import profile
from harness.planning.request import Request
from harness.records import environment, store


def study(**changes) -> profile.Study:
    values = {
        "image_sizes": [(64, 32)],
        "batches": [1, 4],
        "train_batches": [8],
        "precisions": ["fp32"],
        "heights": [64, 128],
        "heights_batch": 1,
        "compiled": False,
        "threads": 1,
        "seconds": 0.1,
    }
    return profile.Study(**{**values, **changes})


def plan(tmp_path, *, backbones: str = "bot:demo,reidmamba:tiny", **changes):
    return profile.build(Request(backbones=backbones, results=tmp_path, device="cpu"), study(**changes))


def test_every_condition_once_and_backbones_take_turns(tmp_path):
    cells = plan(tmp_path)
    conditions = [str(profile.Condition.from_values(c.spec.values)) for c in cells]
    assert (
        conditions[::2]
        == conditions[1::2]
        == [
            "inference, 64x32, batch 1, fp32",  # also the first height
            "inference, 64x32, batch 4, fp32",
            "training, 64x32, batch 8, fp32",
            "inference, 128x32, batch 1, fp32",
        ]
    )
    assert [c.spec.backbone for c in cells[:4]] == ["bot:demo", "reidmamba:tiny", "reidmamba:tiny", "bot:demo"]
    assert len({c.spec.run_id for c in cells}) == len(cells)
    assert [c.spec.run_id for c in plan(tmp_path)] == [c.spec.run_id for c in cells]


def test_what_changes_the_figures_changes_the_key(tmp_path, monkeypatch):
    def first(**changes) -> str:
        return plan(tmp_path, **changes)[0].spec.run_id

    known = first()
    assert known not in (first(threads=2), first(seconds=1.0), first(precisions=["bf16"]), first(batches=[2]))
    monkeypatch.setattr(environment, "hardware", lambda device: "another machine")
    assert first() != known


def test_compiling_and_precisions_multiply_but_heights_do_not(tmp_path):
    cells = plan(tmp_path, backbones="bot:demo", precisions=["fp32", "bf16"], compiled=True)
    assert len(cells) == 2 * 2 * 3 + 1


def test_what_cannot_be_measured_is_blocked_or_refused(tmp_path):
    cells = plan(tmp_path, precisions=["fp16"], backbones="dummy,bot:demo")
    assert {c.reason for c in cells if c.spec.backbone == "bot:demo"} == {"fp16 needs a GPU"}
    with pytest.raises(UsageError, match="multiple of 4"):
        plan(tmp_path, train_batches=[6])
    with pytest.raises(UsageError, match="precision"):
        plan(tmp_path, precisions=["fp8"])
    for flag, value in (("--image-size", "256"), ("--batch", "0"), ("--heights", "tall")):
        result = CliRunner().invoke(command.command, [flag, value, "--device", "cpu", "--results", str(tmp_path)])
        assert isinstance(result.exception, UsageError) and flag in str(result.exception)


def test_planning_imports_no_torch(tmp_path):
    code = (
        "import sys; from harness.cli import main; sys.argv = ['harness', 'profile', '--device', 'cpu', '--dry-run', "
        f"'--results', {str(tmp_path)!r}]; main(); assert not {{'torch', 'ray', 'mlflow'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "cells on" in done.stdout


def run(tmp_path, *words: str) -> tuple[int, str]:
    places = ["--results", str(tmp_path / "results"), "--report", str(tmp_path / "B.md"), "--no-mlflow"]
    fixed = ["--device", "cpu", "--threads", "1", "--seconds", "0.1", "--image-size", "64x32", "--heights", ""]
    done = subprocess.run(
        [sys.executable, "-m", "harness", "profile", *fixed, *places, *words], capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_study_becomes_records_and_a_page(tmp_path):
    code, said = run(tmp_path, "--backbones", "reidmamba:tiny", "--batch", "2", "--train-batch", "8")
    assert code == 0, said
    records = {r["efficiency"]["measure"]: r for r in store.records(tmp_path / "results")}
    inference, training = records["inference"]["efficiency"], records["training"]["efficiency"]
    assert {r["source"] for r in records.values()} == {"profile"}
    assert inference["latency_ms"] / 1000 * inference["inference_images_per_second"] == pytest.approx(2)
    assert inference["scan"] in ("cpu", "torch") and inference["threads"] == 1
    assert inference["parameters"] == training["parameters"] > inference["parameters_inference"]
    assert inference["memory_bytes"]["inputs"] == 2 * 3 * 64 * 32 * 4
    parts = training["memory_bytes"]
    assert parts["gradients"] == 4 * training["parameters_trained"] and parts["activations"] > 0
    assert parts["optimizer_state"] == parts["gradients"]  # SGD with momentum keeps one number a parameter
    page = (tmp_path / "B.md").read_text()
    assert "## Efficiency study" in page and "### Training step" in page
    assert str(tmp_path) not in json.dumps(list(records.values()))
    code, said = run(tmp_path, "--backbones", "reidmamba:tiny", "--batch", "2", "--train-batch", "8")
    assert code == 0 and said.count("\ncached") == 2 and "2 cached." in said


@pytest.mark.slow
def test_compiled_half_precision_cells_are_measured_too(tmp_path):
    words = ("--backbones", "bot:demo", "--batch", "2", "--train-batch", "", "--precision", "bf16", "--compile")
    code, said = run(tmp_path, *words)
    assert code == 0, said
    cells = [r["efficiency"] for r in store.records(tmp_path / "results")]
    assert sorted(cell["compiled"] for cell in cells) == [False, True]
    assert all(cell["precision"] == "bf16" and cell["latency_ms"] > 0 for cell in cells)
    plain, compiled = sorted(cells, key=lambda cell: cell["compiled"])
    assert plain["flops"] == compiled["flops"] and plain["parameters"] == compiled["parameters"]
    assert compiled["first_call_seconds"] > plain["first_call_seconds"]  # it compiles
    assert "bf16" in (tmp_path / "B.md").read_text()


@pytest.mark.slow
def test_want_of_memory_is_a_cell(tmp_path):
    code, said = run(tmp_path, "--backbones", "bot:demo", "--batch", "1,100000000", "--train-batch", "")
    assert code == 0, said
    ended = {r["spec"]["values"]["cell"]["batch_size"]: r for r in store.records(tmp_path / "results")}
    assert ended[1]["status"] == "ok"
    assert ended[100_000_000]["status"] == "oom"
    assert "batch 100000000" in ended[100_000_000]["error"]["message"]
    assert "Out of memory" in said


@pytest.mark.slow
def test_failed_cells_fail_the_study_on_the_tracker_too(tmp_path, cli, plugin_folder):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/runs.db"
    words = ["--backbones", "pixels", "--plugins", plugin_folder, "--option", "pixels.fault=build", "--device", "cpu"]
    words += ["--image-size", "64x32", "--heights", "", "--batch", "1", "--train-batch", "", "--seconds", "0.1"]
    code, out, err = cli("profile", *words, "--results", tmp_path / "results", "--mlflow-uri", uri)
    assert code == 1 and "cannot be built" in out, out + err
    client = MlflowClient(tracking_uri=uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "reid-harness"]
    assert {run.info.status for run in client.search_runs([experiment.experiment_id])} == {"FAILED"}
