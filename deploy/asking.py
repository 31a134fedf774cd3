"""A request as it is mirrored, and the asking of a candidate: one exchange over HTTP, whatever comes of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.pairs import OK

if TYPE_CHECKING:
    import httpx

_ANSWER_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A request in the queue. chosen: indices of the sampled instances, None for all; journeys: (key, as_of) of each
    instance, answers: the incumbent's."""

    body: bytes
    chosen: tuple[int, ...] | None
    journeys: tuple[tuple[str, Any], ...]
    answers: list[dict[str, Any]]
    seconds: float

    def __len__(self) -> int:
        return len(self.journeys if self.chosen is None else self.chosen)


async def ask(client: httpx.AsyncClient, url: str, body: bytes, timeout_s: float) -> tuple[str, bytes]:
    """("ok", the answer's body), or (what went wrong, b""). timeout_s: for the whole exchange, in seconds."""
    import httpx

    headers = {"content-type": "application/json", "accept-encoding": "identity"}
    pieces, size = [], 0
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            if response.status_code != 200:
                return f"http_{response.status_code}", b""
            async for piece in response.aiter_raw():
                size += len(piece)
                if size > _ANSWER_BYTES:
                    return "too_large", b""
                pieces.append(piece)
    except TimeoutError:
        return "timeout", b""
    except httpx.ConnectError:
        return "unreachable", b""
    except httpx.HTTPError:
        return "broken", b""
    return OK, b"".join(pieces)
