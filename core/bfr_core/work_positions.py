"""Work positions: how far work has come that takes days and goes on where it was."""

from bfr_core.database import Transaction

FIND = "SELECT place FROM work_position WHERE work = %(work)s"
KEEP = """
    INSERT INTO work_position (work, place) VALUES (%(work)s, %(place)s)
    ON CONFLICT (work) DO UPDATE SET place = excluded.place
"""
FORGET = "DELETE FROM work_position WHERE work = %(work)s"


async def find_position(tx: Transaction, work: str) -> str:
    """Return how far the work has come; "" when it begins."""
    return await tx.value(FIND, work=work) or ""


async def keep_position(tx: Transaction, work: str, place: str) -> None:
    """Remember how far the work has come; "" when it begins again."""
    if place:
        await tx.run(KEEP, work=work, place=place)
    else:
        await tx.run(FORGET, work=work)
