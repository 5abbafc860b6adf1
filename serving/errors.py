"""Errors of the endpoint: what the parts raise, and the one JSON shape in which all of them are answered."""

from __future__ import annotations

from mulan_core.errors import UserError


class StoreError(UserError):
    """Milvus does not do what was asked."""


class StoreUnavailableError(StoreError):
    """Milvus does not answer; it may again later."""
