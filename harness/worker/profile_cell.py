"""One cell of the efficiency study: measures a backbone under one condition, in its own process."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from msgspec.structs import replace

from harness import efficiency, registry
from harness.contracts import scan_implementation
from harness.data.loader import Batch, TrainingData
from harness.efficiency import memory
from harness.efficiency.conditions import Conditions
from harness.efficiency.timing import repeat
from harness.errors import RunError, out_of_memory
from harness.spec import recipe
from harness.spec.condition import NUM_CAMERAS, NUM_CLASSES, Condition
from harness.spec.job import Job
from harness.system.device import exact_float32, place, precision
from harness.system.seeding import seed_torch
from harness.training.trainer import Trainer

if TYPE_CHECKING:
    from harness.worker.events import Progress


class ProfileCell:
    """Measures one condition; like a `Pipeline`, it adds results to `blocks` as soon as they are known.

    Attributes:
        blocks: the `efficiency` block of the record.
        tables: empty, because there are no queries.
    """

    def __init__(self, job: Job, folder: Path, progress: Progress) -> None:
        self.job, self.spec, self.folder, self.progress = job, job.spec, folder, progress
        self.condition = Condition.from_values(job.spec.values)
        self.device = torch.device(job.spec.device)
        self.blocks: dict[str, Any] = {"efficiency": {}}
        self.tables: dict[str, list[dict[str, Any]]] = {}

    def run(self) -> None:
        """Builds and measures the module; running out of memory raises RunError, which gives status `oom`."""
        pinned = pin(self.condition.threads)
        exact_float32()
        self._check_hardware()
        self.blocks["efficiency"] = {**self.condition.described(), "device": self.device.type, "threads_pinned": pinned}
        if self.device.type == "cpu":
            limit_memory()
        try:
            with memory.without_holes():
                self.progress.enter("build")
                module = self._build()
                self.progress.enter("measure")
                self._count(module)
                training = self.condition.measure == "training"
                call = self._training(module) if training else self._inference(module)
            self._time(call, *(("train", "train_step") if training else ("inference", "latency")))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise RunError(f"Out of memory: {self.condition}.") from None

    def _check_hardware(self) -> None:
        """Raises RunError if the GPU is not the one this cell was planned for."""
        planned = self.spec.values["hardware"]
        if self.device.type == "cuda" and not torch.cuda.get_device_name().startswith(planned):
            raise RunError(
                f"The cell was planned for a {planned}, but this process sees a {torch.cuda.get_device_name()}. "
                "Select one GPU with CUDA_VISIBLE_DEVICES and start the command again."
            )

    def _build(self) -> torch.nn.Module:
        plugins = Path(self.job.paths.plugins) if self.job.paths.plugins else None
        seed_torch(self.spec.seed, "build")
        entry = registry.backbone(self.spec.backbone, plugins)
        module = entry.build(
            num_classes=NUM_CLASSES,
            num_cameras=NUM_CAMERAS,
            image_size=self.condition.image_size,
            **self.spec.options,
        )
        return place(module, self.device, entry.input)

    def _count(self, module: torch.nn.Module) -> None:
        images, cameras = self._batch(1)
        self.blocks["efficiency"] |= {
            "parameters": efficiency.parameters(module),
            "parameters_trained": efficiency.parameters(module, trained=True),
            "parameters_inference": efficiency.inference_parameters(module, images, cameras),
            "flops": efficiency.flops(module, images, cameras),
            "scan": scan_implementation(module),
        }

    def _inference(self, module: torch.nn.Module) -> Callable[[], object]:
        """Measures the memory of one batch at test time; returns the call to time."""
        module.eval()
        images, cameras = self._batch()
        called = self._compiled(module)

        def call() -> Any:
            with torch.inference_mode(), self._autocast():
                return called(images, cameras)

        self._warm(call)
        weights = memory.held([*module.parameters(), *module.buffers()])
        inputs, activations = memory.held([images]), memory.working(call, self.device)
        self.blocks["efficiency"] |= {
            "memory_bytes": {"weights": weights, "inputs": inputs, "activations": activations},
            "peak_memory_bytes": None if activations is None else weights + inputs + activations,
        }
        return call

    def _training(self, module: torch.nn.Module) -> Callable[[], object]:
        """Measures the memory of a training step (forward, losses, backward, clipping, optimiser); returns the step."""
        settings = recipe.from_values("profile", self.spec.values["recipe"])
        if self.condition.compiled:
            settings = replace(settings, training=replace(settings.training, compile="default"))
        stand_in = cast(TrainingData, SimpleNamespace(num_classes=NUM_CLASSES, batch_size=self.condition.batch_size))
        module.train()
        trainer = Trainer(
            module,
            stand_in,
            settings,
            device=self.device,
            seed=self.spec.seed,
            run_id=self.spec.run_id,
            folder=self.folder,
            emit=self.progress.emit,
        )
        images, cameras = self._batch()
        identities = settings.sampler.identities
        labels = torch.arange(identities).repeat_interleave(settings.sampler.instances)
        batch = Batch(images, labels.pin_memory() if self.device.type == "cuda" else labels, cameras)

        def step() -> Any:
            return trainer.step(batch)

        self._warm(step)
        own = [*module.parameters(), *module.buffers()]
        state = [v for group in trainer.optimizer.state.values() for v in group.values() if torch.is_tensor(v)]

        def forward() -> Any:
            with self._autocast():
                output = module(images, cameras)
                return trainer.criterion(output, labels.to(self.device), identities, settings.sampler.instances)

        parts = {
            "weights": memory.held(own),
            "gradients": memory.held(p.grad for p in module.parameters() if p.grad is not None),
            "optimizer_state": memory.held(state),
            "inputs": memory.held([images]),
            "activations": memory.saved_for_backward(forward, [*own, images]),
        }
        trainer.optimizer.zero_grad(set_to_none=True)
        peak = memory.working(step, self.device)
        self.blocks["efficiency"] |= {
            "train_batch_size": self.condition.batch_size,
            "train_precision": self.condition.precision,
            "memory_bytes": parts,
            "peak_memory_bytes": None
            if peak is None
            else parts["weights"] + parts["optimizer_state"] + parts["inputs"] + peak,
        }
        return step

    def _time(self, call: Callable[[], object], kind: str, unit: str) -> None:
        """Times a warmed-up call, and checks the state of the machine before and after."""
        conditions = Conditions(self.device)
        conditions.start()
        timing = repeat(call, self.device, seconds=self.condition.seconds, warm_up=1)
        watched = conditions.stop(timing.drift)
        self.blocks["efficiency"] |= {
            f"{kind}_images_per_second": self.condition.batch_size / timing.median,
            f"{unit}_ms": 1000 * timing.median,
            f"{unit}_cpu_ms": 1000 * timing.busy,
            f"{unit}_quartiles_ms": [1000 * timing.low, 1000 * timing.high],
            "repeats": timing.repeats,
            "relative_error": timing.error,
            "conditions": watched,
        }

    def _warm(self, call: Callable[[], object]) -> None:
        """Times the first call separately, because it compiles kernels and starts threads."""
        started = time.perf_counter()
        call()
        efficiency.synchronise(self.device)
        self.blocks["efficiency"]["first_call_seconds"] = time.perf_counter() - started

    def _compiled(self, module: torch.nn.Module) -> Callable[..., Any]:
        return torch.compile(module) if self.condition.compiled else module

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = precision(self.condition.precision, self.device)
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)

    def _batch(self, batch_size: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        number = batch_size or self.condition.batch_size
        return efficiency.random_batch(number, self.condition.image_size, NUM_CAMERAS, self.device)


def pin(threads: int) -> bool:
    """Sets the number of threads; returns whether they could be pinned to as many cores."""
    torch.set_num_threads(threads)
    try:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:threads])
    except (AttributeError, OSError):
        return False
    return True


def limit_memory() -> None:
    """Limits this process to the free memory, so that an allocation fails before the system kills a process."""
    with contextlib.suppress(OSError, ValueError, StopIteration, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (free + used, hard))
