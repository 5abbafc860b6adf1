"""TCP ports: find a free one, say in one sentence that a wanted one is taken, name and ask what listens on one."""

from __future__ import annotations

import errno
import socket

import httpx

from mulan_core.errors import UserError
from serving.loopback import http_client


def check_port_free(host: str, port: int) -> None:
    """Refuse an address that cannot be bound.

    The servers we start bind with SO_REUSEPORT, so a second one would not fail but take half of the
    first one's connections; hence the check before.

    Raises:
        UserError: if something listens there, or the address is not of this machine.
    """
    if not 0 < port < 2**16:  # getaddrinfo would quietly take it modulo 65536
        raise UserError(f"{port} is not a port; ports are 1 to 65535")
    try:
        with _bind(host, port):
            return
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} on {host} is taken; stop what listens there, or choose another port"
            ) from error
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago."""
    with _bind(host, 0) as bound:
        return int(bound.getsockname()[1])


def url_of(host: str, port: int) -> str:
    """The URL of a server that listens on a host of this machine; 0.0.0.0 and :: are reached over loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_up(url: str) -> bool:
    """Whether an address answers 200 now."""
    try:
        with http_client(url, timeout=5) as client:
            return client.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        # A port whose last connections are still winding down is free; one with a listener is not.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound
