"""The Triton kernels: values and gradients on a GPU, or in Triton's interpreter where there is none.

The interpreter must be chosen before Triton is imported, so without a GPU this file runs itself once in its own
process. That the kernels become GPU code without spilling registers is checked by compiling them, which needs no GPU.
"""

import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.selective_scan import ScanInputs, bidirectional_mixer, bidirectional_scan, causal_conv1d, selective_scan
from tests.backbones.test_selective_scan import (
    assert_same,
    difference,
    in_float64,
    loop_conv,
    loop_scan,
    scan_tensors,
)
from tests.backbones.test_selective_scan_mixer import inputs, largest_difference, values

pytest.importorskip("triton", reason="needs triton, which comes with CUDA builds of torch: pip install triton")

REPOSITORY = Path(__file__).resolve().parents[2]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if GPU else "cpu"


def runs_kernels(test):
    """Marks a test that runs kernels: on a GPU, or in the interpreter, which `test_under_the_interpreter` starts."""
    return test if INTERPRETED else pytest.mark.gpu(test)


# Odd channel counts, states that are no power of two, lengths around a chunk; a GPU takes real sizes too.
SHAPES = [(1, 1, 1, 1), (2, 5, 3, 7), (1, 3, 16, 9)]
SHAPES += [(2, 768, 16, 140), (3, 130, 16, 401)] if GPU else []


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """The interpreter is slow for every element of a tile; small tiles also give several tiles for small shapes."""
    if INTERPRETED:
        from backbones.selective_scan import gpu

        for name in ("FORWARD", "BACKWARD", "CONVOLUTION"):
            monkeypatch.setattr(gpu, name, gpu.Tile(4, 4))


def on_device(tensors):
    return {name: tensor.detach().to(DEVICE).requires_grad_() for name, tensor in tensors.items()}


def channels_last(tensor):
    """The layout a linear layer gives."""
    return tensor.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()


@pytest.mark.slow
@pytest.mark.skipif(GPU or INTERPRETED, reason="the other tests of this file run the kernels here")
def test_under_the_interpreter():
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-x", "-p", "no:cacheprovider", __file__],
        cwd=REPOSITORY,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert " passed" in result.stdout


@runs_kernels
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_scan(shape, reverse):
    tensors = on_device(scan_tensors(*shape, dtype=torch.float32))
    exact = in_float64(tensors)
    options = {"delta_softplus": True, "reverse": reverse}
    found = selective_scan(**tensors, **options, implementation="triton")
    assert_same(found, loop_scan(**exact, **options), tensors, exact, 1e-5)


@runs_kernels
@pytest.mark.parametrize("layout", ["steps last", "channels last"])
@pytest.mark.parametrize("gated", [True, False])
def test_both_directions_in_one_launch(layout, gated):
    one, two = (on_device(scan_tensors(2, 5, 3, 11, dtype=torch.float32, seed=seed)) for seed in (1, 2))
    z = one.pop("z")
    del two["z"]
    if layout == "channels last":
        # z is half of a projection: its strides are not those of u. B of one direction needs a copy.
        one["u"], two["u"], two["B"] = channels_last(one["u"]), channels_last(two["u"]), channels_last(two["B"])
        z = torch.cat([z.detach().transpose(1, 2)] * 2, dim=2)[:, :, :5].transpose(1, 2).requires_grad_()
    inputs = {f"{name} {i}": tensor for i, side in enumerate((one, two)) for name, tensor in side.items()}
    if gated:
        inputs["z"] = z
    exact = in_float64(inputs)
    exact_one, exact_two = ({name: exact[f"{name} {i}"] for name in one} for i in (0, 1))
    options = {"z": exact.get("z"), "delta_softplus": True}
    expected = (loop_scan(**exact_one, **options) + loop_scan(**exact_two, **options, reverse=True)) / 2
    found = bidirectional_scan(ScanInputs(**one), ScanInputs(**two), z=inputs.get("z"), implementation="triton")
    assert_same(found, expected, inputs, exact, 1e-5)


@runs_kernels
def test_optional_tensors():
    tensors = on_device(scan_tensors(1, 3, 2, 9, dtype=torch.float32))
    for name in ("D", "z", "delta_bias"):
        del tensors[name]
    tensors["delta"] = tensors["delta"].detach().abs().requires_grad_()
    exact = in_float64(tensors)
    found = selective_scan(**tensors, implementation="triton")
    assert_same(found, loop_scan(**exact), tensors, exact, 1e-5)


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_accumulates_in_float32(dtype):
    one, two = (on_device(scan_tensors(1, 3, 4, 21, dtype=dtype, seed=seed)) for seed in (1, 2))
    z = one.pop("z")
    del two["z"]
    inputs = [*one.values(), *two.values(), z]
    found = bidirectional_scan(ScanInputs(**one), ScanInputs(**two), z=z, implementation="triton")
    grads = torch.autograd.grad(found.sum(), inputs)
    exact_one, exact_two, exact_z = in_float64(one), in_float64(two), z.detach().double().requires_grad_()
    options = {"z": exact_z, "delta_softplus": True}
    expected = (loop_scan(**exact_one, **options) + loop_scan(**exact_two, **options, reverse=True)) / 2
    exact_grads = torch.autograd.grad(expected.sum(), [*exact_one.values(), *exact_two.values(), exact_z])
    rounding = torch.finfo(dtype).eps
    assert found.dtype == dtype and difference(found, expected) < rounding
    for grad, exact_grad in zip(grads, exact_grads, strict=True):
        assert grad.dtype == dtype and difference(grad, exact_grad) < rounding


