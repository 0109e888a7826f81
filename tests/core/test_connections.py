"""Connected systems: who registers them, and whose calls are let in."""

import pytest
from tests.conftest import House, add_house

from bfr_core import connections, policy
from bfr_core.access import Access, operator
from bfr_core.errors import Conflict, Denied, Invalid, NotFound
from bfr_core.store import Store

OPERATOR = operator("test")
LOCAL = Access(kind="local", subject="loopback", archive_ids=None)


async def test_a_connection_gets_one_archive_and_its_nodes(store: Store) -> None:
    async with store.database.transaction() as tx:
        made = await connections.add_connection(tx, OPERATOR, "PACS West", "production")
        archive = await connections.add_archive(tx, OPERATOR, "PACS West", " WEST ", "Archive")
        node = await connections.add_node(tx, OPERATOR, "PACS West", "CT1", "10.0.0.1", 104)
        assert await connections.list_connections(tx) == [made]
        assert await connections.list_archives(tx) == [archive]
        assert await connections.list_nodes(tx) == [node]
    assert archive.ae_title == "WEST"
    assert {archive.connection_id, node.connection_id} == {made.connection_id}
    async with store.database.transaction() as tx:
        records = await tx.value("SELECT count(*) FROM audit_record WHERE action = 'create'")
    assert records == 3


async def test_names_and_titles_are_taken_once(store: Store, house: House) -> None:
    async with store.database.transaction() as tx:
        with pytest.raises(Conflict, match="PACS of ARCHIVE"):
            await connections.add_connection(tx, OPERATOR, "PACS of ARCHIVE", "test")
        await connections.add_connection(tx, OPERATOR, "Another", "test")
        with pytest.raises(Conflict, match="ARCHIVE"):
            await connections.add_archive(tx, OPERATOR, "Another", "ARCHIVE", "")
        with pytest.raises(Conflict, match="SECOND"):
            await connections.add_archive(tx, OPERATOR, "PACS of ARCHIVE", "SECOND", "")
        with pytest.raises(Conflict, match="MODALITY"):
            await connections.add_node(tx, OPERATOR, "PACS of ARCHIVE", "MODALITY", "other", 104)
        await connections.add_node(tx, OPERATOR, "Another", "MODALITY", "other", 104)
        assert len(await connections.list_connections(tx)) == 2
        assert len(await connections.list_archives(tx)) == 1
        assert len(await connections.list_nodes(tx)) == 2


@pytest.mark.conforms("PS3.5 Table 6.2-1", "An AE title has 1 to 16 characters, no backslash")
async def test_what_is_no_ae_title_is_refused(store: Store, house: House) -> None:
    async with store.database.transaction() as tx:
        await connections.add_connection(tx, OPERATOR, "Another", "test")
        for title in ("", "   ", "A" * 17, "A\\B", "Ä", "A\nB", "A\0", "A\tB", "\x7f"):
            with pytest.raises(Invalid, match="no AE title"):
                await connections.add_node(tx, OPERATOR, "Another", title, "host", 104)
            with pytest.raises(Invalid, match="no AE title"):
                await connections.add_archive(tx, OPERATOR, "Another", title, "")


async def test_a_node_needs_a_host_and_a_port(store: Store, house: House) -> None:
    async with store.database.transaction() as tx:
        for host, port in (("", 104), (" ", 104), ("h", 0), ("h", 65536)):
            with pytest.raises(Invalid):
                await connections.add_node(tx, OPERATOR, "PACS of ARCHIVE", "CT1", host, port)


async def test_a_connection_needs_a_name_and_a_known_environment(store: Store) -> None:
    async with store.database.transaction() as tx:
        with pytest.raises(Invalid, match="name"):
            await connections.add_connection(tx, OPERATOR, " ", "test")
        with pytest.raises(Invalid, match="staging"):
            await connections.add_connection(tx, OPERATOR, "PACS", "staging")
        with pytest.raises(NotFound, match="Nothing"):
            await connections.add_archive(tx, OPERATOR, "Nothing", "A", "")


