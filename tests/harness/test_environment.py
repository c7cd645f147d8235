"""What a record says of the checkout it was made with."""

from __future__ import annotations

import subprocess

import pytest

from harness import environment


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, in place of this one."""
    (tmp_path / "model.py").write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    environment._checkout.cache_clear()
    yield tmp_path
    environment._checkout.cache_clear()


def changed() -> bool | None:
    environment._checkout.cache_clear()
    return environment._checkout()["git_dirty"]


def test_results_are_no_changes_and_code_is(checkout):
    (checkout / "results").mkdir()
    (checkout / "figures").mkdir()
    for name in ("results/record.json", "figures/cmc.png", "BENCHMARKS.md"):
        (checkout / name).write_text("new")
    assert changed() is False
    (checkout / "model.py").write_text("2")
    assert changed() is True


def test_where_nothing_is_checked_out_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    assert changed() is None
    environment._checkout.cache_clear()
