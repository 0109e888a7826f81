"""Blobs: written whole or not at all, read as written, and a torn pack never lies."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bfr_core.blobs import BlobReader, BlobRef, FileBlobs
from bfr_core.errors import NotFound, Unavailable
from bfr_core.packs import PACK_HEADER_BYTES, RECORD, Pack, digest_of, read_pack

PROVENANCE = {"archive": "ARCHIVE", "door": "import", "sender": "tester"}


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs", 0)


def part10(number: int, size: int = 300) -> tuple[bytes, int]:
    """Bytes that stand for an instance, and where its data set begins."""
    return bytes((number * 31 + at) % 251 for at in range(size)), 140


def append(pack: Pack, data: bytes, dataset_offset: int) -> BlobRef:
    return pack.append(data, dataset_offset, digest_of(data[dataset_offset:]))


def pack_of(blobs: FileBlobs, *numbers: int) -> tuple[str, list[bytes]]:
    pack = Pack(blobs, blobs.new_key(1, "pack"), PROVENANCE)
    files = [part10(number) for number in numbers]
    for data, dataset_offset in files:
        append(pack, data, dataset_offset)
    pack.close()
    return pack.key, [data for data, _ in files]


def told(blobs: FileBlobs, key: str) -> list[bytes]:
    return [blobs.read(record.ref) for record in read_pack(blobs, key)]


def test_a_pack_gives_back_its_instances_in_order(blobs: FileBlobs) -> None:
    key, files = pack_of(blobs, 1, 2, 3)
    assert told(blobs, key) == files


def test_a_pack_torn_at_any_byte_of_its_last_record_gives_the_others(blobs: FileBlobs) -> None:
    key, files = pack_of(blobs, 1, 2, 3)
    path = blobs.path(key)
    whole = path.read_bytes()
    last = len(whole) - len(files[2]) - RECORD.size
    for size in range(last, len(whole)):
        os.truncate(path, size)
        assert told(blobs, key) == files[:2]
        path.write_bytes(whole)
    assert told(blobs, key) == files


@pytest.mark.parametrize("size", [0, 1, PACK_HEADER_BYTES - 1, PACK_HEADER_BYTES])
def test_a_pack_torn_in_its_header_gives_nothing(blobs: FileBlobs, size: int) -> None:
    key, _ = pack_of(blobs, 1)
    os.truncate(blobs.path(key), size)
    assert told(blobs, key) == []


def test_a_tail_that_never_reached_the_disk_gives_no_instance(blobs: FileBlobs) -> None:
    """After a power cut a file may have its full length and zeros where data should be."""
    key, files = pack_of(blobs, 1, 2)
    path = blobs.path(key)
    whole = path.read_bytes()
    for lost in (1, 100, len(files[1]), len(files[1]) + 10):
        path.write_bytes(whole[:-lost] + bytes(lost))
        assert told(blobs, key) == files[:1]


@given(st.data())
@hypothesis_settings(max_examples=200)
def test_a_damaged_byte_never_gives_another_instance(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    blobs = FileBlobs(tmp_path_factory.mktemp("blobs"), 0)
    key, files = pack_of(blobs, 1, 2)
    path = blobs.path(key)
    damaged = bytearray(path.read_bytes())
    at = data.draw(st.integers(PACK_HEADER_BYTES, len(damaged) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    found = told(blobs, key)
    assert found == files[: len(found)]
    path.unlink()


def test_a_missing_pack_is_told(blobs: FileBlobs) -> None:
    with pytest.raises(NotFound, match=r"there is no blob 1/none\.pack"):
        told(blobs, "1/none.pack")


def test_the_last_instance_can_be_taken_back(blobs: FileBlobs) -> None:
    pack = Pack(blobs, blobs.new_key(1, "pack"), PROVENANCE)
    (first, offset), (second, _), (third, _) = part10(1), part10(2), part10(3)
    kept = append(pack, first, offset)
    taken = append(pack, second, offset)
    pack.discard_last(taken)
    assert append(pack, third, offset).offset == taken.offset
    pack.close()
    assert told(blobs, pack.key) == [first, third]
    assert blobs.read(kept) == first


def test_an_instance_under_another_is_not_taken_back(blobs: FileBlobs) -> None:
    pack = Pack(blobs, blobs.new_key(1, "pack"), PROVENANCE)
    (first, offset), (second, _) = part10(1), part10(2)
    lower = append(pack, first, offset)
    append(pack, second, offset)
    pack.discard_last(lower)
    pack.close()
    assert told(blobs, pack.key) == [first, second]


@pytest.mark.parametrize("closed", [True, False])
def test_a_pack_whose_only_instance_is_taken_back_goes(blobs: FileBlobs, closed: bool) -> None:
    pack = Pack(blobs, blobs.new_key(1, "pack"), PROVENANCE)
    ref = append(pack, *part10(1))
    if closed:
        pack.close()
    pack.discard_last(ref)
    pack.close()
    assert not pack.path.exists()


def test_a_pack_without_an_instance_is_removed(blobs: FileBlobs) -> None:
    pack = Pack(blobs, blobs.new_key(1, "pack"), PROVENANCE)
    pack.close()
    assert not pack.path.exists()


def test_a_large_instance_is_told_by_its_pack_only_when_it_is_whole(blobs: FileBlobs) -> None:
    pack = Pack(blobs, blobs.new_key(1, "pack"), PROVENANCE)
    data, offset = part10(1, 5000)
    pack.begin_large()
    for start in range(0, len(data), 700):
        pack.extend(data[start : start + 700])
    assert told(blobs, pack.key) == []
    ref = pack.end_large(data[:offset], offset, digest_of(data[offset:]))
    pack.close()
    assert told(blobs, pack.key) == [data]
    assert blobs.read(ref) == data


@given(st.binary(min_size=1, max_size=2000), st.data())
def test_every_range_of_a_blob_is_what_was_put(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    blobs = FileBlobs(tmp_path_factory.mktemp("blobs"), 0)
    blobs.put("1/a.manifest", content)
    start = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - start))
    wanted = content[start : start + length]
    reader = BlobReader(blobs)
    assert blobs.read(BlobRef("1/a.manifest", start, length)) == wanted
    assert blobs.read(BlobRef("1/a.manifest", 0, len(content)), start, length) == wanted
    assert reader.read("1/a.manifest", start, length) == wanted
    reader.close()


def test_a_blob_that_is_gone_or_too_short_is_unavailable(blobs: FileBlobs) -> None:
    blobs.put("1/a.manifest", b"abc")
    reader = BlobReader(blobs)
    for ref in (BlobRef("1/a.manifest", 0, 4), BlobRef("1/a.manifest", 3, 1)):
        with pytest.raises(Unavailable, match="shorter than the index says"):
            blobs.read(ref)
        with pytest.raises(Unavailable, match="shorter than the index says"):
            reader.read(ref.key, ref.offset, ref.length)
    blobs.delete("1/a.manifest")
    blobs.delete("1/a.manifest")
    with pytest.raises(Unavailable, match="is missing"):
        blobs.read(BlobRef("1/a.manifest", 0, 1))
    reader.close()
    with pytest.raises(Unavailable, match="is missing"):
        reader.read("1/a.manifest", 0, 1)


def test_a_reader_keeps_few_files_open(blobs: FileBlobs) -> None:
    reader = BlobReader(blobs)
    for number in range(30):
        blobs.put(f"1/{number}.manifest", b"%02d" % number)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(30):
        assert reader.read(f"1/{number}.manifest", 0, 2) == b"%02d" % number
    assert len(os.listdir("/proc/self/fd")) == before + BlobReader.FILES_MAX
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


PUTTING = textwrap.dedent(
    """
    import sys
    from pathlib import Path

    from bfr_core.blobs import FileBlobs

    blobs = FileBlobs(Path(sys.argv[1]), 0)
    print("begun", flush=True)
    number = 0
    while True:
        blobs.put(f"1/{number}.manifest", b"%08d" % number * 500_000)
        number += 1
    """
)


def test_a_killed_writer_leaves_no_half_blob_under_a_name(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PUTTING, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        while len(list(tmp_path.rglob("*.manifest"))) < 3:
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    for path in tmp_path.rglob("*.manifest"):
        assert path.read_bytes() == b"%08d" % int(path.stem) * 500_000


def test_a_full_disk_is_told_and_nothing_stays(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the writer's error is of the same kind."""
    program = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from bfr_core.blobs import FileBlobs
        from bfr_core.packs import Pack, digest_of
        from bfr_core.errors import Unavailable

        blobs = FileBlobs(Path(sys.argv[1]), 0)
        pack = Pack(blobs, "1/a.pack", {})
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        pack.append(b"x" * 500, 100, digest_of(b"x" * 400))
        for attempt in (
            lambda: blobs.put("1/a.manifest", b"x" * 3000),
            lambda: pack.append(b"y" * 3000, 100, digest_of(b"y" * 2900)),
        ):
            try:
                attempt()
            except Unavailable as error:
                print(error.message)
        pack.append(b"z" * 300, 100, digest_of(b"z" * 200))
        pack.close()
        """
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert len(result.stdout.splitlines()) == 2, result.stdout
    assert all(line.startswith("the disk of the archive") for line in result.stdout.splitlines())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.pack"]
    assert told(FileBlobs(tmp_path, 0), "1/a.pack") == [b"x" * 500, b"z" * 300]


def test_reception_is_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path, 1 << 60)
    with pytest.raises(Unavailable, match="full"):
        Pack(blobs, "1/a.pack", PROVENANCE)
    assert list(tmp_path.rglob("*.pack")) == []
