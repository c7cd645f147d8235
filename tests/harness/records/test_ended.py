"""A trial that its search stopped has not failed, and no page or list says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness import reporting
from harness.records import store
from harness.records.schema import ended
from harness.reporting.report_data import ReportData
from harness.reporting.site.source import Source
from harness.reporting.site.views import overview
from harness.spec.names import STOPPED_EARLY
from tests.support import record_samples as samples

Cli = Callable[..., tuple[int, str, str]]


def test_a_stopped_trial_is_called_so(cli: Cli, tmp_path: Path) -> None:
    trial = {"purpose": "search", "holdout": {"seed": 0, "share": 0.3}}
    stopped = samples.failed(samples.spec(**trial), "interrupted") | {"source": "search", "stage": "train"}
    stopped["error"] = {
        "type": STOPPED_EARLY,
        "message": f"{STOPPED_EARLY} by ASHA after epoch 3 of 4.",
        "log_tail": "",
    }
    finished = samples.ok(samples.spec(seed=1, **trial), samples.evaluation(), source="search")
    killed = samples.failed(samples.spec(seed=2, **trial), "interrupted") | {"source": "search"}
    records = [stopped, finished, killed]
    assert list(map(ended, records)) == ["stopped", "ok", "interrupted"]
    for record in records:
        store.write(store.folder_of(tmp_path, record), record)
    out = cli("status", "--results", tmp_path)[1]
    assert "1 interrupted, 1 ok, 1 stopped." in out and "held-out score" in out
    data = ReportData(records)
    reporting.build(data, tmp_path / "page.md")
    assert "Status of the runs: 1 ok, 1 interrupted, 1 stopped." in (tmp_path / "page.md").read_text()
    assert overview.counts(Source(data, (), None))[-1] == "1 not finished"
