"""Connections, their archives and DICOM nodes."""

import re
from dataclasses import dataclass

import psycopg

from bfr_core import audit, jobs, node_terms, policy
from bfr_core.access import Access
from bfr_core.database import Database, Row, Transaction
from bfr_core.errors import ArchiveError, Conflict, Denied, Invalid, NotFound
from bfr_core.node_terms import NOTHING_SHOWN, Shown

# PS3.5 §6.2, value representation AE: 1-16 characters, no backslash, no control characters.
AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}")


@dataclass(frozen=True, slots=True)
class Connection:
    """One connected system: a RIS or PACS with its nodes and its archive."""

    connection_id: int
    name: str
    environment: str  # "test" or "production"


@dataclass(frozen=True, slots=True)
class Archive:
    """One dedicated archive: one AE title, one connection."""

    archive_id: int
    connection_id: int
    ae_title: str
    name: str


@dataclass(frozen=True, slots=True)
class VirtualArchive:
    """One AE title over all published data, for nodes that are audited for it (S-068, S-074)."""

    virtual_archive_id: int
    ae_title: str
    name: str


@dataclass(frozen=True, slots=True)
class DicomNode:
    """One DICOM application entity of a connected system."""

    dicom_node_id: int
    connection_id: int
    ae_title: str
    host: str
    port: int


LIST_CONNECTIONS = "SELECT connection_id, name, environment FROM connection ORDER BY name"
FIND_CONNECTION = "SELECT connection_id, name, environment FROM connection WHERE name = %(name)s"
ADD_CONNECTION = """
    INSERT INTO connection (name, environment, system_hsa_id)
    VALUES (%(name)s, %(environment)s, %(system_hsa_id)s)
    RETURNING connection_id, name, environment
"""
ARCHIVE_COLUMNS = "archive_id, connection_id, ae_title, name"
LIST_ARCHIVES = f"SELECT {ARCHIVE_COLUMNS} FROM archive ORDER BY ae_title"
FIND_ARCHIVE = f"SELECT {ARCHIVE_COLUMNS} FROM archive WHERE ae_title = %(ae_title)s"
ADD_ARCHIVE = f"""
    INSERT INTO archive (connection_id, ae_title, name)
    VALUES (%(connection_id)s, %(ae_title)s, %(name)s)
    RETURNING {ARCHIVE_COLUMNS}
"""
NODE_COLUMNS = "dicom_node_id, connection_id, ae_title, host, port"
LIST_NODES = f"SELECT {NODE_COLUMNS} FROM dicom_node ORDER BY connection_id, ae_title"
FIND_NODE = f"""
    SELECT {NODE_COLUMNS} FROM dicom_node
    WHERE connection_id = %(connection_id)s AND ae_title = %(ae_title)s
"""
ADD_NODE = f"""
    INSERT INTO dicom_node (connection_id, ae_title, host, port)
    VALUES (%(connection_id)s, %(ae_title)s, %(host)s, %(port)s)
    RETURNING {NODE_COLUMNS}
"""
VIRTUAL_COLUMNS = "virtual_archive_id, ae_title, name"
LIST_VIRTUAL = f"SELECT {VIRTUAL_COLUMNS} FROM virtual_archive ORDER BY ae_title"
FIND_VIRTUAL = f"SELECT {VIRTUAL_COLUMNS} FROM virtual_archive WHERE ae_title = %(ae_title)s"
ADD_VIRTUAL = f"""
    INSERT INTO virtual_archive (ae_title, name) VALUES (%(ae_title)s, %(name)s)
    RETURNING {VIRTUAL_COLUMNS}
"""
# The same title in two connections is two nodes, of which one alone may be audited.
FIND_AUDITED_NODE = f"""
    SELECT {NODE_COLUMNS} FROM dicom_node JOIN audited_node USING (dicom_node_id)
    WHERE virtual_archive_id = %(virtual_archive_id)s AND ae_title = %(ae_title)s
    ORDER BY dicom_node_id LIMIT 1
"""
MARK_AUDITED = """
    INSERT INTO audited_node (virtual_archive_id, dicom_node_id)
    VALUES (%(virtual_archive_id)s, %(dicom_node_id)s) ON CONFLICT DO NOTHING
"""
UNMARK_AUDITED = """
    DELETE FROM audited_node
    WHERE virtual_archive_id = %(virtual_archive_id)s AND dicom_node_id = %(dicom_node_id)s
"""
LIST_AUDITED = """
    SELECT dicom_node_id, virtual_archive.ae_title
    FROM audited_node JOIN virtual_archive USING (virtual_archive_id)
    ORDER BY dicom_node_id, virtual_archive.ae_title
"""


