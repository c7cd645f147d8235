"""Turns a request into run specs, each cached, to do or blocked, with the reason."""
