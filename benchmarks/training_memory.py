"""Peak memory of a training step: as a whole, in pieces (`training.micro_batch`) and with gradient checkpointing.

Each measurement is a process of its own. On a CPU, memory is what the process needs beyond weights and inputs at the
highest point of a step; on a GPU, what torch's allocator counts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

PLANS: dict[str, dict[str, Any]] = {
    "whole batch": {},
    "pieces of 4": {"training.micro_batch": 4},
    "gradient checkpointing": {"training.gradient_checkpointing": True},
    "both": {"training.micro_batch": 4, "training.gradient_checkpointing": True},
}


def measure(backbone: str, plan: str, batch: int, device: str) -> dict[str, Any]:
    """Peak bytes and seconds of one step, and the number of blocks that are computed again."""
    import time

    import torch

    from harness import efficiency, registry
    from harness.data.loader import Batch
    from harness.efficiency import memory
    from harness.spec import recipe
    from harness.system.device import exact_float32, place
    from harness.training.recomputation import blocks
    from harness.training.trainer import Trainer

    torch.set_num_threads(1)
    exact_float32()
    with memory.without_holes():
        entry = registry.backbone(backbone)
        sampler = {"sampler.identities": batch // 4, "sampler.instances": 4, "optimizer.lr": 1e-6}
        fixed = {**sampler, "training.precision": "fp32" if device == "cpu" else "fp16"}
        chosen = recipe.load(recipe.find("unified"), "", {**fixed, **PLANS[plan]})
        options = entry.options({})
        module = entry.build(num_classes=751, num_cameras=6, image_size=(256, 128), **options)
        place(module, torch.device(device), entry.input).train()
        data: Any = SimpleNamespace(num_classes=751, batch_size=batch)
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                module,
                data,
                chosen,
                device=torch.device(device),
                seed=0,
                run_id="",
                folder=Path(folder),
                emit=lambda *_, **__: None,
            )
        images, cameras = efficiency.random_batch(batch, (256, 128), 6, torch.device(device))
        step = Batch(images, torch.arange(batch // 4).repeat_interleave(4), cameras)
        trainer.step(step)
        trainer.optimizer.zero_grad(set_to_none=True)
        started = time.perf_counter()
        peak = memory.working(lambda: trainer.step(step), torch.device(device))
        return {"peak": peak, "seconds": time.perf_counter() - started, "blocks": len(blocks(module))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", default="bot,transreid,reidmamba")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one, given.batch, given.device)))
        return
    print(f"batch of {given.batch} at 256x128 on {given.device}; a step beyond weights, optimiser state and inputs")
    for backbone in given.backbones.split(","):
        for plan in PLANS:
            words = ["--batch", str(given.batch), "--device", given.device, "--one", backbone, plan]
            command = [sys.executable, "-m", "benchmarks.training_memory", *words]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            mib = found["peak"] / 2**20
            print(
                f"{backbone:12} {plan:24} {mib:8,.0f} MiB {found['seconds']:7.1f} s, {found['blocks']} blocks",
                flush=True,
            )


if __name__ == "__main__":
    main()
