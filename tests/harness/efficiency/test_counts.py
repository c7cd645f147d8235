"""What is counted is what the formulas say; what is measured adds up; doubts are told."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.selective_scan import ScanInputs, bidirectional_scan, use_implementation
from harness import efficiency, registry
from harness.efficiency import conditions, memory
from harness.efficiency.timing import Timing, repeat

CPU = torch.device("cpu")
SMALL = {"num_classes": 10, "num_cameras": 3, "image_size": (64, 32)}


def build(name: str, **changes) -> nn.Module:
    return registry.backbone(name).build(**{**SMALL, **changes}).eval()


def flops(module: nn.Module, image_size=(64, 32)) -> int:
    return efficiency.flops(module, *efficiency.random_batch(1, image_size, 3, CPU))


def test_flops_of_transreid_are_those_of_its_formula():
    dim, depth, patches, groups = 768, 12, 8, 4
    tokens = patches + 1

    def block(n: int) -> int:
        return 12 * n * dim * dim + 2 * n * n * dim  # query, key, value, projection, MLP of four widths; two products

    macs = patches * dim * 3 * 16 * 16 + (depth - 1) * block(tokens)
    macs += block(tokens) + groups * block(patches // groups + 1)  # the global branch, then those of JPM
    assert flops(build("transreid")) == 2 * macs


@pytest.mark.parametrize(("branches", "class_tokens"), [(1, 12), (3, 12), (2, 4)])
def test_flops_of_reidmamba_are_those_of_its_formula(branches, class_tokens):
    module = build("reidmamba:tiny", branches=branches, class_tokens=class_tokens)
    dim, inner, rank, state, patches = 64, 128, 4, 8, 32

    def block(tokens: int) -> int:
        projections = 2 * dim * 2 * inner + 2 * inner * dim
        direction = 2 * inner * (rank + 2 * state) + 2 * rank * inner + 2 * 4 * inner + 7 * inner * state + 3 * inner
        return tokens * (projections + 2 * direction)

    total = 2 * patches * dim * 3 * 8 * 8 + 2 * block(patches + class_tokens)
    for b in range(branches):
        tokens = class_tokens // 2**b
        total += 2 * block(patches + tokens) + 2 * tokens * dim * (dim // 4 * 2**b)
    assert flops(module) == total


@pytest.mark.parametrize(
    ("name", "blocks", "channels"),
    [("bot", (3, 4, 6, 3), (64, 128, 256, 512)), ("bot:demo", (1, 1, 1, 1), (16, 32, 64, 128))],
)
def test_flops_of_bot_are_those_of_its_formula(name, blocks, channels):
    """Of 128 by 64 pixels the last stage keeps 8 by 4, since its stride is 1."""
    macs = 64 * 32 * 64 * 3 * 7 * 7  # the stem, at half the size
    width, pixels = 64, 32 * 16  # after the pooling
    for count, channel, stride in zip(blocks, channels, (1, 2, 2, 1), strict=True):
        for block in range(count):
            macs += pixels * width * channel  # 1x1, before the stride
            pixels //= stride**2 if block == 0 else 1
            macs += pixels * (9 * channel * channel + channel * 4 * channel)
            changes = width != 4 * channel or (block == 0 and stride != 1)
            macs += pixels * width * 4 * channel if changes else 0  # the shortcut, where the shape changes
            width = 4 * channel
    assert pixels == 8 * 4
    assert flops(build(name), (128, 64)) == 2 * macs


@pytest.mark.parametrize("size", [(64, 32), (128, 64)])
def test_flops_do_not_depend_on_the_implementation_of_the_scan(size):
    module = build("reidmamba:tiny", image_size=size)
    found = {}
    for name in ("cpu", "torch"):
        with use_implementation(name):
            found[name] = flops(module, size)
            assert efficiency.scan_implementation(module) == name
    assert found["cpu"] == found["torch"]


class Arithmetic(TorchDispatchMode):
    """Counts the operations of the plain scan by the size of what they give; a multiply-add is two."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.cost = {"mul": 1, "exp": 1, "add": 1, "addcmul_": 2}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name == "bmm":
            self.total += 2 * out.numel() * args[0].shape[-1]
        elif name in self.cost:
            self.total += self.cost[name] * out.numel()
        return out


def test_the_formula_of_the_scan_counts_what_plain_torch_does():
    batch, channels, state, length = 1, 6, 4, 19

    def direction() -> ScanInputs:
        of = torch.rand
        sequence = (batch, channels, length), (batch, state, length)
        return ScanInputs(
            of(sequence[0]), of(sequence[0]), -of(channels, state), of(sequence[1]), of(sequence[1]), of(channels)
        )

    inputs = direction(), direction()
    with use_implementation("torch"), torch.no_grad(), Arithmetic() as counted:
        bidirectional_scan(*inputs, delta_softplus=False)
    assert counted.total == 2 * batch * length * (7 * channels * state + 3 * channels)


