"""Addresses of servers, as flags give them: parsed once, and shown without what they hide."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from preprocessing.cli import UserError

if TYPE_CHECKING:
    import httpx


def http_url(flag: str, address: str) -> httpx.URL:
    """The http(s):// address of a flag. Raises UserError where it is none that a request can be sent to."""
    import httpx

    try:
        url = httpx.URL(address)
        good = url.scheme in ("http", "https") and bool(url.host) and urlsplit(address).hostname is not None
    except (httpx.InvalidURL, ValueError):
        good = False
    if not good:  # not quoted, since it may hold a password
        raise UserError(f"{flag}: no address of a server; expected one such as http://candidate:8080/predict")
    return url


def shown(source: str) -> str:
    """The source as it may be written down: without what an address may hold of passwords and queries."""
    if not source.startswith(("http://", "https://")):
        return source
    parts = urlsplit(source)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
