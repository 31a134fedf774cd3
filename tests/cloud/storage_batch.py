"""Many storage requests in one (cloud.google.com/storage/docs/batch): multipart/mixed parts of application/http."""

from __future__ import annotations

import re
from email.parser import BytesParser
from email.policy import HTTP

from tests.cloud.service import ApiError, Request, Response, Service, route


class Batches(Service):
    """The part of the storage server that takes batches; each inner request is answered as if it came alone."""

    @route("POST", "/batch/storage/v1")
    @route("POST", "/batch")
    def batch(self, request: Request) -> Response:
        kind = request.headers.get("content-type", "")
        message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + request.body)
        if message.get_content_type() != "multipart/mixed":
            raise ApiError(400, f"Failed to parse batch request: Content-Type {kind!r}")
        made = []
        for number, part in enumerate(message.iter_parts()):
            inner = self.respond(_request(part.get_payload(decode=True), request.headers))
            lines = [f"HTTP/1.1 {inner.status} {'OK' if inner.status < 300 else 'Error'}"]
            lines += [f"{name}: {value}" for name, value in inner.headers.items()]
            lines += [f"Content-Length: {len(inner.body)}", "", ""]
            identity = (part["Content-ID"] or f"<{number}>").replace("<", "<response-", 1)
            head = f"--batch_local\r\nContent-Type: application/http\r\nContent-ID: {identity}\r\n\r\n"
            made.append(head.encode() + "\r\n".join(lines).encode() + inner.body + b"\r\n")
        return Response(
            200, b"".join(made) + b"--batch_local--\r\n", {"Content-Type": "multipart/mixed; boundary=batch_local"}
        )


def _request(text: bytes, outer: dict[str, str]) -> Request:
    first, _, rest = text.lstrip().partition(b"\n")
    method, target, *_ = first.decode().split()
    head, _, body = re.sub(rb"\r\n", b"\n", rest).partition(b"\n\n")
    headers = [tuple(line.split(": ", 1)) for line in head.decode().splitlines() if ": " in line]
    return Request.of(method, re.sub(r"^https?://[^/]+", "", target), [("host", outer.get("host", "")), *headers], body)
