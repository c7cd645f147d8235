"""A batch that overflows float16 is skipped and counted; training stops only if overflows continue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.contracts import Item, TrainingOutput
from harness.data.loader import TrainingData
from harness.errors import RunError
from harness.spec import recipe
from harness.spec.recipe import Recipe
from harness.system.seeding import seed_torch
from harness.training import optim
from harness.training.trainer import Diverged, Summary, Trainer
from tests.harness.training.test_train import Stopped, Waits, state_of, unequal
from tests.support.small_datasets import picture

SIZE = (16, 8)
STEPS = 4
"""Batches of an epoch: 12 identities of 2 images each, 3 identities per batch."""


class Net(nn.Module):
    """A linear layer between two norms; at the calls in `bad` its activations overflow float16, and only float16."""

    def __init__(self, bad: set[int]) -> None:
        super().__init__()
        self.bad, self.calls = bad, 0
        self.first, self.norm = nn.Linear(3 * SIZE[0] * SIZE[1], 8), nn.BatchNorm1d(8)
        self.classifier = nn.Linear(8, 12)

    def forward(self, images: Tensor, camera_ids: Tensor | None = None) -> TrainingOutput:
        factor = 1e6 if self.calls in self.bad else 1.0
        self.calls += 1
        features = self.norm(self.first(images.flatten(1)) * factor)
        return TrainingOutput(logits=[self.classifier(features)], features=[features])


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[Item]:
    folder = tmp_path_factory.mktemp("people")
    return [Item(picture(folder / f"{n}.png", 10 * n), n // 2, n % 2) for n in range(24)]


@pytest.fixture(params=["sgd", "adam"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _float16_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness refuses it because it is slow; it overflows like float16 on a GPU."""
    types = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
    monkeypatch.setattr("harness.training.trainer.precision", lambda precision, _: types[precision])


def settings(**overrides: Any) -> Recipe:
    values: dict[str, Any] = {
        "augmentation.image_size": list(SIZE),
        "augmentation.pad": 0,
        "sampler.identities": 3,
        "sampler.instances": 2,
        "sampler.epoch": "fixed",
        "sampler.iterations": STEPS,
        "training.epochs": 3,
        "training.precision": "fp16",
        "training.loss_scale": 1024.0,
    }
    return recipe.load(recipe.find("unified"), "", {**values, **overrides})


