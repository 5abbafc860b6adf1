"""Http and https for what a table names: fsspec's file system, whose connections go to public addresses alone.

The system's resolver gives what it finds; its private answers are left out, and what is left is what aiohttp connects
to, so a name cannot mean one thing when it is judged and another when it is asked. A redirect is a connection like any
other.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import aiohttp
import fsspec
from aiohttp.abc import AbstractResolver, ResolveResult

from mulan_core.data.addresses import ALLOW, PrivateAddressError, kind_of, parse_address


def http_filesystem(*, allow_private: bool) -> Any:
    """The file system for http and https, with or without that limit.

    Proxies of the environment are not used, so that the addresses asked are always those that we have looked up.
    """
    return fsspec.filesystem("http") if allow_private else fsspec.filesystem("http", get_client=_public_client)


async def _public_client(**options: Any) -> aiohttp.ClientSession:
    # Addresses in URLs do not come by the resolver, but each socket is made for one.
    connector = aiohttp.TCPConnector(resolver=_PublicResolver(), socket_factory=_public_socket)
    return aiohttp.ClientSession(connector=connector, **options)


class _PublicResolver(AbstractResolver):
    """The system's resolver, without its private answers."""

    def __init__(self) -> None:
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answers = await self._resolver.resolve(host, port, family)
        public = [answer for answer in answers if kind_of(parse_address(answer["host"])) is None]
        if answers and not public:
            raise _refusal(host, (answer["host"] for answer in answers))
        return public

    async def close(self) -> None:
        await self._resolver.close()


def _public_socket(info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, address = info
    if kind_of(parse_address(address[0])) is not None:
        raise _refusal(address[0], [address[0]])
    return socket.socket(family, kind, protocol)


def _refusal(host: str, addresses: Iterable[str]) -> PrivateAddressError:
    address = next(iter(addresses))
    at = f"{host} is at {address}, " if address != host else f"{host} is "
    return PrivateAddressError(f"{at}{kind_of(parse_address(address))}; {ALLOW}")
