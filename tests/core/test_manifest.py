"""Manifests: what was written is what is read, and nothing else is taken for a manifest."""

import orjson
import pytest
import zstandard
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bfr_core.blobs import BlobRef
from bfr_core.errors import Unavailable
from bfr_core.manifest import (
    Frames,
    StoredInstance,
    in_order,
    read_headers,
    read_index,
    write_manifest,
)

uids = st.from_regex(r"[0-9]{1,8}(\.[0-9]{1,8}){0,5}", fullmatch=True)
lengths = st.integers(0, 2**62)
native = st.builds(
    Frames,
    tag=st.sampled_from(["7FE00010", "7FE00008"]),
    vr=st.sampled_from(["OB", "OW"]),
    number_of_frames=st.integers(0, 100_000),
    offset=lengths,
    frame_bytes=st.integers(0, 2**40),
)
encapsulated = st.lists(
    st.lists(st.tuples(lengths, lengths), max_size=3).map(tuple), min_size=1, max_size=4
).map(lambda ranges: Frames("7FE00010", "OB", len(ranges), ranges=tuple(ranges)))
instances = st.builds(
    StoredInstance,
    sop_instance_uid=uids,
    sop_class_uid=uids,
    transfer_syntax_uid=uids,
    instance_number=st.none() | st.integers(-(2**31), 2**31 - 1),
    blob=st.builds(BlobRef, st.text(min_size=1, max_size=20), lengths, lengths),
    dataset_offset=st.integers(0, 2**31 - 1),
    digest=st.binary(min_size=32, max_size=32),
    frames=st.none() | native | encapsulated,
)
headers = st.dictionaries(st.text(max_size=8), st.text(), max_size=3).map(orjson.dumps)


@given(st.lists(st.tuples(instances, headers), max_size=6))
@hypothesis_settings(max_examples=60)
def test_a_manifest_gives_back_what_was_written(
    entries: list[tuple[StoredInstance, bytes]],
) -> None:
    manifest = write_manifest(entries)
    index, rest = manifest.data[: manifest.index_bytes], manifest.data[manifest.index_bytes :]
    assert read_index(index) == [instance for instance, _ in entries]
    assert read_headers(rest) == [header for _, header in entries]


@given(st.lists(instances, max_size=6))
@hypothesis_settings(max_examples=60)
def test_instances_are_ordered_by_number_and_those_without_come_last(
    listed: list[StoredInstance],
) -> None:
    numbers = [one.instance_number for one in sorted(listed, key=in_order)]
    known = [number for number in numbers if number is not None]
    assert numbers == sorted(known) + [None] * (len(numbers) - len(known))


@given(st.integers(1, 50))
def test_every_frame_of_native_pixels_has_its_place(number: int) -> None:
    frames = Frames("7FE00010", "OW", number, offset=1000, frame_bytes=50)
    places = [frames.range_of(frame)[0] for frame in range(1, number + 1)]
    assert places == [(1000 + 50 * frame, 50) for frame in range(number)]


@pytest.mark.parametrize("version", [0, 2, None])
def test_a_manifest_of_another_format_is_refused(version: int | None) -> None:
    content = orjson.dumps({"format": version, "packs": [], "instances": []})
    with pytest.raises(Unavailable, match=f"format {version} and this version reads 1"):
        read_index(zstandard.compress(content))


@given(instances, st.data())
def test_a_damaged_manifest_is_said_to_be_damaged(
    instance: StoredInstance, data: st.DataObject
) -> None:
    manifest = write_manifest([(instance, b"{}")])
    for part, read in (
        (manifest.data[: manifest.index_bytes], read_index),
        (manifest.data[manifest.index_bytes :], read_headers),
    ):
        end = data.draw(st.integers(0, len(part) - 1))
        with pytest.raises(Unavailable, match="damaged"):
            read(part[:end])
