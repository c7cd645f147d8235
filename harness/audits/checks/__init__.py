"""One file per audit."""
