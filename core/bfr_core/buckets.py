"""Buckets: blobs as objects of an S3-compatible store, each written once under its key.

Nothing is taken on trust: what was sent is read back, and a range is as long as was asked for.
Never a conditional create: stores that do not know it overwrite in silence, and keys are unique.
"""

import hashlib
import logging
import re
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from bfr_core.blobs import WINDOW_BYTES, BlobRef, BlobSource, disk_error
from bfr_core.bucket_address import BucketAddress, read_bucket_keys
from bfr_core.errors import ArchiveError, NotFound, Unavailable

if TYPE_CHECKING:
    from obstore.store import S3Credential

log = logging.getLogger("bfr.buckets")

# Of an upload: 10,000 parts, which is what S3 allows, make the largest object many times over.
PART_BYTES = WINDOW_BYTES
PARTS_AT_ONCE = 2
COALESCE_BYTES = 64 * 1024  # what lies between two ranges is fetched with them up to this
CONNECT_TIMEOUT = timedelta(seconds=3)
REQUEST_TIMEOUT = timedelta(seconds=60)  # of one window or part
RETRIES = 2
RETRY_TIMEOUT = timedelta(seconds=10)
AWAY_S = 5.0  # how long a bucket that failed is asked after the others
KEYS_READ_AGAIN = timedelta(minutes=5)


