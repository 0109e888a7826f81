"""Node terms: what a DICOM node has agreed on beside its address, and whether a call keeps to it.

Sources: PS3.8 §9.3.4 (who may call), PS3.15 §B (TLS), PS3.7 §D.3.3.7 (user identity).
"""

import asyncio
import dataclasses
import hashlib
import hmac
import ipaddress
import os
import socket
from dataclasses import dataclass
from enum import IntEnum

from bfr_core import audit, policy
from bfr_core.access import Access
from bfr_core.certificates import PeerCertificate, checked_certificate, is_of
from bfr_core.database import Database, Transaction
from bfr_core.errors import Denied, Invalid, NotFound, Unavailable
from bfr_core.json_web_tokens import verified_subject

PDU_LENGTH_MIN_BYTES = 4096
SALT_BYTES = 16
RESOLVE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class NodeTerms:
    """What a node has agreed on."""

    host_checked: bool = True  # it calls from its registered host only
    tls_required: bool = False  # it calls, and is called, over TLS only
    certificate: str = ""  # SHA-256 or subject of the one it shows; "": any that is trusted
    identity_required: bool = False  # it names a user when it calls
    jwt_secret: str = ""  # of its JSON Web Tokens; "": it has none
    associations_max: int | None = None  # at the same time
    associations_per_minute_max: int | None = None
    pdu_max_bytes: int | None = None  # it is told to send no larger PDU
    availability_wanted: bool = False  # it is told of each complete study
    rejections_accepted: bool = False  # what its rejection notes name is gone


DEFAULT_TERMS = NodeTerms()


class IdentityType(IntEnum):
    """User-Identity-Type (PS3.7 Table D.3-14)."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JSON_WEB_TOKEN = 5


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """What a caller says of its user."""

    identity_type: int
    primary: bytes
    secondary: bytes = b""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller shows of itself beside its AE title and address."""

    over_tls: bool = False
    certificate: PeerCertificate | None = None
    identity: UserIdentity | None = None


NOTHING_SHOWN = Shown()


@dataclass(frozen=True, slots=True)
class NodeUser:
    """A user that a node may name."""

    username: str
    password_digest: str  # "": the name is enough


class IdentityRefused(Denied):
    """The user that the caller names is not known, or it names none and has to."""


TERMS = ", ".join(field.name for field in dataclasses.fields(NodeTerms))
FIND_TERMS = f"SELECT {TERMS} FROM dicom_node WHERE dicom_node_id = %(dicom_node_id)s"
SET_TERMS = "UPDATE dicom_node SET {changes} WHERE dicom_node_id = %(dicom_node_id)s"
FIND_NODE_ID = """
    SELECT dicom_node_id FROM dicom_node JOIN connection USING (connection_id)
    WHERE connection.name = %(connection)s AND ae_title = %(ae_title)s
"""
LIST_USERS = """
    SELECT username, password_digest FROM node_user WHERE dicom_node_id = %(dicom_node_id)s
"""
ADD_USER = """
    INSERT INTO node_user (dicom_node_id, username, password_digest)
    VALUES (%(dicom_node_id)s, %(username)s, %(password_digest)s)
    ON CONFLICT (dicom_node_id, username)
    DO UPDATE SET password_digest = excluded.password_digest
"""


async def find_terms(tx: Transaction, dicom_node_id: int) -> NodeTerms:
    """Return what the node has agreed on. Raises NotFound."""
    terms = await tx.one(NodeTerms, FIND_TERMS, dicom_node_id=dicom_node_id)
    if terms is None:
        raise NotFound("there is no such node")
    return terms


async def terms_of(database: Database, dicom_node_id: int) -> NodeTerms:
    """Return what the node has agreed on. Raises NotFound."""
    async with database.transaction() as tx:
        return await find_terms(tx, dicom_node_id)


async def list_users(tx: Transaction, dicom_node_id: int) -> list[NodeUser]:
    """Return the users that the node may name."""
    return await tx.all(NodeUser, LIST_USERS, dicom_node_id=dicom_node_id)


async def set_terms(
    tx: Transaction, access: Access, connection_name: str, ae_title: str, **changes: object
) -> NodeTerms:
    """Change the terms that are named and return all of them.

    Raises Denied, NotFound for the node, Invalid for a term that cannot be.
    """
    node_id = await _administered_node(tx, access, connection_name, ae_title)
    terms = dataclasses.replace(await find_terms(tx, node_id), **changes)  # type: ignore[arg-type]
    terms = dataclasses.replace(terms, certificate=checked_certificate(terms.certificate))
    for name in ("associations_max", "associations_per_minute_max", "pdu_max_bytes"):
        value = getattr(terms, name)
        least = PDU_LENGTH_MIN_BYTES if name == "pdu_max_bytes" else 1
        if value is not None and not least <= value < 2**31:
            raise Invalid(f"{name} is {least} or more")
    if terms.certificate and not terms.tls_required:
        raise Invalid("a node that is bound to a certificate has to use TLS")
    told = {name: value for name, value in changes.items() if name != "jwt_secret"}
    await tx.run(
        SET_TERMS.format(changes=", ".join(f"{name} = %({name})s" for name in TERMS.split(", "))),
        dicom_node_id=node_id,
        **{name: getattr(terms, name) for name in TERMS.split(", ")},
    )
    await _record(tx, access, connection_name, ae_title, **told)
    return terms