async def test_only_operators_administer(store: Store, house: House) -> None:
    async with store.database.transaction() as tx:
        for access in (LOCAL, house.node):
            with pytest.raises(Denied):
                await connections.add_connection(tx, access, "PACS", "test")
            with pytest.raises(Denied):
                await connections.add_archive(tx, access, "PACS of ARCHIVE", "A", "")
            with pytest.raises(Denied):
                await connections.add_node(tx, access, "PACS of ARCHIVE", "A", "host", 104)


async def admissions(store: Store) -> list[tuple[str, str, str]]:
    async with store.database.transaction() as tx:
        return await tx.tuples(
            "SELECT outcome, caller, remote_address FROM audit_record"
            " WHERE action = 'associate' ORDER BY recorded_at"
        )


@pytest.mark.conforms("PS3.8 §9.3.4", "The called and the calling AE title are recognised")
async def test_a_registered_node_is_let_into_its_own_archive_alone(
    store: Store, house: House
) -> None:
    other = await add_house(store, "OTHER", "CT2")
    access, archive = await connections.admit_node(
        store.database, "ARCHIVE", "MODALITY", "127.0.0.1"
    )
    assert archive == house.archive
    assert access.archive_ids == frozenset([house.archive.archive_id])
    assert other.archive.archive_id not in access.archive_ids
    with pytest.raises(Denied, match="CT2"):
        await connections.admit_node(store.database, "ARCHIVE", "CT2", "127.0.0.1")
    with pytest.raises(Denied, match="MODALITY"):
        await connections.admit_node(store.database, "OTHER", "MODALITY", "127.0.0.1")
    with pytest.raises(NotFound, match="NOBODY"):
        await connections.admit_node(store.database, "NOBODY", "MODALITY", "127.0.0.1")
    assert await admissions(store) == [
        ("success", "MODALITY", "127.0.0.1"),
        ("refused", "CT2", "127.0.0.1"),
        ("refused", "MODALITY", "127.0.0.1"),
        ("refused", "MODALITY", "127.0.0.1"),
    ]


async def test_a_virtual_archive_is_opened_by_operators_to_audited_nodes(
    store: Store, house: House
) -> None:
    async with store.database.transaction() as tx:
        with pytest.raises(Denied):
            await connections.add_virtual_archive(tx, house.node, "ALL", "Everything")
        await connections.add_virtual_archive(tx, operator("test"), "ALL", "Everything")
    with pytest.raises(Denied, match="MODALITY"):
        await connections.admit_node(store.database, "ALL", "MODALITY", "127.0.0.1")
    for audited in (True, False):
        async with store.database.transaction() as tx:
            with pytest.raises(Denied):
                await connections.mark_audited(
                    tx, house.node, "PACS of ARCHIVE", "MODALITY", "ALL", audited=audited
                )
            await connections.mark_audited(
                tx, operator("test"), "PACS of ARCHIVE", "MODALITY", "ALL", audited=audited
            )
        if audited:
            access, archive = await connections.admit_node(
                store.database, "ALL", "MODALITY", "127.0.0.1"
            )
            assert archive.ae_title == "ALL"
            assert access.archive_ids is None
            assert not policy.may_store(access, house.archive.archive_id)
    with pytest.raises(Denied):
        await connections.admit_node(store.database, "ALL", "MODALITY", "127.0.0.1")


async def test_titles_are_told_apart_by_case(store: Store, house: House) -> None:
    with pytest.raises(NotFound):
        await connections.admit_node(store.database, "archive", "MODALITY", "127.0.0.1")
    with pytest.raises(Denied):
        await connections.admit_node(store.database, "ARCHIVE", "modality", "127.0.0.1")


async def test_an_archive_that_may_not_be_read_is_not_found(store: Store, house: House) -> None:
    other = await add_house(store, "OTHER", "MODALITY")
    async with store.database.transaction() as tx:
        assert await connections.find_archive(tx, house.node, "ARCHIVE") == house.archive
        with pytest.raises(NotFound):
            await connections.find_archive(tx, house.node, "OTHER")
        assert await connections.find_archive(tx, LOCAL, "OTHER") == other.archive
