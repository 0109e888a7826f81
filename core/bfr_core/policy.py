"""Policy: the one place that decides what a caller may see and do.

Each rule is a pure function of the access and the resource. Lists use `visible_archives` as a
predicate inside the query, so that counts and pages are right and leak nothing.
"""

from bfr_core.access import Access


def may_read(access: Access, archive_id: int) -> bool:
    """Tell whether the caller may read what the archive holds."""
    return access.archive_ids is None or archive_id in access.archive_ids


def may_store(access: Access, archive_id: int) -> bool:
    """Tell whether the caller may store in the archive: a node only in its connection's own."""
    return access.may_store and may_read(access, archive_id)


def may_administer(access: Access) -> bool:
    """Tell whether the caller may change connections, nodes and archives."""
    return access.kind == "operator"


def may_delete(access: Access, archive_id: int) -> bool:
    """Tell whether the caller may delete from the archive and undo that."""
    return access.kind == "operator" and may_read(access, archive_id)


def may_reject(access: Access, archive_id: int) -> bool:
    """Tell whether objects of the archive are gone when the caller rejects them."""
    return access.may_reject and may_store(access, archive_id)


def visible_archives(access: Access, archive_id: int | None) -> list[int] | None:
    """Return the archives a search may look into; None means all of them.

    `archive_id` narrows to the one the caller addressed. An archive that the caller may not
    read leaves an empty list, so the search finds nothing and does not tell why.
    """
    if archive_id is not None:
        return [archive_id] if may_read(access, archive_id) else []
    return None if access.archive_ids is None else sorted(access.archive_ids)