async def add_connection(
    tx: Transaction, access: Access, name: str, environment: str, system_hsa_id: str = ""
) -> Connection:
    """Register a connected system.

    Raises Denied, Invalid for an empty name or an unknown environment, Conflict when the name
    is taken.
    """
    _require_administer(access)
    if not name.strip():
        raise Invalid("a connection needs a name")
    if environment not in ("test", "production"):
        raise Invalid(f"environment is 'test' or 'production', not {environment!r}")
    connection = await _insert(
        tx,
        Connection,
        ADD_CONNECTION,
        f"there is a connection {name!r} already",
        name=name,
        environment=environment,
        system_hsa_id=system_hsa_id,
    )
    await _record(tx, access, connection=name, environment=environment)
    return connection


async def add_archive(
    tx: Transaction, access: Access, connection_name: str, ae_title: str, name: str
) -> Archive:
    """Give a connection its archive.

    Raises Denied, NotFound for the connection, Invalid for the AE title, Conflict when the
    title is taken or the connection has an archive already.
    """
    _require_administer(access)
    connection = await find_connection(tx, connection_name)
    _refuse_slash(ae_title)
    archive = await _insert(
        tx,
        Archive,
        ADD_ARCHIVE,
        f"AE title {ae_title!r} is taken, or {connection_name!r} has its archive already",
        connection_id=connection.connection_id,
        ae_title=checked_ae_title(ae_title),
        name=name,
    )
    await _record(tx, access, archive_id=archive.archive_id, archive=archive.ae_title)
    return archive


async def add_virtual_archive(
    tx: Transaction, access: Access, ae_title: str, name: str
) -> VirtualArchive:
    """Add a virtual archive; no node may call it yet.

    Raises Denied, Invalid for the AE title, Conflict when the title is taken.
    """
    _require_administer(access)
    _refuse_slash(ae_title)
    archive = await _insert(
        tx,
        VirtualArchive,
        ADD_VIRTUAL,
        f"AE title {ae_title!r} is taken",
        ae_title=checked_ae_title(ae_title),
        name=name,
    )
    await _record(tx, access, virtual_archive=archive.ae_title)
    return archive


async def mark_audited(
    tx: Transaction,
    access: Access,
    connection_name: str,
    node_ae_title: str,
    virtual_ae_title: str,
    *,
    audited: bool,
) -> None:
    """Open a virtual archive to a node whose system is audited for it, or close it again.

    Raises Denied, NotFound for connection, node or virtual archive.
    """
    _require_administer(access)
    connection = await find_connection(tx, connection_name)
    node = await tx.one(
        DicomNode,
        FIND_NODE,
        connection_id=connection.connection_id,
        ae_title=node_ae_title.strip(" "),
    )
    if node is None:
        raise NotFound(f"{connection_name!r} has no node {node_ae_title!r}")
    archive = await tx.one(VirtualArchive, FIND_VIRTUAL, ae_title=virtual_ae_title.strip(" "))
    if archive is None:
        raise NotFound(f"there is no virtual archive {virtual_ae_title!r}")
    await tx.run(
        MARK_AUDITED if audited else UNMARK_AUDITED,
        virtual_archive_id=archive.virtual_archive_id,
        dicom_node_id=node.dicom_node_id,
    )
    await audit.record(
        tx,
        access,
        audit.AuditRecord(
            action="administer",
            door="bfr",
            detail={
                "connection": connection_name,
                "node": node.ae_title,
                "virtual_archive": archive.ae_title,
                "audited": audited,
            },
        ),
    )


