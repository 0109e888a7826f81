"""`bfr blobs heal`: missing and damaged copies in the buckets are made again from good ones."""

import argparse
import sys

from bfr_command.database_session import command_store
from bfr_command.progress import Progress
from bfr_core.errors import ArchiveError, Invalid
from bfr_core.settings import Settings

MIB = 1024**2


async def heal_blobs(settings: Settings, arguments: argparse.Namespace) -> int:
    """Heal series by series; 1 when a blob has no good copy left, after healing all others."""
    if not settings.bucket_url:
        raise Invalid("there is no bucket: set BFR_BUCKET_URL")
    # Loaded here: the client of buckets takes time that other commands need not spend.
    from bfr_core.healing import Healed, heal

    healed = Healed(after=arguments.after)
    progress: Progress | None = None

    def tell(so_far: Healed) -> None:
        nonlocal progress
        progress = progress or Progress("healing", so_far.total)
        progress.show(so_far.series)

    try:
        async with command_store(settings) as store:
            await heal(store, healed, read=arguments.read, tell=tell)
    except ArchiveError:
        if healed.after > arguments.after:
            print(f"stopped: go on with --after {healed.after}", file=sys.stderr)
        raise
    finally:
        if progress is not None:
            progress.end()
        for sentence in healed.lost:
            print(f"lost: {sentence}", file=sys.stderr)
        print(
            f"{healed.series} series with {healed.blobs} packs and manifests looked at:"
            f" {healed.copied} copies made ({healed.copied_bytes / MIB:.1f} MiB),"
            f" {len(healed.lost)} lost"
        )
    return 1 if healed.lost else 0
