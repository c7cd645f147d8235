"""GPUs without torch: which are visible, how many, and which one `nvidia-smi` is asked about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import errors
from harness.execution import process
from harness.execution.options import Execution
from harness.spec.job import Job
from harness.system import gpu


@pytest.fixture
def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with twelve cores whose driver shows four GPUs."""
    for number in range(4):
        (tmp_path / "gpus" / f"0000:0{number}:00.0").mkdir(parents=True)
    (tmp_path / "version").touch()
    monkeypatch.setattr(gpu, "DRIVER", tmp_path)
    monkeypatch.setattr(gpu, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("shown", "names"),
    [(None, "0 1 2 3"), ("", ""), ("-1", ""), ("2", "2"), ("0, 3", "0 3"), ("GPU-x,-1,2", "GPU-x")],
)
def test_hidden_gpus_are_not_there(four: None, monkeypatch: pytest.MonkeyPatch, shown: str | None, names: str) -> None:
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert gpu.names() == names.split()


@pytest.mark.parametrize(
    ("devices", "names"), [("nvidiactl nvidia0 nvidia1 nvidia-uvm", "0 1"), ("dxg", "0"), ("nvidia-uvm", "")]
)
def test_devices_are_enough_where_proc_lacks_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: str, names: str
) -> None:
    for device in devices.split():
        (tmp_path / device).touch()
    monkeypatch.setattr(gpu, "DRIVER", tmp_path / "absent")
    monkeypatch.setattr(gpu, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu.driver() is bool(names)
    assert gpu.names() == names.split()


@pytest.mark.parametrize(("gpus", "cpus"), [(1.0, 3), (0.5, 1), (2.0, 6)])
def test_the_fair_share_of_cores_leaves_no_gpu_idle(four: None, gpus: float, cpus: int) -> None:
    assert Execution(gpus_per_run=gpus).resources(75, "cuda").cpus == cpus


def test_the_gpu_that_is_visible_is_the_one_that_is_asked(
    four: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "$@" | sed "s/.*-i //"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert gpu.ask("name", command=str(tool)) == ["3"]
    assert gpu.ask("name", command=str(tmp_path / "absent")) == []


def test_runs_count_gpus_as_nvidia_smi_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.record_samples import spec

    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert process._environment(Job(spec=spec(device="cuda"), folder=""))["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_an_illegal_access_is_no_want_of_memory(error: Exception, expected: bool) -> None:
    assert errors.out_of_memory(error) is expected