async def add_node(
    tx: Transaction, access: Access, connection_name: str, ae_title: str, host: str, port: int
) -> DicomNode:
    """Register a DICOM node of a connection.

    Raises Denied, NotFound for the connection, Invalid for AE title, host or port, Conflict
    when the connection has a node with that title.
    """
    _require_administer(access)
    connection = await find_connection(tx, connection_name)
    if not host.strip():
        raise Invalid("a DICOM node needs a host")
    if not 1 <= port <= 65535:
        raise Invalid(f"port {port} is not between 1 and 65535")
    node = await _insert(
        tx,
        DicomNode,
        ADD_NODE,
        f"{connection_name!r} has a node {ae_title!r} already",
        connection_id=connection.connection_id,
        ae_title=checked_ae_title(ae_title),
        host=host,
        port=port,
    )
    await _record(tx, access, node=node.ae_title, host=host, port=port, connection=connection_name)
    return node


async def list_connections(tx: Transaction) -> list[Connection]:
    """Return every connection by name."""
    return await tx.all(Connection, LIST_CONNECTIONS)


async def list_archives(tx: Transaction) -> list[Archive]:
    """Return every archive by AE title."""
    return await tx.all(Archive, LIST_ARCHIVES)


async def list_virtual_archives(tx: Transaction) -> list[VirtualArchive]:
    """Return every virtual archive by AE title."""
    return await tx.all(VirtualArchive, LIST_VIRTUAL)


async def list_audited(tx: Transaction) -> list[tuple[int, str]]:
    """Return (DICOM node, AE title of a virtual archive) for each that the node may call."""
    return [(node, title) for node, title in await tx.tuples(LIST_AUDITED)]


async def list_nodes(tx: Transaction) -> list[DicomNode]:
    """Return every DICOM node by connection and AE title."""
    return await tx.all(DicomNode, LIST_NODES)


async def find_connection(tx: Transaction, name: str) -> Connection:
    """Return the connection. Raises NotFound."""
    connection = await tx.one(Connection, FIND_CONNECTION, name=name)
    if connection is None:
        raise NotFound(f"there is no connection {name!r}")
    return connection


async def find_archive(tx: Transaction, access: Access, ae_title: str) -> Archive:
    """Return the archive with this AE title. Raises NotFound, also when it may not be known."""
    archive = await tx.one(Archive, FIND_ARCHIVE, ae_title=ae_title)
    if archive is None or not policy.may_read(access, archive.archive_id):
        raise NotFound(f"there is no archive {ae_title!r}")
    return archive


