"""Counts what one inference and one training step start on a GPU, and bounds the time of both; no GPU is needed.

    python -m benchmarks.gpu_launches [--batch 64] [--size 256x128]

A processor needs some microseconds to start an operation on a GPU. If all operations of a step take less time than
starting them, the GPU waits for the processor; CUDA graphs or merged operations then help. The script passes tensors
without values through the networks in bf16 and notes every operation that starts a kernel. Two bounds of the time:

- host: 5 microseconds per operation
- card: for each operation, the larger of its bytes at the bandwidth and its products at the peak of an H100

Nothing is run or timed. Operations are as on a CPU, but for the selective scan, whose Triton kernels are counted.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from triton.runtime.jit import JITFunction

from backbones.selective_scan import use_implementation
from benchmarks.gpu_compiled import CARDS
from harness import registry
from harness.data.loader import Batch, TrainingData
from harness.registry.entries import BackboneEntry
from harness.spec import recipe
from harness.training.trainer import Trainer

BACKBONES = ("reidmamba", "transreid", "bot")
CLASSES, CAMERAS = 751, 6
CARD = CARDS[90]
START = 5e-6  # seconds to start an operation
PEAK = 989e12  # bf16 operations per second of an H100 SXM without sparsity, from its data sheet
FREE = (
    "detach",
    "alias",
    "lift_fresh",
    "_unsafe_view",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
)
"""Operations that start nothing. Views are left out, too."""
TOGETHER = 30  # tensors that one kernel of an operation on lists of tensors covers, at least

CHECKS = ("harness.losses.ReIDCriterion.check", "backbones.layers._check_cameras")
"""Functions that read values, which tensors here do not have."""
LISTS = ("torch.nn.utils.clip_grad._has_foreach_support", "torch.nn.utils.clip_grad._device_has_foreach_support")
"""Whether the norm of gradients is computed with few kernels, as on a GPU."""


@dataclass
class Started:
    """What a call starts.

    Attributes:
        operations: number of operations of PyTorch and launches of Triton.
        card: lower bound of their time on the card, in seconds.
    """

    operations: int = 0
    card: float = 0.0

    def add(self, values: Iterable[Any], flops: float = 0.0) -> None:
        """Notes an operation that reads or writes the tensors among some values."""
        tensors = {id(value): value for value in values if isinstance(value, Tensor)}.values()
        moved = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self.operations += -(-len(tensors) // TOGETHER)
        self.card += max(moved / (CARD.bandwidth * 1e12), flops / PEAK)


class Watch(TorchDispatchMode):
    """Notes the operations of PyTorch that start a kernel."""

    def __init__(self, started: Started) -> None:
        super().__init__()
        self.started = started

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if function.namespace == "aten" and not function.is_view and name not in FREE:
            count = flop_registry.get(function.overloadpacket)
            flops = count(*args, **(kwargs or {}), out_val=out) if count else 0.0
            self.started.add(tree_leaves((args, kwargs, out)), flops)
        return out


def started_by(call: Callable[[], object]) -> Started:
    """Returns what a call starts, without running the kernels of Triton."""
    found = Started()

    def launch(kernel: JITFunction, *args: Any, **named: Any) -> None:
        found.add([*args, *named.values()])

    with patch.object(JITFunction, "run", launch), Watch(found):
        call()
    return found


def calls(
    entry: BackboneEntry, module: torch.nn.Module, batch: int, size: tuple[int, int], folder: Path
) -> dict[str, Callable[[], object]]:
    """Returns an inference and a training step of a full-size backbone under its native recipe without center loss."""
    images, cameras = torch.empty(batch, 3, *size), torch.empty(batch, dtype=torch.int64)
    changed = {
        "loss.center": 0.0,
        "training.precision": "bf16",
        "sampler.identities": batch // 4,
        "sampler.instances": 4,
    }
    chosen = recipe.load(entry.native_recipe, "market1501", changed)
    trainer = Trainer(
        module,
        cast(TrainingData, SimpleNamespace(num_classes=CLASSES, batch_size=batch)),
        chosen,
        device=torch.device("cpu"),
        seed=0,
        run_id="launches",
        folder=folder,
        emit=lambda event, **_: None,
    )

    def infer() -> object:
        module.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            return module(images, cameras)

    def train() -> object:
        module.train()
        return trainer.step(Batch(images, torch.empty(batch, dtype=torch.int64), cameras))

    return {"inference": infer, "training step": train}


def main() -> None:
    """Prints a table of all backbones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", default="256x128", help="height x width")
    chosen = parser.parse_args()
    height, width = map(int, chosen.size.split("x"))
    print("| backbone | call | operations | host, ms | card, ms |\n|---|---|---|---|---|")
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for target in CHECKS:
            stack.enter_context(patch(target))
        for target in LISTS:
            stack.enter_context(patch(target, lambda *_: True))
        stack.enter_context(patch("backbones.selective_scan.choice._interpreted", lambda: True))
        stack.enter_context(use_implementation("triton"))
        for name in BACKBONES:
            rows(name, chosen.batch, (height, width), folder)


def rows(name: str, batch: int, size: tuple[int, int], folder: Path) -> None:
    """Prints the rows of one backbone."""
    entry = registry.backbone(name)
    module = entry.build(num_classes=CLASSES, num_cameras=CAMERAS, image_size=size)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        module._apply(mode.from_tensor)
        for kind, call in calls(entry, module, batch, size, folder).items():
            started_by(call)  # the first step also makes the state of the optimiser
            found = started_by(call)
            host, card = 1000 * START * found.operations, 1000 * found.card
            print(f"| {name} | {kind} | {found.operations:,} | {host:.1f} | {card:.1f} |", flush=True)


if __name__ == "__main__":
    main()