class Bucket:
    """The blobs of one bucket."""

    def __init__(self, address: BucketAddress) -> None:
        """Open it, without a request. Raises Invalid when its keys are not to be found."""
        self.address = address
        read_bucket_keys(address)
        self._store = S3Store(
            address.bucket,
            prefix=address.prefix or None,
            config={
                # Both, since the environment could name another one that has precedence.
                "endpoint": address.endpoint,
                "aws_endpoint_url_s3": address.endpoint,
                "region": address.region,
                # One request a blob: some stores do not know the other way.
                "disable_bulk_delete": True,
            },
            client_options={
                "allow_http": address.endpoint.startswith("http://"),
                "connect_timeout": CONNECT_TIMEOUT,
                "timeout": REQUEST_TIMEOUT,
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": RETRY_TIMEOUT},
            credential_provider=self._keys,
        )
        self._away_until = 0.0

    def __str__(self) -> str:
        return f"bucket {self.address}"

    def _keys(self) -> "S3Credential":
        keys = read_bucket_keys(self.address)
        return {
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "token": keys.session_token,
            "expires_at": datetime.now(UTC) + KEYS_READ_AGAIN,
        }

    @property
    def is_away(self) -> bool:
        """True when it did not do its work a moment ago: no answer, full, keys refused."""
        return time.monotonic() < self._away_until

    def keys(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Yield key and size in bytes of every blob below the folder, in order of keys.

        Raises Unavailable.
        """
        own = f"{self.address.prefix}/" if self.address.prefix else ""
        try:
            for page in obstore.list(self._store, folder or None):
                for meta in page:
                    yield meta["path"].removeprefix(own), meta["size"]
        except (BaseError, FileNotFoundError) as error:
            raise self._unavailable(error) from error

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly in a folder, "" for all. Raises Unavailable."""
        try:
            found = obstore.list_with_delimiter(self._store, folder or None)
        except (BaseError, FileNotFoundError) as error:
            raise self._unavailable(error) from error
        return [path.rpartition("/")[2] for path in found["common_prefixes"]]

    def size_bytes(self, key: str) -> int:
        """Return the size of the blob. Raises NotFound when there is none, Unavailable."""
        try:
            return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            raise NotFound(f"{self} has no {key}") from None
        except BaseError as error:
            raise self._unavailable(error) from error

    def read(self, ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes:
        """Return the bytes of the range, or of a part of it.

        Raises NotFound when there is no such blob, Unavailable.
        """
        length = ref.length - offset if length is None else length
        return self.read_ranges(ref.key, [(ref.offset + offset, length)])[0]

    def read_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of each (offset, length) of the blob; neighbours take one request.

        Raises NotFound when there is no such blob, Unavailable, also when it is too short.
        """
        wanted = [one for one in ranges if one[1]]
        if not wanted:
            return [b""] * len(ranges)
        try:
            found = obstore.get_ranges(
                self._store,
                key,
                starts=[offset for offset, _ in wanted],
                lengths=[length for _, length in wanted],
                coalesce=COALESCE_BYTES,
            )
        except FileNotFoundError:
            raise NotFound(f"{self} has no {key}") from None
        except BaseError as error:
            raise self._unavailable(error) from error
        pieces = {one: bytes(data) for one, data in zip(wanted, found, strict=True)}
        if any(len(data) != length for (_, length), data in pieces.items()):
            raise Unavailable(f"{key} is too short in {self}")
        return [pieces.get(one, b"") for one in ranges]

    def put(self, key: str, content: Path | bytes) -> None:
        """Write a blob whole and read it back; until it is whole, there is none.

        Raises Unavailable, also when it does not come back as it was sent.
        """
        try:
            if isinstance(content, bytes):
                sent = hashlib.sha256(content).digest()
            else:
                with content.open("rb") as file:
                    sent = hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise disk_error(error) from error
        try:
            obstore.put(
                self._store, key, content, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
            )
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error
        if self.digest(key) != sent:
            raise Unavailable(f"{self} did not keep {key} as it was sent")

    def digest(self, key: str) -> bytes:
        """Return the SHA-256 of the blob as it is read. Raises NotFound, Unavailable."""
        found = hashlib.sha256()
        for piece in pieces_of(self, key):
            found.update(piece)
        return found.digest()

    def delete(self, key: str) -> None:
        """Remove a blob; nothing happens when it is gone already. Raises Unavailable."""
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return
        except BaseError as error:
            raise self._unavailable(error) from error

    def probe(self) -> None:
        """Write, read, list and delete an object of its own.

        Raises Unavailable saying what fails.
        """
        key = f"probe/{uuid.uuid4().hex}"
        content = uuid.uuid4().bytes
        try:
            self.put(key, content)
            if key not in dict(self.keys("probe")):
                raise Unavailable(f"{self} does not list what was written")
        except NotFound as error:
            raise Unavailable(f"{self} does not find what was written") from error
        finally:
            try:
                self.delete(key)
            except ArchiveError as error:
                log.warning("%s: %s may be left behind: %s", self, key, error.message)
        try:
            self.size_bytes(key)
        except NotFound:
            return
        raise Unavailable(f"{self} does not delete what was written")

    def _unavailable(self, error: Exception) -> Unavailable:
        code = CODE.search(str(error))
        if code is None or code[1] != INVALID_RANGE:
            self._away_until = time.monotonic() + AWAY_S
        return Unavailable(f"{self}: {_reason(str(error))}")


INVALID_RANGE = "InvalidRange"  # tells of one object, everything else of the bucket
REASONS = {
    INVALID_RANGE: "the object is too short",
    "NoSuchBucket": "there is no such bucket",
    "NoSuchKey": "there is no such object",
    "AccessDenied": "these keys may not do that",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "InvalidAccessKeyId": "the access key is unknown",
}
CODE = re.compile(r"<Code>(\w+)</Code>")
STATUS = re.compile(r"non-2xx status code: ([^:\n]+)")


def _reason(text: str) -> str:
    """Return in few words what the store said; the whole would name URLs and our own innards."""
    if code := CODE.search(text):
        return REASONS.get(code[1], code[1])
    if status := STATUS.search(text):
        return f"answers {status[1].strip()}"
    return "does not answer"


def pieces_of(source: BlobSource, key: str) -> Iterator[bytes]:
    """Yield the blob in windows. Raises NotFound, Unavailable."""
    size = source.size_bytes(key)
    for start in range(0, size, WINDOW_BYTES):
        yield source.read(BlobRef(key, start, min(WINDOW_BYTES, size - start)))


@contextmanager
def staged(source: BlobSource, key: str, directory: Path) -> Iterator[Path]:
    """Give the blob as a file in the folder for the length of the block.

    A bucket cannot be written from what another is read into: their client does not wait within
    itself. Raises NotFound, Unavailable.
    """
    # Without a name: it goes with this process, however that ends.
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            for piece in pieces_of(source, key):
                file.write(piece)
            file.flush()
        except OSError as error:
            raise disk_error(error) from error
        yield Path(f"/dev/fd/{file.fileno()}")
