"""Whether servers that work depends on still answer, told by knocking at their ports."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

from harness.errors import RunError

Door = tuple[str, int]
"""Host and port."""


class Lost(RunError):
    """A server that work depends on is gone."""


def split(address: str) -> Door | None:
    """Host and port of `host:port`; None for an address of another form."""
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() and host and "/" not in host else None


def knock(door: Door, timeout: float = 10.0) -> None:
    """Connects and hangs up.

    Raises:
        OSError: nobody answers.
    """
    socket.create_connection(door, timeout=timeout).close()


def while_open(work: Callable[[], object], doors: Sequence[Door], *, patience: float, lost: str) -> None:
    """Does work in a thread for as long as every door answers.

    The work is left behind when a door stays shut: it hangs on a server that is gone and cannot be stopped.

    Args:
        work: what to do.
        doors: looked at once a second.
        patience: seconds without an answer after which a server counts as gone.
        lost: what the error says then.

    Raises:
        Lost: a server is gone; besides, whatever the work raises.
    """
    over, raised = threading.Event(), list[BaseException]()

    def carry_out() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)
        finally:
            over.set()

    threading.Thread(target=carry_out, daemon=True).start()
    answered = time.monotonic()
    while not over.wait(1.0):
        if all(map(_answers, doors)):
            answered = time.monotonic()
        elif time.monotonic() - answered > patience:
            raise Lost(lost)
    if raised:
        raise raised[0] if all(map(_answers, doors)) else Lost(lost) from raised[0]


def _answers(door: Door) -> bool:
    try:
        knock(door)
    except OSError:
        return False
    return True
