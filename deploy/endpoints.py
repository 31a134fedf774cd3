"""Remote scorers that speak our protocol: a server over HTTP, a Vertex AI endpoint."""

from __future__ import annotations

from typing import Any

from deploy.live import Busy, Refused, Remote, without_place
from preprocessing.cli import UserError

RETRIED = (429, 503)
TOO_MUCH = (400, 413)  # a batch so refused is asked again in halves, so that one journey does not take others along


class Http(Remote):
    """A server that speaks our protocol; without a path the address is its /predict."""

    kind = "http"

    def __init__(
        self, source: str, about: dict[str, Any], *, timeout: float, token: str | None, **settings: Any
    ) -> None:
        import httpx

        address = httpx.URL(source)  # as sources.kind_of has tried
        self._address = address.copy_with(path="/predict") if address.path in ("", "/") else address
        self._timeout = timeout
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(timeout=timeout, headers=headers)
        super().__init__(source, self._narrowed(about), **settings)

    def _narrowed(self, about: dict[str, Any]) -> dict[str, Any]:
        """The server's own fields where it tells them (/model), so that an older model is sent no field it refuses."""
        import httpx

        try:
            answer = self._client.get(self._address.copy_with(path="/model", query=None))
            told = answer.json() if answer.status_code == 200 else {}
        except (httpx.HTTPError, ValueError):
            return about  # it need not have such a page; whether it answers at all shows with the first journey
        if not isinstance(told, dict) or not all(isinstance(told.get(part), dict) for part in ("sequence", "customer")):
            return about
        return about | {
            part: {name: kind for name, kind in about[part].items() if name in told[part]}
            for part in ("sequence", "customer")
        }

    def send(self, instances: list[dict[str, Any]]) -> list[Any]:
        import httpx

        try:
            answer = self._client.post(self._address, json={"instances": instances, "parameters": {"partial": True}})
        except httpx.TimeoutException:
            raise Refused(f"no answer within {self._timeout:g} s") from None
        except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError) as error:
            raise Busy(f"no connection: {error}") from None
        except httpx.HTTPError as error:
            raise Refused(f"{type(error).__name__}: {error}") from None
        if answer.status_code in RETRIED:
            raise Busy(f"status {answer.status_code}", _seconds(answer.headers.get("Retry-After")))
        if answer.status_code != 200:
            raise Refused(f"status {answer.status_code}{_message(answer)}", answer.status_code in TOO_MUCH)
        try:
            return list(answer.json()["predictions"])
        except (ValueError, KeyError, TypeError):
            raise Refused("an answer that is no JSON with predictions") from None


class Vertex(Remote):
    """A Vertex AI endpoint whose container speaks our protocol, by Google's prediction client over REST."""

    kind = "vertex"

    def __init__(
        self,
        flag: str,
        source: str,
        about: dict[str, Any],
        *,
        timeout: float,
        api_endpoint: str | None,
        **settings: Any,
    ) -> None:
        from google.api_core.client_options import ClientOptions
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud.aiplatform_v1 import PredictionServiceClient

        self._timeout, self._endpoint = timeout, source
        place = api_endpoint or f"{source.split('/')[3]}-aiplatform.googleapis.com"
        # a token does not go over an unencrypted line
        credentials = AnonymousCredentials() if place.startswith("http://") else None
        try:
            self._client = PredictionServiceClient(
                transport="rest", credentials=credentials, client_options=ClientOptions(api_endpoint=place)
            )
        except DefaultCredentialsError:
            raise UserError(
                f"{flag} {source}: no credentials; log in with: gcloud auth application-default login"
            ) from None
        super().__init__(source, about, **settings)

    def send(self, instances: list[dict[str, Any]]) -> list[Any]:
        import requests
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.aiplatform_v1 import PredictRequest
        from google.protobuf import json_format

        request = PredictRequest(endpoint=self._endpoint)
        json_format.ParseDict({"instances": instances, "parameters": {"partial": True}}, PredictRequest.pb(request))
        try:
            answer = self._client.predict(request=request, timeout=self._timeout, retry=None)
        except (exceptions.TooManyRequests, exceptions.ServiceUnavailable) as error:
            raise Busy(f"status {error.code}") from None
        except (exceptions.DeadlineExceeded, requests.Timeout):
            raise Refused(f"no answer within {self._timeout:g} s") from None
        except exceptions.GoogleAPICallError as error:
            raise Refused(f"status {error.code}: {without_place(error.message)}", error.code in TOO_MUCH) from None
        except GoogleAuthError as error:
            raise Refused(f"the credentials are expired or refused: {error}"[:200]) from None
        except requests.ConnectionError as error:
            raise Busy(f"no connection: {error}") from None
        return list(json_format.MessageToDict(type(answer).pb(answer)).get("predictions", []))


def _message(answer: Any) -> str:
    try:
        return f": {without_place(answer.json()['error']['message'])}"
    except (ValueError, KeyError, TypeError):
        return ""


def _seconds(header: str | None) -> float:
    """Retry-After in seconds; its other form, a date, is left to the growing waits."""
    return float(header) if header and header.isdecimal() else 0.0
