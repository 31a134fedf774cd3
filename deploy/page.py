"""The server's page: a journey in, its curve, its running probability and its campaigns drawn, by the browser alone."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import APIRouter

TEMPLATES = Path(__file__).parent / "templates"


def router(about: dict[str, Any]) -> APIRouter:
    """GET /, one page that loads nothing but GET model and POST explain of the same server.

    about: model/parcours.json. The page's script and style are allowed by their hashes, everything else is forbidden.
    """
    from fastapi import APIRouter
    from fastapi.responses import HTMLResponse

    content, policy = page(about)
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    made = APIRouter()

    @made.get("/", include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(content, headers=headers)

    return made


def page(about: dict[str, Any]) -> tuple[str, str]:
    """The page and its Content-Security-Policy; what of `about` stands in it is escaped."""
    from preprocessing.page import render

    categorical = [name for name, kind in about["sequence"].items() if kind == "categorical"]
    content = render(
        "page.html.j2",
        TEMPLATES,
        title="One customer journey",
        version=about["model_version"],
        conversion=about["conversion"],
        horizons=about["horizons_days"],
        primary=about["primary_horizon"],
        gap=about["gap_days"],
        event_label="event_type" if "event_type" in categorical else next(iter(categorical), ""),
    )
    policy = (
        f"default-src 'none'; script-src '{_digest(content, 'script')}'; style-src '{_digest(content, 'style')}'; "
        "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return content, policy


def _digest(content: str, tag: str) -> str:
    """The hash, as a policy names it, of what stands in the page's one element of this kind."""
    (inline,) = re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
    return f"sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}"
