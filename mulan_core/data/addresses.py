"""Which addresses a table may make us ask: those that anybody could ask, unless ``prepare.allow_private`` says more.

A table that somebody else has written must not make this machine knock at doors inside its own network: services on
loopback, a router, the cloud's metadata. What a URL says is looked at when the table is read; what counts is the
address that a connection goes to, so that one is looked at too, after DNS and behind every redirect.
"""

from __future__ import annotations

import ipaddress
import socket
import unicodedata
from urllib.parse import urlsplit

ALLOW = (
    "allow it with prepare.allow_private: true in the file of --params, or in params.yaml where you give no --manifest"
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SHARED = ipaddress.ip_network("100.64.0.0/10")
_UNIQUE_LOCAL = ipaddress.ip_network("fc00::/7")
_RFC_1918 = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))


class PrivateAddressError(PermissionError):
    """A table's URL leads to an address that not anybody could ask; its text is the sentence."""


def kind_of(address: Address) -> str | None:
    """What makes an address one that a table may not name, in words; None for the public ones."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inner(address)
        if inner is not None:
            return kind_of(inner)
    if address.is_unspecified or (address.version == 4 and address in ipaddress.ip_network("0.0.0.0/8")):
        return "an unspecified address"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address in _SHARED:
        return "a carrier's shared address"
    if address in _UNIQUE_LOCAL or any(address in network for network in _RFC_1918):
        return "a private address"
    is_site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    if not address.is_global or address.is_reserved or is_site_local:
        return "a reserved address"
    return None


def why_private(url: str) -> str | None:
    """Why a table may not name an http(s) URL, as far as its text tells, or None.

    An address counts in all its spellings: ``2130706433``, ``0x7f.1``, ``[::ffff:127.0.0.1]``, with or without a user
    in front. Names other than localhost are looked up when they are asked, not here.
    """
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None  # what is no URL names nobody; see ``why_refused``
    if not host:
        return None
    host = unicodedata.normalize("NFKC", host).lower().rstrip(".")  # as IDNA reads it: digits of full width are digits
    if host == "localhost" or host.endswith(".localhost"):
        return f"names {host}, this machine itself"
    address = _literal(host)
    kind = kind_of(address) if address is not None else None
    if kind is None:
        return None
    spelt = "" if str(address) == host else f" ({address})"
    return f"names {host}{spelt}, {kind}"


def refusal_behind(error: BaseException | None) -> PrivateAddressError | None:
    """The refusal that a library has wrapped in errors of its own, if there is one."""
    while error is not None:
        if isinstance(error, PrivateAddressError):
            return error
        error = error.__cause__ or error.__context__
    return None


def parse_address(address: str) -> Address:
    """An address from its standard spelling; a zone is left out."""
    return ipaddress.ip_address(address.partition("%")[0])  # %eth0: a zone of this machine


def _literal(host: str) -> Address | None:
    """An address as a URL may spell it; what is none of the standard spellings is read as the C library does."""
    try:
        return parse_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host)) if not host[-1:].isspace() else None
    except (OSError, ValueError):
        return None


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that is asked in the end, where an IPv6 one stands for one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
