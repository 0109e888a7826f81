"""Certificates: when ours expire, and whose a peer's is (RFC 5280, RFC 4514)."""

import datetime
import hashlib
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bfr_core.errors import Invalid
from bfr_core.settings import Settings

PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
SHORT_NAMES = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
}
_SPECIAL = re.compile(r'([,+"\\<>;])')
_SEQUENCE, _UTC_TIME, _GENERALISED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


@dataclass(frozen=True, slots=True)
class Expiry:
    """When a certificate of ours ends."""

    path: Path
    expires_at: datetime.datetime

    @property
    def left(self) -> datetime.timedelta:
        """How long that is from now; negative when it is over."""
        return self.expires_at - datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The certificate that a peer has shown and our authorities have signed."""

    subject: str  # as in RFC 4514
    fingerprint: str  # SHA-256 in hexadecimal


def expiries(settings: Settings) -> list[Expiry]:
    """Return when the certificates in use end: ours first, then the authorities we trust.

    [] without TLS. Raises Invalid naming a file that cannot be read or holds no certificate.
    """
    if not settings.dimse_tls_certificate_file:
        return []
    own, authorities = settings.dimse_tls_certificate_file, settings.dimse_tls_ca_file
    return [*_expiries(Path(own)), *(_expiries(Path(authorities)) if authorities else [])]


def _expiries(path: Path) -> Iterator[Expiry]:
    try:
        found = PEM.findall(path.read_text("ascii"))
        if not found:
            raise ValueError("no certificate")
        for pem in found:
            yield Expiry(path, expires_at(ssl.PEM_cert_to_DER_cert(pem)))
    except (OSError, ValueError) as error:
        raise Invalid(f"{path} cannot be read or holds no certificate in PEM") from error


def expires_at(certificate: bytes) -> datetime.datetime:
    """Return the end of the validity of a certificate in DER. Raises ValueError when it is none."""
    # Certificate → tbsCertificate → version (optional), serial number, algorithm, issuer, validity
    _, certificate = _value(certificate)
    _, rest = _value(certificate)
    if rest[:1] == bytes([_VERSION]):
        rest = rest[_size(rest) :]
    for _ in range(3):
        rest = rest[_size(rest) :]
    tag, validity = _value(rest)
    if tag != _SEQUENCE:
        raise ValueError("no validity")
    kind, text = _value(validity[_size(validity) :])
    if kind not in (_UTC_TIME, _GENERALISED_TIME):
        raise ValueError("no time")
    moment = text.decode("ascii")
    if kind == _UTC_TIME:
        moment = ("20" if moment < "50" else "19") + moment
    return datetime.datetime.strptime(moment, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _value(der: bytes) -> tuple[int, bytes]:
    """Return tag and value of the first element."""
    start, length = _extent(der)
    return der[0], der[start : start + length]


def _size(der: bytes) -> int:
    """Return the bytes of the whole first element."""
    return sum(_extent(der))


def _extent(der: bytes) -> tuple[int, int]:
    if len(der) < 2:
        raise ValueError("the certificate ends too early")
    start, length = 2, der[1]
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    if start + length > len(der):
        raise ValueError("the certificate ends too early")
    return start, length


def peer_certificate(connection: ssl.SSLSocket) -> PeerCertificate | None:
    """Return the certificate that the other side has shown; None when it has shown none."""
    der = connection.getpeercert(binary_form=True)
    if der is None:
        return None
    return PeerCertificate(
        subject=subject_of(connection.getpeercert() or {}),
        fingerprint=hashlib.sha256(der).hexdigest(),
    )


def subject_of(certificate: Any) -> str:
    """Return the subject of what `getpeercert` gives, the last part first (RFC 4514 §2)."""
    parts = []
    for names in reversed(certificate.get("subject", ())):
        pairs = [(SHORT_NAMES.get(key, key), _SPECIAL.sub(r"\\\1", value)) for key, value in names]
        parts.append("+".join(f"{key}={value}" for key, value in pairs))
    return ",".join(parts)


def checked_certificate(text: str) -> str:
    """Return a fingerprint or a subject as it is kept; "" stays. Raises Invalid when it is none."""
    compact = text.replace(":", "").strip().lower().removeprefix("sha256=")
    if FINGERPRINT.fullmatch(compact):
        return compact
    if text.strip() and "=" not in text:
        raise Invalid(f"{text!r} is neither a SHA-256 in hexadecimal nor a subject like CN=name")
    return text.strip()


def is_of(certificate: PeerCertificate | None, wanted: str) -> bool:
    """Tell whether it is the certificate that a node is bound to: by fingerprint or by subject."""
    return certificate is not None and wanted in (certificate.fingerprint, certificate.subject)
