"""Memory format of modules on a device, and precisions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from backbones.selective_scan import implementation_for
from harness import registry
from harness.errors import RunError, UsageError
from harness.planning import request
from harness.system import device

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "last"), [("bot:demo", True), ("transreid:demo", False)])
def test_channels_lie_last_where_the_card_says_so(name: str, last: bool) -> None:
    entry = registry.backbone(name)
    module = entry.build(num_classes=3, num_cameras=2, image_size=(64, 32))
    placed = device.place(module, CPU, entry.card.input)
    kernels = [m.weight for m in placed.modules() if isinstance(m, nn.Conv2d) and m.weight.shape[-1] > 1]
    assert kernels and all(k.is_contiguous(memory_format=torch.channels_last) == last for k in kernels)
    module.eval()
    seen: list[bool] = []
    last_block = [m for m in placed.modules() if isinstance(m, nn.Conv2d)][-1]
    last_block.register_forward_hook(
        lambda m, i, out: seen.append(out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous())
    )
    with torch.inference_mode():
        module(torch.rand(2, 3, 64, 32), torch.zeros(2, dtype=torch.int64))
    assert seen == [last], "the order reaches the last convolution"


def test_precisions_have_names_and_half_needs_a_gpu() -> None:
    assert [device.precision_name(device.precision(n, CPU)) for n in ("auto", "fp32", "bf16")] == ["fp32"] * 2 + [
        "bf16"
    ]
    with pytest.raises(RunError, match="needs a GPU"):
        device.precision("fp16", CPU)


def test_fp32_means_32_bits() -> None:
    switches = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
    try:
        for switch in switches:
            switch.fp32_precision = "tf32"
        device.exact_float32()
        assert [switch.fp32_precision for switch in switches if switch.fp32_precision not in ("ieee", "none")] == []
        # These read the older interface, and raise if the two contradict each other.
        assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    finally:
        device.exact_float32()  # what the switches were cannot be set again through both interfaces


@pytest.mark.parametrize(("name", "backend"), [("mps", torch.backends.mps), ("xpu", torch.xpu)])
def test_other_devices_pass_where_torch_has_them(name: str, backend: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "is_available", lambda: True)
    request.make("bot", "market1501", {"device": name})
    assert request.resolve_device(name) == name and name in device.untested(name)
    assert implementation_for(name, torch.float32) == "torch", "the plain scan serves it"
    monkeypatch.setattr(backend, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"The device {name} cannot be used: torch .* finds none"):
        request.make("bot", "market1501", {"device": name})


def test_tested_devices_have_no_warning() -> None:
    assert not device.untested("cpu") and not device.untested("cuda")