async def add_user(
    tx: Transaction,
    access: Access,
    connection_name: str,
    ae_title: str,
    username: str,
    password: str,
) -> None:
    """Let a node name a user, or give that user another password; "" asks for none.

    Raises Denied, NotFound for the node, Invalid for a name that is empty.
    """
    node_id = await _administered_node(tx, access, connection_name, ae_title)
    if not username.strip():
        raise Invalid("a user has a name")
    digest = await asyncio.to_thread(password_digest, password) if password else ""
    await tx.run(ADD_USER, dicom_node_id=node_id, username=username.strip(), password_digest=digest)
    await _record(tx, access, connection_name, ae_title, user="added")


async def check_call(
    terms: NodeTerms, users: list[NodeUser], host: str, remote_address: str, shown: Shown
) -> str | None:
    """Return the user that the caller has proved to be; None when it did not need to be any.

    Raises Denied when the call comes from elsewhere, without TLS or with another certificate,
    IdentityRefused for its user, Unavailable when the host has no address at the moment.
    """
    if terms.host_checked and plain_address(remote_address) not in await addresses_of(host):
        raise Denied("the call comes from another host than the node's")
    if terms.tls_required and not shown.over_tls:
        raise Denied("the node has to call over TLS")
    if terms.certificate and not is_of(shown.certificate, terms.certificate):
        raise Denied("the certificate is not the node's")
    return await asyncio.to_thread(_checked_identity, terms, users, shown.identity)


async def addresses_of(host: str) -> frozenset[str]:
    """Return the addresses of a host. Raises Unavailable when it has none at the moment."""
    try:
        return frozenset({plain_address(str(ipaddress.ip_address(host)))})
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        raise Unavailable("the node's host has no address at the moment") from error
    return frozenset(str(address[4][0]) for address in found)


def plain_address(address: str) -> str:
    """Return an address in its one form; an IPv4 address that came over IPv6 is that address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).compressed


def _checked_identity(
    terms: NodeTerms, users: list[NodeUser], identity: UserIdentity | None
) -> str | None:
    configured = bool(users) or bool(terms.jwt_secret)
    if identity is None or not (configured or terms.identity_required):
        if terms.identity_required:
            raise IdentityRefused("the node has to name a user")
        return None  # not asked for, so not looked at
    if identity.identity_type == IdentityType.JSON_WEB_TOKEN and terms.jwt_secret:
        try:
            return verified_subject(identity.primary, terms.jwt_secret)
        except Denied as error:
            raise IdentityRefused(error.message) from error
    if identity.identity_type in (IdentityType.USERNAME, IdentityType.USERNAME_AND_PASSCODE):
        name = identity.primary.decode("utf-8", "replace")
        for user in users:
            if user.username == name and _proves(user, identity):
                return name
        raise IdentityRefused("the user is not known or the passcode is wrong")
    raise IdentityRefused("this type of user identity is not accepted from the node")


def _proves(user: NodeUser, identity: UserIdentity) -> bool:
    if not user.password_digest:
        return True
    if identity.identity_type != IdentityType.USERNAME_AND_PASSCODE:
        return False
    salt, _, digest = user.password_digest.partition("$")
    return hmac.compare_digest(_scrypt(identity.secondary, bytes.fromhex(salt)), digest)


def password_digest(password: str) -> str:
    """Return what is kept of a password."""
    salt = os.urandom(SALT_BYTES)
    return f"{salt.hex()}${_scrypt(password.encode(), salt)}"


def _scrypt(password: bytes, salt: bytes) -> str:
    return hashlib.scrypt(password, salt=salt, n=2**14, r=8, p=1).hex()


async def _administered_node(
    tx: Transaction, access: Access, connection_name: str, ae_title: str
) -> int:
    if not policy.may_administer(access):
        raise Denied("nodes are administered by operators")
    node_id = await tx.value(FIND_NODE_ID, connection=connection_name, ae_title=ae_title)
    if node_id is None:
        raise NotFound(f"{connection_name!r} has no node {ae_title!r}")
    return int(node_id)


async def _record(
    tx: Transaction, access: Access, connection_name: str, ae_title: str, **detail: object
) -> None:
    detail = {"connection": connection_name, "node": ae_title, **detail}
    await audit.record(
        tx, access, audit.AuditRecord(action="administer", door="bfr", detail=detail)
    )
