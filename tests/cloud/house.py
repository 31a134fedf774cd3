"""All local servers together: HTTP, gRPC, the proxy, each on a loopback port; and the environment that leads there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.cloud.listener import Listener, serves
from tests.cloud.oauth import PROJECT, OAuth
from tests.cloud.proxy import Proxy, Target
from tests.cloud.service import Request, Service

if TYPE_CHECKING:
    import grpc

S = TypeVar("S", bound=Service)


class House:
    """The servers of one test session (or of `make cloud-local`), below a directory of its own.

    `environment` is what a process needs to be led here; `service(Kind)` gives a server's state and faults. `place`
    is where servers may keep files. What a client asked of the world outside is in `proxy.refused`.
    """

    def __init__(self, place: Path, services: Sequence[Service]) -> None:
        import trustme

        self.place = place
        self.oauth = OAuth()
        self.services: tuple[Service, ...] = (*services, self.oauth)
        self._listener = Listener(self.services, self._allow)
        self.url = f"http://127.0.0.1:{self._listener.port}"
        self._grpc, self.grpc_port = self._serve_grpc()
        for service in self.services:
            service.url, service.house = self.url, self
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(place / "ca.pem"))
        certificate = authority.issue_cert("*.googleapis.com")
        self.proxy = Proxy(certificate.configure_cert, self._target)
        (place / "account.json").write_text(json.dumps(self.oauth.key_file()))
        (place / "gcloud").mkdir(exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables under which unmodified clients reach the local servers, and nothing else."""
        authority, proxy = str(self.place / "ca.pem"), f"http://127.0.0.1:{self.proxy.port}"
        trust = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "HTTPLIB2_CA_CERTS")
        trust = (*trust, "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE")
        through = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY")
        return {
            **dict.fromkeys(trust, authority),
            **dict.fromkeys(through, proxy),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.place / "account.json"),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "GOOGLE_API_USE_CLIENT_CERTIFICATE": "false",
            "NO_GCE_CHECK": "true",
            "CLOUDSDK_CONFIG": str(self.place / "gcloud"),
            "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE": str(self.place / "account.json"),
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_CONTEXT_AWARE_USE_CLIENT_CERTIFICATE": "false",
        }

    def service(self, kind: type[S]) -> S:
        """The one server of this class."""
        return next(s for s in self.services if isinstance(s, kind))

    def reset(self) -> None:
        """Every server as new."""
        self.proxy.refused.clear()
        for service in self.services:
            service.reset()

    def close(self) -> None:
        self.proxy.close()
        for service in self.services:
            service.close()
        self._grpc.stop(grace=None)
        self._listener.close()

    def _serve_grpc(self) -> tuple[grpc.Server, int]:
        import grpc

        from tests.cloud.grpc_side import Interceptor

        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.server(
            ThreadPoolExecutor(max_workers=32), interceptors=[Interceptor(self.services, self.oauth)], options=unlimited
        )
        for service in self.services:
            service.add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        return server, port

    def _target(self, host: str) -> Target | None:
        found = [s for s in self.services if serves(s, host)]
        if not found:
            return None
        return Target(self._listener.port, self.grpc_port if any(s.grpc_services for s in found) else 0)

    def _allow(self, request: Request) -> None:
        """On the local address (an emulator's) credentials may be absent, but not wrong."""
        local = request.host in ("127.0.0.1", "localhost") and "authorization" not in request.headers
        if not local and not self.oauth.knows(request):
            self.oauth.check(request.headers.get("authorization", ""))
