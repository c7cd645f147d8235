"""Sends runs and their records to an MLflow tracking server.

This is the only package that imports MLflow. Records are written to disk first, and the driver sends them from a
separate thread. If the server is slow or down, nothing is lost: `status --sync` sends the missing records later.

    server.py     calls to one tracking server and one experiment
    content.py    parameters, metrics, tags and files of a run
    tracker.py    the thread that sends events and records
    view.py       the charts that are stored with the experiment
    presence.py   finds the runs of crashed drivers and closes them
    transfer.py   sends missing results, and restores results from a server
"""

from harness.tracking.content import metrics_of, parameters_of
from harness.tracking.server import EXPERIMENT, LATER, Server, address, default_uri, file_of, is_tracked, used_address
from harness.tracking.tracker import Tracker
from harness.tracking.transfer import restore, send_missing, sync, unsent

__all__ = [
    "EXPERIMENT",
    "LATER",
    "Server",
    "Tracker",
    "address",
    "default_uri",
    "file_of",
    "is_tracked",
    "metrics_of",
    "parameters_of",
    "restore",
    "send_missing",
    "sync",
    "unsent",
    "used_address",
]
