"""The looser parts of a record: what is there must be right, or the pages made from it would break."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]


_NUMERIC = {int, float}  # exact types: a truth value is no number


def _number(value: Any) -> bool:
    return type(value) in _NUMERIC and 0 <= value < 1e30


def _finite(value: Any) -> bool:
    return type(value) in _NUMERIC and -1e30 < value < 1e30


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _text(value: Any) -> bool:
    return type(value) is str


def _scalar(value: Any) -> bool:
    return value is None or type(value) in (str, bool) or _finite(value)


def _list(inner: Check, length: int = 0) -> Check:
    return lambda v: isinstance(v, list) and all(map(inner, v)) and len(v) == (length or len(v))


def _table(inner: Check) -> Check:
    return lambda v: isinstance(v, dict) and all(map(inner, v.values()))


def _holding(**parts: Check) -> Check:
    """A table whose named entries, where they are there and not null, pass."""
    return lambda v: isinstance(v, dict) and not _wrong(v, parts)


def _wrong(table: dict[str, Any], parts: dict[str, Check]) -> list[str]:
    return [
        name for name, value in table.items() if value is not None and (check := parts.get(name)) and not check(value)
    ]


def _anything(value: Any) -> bool:
    return True


_SIZE = _list(_whole, 2)
_DATA: dict[str, Check] = {
    "layout": _text,
    "generated": _table(_anything),
    "notes": _table(_anything),
    "count_mismatch": _list(_text),
    "splits": _table(_table(_whole)),
    "evaluated": _table(_holding(generated=_table(_anything))),
}
_NUMBERS = (
    *("parameters", "parameters_inference", "parameters_trained", "flops", "peak_memory_bytes", "batch_size"),
    *("train_batch_size", "inference_images_per_second", "train_images_per_second", "threads", "repeats"),
    *("latency_ms", "latency_cpu_ms", "train_step_ms", "train_step_cpu_ms", "first_call_seconds", "relative_error"),
)
_EFFICIENCY: dict[str, Check] = {
    **dict.fromkeys(_NUMBERS, _number),
    **dict.fromkeys(("precision", "train_precision", "device", "scan", "measure"), _text),
    **dict.fromkeys(("latency_quartiles_ms", "train_step_quartiles_ms"), _list(_number, 2)),
    "image_size": _SIZE,
    "taken_over": _holding(run_id=_text, epochs=_whole),
    "skipped_steps": _whole,
    "memory_bytes": _table(lambda v: v is None or _number(v)),
    "conditions": _holding(fixed_work_ms=_list(_number), notes=_list(_text), others_cores=_number),
}
_EVALUATION: dict[str, Check] = {
    "interval": _table(_list(_finite, 2)),
    "per_query": _text,
    "n_junk": _whole,
    "n_gallery": _whole,
    "n_query": _whole,
    "tied_queries": _whole,
}
_SPEC: dict[str, Check] = {
    "values": lambda v: _holding(image_size=_SIZE)(v.get("augmentation", {})),
    "evaluate_on": _list(_list(_text, 2)),
    "dataset_options": _table(_table(_anything)),
    "fingerprint": _text,
    "source": _text,
    "pretrained": _text,
    "purpose": _text,
    "seed": lambda v: isinstance(v, int) and abs(v) < 2**63,
}
_PARTS: dict[str, dict[str, Check]] = {
    "spec": _SPEC,
    "data": _DATA,
    "efficiency": _EFFICIENCY,
    "timing": {"started": _text, "ended": _text, "seconds": _table(_number)},
    "error": {"type": _text, "message": _text, "log_tail": _text},
}
_WHOLE: dict[str, Check] = {
    "environment": _table(_scalar),
    "request": _holding(recipe=_text, about=_text, preset=_text, options=_table(_anything), set=_table(_anything)),
    "pictures": _list(_text),
    "attempts": _whole,
    "mlflow_run_id": _text,
    "ray_trial_id": _text,
}


def wrong_parts(record: dict[str, Any]) -> list[str]:
    """Returns one sentence for each part that is there but is not what docs/records.md says."""
    found = _wrong(record, _WHOLE)
    for part, checks in _PARTS.items():
        found += [f"{part}.{name}" for name in _wrong(record[part] or {}, checks)]
    for i, evaluation in enumerate(record["evaluations"]):
        found += [f"evaluations[{i}].{name}" for name in _wrong(evaluation, _EVALUATION)]
    return [f"{name} is not what docs/records.md says" for name in found]
