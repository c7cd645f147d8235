"""Costs: whether speed, memory and time are possible and agree with each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from harness.reporting.others.findings import Finding, Subject, doubtful, unchecked, wrong

GPU_FLOPS = 5e15
"""Operations per second that no single GPU reaches in float32, bfloat16 or float16."""

CORE_FLOPS = 5e11
"""Operations per second that no core of a CPU reaches: 64 float32 operations per cycle at 5 GHz are 3.2e11."""

MOST_CORES = 2048
"""More cores than one machine has."""

SLACK = 1.05
SHORTEST_TRAINING = 60
"""Seconds below which the time of training is not compared: a sampler may leave out half the images of a small set."""

FASTEST_TRAINING = 0.5
"""Share of images / speed below which a training time is too short."""

Values = Mapping[str, Any]


def check(subject: Subject) -> Iterator[Finding]:
    """All costs of the record."""
    numbers = subject.record["efficiency"]
    yield from _parameters(subject, numbers)
    yield from _speed(subject.record, numbers)
    yield from _latency(numbers)
    yield from _training(subject.record, numbers)
    yield from _times(subject.record)


def _parameters(subject: Subject, numbers: Values) -> Iterator[Finding]:
    total, at_test, memory = (numbers.get(n) for n in ("parameters", "parameters_inference", "peak_memory_bytes"))
    if total is not None and at_test is not None and at_test > total:
        yield wrong(f"{at_test:,} parameters at test are more than all {total:,}.")
    if at_test and memory and memory < 2 * at_test:
        yield doubtful(f"A peak memory of {memory:,.0f} bytes cannot hold {at_test:,} parameters.")
    spec = subject.record["spec"]
    card = subject.backbones.get(spec["backbone"].partition(":")[0])
    classes = ((subject.record["data"].get("splits") or {}).get("train") or {}).get("identities")
    for row in card.parameters if card and total else ():
        size = numbers.get("image_size")
        same = {**card.options, **row.options} == spec["options"] if card else False
        if same and row.num_classes == classes and list(row.image_size) == size and row.count != total:
            yield doubtful(f"The build has {total:,} parameters, the card says {row.count:,}.")


def _speed(record: Values, numbers: Values) -> Iterator[Finding]:
    """Operations per second, against what no device reaches."""
    flops, environment = numbers.get("flops"), record["environment"]
    on_gpu = numbers.get("device") == "cuda"
    cores = environment.get("cores")
    rates = ("inference_images_per_second", "train_images_per_second")
    if not flops and any(numbers.get(name) for name in rates):
        yield unchecked("The speed, because the record has no number of operations.")
    if not on_gpu and not isinstance(cores, int | float):
        yield unchecked("The speed, because the record has no number of cores.")
        return
    if isinstance(cores, int | float) and cores > MOST_CORES:
        yield doubtful(f"The machine has {cores:,.0f} cores.")
    at_test = numbers.get("parameters_inference")
    if flops and at_test and flops < at_test:
        yield doubtful(f"{flops:,.0f} operations for an image are fewer than the {at_test:,} parameters at test.")
    limit = GPU_FLOPS if on_gpu else CORE_FLOPS * max(1, float(cores or 1))
    processes = numbers.get("train_processes") or 1
    for name, factor in zip(rates, (1, 3 / processes), strict=True):
        rate = numbers.get(name)
        if flops and rate and flops * rate * factor > limit:
            yield doubtful(f"{name} {rate:,.0f} means {flops * rate * factor:.1e} operations per second, too many.")


def _latency(numbers: Values) -> Iterator[Finding]:
    """Throughput is the batch size divided by the latency."""
    for time, rate in (
        ("latency_ms", "inference_images_per_second"),
        ("train_step_ms", "train_images_per_second"),
    ):
        values = (numbers.get("batch_size"), numbers.get(time), numbers.get(rate))
        if all(values):
            batch, milliseconds, images = map(float, values)  # type: ignore[arg-type]
            ratio = images * milliseconds / 1000 / batch
            if not 1 / SLACK < ratio < SLACK:
                yield wrong(f"{batch:.0f} images in {milliseconds:.3g} ms are not {images:.3g} images per second.")


def _training(record: Values, numbers: Values) -> Iterator[Finding]:
    """The recorded time of training, against its speed."""
    images = ((record["data"].get("splits") or {}).get("train") or {}).get("images")
    seconds = (record["timing"].get("seconds") or {}).get("train")
    rate, epochs = numbers.get("train_images_per_second"), numbers.get("epochs")
    if not (images and seconds and rate and epochs):
        return
    resumed = numbers.get("resumed_at_epoch") or 0
    if resumed > epochs:
        yield wrong(f"Training resumed at epoch {resumed} of {epochs}.")
    done = epochs - resumed
    expected = done * images / rate
    if expected > SHORTEST_TRAINING and seconds < FASTEST_TRAINING * expected:
        yield doubtful(
            f"Training took {seconds:,.0f} s, but {done} epochs of {images:,} images take {expected:,.0f} s at "
            f"{rate:,.0f} images per second."
        )


def _times(record: Values) -> Iterator[Finding]:
    try:
        started, ended = (
            datetime.fromisoformat(moment) if moment else None
            for moment in (record["timing"].get("started"), record["timing"].get("ended"))
        )
        if started and ended and ended < started:
            yield wrong("The run ended before it started.")
        if started and started > datetime.now(UTC):
            yield doubtful("The run started in the future.")
    except (ValueError, TypeError):
        yield wrong("The start or end of the run is not a time in ISO 8601 with a time zone.")
