"""Of which site a request is: what its headers Origin and Host name, compared as browsers do."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from serving.errors import ApiError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_AUTHORITY = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:/?#@\s\\]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)


class Cors(CORSMiddleware):
    """Starlette's, whose refusals of what a browser asks beforehand offer nothing and have the one shape of errors."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """The answer to OPTIONS.

        Raises:
            ApiError: 403 for a site, a method or a header that is refused later.
        """
        allowed = super().preflight_response(request_headers)
        if allowed.status_code == 200:
            return allowed
        if not self.is_allowed_origin(request_headers["origin"]):
            raise ApiError(403, "pages of this site may not ask; see serve.cors_origins")
        raise ApiError(
            403,
            f"pages of other sites may ask with {', '.join(self.allow_methods)} and send, beside what browsers allow, "
            f"the headers {', '.join(self.allow_headers)}",
        )


@dataclass(frozen=True)
class Host:
    """A name or address in lower case, without brackets, and a port where one is named."""

    name: str
    port: int | None


def parse_host(text: str) -> Host | None:
    """What a header Host names; None where it cannot be read.

    >>> parse_host("LOCALHOST:8000"), parse_host("[0:0::1]"), parse_host("[::1")
    (Host(name='localhost', port=8000), Host(name='::1', port=None), None)
    """
    match = _AUTHORITY.fullmatch(text.strip())
    if match is None:
        return None
    name, port = match["name"].lower(), int(match["port"]) if match["port"] else None
    if name.startswith("["):
        try:
            name = str(ipaddress.IPv6Address(name[1:-1]))
        except ValueError:
            return None
    return Host(name, port) if port is None or port < 2**16 else None


def is_same_site(origin: str, host: str) -> bool:
    """Whether a page of this origin was served under this name and port.

    A Host without a port means the default one of the origin's scheme, since a proxy may have taken the TLS off.

    >>> is_same_site("https://Radio.example", "radio.example:443"), is_same_site("http://nas:8080", "nas")
    (True, False)
    """
    scheme, separator, rest = origin.strip().partition("://")
    default = _DEFAULT_PORTS.get(scheme.lower())
    page, here = parse_host(rest), parse_host(host)
    if not separator or default is None or page is None or here is None:
        return False
    return page.name == here.name and (page.port or default) == (here.port or default)
