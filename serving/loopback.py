"""Loopback never leaves the machine: no proxy that the environment names is asked for an address of this machine."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

import httpx

from mulan_core.errors import UserError, without_secrets

OWN = ("localhost", "127.0.0.1", "::1", "127.0.0.0/8")
"""What NO_PROXY must hold. ``[::1]``, which urllib alone would want, makes every httpx client fail."""
METADATA = ("169.254.169.254", "metadata.google.internal")
"""Where a cloud tells a machine about itself, and gives it keys: no proxy's business either. Ray asks at each start."""
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
"""What httpx reads, in lower and in upper case."""
NOWHERE = "http://127.0.0.1:9"
"""The discard port: what was to go through a proxy that cannot be used fails, rather than going without one."""

_set_aside: list[str] = []


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which nobody else reaches; ``0.0.0.0`` others do."""
    name = host.strip("[]").lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_loopback or bool(mapped and mapped.is_loopback)


def stays_here(url: str) -> bool:
    """Whether who asks a URL, or a host and port, asks this machine; also by the address that means all of its own."""
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return False
    return is_loopback(host) or host in ("0.0.0.0", "::")  # noqa: S104 - nothing is bound


def proxy_of(url: str) -> str | None:
    """The proxy that the environment puts before a server, in words and without its password; None for none."""
    parts = urlsplit(url)
    if stays_here(url) or proxy_bypass_environment(parts.hostname or ""):
        return None
    named = _named(f"{parts.scheme}_proxy") or _named("all_proxy")
    return f"the proxy {without_secrets(named[1])} ({named[0]})" if named else None


def http_client(url: str, *, timeout: float, headers: dict[str, str] | None = None) -> httpx.Client:
    """A client for one server: straight to loopback, to others as the environment says.

    Args:
        url: of the server.
        timeout: seconds that one answer may take.
        headers: sent with each request.

    Raises:
        UserError: if the way there is a proxy that cannot be used.
    """
    if stays_here(url):
        # With a transport of its own a client does not read the proxies, which may be such that it could not be made.
        # Certificates, which take 25 ms to read, are of no use to plain HTTP: whoever waits for a server asks often.
        transport = httpx.HTTPTransport(verify=not url.lower().startswith("http:"))
        return httpx.Client(transport=transport, timeout=timeout, headers=headers)
    try:
        return httpx.Client(timeout=timeout, headers=headers)
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        named = [setting[0] for name in PROXIES if (setting := _named(name)) and _why_unusable(setting[1])]
        what = " and ".join(named) or "NO_PROXY"
        raise UserError(
            f"the way to {url} is not to be had: {what} holds what cannot be used ({_words(error)}); correct or "
            "unset it"
        ) from error


def keep_loopback_direct() -> list[str]:
    """Have this process, and those that it starts, reach loopback without a proxy, whatever their libraries are.

    Each library reads the variables for itself. So ``NO_PROXY`` is made to name loopback, and a variable that httpx
    cannot use, at which Prefect and others would fail before they look where they are going, is set aside.

    Returns:
        A sentence for each variable that this process has set aside.
    """
    for name in (*PROXIES, *map(str.upper, PROXIES)):
        value = os.environ.get(name)
        if value and (reason := _why_unusable(value)):
            os.environ[name] = NOWHERE
            _set_aside.append(
                f"{name} is set aside: it names no proxy that can be used ({reason}); what is not of this machine "
                "cannot be reached until it is corrected or unset"
            )
    if any(_named(name) for name in (*PROXIES, "grpc_proxy")):
        for name in ("no_proxy", "NO_PROXY"):
            # A library looks at one of the two: each says what it said, or what the other says.
            _name_loopback(name, os.environ.get(name) or os.environ.get(name.swapcase()) or "")
        if (own := "no_grpc_proxy") in os.environ:  # where it is set, gRPC does not look at the others
            _name_loopback(own, os.environ[own])
    return list(_set_aside)


def _named(name: str) -> tuple[str, str] | None:
    """A variable in the case in which it is set, and its value."""
    return next(((n, os.environ[n]) for n in (name, name.upper()) if os.environ.get(n)), None)


def _name_loopback(variable: str, value: str) -> None:
    bare = (re.sub(r"^\[(.*)\]$", r"\1", name) for name in re.split(r"[,\s]+", value))
    names = [name for name in bare if name and _is_name(name)]
    if "*" not in names:
        names += [name for name in (*OWN, *METADATA) if name not in names]
    os.environ[variable] = ",".join(names)


def _is_name(name: str) -> bool:
    """Whether httpx bears it; of a range of IPv6, for one, it does not."""
    try:
        httpx.URL(name if "://" in name else f"all://[{name}]" if name.count(":") > 1 else f"all://*{name}")
    except httpx.InvalidURL:
        return False
    return True


def _why_unusable(proxy: str) -> str | None:
    try:
        # As httpx would: an address without a scheme is one of http.
        httpx.HTTPTransport(proxy=proxy if "://" in proxy else f"http://{proxy}", verify=False).close()
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        return _words(error)
    return None


def _words(error: BaseException) -> str:
    """The reason in one line, without a password that the address may hold."""
    return without_secrets(" ".join(str(error).split()))[:160] or type(error).__name__
