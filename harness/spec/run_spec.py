"""A run is a value: a frozen `RunSpec`, canonical JSON, SHA-256."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

import msgspec

from harness.cards import from_table
from harness.spec.names import Purpose


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN. Tuples and lists are the same."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """All that may change the number of a run, and nothing else.

    Order, time, host, number of workers and the harness's own source are not in it; a change of the harness
    that moves numbers raises `protocol`.

    Attributes:
        protocol: protocol version of the harness, Major.Minor.
        backbone: registered name, with the variant: `reidmamba` or `reidmamba:baseline`.
        options: every build option with its value.
        source: hash of the plug-in's files and of the repository files it shares.
        pretrained: identity of the starting weights (checksum or timm tag), or `none`.
        dataset: registered name of the training dataset.
        fingerprint: hash of what was read: relative paths, sizes, identities, cameras.
        dataset_options: reader options given by the user, per dataset name.
        evaluate_on: dataset name and fingerprint of every dataset scored besides the test split of `dataset`.
        recipe: name of the recipe.
        values: every value of the recipe.
        seed: seed of everything random.
        device: `cpu` or `cuda`.
        torch: Major.Minor of torch.
        purpose: `test` trains on the whole training set and scores the test split;
            `search` trains on part of the training identities and scores the held-out rest;
            `checkpoint` and `features` score the file that `pretrained` names.
        holdout: seed and share of the held-out identities, for `search`.
    """

    backbone: str
    dataset: str
    recipe: str
    values: dict[str, Any]
    seed: int
    device: str
    protocol: str
    torch: str
    source: str = ""
    pretrained: str = "none"
    fingerprint: str = ""
    options: dict[str, Any] = {}
    dataset_options: dict[str, dict[str, Any]] = {}
    evaluate_on: tuple[tuple[str, str], ...] = ()
    purpose: Purpose = "test"
    holdout: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return json.loads(canonical(msgspec.to_builtins(self)))

    @functools.cached_property
    def run_id(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return hashlib.sha256(canonical(values).encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunSpec:
        """Inverse of `to_dict`; what does not fit raises UsageError."""
        return from_table(cls, data, "spec")


def training_key(spec: RunSpec, train_fingerprint: str) -> str:
    """SHA-256 over all that the trained weights depend on: runs with equal keys train the same model.

    Args:
        spec: the run; what is scored, and how, is left out.
        train_fingerprint: of the training split alone; `spec.fingerprint` is of all splits.
    """
    values = {key: value for key, value in spec.to_dict()["values"].items() if key not in ("name", "evaluation")}
    values.get("augmentation", {}).pop("interpolation_test", None)
    scored = ("fingerprint", "evaluate_on", "dataset_options", "recipe")
    trained = {key: value for key, value in spec.to_dict().items() if key not in scored}
    return hashlib.sha256(canonical({**trained, "values": values, "train": train_fingerprint}).encode()).hexdigest()
