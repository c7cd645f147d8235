"""See `quick_runs`."""

import quick_runs  # noqa: F401 - it acts when it is imported
