"""MLflow as a view of the results: sends runs and their records to a tracking server.

The only package that names MLflow. The driver is the only writer, in one thread of its own; a tracker that is slow,
down or full loses nothing, because records are written first. What was not sent is sent by `status --sync`.

    server.py     one server and one experiment on it: the calls
    content.py    what of a spec and a record is sent
    tracker.py    a driver's thread that sends events and records
    presence.py   drivers that died, whose runs others close
    transfer.py   results to a server, and back
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
