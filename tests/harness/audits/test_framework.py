"""Names, blocks and layout of audits, and that an audit that fails costs nothing but itself."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from harness import audits
from harness.audits import audit
from harness.audits.audit import Audit, Row, mean_row
from harness.audits.layout import arranged
from harness.audits.subject import Changed, Subject
from harness.errors import UsageError
from tests.harness.audits.subjects import Linear, crowd, pictured


def test_every_file_is_an_audit_with_a_source() -> None:
    assert {"camera", "open-set", "average-precision", "re-ranking", "breakdown"} <= set(audits.names())
    for name in audits.names():
        found = audits.load(name)
        assert found.about.endswith("?") and len(found.source) > 20, name


def test_names_are_read_once_each() -> None:
    assert audits.parse("camera, open-set,camera") == ("camera", "open-set")
    assert audits.parse(["open-set"]) == ("open-set",)
    assert audits.parse("all") == tuple(audits.names())
    assert audits.parse(True) == audits.parse("default")
    assert set(audits.parse("default")) <= set(audits.names())
    assert audits.parse("") == audits.parse(None) == audits.parse(False) == ()
    with pytest.raises(UsageError, match=r"Unknown audit 'camara'.*camera"):
        audits.parse("camara")


def test_names_need_no_torch() -> None:
    code = "import sys; from harness import audits; audits.parse('camera'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_failing_audit_leaves_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(subject: Subject) -> Any:
        yield Row("mAP", {}, 0.5)
        raise ValueError("no such luck")

    found = {"breaks": Audit(breaks, "?", "s"), "needs": Audit(breaks, "?", "s", needs_network=True)}
    monkeypatch.setattr(audits, "load", found.__getitem__)
    events: list[tuple[str, dict[str, Any]]] = []
    subject = crowd()
    subject.emit = lambda event, **values: events.append((event, values))
    first, second = audit.run(["breaks", "needs"], subject)
    assert first["error"] == "ValueError: no such luck" and first["rows"][0]["value"] == 0.5
    assert second["error"] is None and "stored features are not enough" in second["notes"][0]
    assert [values["audits_done"] for event, values in events if event == "progress"] == [0, 1]
    assert any("no such luck" in values["text"] for event, values in events if event == "warning")


def test_new_blocks_replace_old_ones() -> None:
    old = [{"check": "b", "dataset": "x", "rows": [1]}, {"check": "a", "dataset": "y", "rows": [2]}]
    new = [{"check": "b", "dataset": "x", "rows": [3]}]
    assert [block["rows"] for block in audit.merge(old, new)] == [[3], [2]]
    assert audit.merge([], []) == []


def test_rows_are_plain_values() -> None:
    row = mean_row("mAP", {"part": 1}, [0.0, 1.0, math.nan, 1.0], [1, 1, 2, 3]).to_dict()
    assert row["value"] == pytest.approx(2 / 3) and row["queries"] == 3 and len(row["interval"]) == 2
    assert mean_row("mAP", {}, [math.nan], [1]).to_dict()["value"] is None
    assert Row("x", {}, np.float32(0.5), (math.nan, math.nan)).to_dict()["interval"] is None  # type: ignore[arg-type]


def test_two_settings_make_a_matrix() -> None:
    def row(name: str, **setting: Any) -> dict[str, Any]:
        return {"name": name, "setting": setting, "value": float(len(setting))}

    rows = [row("m", kind="fog", level=2), row("m", kind="fog", level=1), row("m", kind="rain", level=1), row("m", a=1)]
    rows += [row("m", kind="snow", level=1), row("m")]
    single, (matrix,) = arranged(rows)
    assert [r["setting"] for r in single] == [{"a": 1}, {}]
    assert (matrix.keys, matrix.rows, matrix.columns) == (("kind", "level"), ["fog", "rain", "snow"], [1, 2])
    assert matrix.values == [[2.0, 2.0], [2.0, None], [2.0, None]]
    pairs = [row("p", **{"gallery camera": b, "query camera": a}) for a in (0, 1) for b in (0, 1)]
    assert arranged(pairs).matrices[0].keys == ("query camera", "gallery camera")


def test_changes_see_each_image_and_leave_the_cache_alone() -> None:
    made = pictured(weight=0.0)
    network: Linear = made.network  # type: ignore[assignment]
    before = {name: image.copy() for name, image in network.pictures.items()}
    same = network.features(made.query, change=lambda image, row: image)
    assert (same == made.features[0]).all()
    dark = network.features(made.query, change=lambda image, row: image * 0)
    assert (dark == 0).all()
    assert all((before[name] == image).all() for name, image in network.pictures.items())
    rows: list[int] = []
    images = Changed(network.images(made.query), lambda image, row: (rows.append(row), image)[1])
    assert [images[n] is not None for n in (4, 2)] and rows == [4, 2]
