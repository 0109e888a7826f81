"""ZIP: whatever the files, other programs read the archive (ISO/IEC 21320-1)."""

import io
import random
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bfr_core.blobs import WINDOW_BYTES, BlobRef, FileBlobs
from bfr_dicomweb.zip_archive import Entry, central_directory, length_bytes, zip_chunks

NO_BLOBS = FileBlobs(Path(), 0)


class Elsewhere(FileBlobs):
    """Blobs that are nowhere near: every range is fetched, as from a bucket."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 0)
        self.fetched: list[BlobRef] = []

    def open(self, key: str) -> int | None:
        return None

    def fetch(self, ranges: Sequence[BlobRef]) -> list[bytes]:
        assert sum(one.length for one in ranges) <= WINDOW_BYTES
        self.fetched += ranges
        data = self.path("pack").read_bytes()
        return [data[one.offset : one.offset + one.length] for one in ranges]


def test_objects_of_any_size_come_from_elsewhere_in_windows(tmp_path: Path) -> None:
    sizes = [WINDOW_BYTES * 2 + 5, 1000, WINDOW_BYTES, 3, WINDOW_BYTES + 1, 0, 70]
    data = random.Random(1).randbytes(sum(sizes))
    (tmp_path / "pack").write_bytes(data)
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    entries = [
        Entry(f"I{number}", BlobRef("pack", start, size))
        for number, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]
    blobs = Elsewhere(tmp_path)
    archive = b"".join(zip_chunks(blobs, entries))
    assert len(archive) == length_bytes(entries)
    with zipfile.ZipFile(io.BytesIO(archive)) as read:
        assert read.testzip() is None
        assert b"".join(read.read(name) for name in read.namelist()) == data
    # What is larger than a window is fetched twice, with what was fetched ahead behind it.
    twice = sum(size for size in sizes if size > WINDOW_BYTES)
    assert sum(one.length for one in blobs.fetched) <= len(data) + twice + 2 * WINDOW_BYTES


@given(
    st.lists(st.binary(max_size=70), max_size=5), st.sampled_from(["A", "DICOM/S0000001/I0000001"])
)
def test_any_files_are_read_back(contents: list[bytes], name: str) -> None:
    entries = [Entry(f"{name}{n}", content) for n, content in enumerate(contents)]
    data = b"".join(zip_chunks(NO_BLOBS, entries))
    assert len(data) == length_bytes(entries)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert [archive.read(one) for one in archive.namelist()] == contents


def test_archives_beyond_4_gib_and_65535_files_are_zip64(tmp_path: Path) -> None:
    gib = 1 << 30
    large = [Entry("LARGE", BlobRef("pack", 0, 5 * gib)), Entry("LAST", b"the last file")]
    many = [Entry(f"N{number}", b"") for number in range(70_000)]
    for entries in (large, many):
        path = tmp_path / entries[0].name
        directory = central_directory(entries, [0] * len(entries))
        with path.open("wb") as file:  # the directory alone, behind a hole
            file.truncate(length_bytes(entries) - len(directory))
            file.seek(0, io.SEEK_END)
            file.write(directory)
        with zipfile.ZipFile(path) as archive:
            assert [(one.filename, one.file_size) for one in archive.infolist()] == [
                (one.name, one.size_bytes) for one in entries
            ]
            if entries is large:
                assert archive.infolist()[1].header_offset == 5 * gib + 30 + 5 + 20
        path.unlink()
