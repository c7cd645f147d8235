"""One site of a small results folder for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.reporting import site
from tests.support import site_results


@pytest.fixture(scope="session")
def site_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with something for every view."""
    results = tmp_path_factory.mktemp("site") / "results"
    site_results.write(results)
    return results


@pytest.fixture(scope="session")
def site_folder(site_records: Path) -> Path:
    """The site of these results."""
    return site.write(site_records, site_records.parent / "site").parent
