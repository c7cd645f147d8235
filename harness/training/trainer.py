"""The training loop, identical for every backbone: a fixed schedule to the last epoch, a checkpoint every epoch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from harness.data.copies import copied_ahead
from harness.data.loader import Batch, TrainingData
from harness.errors import RunError
from harness.losses import ReIDCriterion
from harness.spec.recipe import Recipe
from harness.system import hooks
from harness.system.device import precision
from harness.system.seeding import seed_torch
from harness.training import checkpoint, optim
from harness.training.gradients import Gradients
from harness.training.group import Group
from harness.training.overflow import SMALLEST_SCALE, Tally
from harness.training.recomputation import recompute_blocks
from harness.training.running_statistics import RunningStatistics, has_batch_norm

Emit = Callable[..., None]
OnEpoch = Callable[[int, nn.Module], dict[str, float]]


LOCAL_STATISTICS = (
    "training.micro_batch: batch norm uses the statistics of {} images at a time instead of {}, so scores may differ "
    "from those of the whole batch."
)
NO_BLOCKS = "training.gradient_checkpointing has no effect: no list or sequence of the network repeats a block."


class Diverged(RunError):
    """The loss is not finite, so training stops."""


@dataclass
class Summary:
    """Length and speed of training.

    Attributes:
        epochs: number of epochs of the recipe.
        images_per_second: throughput of the epochs trained in this process; `None` without any.
        seconds: duration in this process.
        resumed_at: epoch at which this process started.
        skipped_steps: number of steps skipped by the gradient scaler, also before a resume.
        taken_over: run whose checkpoint was reused, and its number of epochs.
    """

    epochs: int
    images_per_second: float | None
    seconds: float
    resumed_at: int
    skipped_steps: int
    taken_over: dict[str, Any] | None = None


class Trainer:
    """Trains one module with one recipe.

    Args:
        module: the backbone, already on `device`.
        data: training batches in PK order.
        recipe: settings of the training.
        device: device of the training.
        seed: seed of the run. The random numbers of an epoch depend only on the seed and the epoch, so a resumed run
            equals an uninterrupted one.
        run_id: id of the run, saved in checkpoints so that other runs do not resume from them.
        folder: folder of the checkpoints.
        emit: called with progress and epoch events.
        training: key of the training, see `harness.spec.run_spec.training_key`; may be empty.
        take_over: whether to start from the checkpoint of another run with this key, if one exists.
        on_epoch: called after every epoch with its number and the module; returns additional metrics.
        group: the processes that train together. The first one saves, calls `on_epoch` and emits events.
    """

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        recipe: Recipe,
        *,
        device: torch.device,
        seed: int,
        run_id: str,
        folder: Path,
        emit: Emit,
        training: str = "",
        take_over: bool = False,
        on_epoch: OnEpoch | None = None,
        group: Group | None = None,
    ) -> None:
        self.module, self.data, self.recipe = module, data, recipe
        self.device, self.seed, self.run_id, self.folder, self.emit = device, seed, run_id, folder, emit
        self.on_epoch, self.training, self.may_take_over = on_epoch, training, take_over
        self.group = group or Group()
        self.taken_over: dict[str, Any] | None = None
        self.iteration = 0  # number of steps since the start of training, for schedules per iteration
        self.criterion = ReIDCriterion(recipe.loss, num_classes=data.num_classes).to(device)
        self.optimizer = optim.build_optimizer(module, recipe.optimizer)
        self.dtype = precision(recipe.training.precision, device)
        scaled = self.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, init_scale=recipe.training.loss_scale, enabled=scaled)
        self.statistics = RunningStatistics(module)
        self.skipped = torch.zeros((), dtype=torch.int64, device=device)  # steps since the start of training
        self._one = torch.ones((), device=device)
        if recipe.training.gradient_checkpointing and not recompute_blocks(module):
            emit("warning", text=NO_BLOCKS)
        if 0 < recipe.training.micro_batch < data.batch_size and has_batch_norm(module):
            emit("warning", text=LOCAL_STATISTICS.format(recipe.training.micro_batch, data.batch_size))
        how = recipe.training.compile
        self.compiled = how != "no"
        self.gradients = Gradients(
            cast(nn.Module, torch.compile(module, mode=how)) if self.compiled else module,
            self.criterion,
            micro_batch=recipe.training.micro_batch,
            group=self.group,
            autocast=lambda: torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32),
            scale=self.scaler.scale,
            statistics=self.statistics,
        )

    def fit(self) -> Summary:
        """Trains to the last epoch of the recipe, and resumes from the newest checkpoint if there is one.

        Raises:
            Diverged: the loss is not finite; with a gradient scaler, only if lowering the loss scale does not help.
        """
        first = self._resume()
        epochs, started, images, busy = self.recipe.training.epochs, time.monotonic(), 0, 0.0
        for epoch in range(first, epochs):
            metrics = self._epoch(epoch)
            images += int(metrics.pop("images"))
            busy += metrics["seconds"]
            if self.group.is_first:
                self._finish_epoch(epoch, metrics)
            self.group.from_first()
        rate = images / busy if busy else None
        return Summary(epochs, rate, time.monotonic() - started, first, int(self.skipped), self.taken_over)

    def _finish_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        """Scores the model if the run does so after every epoch, saves it and reports the metrics."""
        if self.on_epoch:
            metrics |= self.on_epoch(epoch, self.module)
        hooks.reached("save", epoch=epoch + 1)
        self._save(epoch)
        self.emit("epoch", epoch=epoch + 1, epochs=self.recipe.training.epochs, metrics=metrics)

    def _epoch(self, epoch: int) -> dict[str, float]:
        """Trains one epoch. Sums of losses stay on the device, so that no step waits for the previous one."""
        hooks.reached("epoch", epoch=epoch + 1)
        seed_torch(self.seed, "epoch", epoch)
        self.module.train()
        iterations = self.data.iterations(epoch)
        tally, skipped, images = Tally(), int(self.skipped), 0
        started = shown = time.monotonic()
        for iteration, batch in enumerate(copied_ahead(self.data.epoch(epoch), self.device)):
            self._set_rates(epoch, iterations)
            tally.add(self.step(batch))
            images += len(batch.labels)  # of all processes
            self.iteration += 1
            if (now := time.monotonic()) - shown > 1.0:
                self._check(tally, epoch)
                self._progress(epoch, iteration + 1, iterations, images / (now - started))
                shown = now
        self._check(tally, epoch, ended=True)
        seconds = time.monotonic() - started
        return {
            **tally.means(),
            "lr": self.optimizer.param_groups[0]["lr"] / self.optimizer.param_groups[0].get("layer_factor", 1.0),
            "skipped_steps": int(self.skipped) - skipped,
            "images_per_second": images / seconds,
            "seconds": seconds,
            "images": images,
        }

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Runs one training step on a batch in PK order; returns the loss and its parts, on the device.

        With a gradient scaler, a step with gradients that are not finite is skipped and halves the loss scale. If the
        loss is not finite, the running statistics are restored as well.
        """
        sampler = self.recipe.sampler
        self.criterion.check(batch.labels, sampler.identities, sampler.instances)
        images, labels = (t.to(self.device, non_blocking=True) for t in (batch.images, batch.labels))
        statistics = self.statistics.now() if self.scaler.is_enabled() else None
        self.optimizer.zero_grad(set_to_none=True)
        self.criterion.zero_grad(set_to_none=True)
        # CUDA graphs need the cameras on the device; otherwise the backbone checks their range, on the CPU.
        cameras = batch.camera_ids.to(self.device, non_blocking=True) if self.compiled else batch.camera_ids
        loss, parts = self.gradients(images, cameras, labels, sampler.identities, sampler.instances)
        if self.recipe.training.grad_clip > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.recipe.training.grad_clip)
        self.scaler.step(self.optimizer)
        scale = self.scaler.scale(self._one)
        self.criterion.center_step(scale)
        self.scaler.update()
        self.skipped += self.scaler.scale(self._one) < scale
        if statistics is not None:
            self.statistics.restore(statistics, keep=loss.isfinite())
        return {"loss": loss, **{f"loss/{name}": part.detach() for name, part in parts.items()}}

    def _set_rates(self, epoch: int, iterations: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = group.get("layer_factor", 1.0) * optim.rate(
                self.recipe.schedule,
                self.recipe.optimizer,
                epoch=epoch + 1,
                iteration=self.iteration,
                iterations_per_epoch=iterations,
                epochs=self.recipe.training.epochs,
                is_bias=group.get("is_bias", False),
            )

    def _check(self, tally: Tally, epoch: int, *, ended: bool = False) -> None:
        """Checks all losses of the epoch so far.

        Raises:
            Diverged: a loss is not finite; with a gradient scaler, only if lowering the loss scale does not help.
        """
        where = f"in epoch {epoch + 1}, at or before iteration {tally.steps}"
        advice = "Try a lower optimizer.lr, a longer warm-up or training.grad_clip"
        if not self.scaler.is_enabled():
            if tally.finite < tally.steps:
                raise Diverged(f"The loss is not finite {where}. {advice}.")
        elif (scale := self.scaler.get_scale()) < SMALLEST_SCALE or (ended and not tally.finite):
            raise Diverged(
                f"float16 keeps overflowing {where}: {int(self.skipped)} steps have been skipped since the start, "
                f"and the loss scale is {scale:.2g}. {advice}, or training.precision 'bf16' or 'fp32'."
            )

    def _progress(self, epoch: int, iteration: int, iterations: int, rate: float) -> None:
        left = (iterations - iteration) + iterations * (self.recipe.training.epochs - epoch - 1)
        self.emit(
            "progress",
            stage="train",
            epoch=epoch + 1,
            epochs=self.recipe.training.epochs,
            iteration=iteration,
            iterations=iterations,
            images_per_second=rate,
            seconds_left=left * self.data.batch_size / rate,
        )

    def _save(self, epoch: int) -> None:
        state: dict[str, Any] = {
            "run_id": self.run_id,
            "training": self.training,
            "taken_over": self.taken_over,
            "epoch": epoch,
            "iteration": self.iteration,
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "criterion": self.criterion.state_dict(),
            "scaler": self.scaler.state_dict(),
            "skipped_steps": int(self.skipped),
        }
        checkpoint.save(self.folder, state)

    def _resume(self) -> int:
        """Returns the first epoch to train. All processes read the checkpoint that the first one has chosen."""
        if self.group.is_first:
            return self.group.from_first(self._load())
        first = self.group.from_first()
        if first and (found := self._load()) != first:
            raise RunError(
                f"Process {self.group.rank} read a checkpoint of {found} epochs in {self.folder}, and the first "
                f"process one of {first}. Start the command again."
            )
        return first

    def _load(self) -> int:
        """Loads the newest checkpoint; returns the number of its epochs."""
        warn = lambda text: self.emit("warning", text=text)  # noqa: E731
        state = checkpoint.load(self.folder, self.run_id, warn, self.training)
        if state is None and self.may_take_over:
            checkpoint.take_over(self.folder, self.training)
            state = checkpoint.load(self.folder, self.run_id, warn, self.training)
        if state is None:
            return 0
        self.taken_over = state.get("taken_over")
        if state["run_id"] != self.run_id:
            self.taken_over = {"run_id": state["run_id"], "epochs": int(state["epoch"]) + 1}
            warn(
                f"Training resumes from run {state['run_id'][:12]}, which has the same training data and settings: "
                f"{self.taken_over['epochs']} of {self.recipe.training.epochs} epochs are done."
            )
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.criterion.load_state_dict(state["criterion"])
        self.scaler.load_state_dict(state["scaler"])
        self.skipped.fill_(state.get("skipped_steps", 0))  # absent in older checkpoints
        self.iteration = int(state["iteration"])
        return int(state["epoch"]) + 1
