"""docs/troubleshooting.md quotes messages as they are printed: each is provoked here, and looked up on the page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.system import gpu
from harness.system.paths import REPOSITORY

PAGE = REPOSITORY / "docs" / "troubleshooting.md"
PROVOKED = {
    "no data: Unpack archives": "plan --backbones dummy --datasets msmt17 --data-root empty",
    "MSMT17 was not found below": "plan --backbones dummy --datasets msmt17 --data-root empty --explain",
    "no data root": "plan --backbones dummy --datasets market1501 --data-root nowhere",
    "no weights: Pass --from-scratch": "plan --backbones bot --datasets market1501",
    "the training images of market1501 show only 12: pass --set sampler.identities=12.": (
        "plan --backbones bot --datasets market1501 --from-scratch"
    ),
    "Unknown backbone 'reidmanba'. Did you mean 'reidmamba'?": "plan --backbones reidmanba",
    "market1501 differs from its card: train: the card expects 12,936 images, but": (
        "run --backbones dummy --datasets market1501 --data-root few --scheduler local --no-mlflow --device cpu"
    ),
    "is an HTML page instead of the file": "evaluate --backbone bot --dataset market1501 --checkpoint page.pth",
    "unknown cameras": "plan --backbones transreid --datasets nobody --plugins . --from-scratch",
}
if not gpu.usable():
    PROVOKED[
        "--device cuda was passed, but this machine shows no GPU. Pass --device cpu, or the --address of a Ray"
    ] = "plan --backbones dummy --datasets market1501 --device cuda"
CARD = """kind = "dataset"
name = "nobody"
title = "Nobody"
[[layouts]]
name = "nobody"
reader = "market"
folders = ["Market-1501-v15.09.15"]
[layouts.options]
cameras = false
"""


@pytest.fixture(scope="module")
def troubles(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, too little data, no data, no weights, and a page for a checkpoint."""
    folder = tmp_path_factory.mktemp("troubles")
    (folder / "empty").mkdir()
    (folder / "data").symlink_to(world)
    few = folder / "few" / "Market-1501-v15.09.15"
    few.mkdir(parents=True)
    for part in ("bounding_box_train", "bounding_box_test", "query"):
        (few / part).symlink_to(world / few.name / part)
    (folder / "page.pth").write_text("<html>Log in</html>")
    (folder / "nobody").mkdir()
    (folder / "nobody" / "card.toml").write_text(CARD)
    return folder


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("message", PROVOKED)
def test_a_message_is_printed_as_the_page_quotes_it(message: str, troubles: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", *shlex.split(PROVOKED[message])],
        cwd=troubles,
        env={**os.environ, "REID_DATASETS": "data", "REID_WEIGHTS": "empty", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert message in squeezed(done.stdout + done.stderr)
    assert message in squeezed(PAGE.read_text(encoding="utf-8"))
