"""Python imports this before anything else where a test put the folder on PYTHONPATH; see `tests/support/faults.py`."""

import os

if os.environ.get("HARNESS_TEST_QUICK"):
    import quick_runs  # noqa: F401 - it acts when it is imported
if os.environ.get("HARNESS_TEST_FAULTS") or os.environ.get("HARNESS_TEST_WITHOUT"):
    import injected  # noqa: F401 - likewise
