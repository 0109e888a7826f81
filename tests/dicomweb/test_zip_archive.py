"""ZIP: whatever the files, other programs read the archive (ISO/IEC 21320-1)."""

import io
import zipfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bfr_core.blobs import BlobRef, FileBlobs
from bfr_dicomweb.zip_archive import Entry, central_directory, length_bytes, zip_chunks

NO_BLOBS = FileBlobs(Path(), 0)


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
