"""Checks by TCP connections whether the servers that a task depends on still answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

from harness.errors import RunError

Address = tuple[str, int]
"""Host and port."""


class Lost(RunError):
    """A server that the work depends on no longer answers."""


def split(address: str) -> Address | None:
    """Splits `host:port`; returns None for an address of another form."""
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() and host and "/" not in host else None


def probe(address: Address, timeout: float = 10.0) -> None:
    """Opens and closes a connection.

    Raises:
        OSError: the server does not answer.
    """
    socket.create_connection(address, timeout=timeout).close()


def run_while_alive(work: Callable[[], object], servers: Sequence[Address], *, patience: float, lost: str) -> None:
    """Runs a function in a thread for as long as all servers answer.

    If a server stops answering, the thread is abandoned: it hangs on that server and cannot be stopped.

    Args:
        work: the function.
        servers: checked once per second.
        patience: seconds without an answer after which a server counts as lost.
        lost: message of the error.

    Raises:
        Lost: a server no longer answers; exceptions of `work` are raised as well.
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
        if all(map(_answers, servers)):
            answered = time.monotonic()
        elif time.monotonic() - answered > patience:
            raise Lost(lost)
    if raised:
        raise raised[0] if all(map(_answers, servers)) else Lost(lost) from raised[0]


def _answers(address: Address) -> bool:
    try:
        probe(address)
    except OSError:
        return False
    return True