class Run:
    """One training of `Net`, with what it emitted."""

    def __init__(self, items: list[Item], folder: Path, chosen: Recipe, *, bad: set[int], stop: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        data = TrainingData(items, chosen, mean=(0.5,) * 3, std=(0.2,) * 3, seed=0)
        seed_torch(0, "build")
        self.net, self.stop = Net(bad), stop
        self.epochs: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.trainer = Trainer(
            self.net, data, chosen, device=torch.device("cpu"), seed=0, run_id="r", folder=folder, emit=self.emit
        )
        step = self.trainer.step

        def noted(batch: Any) -> dict[str, Tensor]:
            parts = step(batch)
            self.losses.append(float(parts["loss"]))
            return parts

        self.trainer.step = noted  # type: ignore[method-assign]

    def emit(self, event: str, **values: Any) -> None:
        if event == "epoch":
            self.epochs.append(values["metrics"])
            if values["epoch"] == self.stop:
                raise Stopped

    def fit(self) -> Summary:
        return self.trainer.fit()


def test_a_step_that_overflows_is_skipped_and_counted(items: list[Item], tmp_path: Path, name: str) -> None:
    run = Run(items, tmp_path, settings(**{"optimizer.name": name}), bad={5, 6})
    summary = run.fit()
    assert [loss == loss and abs(loss) < 1e4 for loss in run.losses] == [n not in (5, 6) for n in range(3 * STEPS)]
    assert summary.skipped_steps == 2 and [epoch["skipped_steps"] for epoch in run.epochs] == [0, 2, 0]
    assert run.trainer.scaler.get_scale() == 1024 / 4
    second = [loss for n, loss in enumerate(run.losses) if 4 <= n < 8 and n not in (5, 6)]
    assert run.epochs[1]["loss"] == pytest.approx(sum(second) / 2)
    for tensor in run.net.state_dict().values():
        assert tensor.isfinite().all()


def test_a_skipped_step_changes_nothing(items: list[Item], tmp_path: Path, name: str) -> None:
    """Weights, optimiser state and running statistics do not change, also in the first step."""
    run = Run(items, tmp_path, settings(**{"optimizer.name": name, "loss.center": 0.1}), bad={0, 2})
    batches = iter(run.trainer.data.epoch(0))
    for bad in (True, False, True):
        before = {k: v.clone() for k, v in run.net.state_dict().items() if v.is_floating_point()}
        moments = [v.clone() for s in run.trainer.optimizer.state.values() for v in s.values()]
        run.trainer.step(next(batches))
        after = run.net.state_dict()
        same = {key: torch.equal(value, after[key]) for key, value in before.items()}
        assert all(same.values()) if bad else not any(same.values())
        now = [v for s in run.trainer.optimizer.state.values() for v in s.values()]
        if not bad:
            assert any(v.any() for v in now)
        elif moments:
            assert all(torch.equal(a, b) for a, b in zip(moments, now, strict=True))
        else:
            assert not any(v.any() for v in now)
    assert int(run.trainer.skipped) == 2


def test_gradients_that_overflow_alone_are_skipped_too(items: list[Item], tmp_path: Path) -> None:
    run = Run(items, tmp_path, settings(**{"training.loss_scale": 2.0**40}), bad=set())
    summary = run.fit()
    assert all(abs(loss) < 1e4 for loss in run.losses), "every loss is finite, and counts"
    assert 3 * STEPS == summary.skipped_steps == sum(epoch["skipped_steps"] for epoch in run.epochs)
    assert run.epochs[0]["loss"] == pytest.approx(sum(run.losses[:STEPS]) / STEPS)


def test_training_ends_after_an_epoch_without_one_finite_loss(items: list[Item], tmp_path: Path) -> None:
    run = Run(items, tmp_path, settings(), bad=set(range(STEPS, 3 * STEPS)))
    with pytest.raises(Diverged, match=r"overflowing in epoch 2, at or before iteration 4: 4 steps have been skipped"):
        run.fit()
    assert len(run.epochs) == 1


def test_training_ends_when_the_loss_scale_gets_too_small(items: list[Item], tmp_path: Path) -> None:
    """One good step per epoch keeps the loss of the epoch finite; the loss scale shows the overflow."""
    scale, bad = 2.0**-12, {n for n in range(3 * STEPS) if n % STEPS}
    run = Run(items, tmp_path, settings(**{"training.loss_scale": scale}), bad=bad)
    with pytest.raises(Diverged, match=r"epoch 2, .* 6 steps have been skipped .* scale is 3\.8e-06\. .* 'bf16'"):
        run.fit()
    assert len(run.epochs) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_a_loss_scale_the_first_bad_loss_ends_training(
    items: list[Item], tmp_path: Path, precision: str
) -> None:
    run = Run(items, tmp_path, settings(**{"training.precision": precision}), bad={5})
    run.net.register_forward_pre_hook(lambda net, given: (given[0] * (torch.nan if net.calls == 5 else 1), given[1]))
    with pytest.raises(RunError, match="The loss is not finite in epoch 2, at or before iteration 4"):
        run.fit()
    assert len(run.epochs) == 1


def test_a_resumed_run_keeps_the_scale_and_the_count(items: list[Item], tmp_path: Path) -> None:
    straight = Run(items, tmp_path / "whole", settings(), bad={2, 9})
    whole = straight.fit()
    stopped = Run(items, tmp_path / "broken", settings(), bad={2}, stop=2)
    with pytest.raises(Stopped):
        stopped.fit()
    resumed = Run(items, tmp_path / "broken", settings(), bad={9 - 2 * STEPS})
    summary = resumed.fit()
    assert (summary.resumed_at, summary.skipped_steps, whole.skipped_steps) == (2, 2, 2)
    assert resumed.trainer.scaler.state_dict() == straight.trainer.scaler.state_dict()
    assert unequal(state_of(resumed.trainer), state_of(straight.trainer)) == []


def test_no_step_waits_to_see_whether_it_was_skipped(items: list[Item], tmp_path: Path) -> None:
    chosen = settings(**{"training.grad_clip": 5.0, "optimizer.name": "sgd"})
    run = Run(items, tmp_path, chosen, bad={1})
    step = type(run.trainer).step
    batches: Iterator[Any] = iter(run.trainer.data.epoch(0))
    step(run.trainer, next(batches))
    with Waits() as waits:
        step(run.trainer, next(batches))
    assert waits.seen == [] and int(run.trainer.skipped) == 1


def test_momentum_that_begins_at_zero_changes_no_step() -> None:
    nets = [nn.Linear(4, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    built = optim.build_optimizer(nets[0], recipe.Optimizer(lr=0.1, momentum=0.9, weight_decay=0.01))
    plain = torch.optim.SGD(nets[1].parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, fused=True)
    for seed in range(4):
        images = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        for net, optimizer in zip(nets, (built, plain), strict=True):
            optimizer.zero_grad()
            net(images).square().mean().backward()
            optimizer.step()
    assert unequal(nets[0].state_dict(), nets[1].state_dict()) == []
