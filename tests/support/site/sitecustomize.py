"""Python imports this file first if a test puts the folder on PYTHONPATH; see `tests/support/faults.py`."""

import os

if os.environ.get("HARNESS_TEST_QUICK"):
    import quick_runs  # noqa: F401 - takes effect on import
if os.environ.get("HARNESS_TEST_FAULTS") or os.environ.get("HARNESS_TEST_WITHOUT"):
    import injected  # noqa: F401 - takes effect on import
