"""JSON Web Tokens of DICOM nodes, signed with a shared secret: HS256 (RFC 7519, RFC 7515)."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode
from typing import Any

from bfr_core.errors import Denied

ALGORITHM = "HS256"
CLOCK_TOLERANCE_S = 60.0


def verified_subject(token: bytes, secret: str) -> str:
    """Return the subject (`sub`) of a token. Raises Denied when it is not valid now.

    A token says when it expires: one that never does would be a password that travels.
    """
    try:
        signed, _, signature = token.rpartition(b".")
        header, payload = signed.split(b".")
        if _decoded(header).get("alg") != ALGORITHM:
            raise Denied(f"the token is not signed with {ALGORITHM}")
        expected = hmac.digest(secret.encode(), signed, hashlib.sha256)
        if not secret or not hmac.compare_digest(expected, _bytes(signature)):
            raise Denied("the signature of the token is wrong")
        claims = _decoded(payload)
        now = time.time()
        if now > float(claims["exp"]) + CLOCK_TOLERANCE_S:
            raise Denied("the token has expired")
        if now < float(claims.get("nbf", 0)) - CLOCK_TOLERANCE_S:
            raise Denied("the token is not valid yet")
        subject = claims["sub"]
    except (KeyError, TypeError, ValueError) as error:
        raise Denied("the token is none, or has no sub and exp") from error
    if not isinstance(subject, str) or not subject:
        raise Denied("the token names nobody")
    return subject


def _bytes(part: bytes) -> bytes:
    return urlsafe_b64decode(part + b"=" * (-len(part) % 4))


def _decoded(part: bytes) -> dict[str, Any]:
    decoded = json.loads(_bytes(part))
    if not isinstance(decoded, dict):
        raise TypeError("no object")
    return decoded