async def admit_node(
    database: Database,
    called_ae_title: str,
    calling_ae_title: str,
    remote_address: str,
    shown: Shown = NOTHING_SHOWN,
) -> tuple[Access, Archive | VirtualArchive]:
    """Return the access of a calling node to the archive it called (PS3.8 §9.3.4).

    The admission, or the refusal, is on record. Raises NotFound when the called title is no
    archive's, Denied when the calling title is no registered node of the archive's connection or,
    for a virtual archive, none that is audited for it, or when the call does not keep to what the
    node has agreed on.
    """
    # PostgreSQL has no NUL character, and no AE title has one.
    called_ae_title = called_ae_title.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    calling_ae_title = calling_ae_title.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    async with database.transaction() as tx:
        archive = await _find_called(tx, called_ae_title)
        node = await _find_node(tx, archive, calling_ae_title) if archive else None
        terms = await node_terms.find_terms(tx, node.dicom_node_id) if node else None
        users = await node_terms.list_users(tx, node.dicom_node_id) if node else []
    refusal: ArchiveError | None = None
    user = None
    if archive is None:
        refusal = NotFound(f"no archive has the AE title {called_ae_title!r}")
    elif node is None or terms is None:
        refusal = Denied(
            f"AE title {calling_ae_title!r} is no registered node of archive {called_ae_title!r}"
        )
    else:
        try:
            user = await node_terms.check_call(terms, users, node.host, remote_address, shown)
        except Denied as error:
            refusal = error
    access = Access(
        kind="node",
        subject=calling_ae_title,
        archive_ids=_archives_behind(archive) if archive and not refusal else frozenset(),
        remote_address=remote_address,
        may_store=isinstance(archive, Archive),
        may_reject=terms is not None and terms.rejections_accepted,
        dicom_node_id=node.dicom_node_id if node else None,
        names_user=user is not None,
    )
    detail: dict[str, object] = {"called_ae_title": called_ae_title}
    if refusal is not None:
        detail["reason"] = refusal.message
    if user is not None:
        detail["user"] = user
    if shown.certificate is not None:
        detail["certificate"] = shown.certificate.fingerprint
    async with database.transaction() as tx:
        await audit.record(
            tx,
            access,
            audit.AuditRecord(
                action="associate",
                door="DIMSE",
                outcome="refused" if refusal else "success",
                archive_id=archive.archive_id if isinstance(archive, Archive) else None,
                detail=detail,
            ),
        )
    if refusal is not None or archive is None:
        raise refusal or NotFound("there is no such archive")
    return access, archive


async def find_destination(
    database: Database, archive: Archive | VirtualArchive, ae_title: str
) -> DicomNode | None:
    """Return the node that objects of the archive may be sent to by this AE title, or None.

    As for who may call: a node of the archive's connection, or one audited for the virtual archive.
    """
    if not AE_TITLE.fullmatch(ae_title):
        return None
    async with database.transaction() as tx:
        return await _find_node(tx, archive, ae_title)


async def _find_called(tx: Transaction, ae_title: str) -> Archive | VirtualArchive | None:
    archive = await tx.one(Archive, FIND_ARCHIVE, ae_title=ae_title)
    return archive or await tx.one(VirtualArchive, FIND_VIRTUAL, ae_title=ae_title)


async def _find_node(
    tx: Transaction, archive: Archive | VirtualArchive, ae_title: str
) -> DicomNode | None:
    if isinstance(archive, VirtualArchive):
        return await tx.one(
            DicomNode,
            FIND_AUDITED_NODE,
            virtual_archive_id=archive.virtual_archive_id,
            ae_title=ae_title,
        )
    return await tx.one(
        DicomNode, FIND_NODE, connection_id=archive.connection_id, ae_title=ae_title
    )


def _archives_behind(archive: Archive | VirtualArchive) -> frozenset[int] | None:
    return frozenset([archive.archive_id]) if isinstance(archive, Archive) else None


def _refuse_slash(ae_title: str) -> None:
    if "/" in ae_title:
        raise Invalid(f"{ae_title!r}: an archive's AE title is part of URLs and holds no slash")


def checked_ae_title(text: str) -> str:
    """Return the AE title without surrounding spaces. Raises Invalid (PS3.5 §6.2)."""
    title = text.strip(" ")
    if not title or not AE_TITLE.fullmatch(title):
        raise Invalid(f"{text!r} is no AE title: 1 to 16 ASCII characters without backslash")
    return title


def _require_administer(access: Access) -> None:
    if not policy.may_administer(access):
        raise Denied("connections are administered by operators")


async def _insert(
    tx: Transaction, row_type: type[Row], sql: str, taken: str, **params: object
) -> Row:
    try:
        async with tx.connection.transaction():
            row = await tx.one(row_type, sql, **params)
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(taken) from error
    if row is None:
        raise Conflict(taken)
    return row


async def _record(
    tx: Transaction, access: Access, archive_id: int | None = None, **detail: object
) -> None:
    await audit.record(
        tx,
        access,
        audit.AuditRecord(action="create", door="bfr", archive_id=archive_id, detail=detail),
    )
    await jobs.defer_keep_connections(tx)
