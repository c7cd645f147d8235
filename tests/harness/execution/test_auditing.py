"""Audits of finished runs before others start: one that cannot be audited is said and holds nothing up."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.execution import auditing
from harness.execution.options import Execution
from harness.planning import plan
from harness.planning.request import Request
from harness.records import store
from harness.spec.job import LocalPaths
from tests.support import record_samples as samples


def test_a_damaged_checkpoint_and_a_missing_one(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Request(
        "bot", "market1501", recipe="smoke", seeds=(0, 1), results=tmp_path, from_scratch=True,
        paths=LocalPaths(data_root=str(world)), device="cpu",
    )  # fmt: skip
    for cell in plan.build(asked):
        store.write(cell.folder, samples.ok(cell.spec))
    first, second = plan.build(asked)
    (first.folder / "checkpoint.pt").write_bytes(b"no checkpoint")
    auditing.finished([first, second], asked, Execution(audit=("breakdown",)))
    one, other = capsys.readouterr().out.splitlines()
    assert one.startswith(f"Run {first.spec.run_id[:12]} is not audited: ") and "checkpoint.pt" in one
    assert other.startswith(f"Run {second.spec.run_id[:12]} is not audited, because it has no checkpoint")
