"""`metrics.jsonl`: a damaged line costs itself alone."""

from __future__ import annotations

from pathlib import Path

from harness.records import epochs


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    assert epochs.read(tmp_path) == [] and epochs.seconds(tmp_path) == 0
    for epoch in (1, 2, 2):
        epochs.append(tmp_path, epoch, {"loss": 0.5, "seconds": 2})
    assert [values["epoch"] for values in epochs.read(tmp_path)] == [1, 2, 2]
    assert epochs.read(tmp_path)[0] == {"epoch": 1, "loss": 0.5, "seconds": 2}
    assert epochs.seconds(tmp_path) == 6


def test_a_line_that_was_cut_off_is_ignored_and_the_next_one_is_whole(tmp_path: Path) -> None:
    epochs.append(tmp_path, 1, {"loss": 0.5})
    file = tmp_path / epochs.FILE
    file.write_bytes(file.read_bytes() + b'{"epoch": 2, "lo')
    assert [values["epoch"] for values in epochs.read(tmp_path)] == [1]
    epochs.append(tmp_path, 2, {"loss": 0.25})
    assert [values["epoch"] for values in epochs.read(tmp_path)] == [1, 2]
    file.write_bytes(b'[1]\nnull\n{"epoch": "x"}\n\xff\n' + file.read_bytes())
    assert [values["loss"] for values in epochs.read(tmp_path)] == [0.5, 0.25]


def test_the_first_epochs_are_copied(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        epochs.append(tmp_path, epoch, {"loss": 1 / epoch})
    (tmp_path / "other").mkdir()
    epochs.copy(tmp_path, tmp_path / "other", 2)
    assert epochs.read(tmp_path / "other") == epochs.read(tmp_path)[:2]
