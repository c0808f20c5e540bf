"""Blocks every connection of this process that leaves the machine, and remembers the attempt.

Python reports socket calls to audit hooks, also those of threads and of C code that goes through
the socket module. An audit hook cannot be removed, so `watch` decides who listens. The attempt is
remembered because a library may swallow the error and go on as if it were offline.
"""

import ipaddress
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_EVENTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname")
_watchers: list[list[str]] = []
_installed: list[bool] = []


class OutsideConnection(OSError):
    """The code under test tried to leave the machine."""


def is_loopback(host: object) -> bool:
    """Whether a host name or address stays on this machine."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(str(name).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _host(event: str, args: tuple) -> object:
    if event in ("socket.connect", "socket.sendto"):
        address = args[1]
        return address[0] if isinstance(address, tuple) else None  # AF_UNIX has a path
    return args[0]


def _audit(event: str, args: tuple) -> None:
    if event not in _EVENTS or not _watchers:
        return
    host = _host(event, args)
    if not is_loopback(host):
        attempt = f"{event} to {host!r}"
        _watchers[-1].append(attempt)
        raise OutsideConnection(f"the tests stay on this machine: {attempt}")


@contextmanager
def watch() -> Iterator[list[str]]:
    """Block connections to the outside; yields the list that attempts are added to."""
    if not _installed:
        sys.addaudithook(_audit)
        _installed.append(True)
    attempts: list[str] = []
    _watchers.append(attempts)
    try:
        yield attempts
    finally:
        _watchers.remove(attempts)
