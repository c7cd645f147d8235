"""Per-query values beside a record."""

from __future__ import annotations

import math

import pytest

from harness.errors import RecordError
from harness.records import per_query, store
from tests.support import record_samples as samples


def test_per_query_values_return_with_undefined_ones(tmp_path):
    rows = samples.per_query([0.25, 1 / 3])
    rows.append({**rows[0], "query": 2, "AP": None, "INP": float("nan"), "first_match_rank": None, "positives": 0})
    run = samples.ok(samples.spec(), samples.evaluation(per_query="per_query.csv"))
    path = store.write(store.folder_of(tmp_path, run), run, {"per_query.csv": rows})
    table = per_query.read(path.parent, "per_query.csv")
    assert table["AP"][:2].tolist() == pytest.approx([0.25, 1 / 3], abs=1e-9) and math.isnan(table["AP"][2])
    assert math.isnan(table["INP"][2]) and table["first_match_rank"][2] == 0
    assert table["query"].tolist() == [0, 1, 2] and table["pid"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "query,pid,camid,AP,INP,first_match_rank,positives\n1,2,3\n"])
def test_damaged_per_query_values_are_refused(tmp_path, text):
    (tmp_path / "per_query.csv").write_text(text)
    with pytest.raises(RecordError, match=r"per_query\.csv"):
        per_query.read(tmp_path, "per_query.csv")


def test_per_query_values_of_another_folder_cannot_be_named(tmp_path):
    (tmp_path / "secret.csv").write_text("x")
    (tmp_path / "run").mkdir()
    with pytest.raises(RecordError, match="cannot be read"):
        per_query.read(tmp_path / "run", "../secret.csv")