@runs_kernels
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("shape", "width", "silu"), [((2, 5, 7), 4, True), ((1, 9, 11), 4, True), ((1, 2, 2), 3, False)]
)
def test_causal_conv(shape, width, silu, reverse):
    generator = torch.Generator().manual_seed(0)
    tensors = {"x": torch.randn(shape, generator=generator)}
    tensors["weight"] = torch.randn(shape[1], width, generator=generator)
    if silu:
        tensors["bias"] = torch.randn(shape[1], generator=generator)
    tensors = on_device(tensors)
    exact = in_float64(tensors)
    activation = "silu" if silu else None
    found = causal_conv1d(**tensors, activation=activation, reverse=reverse, implementation="triton")
    expected = loop_conv(exact["x"], exact["weight"], exact.get("bias"), silu, reverse)
    assert_same(found, expected, tensors, exact, 1e-5)


@runs_kernels
def test_mixer():
    size = {"channels": 768 if GPU else 6, "length": 140 if GPU else 7}
    found = values(partial(bidirectional_mixer, implementation="triton"), *inputs(device=DEVICE, **size))
    exact = values(partial(bidirectional_mixer, implementation="torch"), *inputs(torch.float64, **size))
    assert largest_difference((tensor.cpu() for tensor in found), exact) < 1e-5


class Counted(TorchDispatchMode):
    """Counts the operations of PyTorch."""

    def __init__(self):
        super().__init__()
        self.calls = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@runs_kernels
def test_sums_and_casts_around_the_kernels_are_few():
    _, x, z, *weights = inputs(torch.bfloat16, torch.float32, batch=1, length=5, channels=4, device=DEVICE)
    with Counted() as forward:
        out = bidirectional_mixer(x, z, *weights, implementation="triton")
    with Counted() as backward:
        out.backward(torch.ones_like(out))
    assert forward.calls["_to_copy"] == 4, "two matrices per direction"
    assert backward.calls["_to_copy"] == 5, "the gradients of these, and once those of B and C"
    assert backward.calls["sum"] == 4, "one per convolution, and two of the scan"
    assert backward.calls["add"] == 0, "both directions are accumulated in place"


def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch):
    from backbones.selective_scan import gpu

    entered = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **constants: entered.append("launch")

    class Guard:
        def __init__(self, tensor):
            entered.append(tensor)

        def __enter__(self):
            entered.append("enter")

        def __exit__(self, *error):
            entered.append("exit")

    monkeypatch.setattr(torch.cuda, "device_of", Guard)
    lead = torch.zeros(1)
    gpu._run(Kernel(), (1,), lead, 2, STEPS=4)
    assert entered == [lead, "enter", "launch", "exit"]


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2 or INTERPRETED, reason="needs two CUDA devices")
def test_the_second_gpu_gives_the_same():
    tensors = scan_tensors(2, 64, 16, 33, dtype=torch.float32)
    first, second = (
        selective_scan(**{k: v.to(device) for k, v in tensors.items()}, implementation="triton").cpu()
        for device in ("cuda:0", "cuda:1")
    )
    assert torch.equal(first, second)


COMPILED = [("bf16", 16, True, 90), ("bf16", 16, True, 80), ("fp32", 8, False, 90), ("fp16", 16, False, 80)]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET replaces the compiler; runs without it")
@pytest.mark.parametrize("case", COMPILED, ids=lambda case: "-".join(map(str, case)))
def test_compiles_for_a_gpu_without_spilling(case):
    """Every value of every setting once; `python benchmarks/gpu_compiled.py --every` compiles all combinations."""
    from benchmarks.gpu_compiled import Case, check

    found = check(Case(*case))
    assert [name for name, _, _ in found] == ["scan_forward", "scan_backward", "conv_forward", "conv_backward"]
    assert not [problem for _, _, problem in found if problem]
    assert all(code.shared <= 48 * 1024 for _, code, _ in found)


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET replaces the compiler; runs without it")
def test_a_tile_that_does_not_fit_the_registers_is_found(monkeypatch):
    from backbones.selective_scan import gpu
    from benchmarks.gpu_compiled import Case, calls, compiled, record

    monkeypatch.setattr(gpu, "FORWARD", gpu.Tile(64, 8))
    assert compiled(record(calls(Case())["scan_forward"]), 90).spills_in_loops()
