"""From a request to run specs, each cached, to do or blocked, with the reason."""
