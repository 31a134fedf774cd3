"""The OAuth token endpoint and its one throwaway service account.

Source: developers.google.com/identity/protocols/oauth2/service-account
"""

from __future__ import annotations

import json
import time
import uuid
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import exceptions, jwt

from tests.cloud.service import ApiError, Request, Response, Service, answer, route

PROJECT = "local-project"
EMAIL = f"parcours@{PROJECT}.iam.gserviceaccount.com"
LIFETIME = 3600  # seconds
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_AUDIENCES = [
    "https://oauth2.googleapis.com/token",
    "https://www.googleapis.com/oauth2/v3/token",  # TensorFlow names this one, whatever the key file says
    "https://www.googleapis.com/oauth2/v4/token",
]


class OAuth(Service):
    """Exchanges a signed assertion of the service account for an access token.

    `issued` maps tokens to when they expire (epoch seconds). `revoked`: the account's key is no longer accepted.
    """

    name = "oauth"
    hosts = ("oauth2.googleapis.com", "www.googleapis.com", "iamcredentials.googleapis.com")

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def reset(self) -> None:
        """Every token issued so far is live again: gcloud and TensorFlow keep theirs from one test to the next."""
        super().reset()
        self.issued: dict[str, float] = dict.fromkeys(getattr(self, "issued", {}), time.time() + LIFETIME)
        self.revoked = False

    def key_file(self) -> dict[str, str]:
        """The service account's key file, as the console gives it."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "throwaway",
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "client_id": "1",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": "https://oauth2.googleapis.com/token",
        }

    @route("POST", "/token")
    @route("POST", "/oauth2/v3/token")
    @route("POST", "/oauth2/v4/token")
    def token(self, request: Request) -> Response:
        asked = dict(parse_qsl(request.body.decode()))
        if asked.get("grant_type") != _GRANT:
            return _refused("unsupported_grant_type", f"expected {_GRANT}")
        try:
            self._verified(asked.get("assertion", ""), _AUDIENCES)
        except (ValueError, exceptions.GoogleAuthError) as error:
            return _refused("invalid_grant", f"Invalid JWT: {error}")
        if self.revoked:
            return _refused("invalid_grant", "Invalid JWT Signature.")
        token = f"ya29.{uuid.uuid4().hex}"
        self.issued[token] = time.time() + LIFETIME
        return answer({"access_token": token, "expires_in": LIFETIME, "token_type": "Bearer"})

    @route("GET", "/v1/projects/-/serviceAccounts/{email}/allowedLocations")
    def allowed_locations(self, request: Request, email: str) -> dict[str, Any]:
        """The account is bound to no region; google-auth asks once a process."""
        return {"locations": [], "encodedLocations": "0x0"}

    def expire(self) -> None:
        """Every token issued so far is expired, and the account's key revoked: no new one can be had."""
        self.issued = dict.fromkeys(self.issued, 0.0)
        self.revoked = True

    def check(self, authorization: str) -> None:
        """Raises ApiError 401 unless the header holds a live token of ours or the account's own signed JWT."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer":
            if self.issued.get(token, 0.0) > time.time():
                return
            if token.count(".") == 2 and not token.startswith("ya29.") and not self.revoked:
                try:
                    self._verified(token, None)
                    return
                except (ValueError, exceptions.GoogleAuthError):
                    pass  # said below
        raise ApiError(
            401, "Request had invalid authentication credentials. Expected OAuth 2 access token.", reason="authError"
        )

    def _verified(self, token: str, audiences: list[str] | None) -> dict[str, Any]:
        public = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        claims = jwt.decode(token, certs=public, audience=audiences)
        if claims.get("iss") != EMAIL:
            raise ValueError(f"issuer {claims.get('iss')!r} is not {EMAIL}")
        return dict(claims)


def _refused(error: str, description: str) -> Response:
    return Response(
        400,
        json.dumps({"error": error, "error_description": description}).encode(),
        {"Content-Type": "application/json"},
    )