def test_a_backbone_without_a_scan_has_none():
    assert efficiency.scan_implementation(build("bot:demo")) is None


def test_parameters_trained_and_used_at_inference():
    module = build("bot:demo")
    images, cameras = efficiency.random_batch(1, (64, 32), 3, CPU)
    everything = efficiency.parameters(module)
    classifier = sum(p.numel() for n, p in module.named_parameters() if "classifier" in n or n.endswith("cls.weight"))
    frozen = sum(p.numel() for p in module.parameters() if not p.requires_grad)
    assert classifier > 0
    assert efficiency.parameters(module, trained=True) == everything - frozen
    assert efficiency.inference_parameters(module, images, cameras) == everything - classifier
    assert frozen == sum(p.numel() for p in module.parameters() if not p.requires_grad)  # left as they were


def test_timing_is_summarised_by_its_quartiles():
    timing = Timing.of([4.0, 2.0, 1.0, 3.0, 5.0], [1.0, 1.0, 9.0, 2.0, 3.0])
    assert (timing.low, timing.median, timing.high, timing.repeats, timing.busy) == (2.0, 3.0, 4.0, 5, 2.0)
    assert timing.drift == pytest.approx(4.0 / 3.0)  # 3, 5 after 4, 2
    assert Timing.of([1.0] * 6, [1.0] * 6).error == 0.0


def test_repeating_goes_on_until_the_median_is_known(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) * 1e-9)  # every call takes the same time
    assert repeat(lambda: None, CPU, seconds=10.0).repeats == 8
    assert repeat(lambda: None, CPU, seconds=0.0, least=3).repeats == 3


def test_saved_activations_are_counted_once():
    weight = torch.rand(8, 4, requires_grad=True)
    images = torch.rand(16, 8)
    saved = memory.saved_for_backward(lambda: (images @ weight).relu().sum(), [weight, images])
    assert saved == 16 * 4 * 4  # relu keeps its result; the product keeps what is given already
    shared = torch.rand(100)
    assert memory.held([shared, shared[:10], shared.view(10, 10)]) == 400


def test_working_memory_sees_a_large_temporary():
    def call() -> torch.Tensor:
        return torch.ones(64 * 2**20 // 4).sum()

    call()
    needed = memory.working(call, CPU)
    assert needed is None or needed > 48 * 2**20


QUIET = {"fixed_work_ms": [10.0, 10.1], "drift": 1.0, "others_cores": 0.02}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"others_cores": 1.3}, "other work used 1.3 cores"),
        ({"fixed_work_ms": [10.0, 12.0]}, "fixed work"),
        ({"drift": 1.2}, "second half"),
        ({"throttled": True}, "clock"),
        ({"foreign_gpu_bytes": 5 * 2**30}, "5.0 GiB"),
    ],
)
def test_what_casts_doubt_is_said(change, word):
    assert conditions.notes(QUIET) == []
    (note,) = conditions.notes(QUIET | change)
    assert word in note


@pytest.mark.parametrize("refused", ["nothing", "clocks_event_reasons", "clocks_throttle_reasons"])
def test_the_state_of_a_gpu_is_read_or_left_out(tmp_path, refused):
    tool = tmp_path / "nvidia-smi"
    known = f'case "$1" in *{refused}*) echo Field is not a valid field to query.; exit 2;; esac'
    tool.write_text(f"#!/bin/sh\n{known}\necho '1410, 1980, 61, 0x0000000000000020'\n")
    tool.chmod(0o755)
    assert conditions.gpu_state(str(tool)) == {
        "gpu_clock_mhz": 1410,
        "gpu_max_clock_mhz": 1980,
        "gpu_celsius": 61,
        "throttled": True,
    }
    assert conditions.gpu_state(str(tmp_path / "absent")) == {}


def test_conditions_watch_this_machine():
    watched = conditions.Conditions(CPU)
    watched.start()
    values = watched.stop(drift=1.0)
    assert len(values["fixed_work_ms"]) == 2 and isinstance(values["notes"], list)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: it asks glibc")
def test_holes_in_the_heap_are_not_memory_that_a_call_needs():
    script = """
import torch
from harness.efficiency import memory

def call():
    blocks = [torch.ones(1 << 20) for _ in range(64)]  # 4 MiB each
    del blocks[::2]
    return blocks, [torch.ones(1 << 21) for _ in range(16)]  # in no hole there is room for 8 MiB

with memory.without_holes():
    torch.ones(7 << 20)  # freed: glibc by itself would from now on keep blocks up to 28 MiB in its heap
    call()
    print(memory.working(call, torch.device("cpu")))
"""
    # In a young process: in this one, holes that tests left may serve the call.
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 0.9 * 256 * 2**20 < int(done.stdout) < 1.25 * 256 * 2**20
