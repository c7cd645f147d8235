"""The state of the checkout in a record."""

from __future__ import annotations

import os
import subprocess

import pytest

from harness.records import environment


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


def test_the_index_of_the_checkout_is_not_written(checkout):
    """`git status` would refresh it under a lock, which a run that is killed at that moment leaves behind."""
    os.utime(checkout / "model.py", (1, 1))
    before = (checkout / ".git" / "index").read_bytes()
    assert changed() is False
    assert (checkout / ".git" / "index").read_bytes() == before


def test_where_nothing_is_checked_out_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path)
    assert changed() is None
    environment._checkout.cache_clear()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which can give a checkout to another user: sudo make test")
def test_a_checkout_of_another_user_has_a_commit(checkout, monkeypatch):
    """Like in a container that mounts it; git itself refuses with "dubious ownership"."""
    for path in [checkout, *checkout.rglob("*")]:
        os.chown(path, 12345, 12345)
    monkeypatch.setenv("HOME", str(checkout / "no home"))
    git = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    assert "dubious ownership" in subprocess.run(git, capture_output=True, text=True).stderr
    assert changed() is False
    assert len(environment._checkout()["git_commit"]) == 40
    assert "git_problem" not in environment._checkout()


def test_without_git_the_record_says_so(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert changed() is None
    assert "git cannot be started: No such file" in environment._checkout()["git_problem"]
    monkeypatch.undo()


def test_a_damaged_checkout_says_what_git_says(checkout):
    (checkout / ".git" / "HEAD").write_text("damaged")
    assert changed() is None
    assert "not a git repository" in environment._checkout()["git_problem"]
