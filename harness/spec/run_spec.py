"""Run specs: everything that may change the results of a run, and the run id, a hash of their canonical JSON."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

import msgspec

from harness.cards import from_table
from harness.spec.names import Purpose


def canonical(value: Any) -> str:
    """Returns canonical JSON: sorted keys, no spaces, no NaN. Tuples are written as lists."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """Everything that may change the results of a run, and nothing else.

    Order, time, host, number of workers and the harness's own source code are not part of it. A change of the harness
    that changes results raises `protocol`.

    Attributes:
        protocol: protocol version of the harness, Major.Minor.
        backbone: registered name, with the variant: `reidmamba` or `reidmamba:strong-baseline`.
        options: every build option with its value.
        source: hash of the plug-in's code and of the repository files it uses.
        pretrained: checksum of the starting weights, or `none`.
        dataset: registered name of the training dataset.
        fingerprint: hash of the relative paths, file sizes, identities and cameras of all images.
        dataset_options: reader options given by the user, by dataset name.
        evaluate_on: name and fingerprint of every dataset scored in addition to the test split of `dataset`.
        recipe: name of the recipe.
        values: every value of the recipe.
        seed: seed of all random numbers.
        device: `cpu` or `cuda`.
        torch: version of torch, Major.Minor.
        purpose: `test` trains on the whole training set and scores the test split; `search` trains on part of the
            training identities and scores the others; `checkpoint` and `features` score the file named by
            `pretrained`; `profile` measures efficiency.
        holdout: seed and fraction of the held-out identities, for `search`.
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
        """Returns the spec as plain data for JSON."""
        return json.loads(canonical(msgspec.to_builtins(self)))

    @functools.cached_property
    def run_id(self) -> str:
        """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return hashlib.sha256(canonical(values).encode()).hexdigest()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RunSpec:
        """Rebuilds a spec from `to_dict`.

        Raises:
            UsageError: a key or value does not fit.
        """
        return from_table(cls, data, "spec")


def training_key(spec: RunSpec, train_fingerprint: str) -> str:
    """Returns a hash of everything that the trained weights depend on: runs with equal keys train the same model.

    Args:
        spec: run spec; settings of the evaluation are left out.
        train_fingerprint: fingerprint of the training split only, while `spec.fingerprint` covers all splits.
    """
    values = {key: value for key, value in spec.to_dict()["values"].items() if key not in ("name", "evaluation")}
    values.get("augmentation", {}).pop("interpolation_test", None)
    scored = ("fingerprint", "evaluate_on", "dataset_options", "recipe")
    trained = {key: value for key, value in spec.to_dict().items() if key not in scored}
    return hashlib.sha256(canonical({**trained, "values": values, "train": train_fingerprint}).encode()).hexdigest()
