"""WADO-RS: what was stored comes out as it went in, or as it was asked for (PS3.18 §10.4)."""

import gzip
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
import pytest_asyncio
import zstandard
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    RLELossless,
)
from tests.dicomweb.conftest import Web, bodies_of, new_settings, parts_of, running
from tests.samples import (
    TRANSFER_SYNTAXES,
    ct_instance,
    ct_series,
    decoded_frames,
    encapsulated_pdf,
    part10_bytes,
    secondary_capture,
    sr_report,
    us_multiframe,
)

from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster
from bfr_dicomweb.dicom_xml import read_xml, write_xml

pytestmark = pytest.mark.asyncio(loop_scope="module")

DICOM = "application/dicom"
ROOT = "/archives/ARCHIVE/dicomweb"


@dataclass(frozen=True)
class Sample:
    """One stored object."""

    dataset: Dataset
    data: bytes

    @property
    def study(self) -> str:
        return f"/studies/{self.dataset.StudyInstanceUID}"

    @property
    def series(self) -> str:
        return f"{self.study}/series/{self.dataset.SeriesInstanceUID}"

    @property
    def instance(self) -> str:
        return f"{self.series}/instances/{self.dataset.SOPInstanceUID}"

    @property
    def syntax(self) -> str:
        return str(self.dataset.file_meta.TransferSyntaxUID)


@dataclass(frozen=True)
class Corpus:
    """What the server of this module holds."""

    web: Web
    ct: list[Sample]
    ultrasound: dict[str, Sample]  # by transfer syntax, three frames of colour each
    samples: dict[str, Sample]

    async def get(self, path: str, accept: str = "*/*") -> httpx.Response:
        return await self.web.client.get(ROOT + path, headers={"Accept": accept})

    @property
    def all(self) -> list[Sample]:
        return [*self.ct, *self.ultrasound.values(), *self.samples.values()]


def sample(dataset: Dataset) -> Sample:
    return Sample(dataset, part10_bytes(dataset))


def with_bulk_data(**attributes: Any) -> Dataset:
    """A slice with long binary values: private, in a sequence, and in words."""
    dataset = ct_instance(**attributes)
    block = dataset.private_block(0x0099, "BFR TEST", create=True)
    block.add_new(0x01, "OB", bytes(range(256)) * 8)
    item = Dataset()
    item.add_new(0x00283002, "US", [1024, 0, 16])
    order = ">" if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    item.add_new(0x00283006, "OW", np.arange(1024).astype(f"{order}u2").tobytes())
    dataset.add_new(0x00283000, "SQ", [item])
    return dataset


_AROUND_ZERO = np.linspace(-1000, 1000, 64 * 64).reshape(64, 64).astype(np.int16)


def another_sign(transfer_syntax_uid: str) -> Dataset:
    """A signed slice whose codestream says that it is unsigned."""
    dataset = ct_instance(
        pixels=_AROUND_ZERO.view(np.uint16), BitsStored=16, transfer_syntax_uid=transfer_syntax_uid
    )
    dataset.PixelRepresentation = 1
    return dataset


def single_bits() -> Dataset:
    """Three frames of 5 × 5 single bits, so that the second begins within a byte."""
    frames = np.random.default_rng(7).integers(0, 2, (3, 5, 5), np.uint8)
    dataset = secondary_capture(pixels=np.zeros((5, 5), np.uint8), NumberOfFrames=3)
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    packed = np.packbits(frames.reshape(-1), bitorder="little").tobytes()
    dataset.add_new(0x7FE00010, "OB", packed + b"\0" * (len(packed) % 2))
    return dataset


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=["receiving", "sealed"], ids=str
)
async def corpus(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    pixels: PixelPool,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Corpus]:
    ultrasound = {
        str(syntax): sample(us_multiframe(frames=3, transfer_syntax_uid=syntax))
        for syntax in TRANSFER_SYNTAXES
        if syntax != JPEGExtended12Bit
    }
    samples = {
        "jpeg 12": sample(ct_instance(transfer_syntax_uid=JPEGExtended12Bit)),
        "big endian": sample(ct_instance(transfer_syntax_uid=ExplicitVRBigEndian)),
        "report": sample(sr_report()),
        "pdf": sample(encapsulated_pdf(document=b"%PDF-1.4\n" + bytes(range(256)) * 20)),
        "bulk": sample(with_bulk_data()),
        "bulk big endian": sample(with_bulk_data(transfer_syntax_uid=ExplicitVRBigEndian)),
        "bulk deflated": sample(with_bulk_data(transfer_syntax_uid=DeflatedExplicitVRLittleEndian)),
        "single bits": sample(single_bits()),
        "another sign J2K": sample(another_sign(JPEG2000Lossless)),
        "another sign HTJ2K": sample(another_sign(HTJ2KLossless)),
        "damaged": sample(us_multiframe(frames=1, transfer_syntax_uid=JPEGLSLossless)),
    }
    whole = samples["damaged"]
    start, end = whole.data.rindex(b"\xff\xda") + 10, len(whole.data) - 20
    zeros = bytes(end - start)
    samples["damaged"] = Sample(whole.dataset, whole.data[:start] + zeros + whole.data[end:])
    ct = [sample(dataset) for dataset in ct_series(3)]
    with new_settings(cluster, tmp_path_factory.mktemp("corpus")) as settings:
        async with running(settings, pixels) as web:
            corpus = Corpus(web, ct, ultrasound, samples)
            answer = await web.stow(*(one.data for one in corpus.all))
            assert answer.status_code == 200, answer.json().get("0008119A")
            other = sample(ct_instance())
            await web.stow(other.data, url="/archives/OTHER/dicomweb/studies")
            corpus.samples["other archive"] = other
            if request.param == "sealed":
                await web.seal()
                assert await web.count("instance") == 0
            yield corpus


# Objects


@pytest.mark.conforms("PS3.18 §10.4.1.1.1", "A study is sent as the Part 10 files of it")
async def test_a_study_comes_back_byte_for_byte(corpus: Corpus) -> None:
    answer = await corpus.get(corpus.ct[0].study)
    assert answer.status_code == 200
    assert bodies_of(answer) == [one.data for one in corpus.ct]
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.conforms("PS3.18 §10.4.1.1.1", "A series is sent as the Part 10 files of it")
async def test_a_series_comes_back_byte_for_byte(corpus: Corpus) -> None:
    answer = await corpus.get(corpus.ct[0].series, f'multipart/related; type="{DICOM}"')
    assert bodies_of(answer) == [one.data for one in corpus.ct]
    assert all(
        fields["content-type"] == f"{DICOM}; transfer-syntax={ExplicitVRLittleEndian}"
        for fields, _ in parts_of(answer)
    )


async def test_every_object_comes_back_byte_for_byte(corpus: Corpus) -> None:
    for one in corpus.all:
        root = "/archives/OTHER/dicomweb" if one is corpus.samples["other archive"] else ROOT
        answer = await corpus.web.client.get(root + one.instance)
        assert bodies_of(answer) == [one.data], one.syntax
        joint = await corpus.web.client.get("/dicomweb" + one.instance)
        assert bodies_of(joint) == [one.data], one.syntax


@pytest.mark.conforms("PS3.18 §8.6.1.1", "One object may be sent as a single part")
async def test_an_instance_is_sent_as_a_single_part_when_that_is_asked_for(corpus: Corpus) -> None:
    one = corpus.ct[1]
    answer = await corpus.get(one.instance, DICOM)
    assert answer.content == one.data
    assert answer.headers["content-type"].startswith(DICOM)
    assert int(answer.headers["content-length"]) == len(one.data)


async def test_a_study_of_three_is_not_sent_as_a_single_part(corpus: Corpus) -> None:
    assert (await corpus.get(corpus.ct[0].study, DICOM)).status_code == 406


async def test_a_head_request_tells_the_length_alone(corpus: Corpus) -> None:
    answer = await corpus.web.client.head(ROOT + corpus.ct[0].instance, headers={"Accept": DICOM})
    assert answer.status_code == 200
    assert answer.content == b""
    assert int(answer.headers["content-length"]) == len(corpus.ct[0].data)


@pytest.mark.conforms("PS3.18 §8.7.8.1", "The weights of Accept decide between representations")
@pytest.mark.parametrize(
    ("accept", "single"),
    [
        (f'{DICOM};q=0.9, multipart/related;type="{DICOM}";q=0.4', True),
        (f'{DICOM};q=0.2, multipart/related;type="{DICOM}";q=0.4', False),
        (f'{DICOM}, multipart/related;type="{DICOM}";q=0', True),
        (f"{DICOM};transfer-syntax=*", True),
        (f'multipart/related; type="{DICOM}"; transfer-syntax=*', False),
        (f"multipart/related; type={DICOM}", False),
        ("text/html, */*;q=0.1", False),
    ],
)
async def test_the_weights_of_accept_decide(corpus: Corpus, accept: str, single: bool) -> None:
    one = corpus.ct[0]
    answer = await corpus.get(one.instance, accept)
    assert answer.status_code == 200
    assert (answer.content == one.data) is single


@pytest.mark.conforms("PS3.18 §8.3.3.1", "The accept parameter goes before the header field")
async def test_the_accept_parameter_goes_before_the_header(corpus: Corpus) -> None:
    answer = await corpus.get(corpus.ct[0].instance + f"?accept={DICOM}", "*/*")
    assert answer.content == corpus.ct[0].data


@pytest.mark.conforms("PS3.18 §8.7.7", "406 when nothing acceptable can be sent")
@pytest.mark.parametrize(
    "accept",
    [
        "image/gif",
        "application/dicom+json",
        f'multipart/related; type="{DICOM}"; transfer-syntax={JPEGBaseline8Bit}',
        f"{DICOM}; q=0",
        'multipart/related; type="application/dicom+xml"',
        "nonsense",
    ],
)
async def test_what_cannot_be_sent_is_not_acceptable(corpus: Corpus, accept: str) -> None:
    answer = await corpus.get(corpus.ct[0].instance, accept)
    assert answer.status_code == 406
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


async def test_what_is_stored_in_a_syntax_that_is_named_comes_as_it_is(corpus: Corpus) -> None:
    jpeg_ls = corpus.ultrasound[JPEGLSLossless]
    named = 'multipart/related; type="application/dicom"; transfer-syntax='
    for accept in (JPEGLSLossless, "*"):
        answer = await corpus.get(jpeg_ls.study, named + accept)
        assert bodies_of(answer) == [jpeg_ls.data]
    other = await corpus.get(jpeg_ls.study, f"{named}{JPEGBaseline8Bit}")
    assert other.status_code == 406


@pytest.mark.conforms("PS3.18 §8.7.3.5.2", "Objects are transcoded where another syntax is named")
@pytest.mark.parametrize(
    "target",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless],
)
async def test_objects_are_transcoded_where_another_syntax_is_named(
    corpus: Corpus, target: str
) -> None:
    for one in [corpus.ct[0], *corpus.ultrasound.values()]:
        if one.syntax == JPEGBaseline8Bit:
            continue
        answer = await corpus.get(one.instance, f"{DICOM}; transfer-syntax={target}")
        assert answer.status_code == 200, (one.syntax, answer.text)
        assert answer.headers["content-type"] == f"{DICOM}; transfer-syntax={target}"
        found = pydicom.dcmread(io.BytesIO(answer.content))
        assert found.file_meta.TransferSyntaxUID == target
        assert found.file_meta.MediaStorageSOPInstanceUID == one.dataset.SOPInstanceUID
        frames = int(one.dataset.get("NumberOfFrames", 1))
        pixels = found.pixel_array.reshape(frames, -1)
        stored = decoded_frames(one.dataset)
        assert [bytes(frame.tobytes()) for frame in pixels] == [
            bytes(np.ascontiguousarray(frame).tobytes()) for frame in stored
        ]


async def test_each_object_of_a_study_comes_in_a_syntax_that_is_accepted(web: Web) -> None:
    first = sample(us_multiframe(frames=1, transfer_syntax_uid=JPEGLSLossless))
    uids = {
        "StudyInstanceUID": first.dataset.StudyInstanceUID,
        "SeriesInstanceUID": first.dataset.SeriesInstanceUID,
        "InstanceNumber": 2,
    }
    second = sample(us_multiframe(frames=1, transfer_syntax_uid=RLELossless, **uids))
    await web.stow(first.data, second.data)
    named = 'multipart/related; type="application/dicom"; transfer-syntax='
    only = await web.client.get(ROOT + first.study, headers={"Accept": f"{named}{RLELossless}"})
    transcoded, stored = bodies_of(only)
    assert stored == second.data
    found = pydicom.dcmread(io.BytesIO(transcoded))
    assert found.file_meta.TransferSyntaxUID == RLELossless
    both = await web.client.get(
        ROOT + first.study, headers={"Accept": f"{named}{RLELossless}, {named}{JPEGLSLossless}"}
    )
    assert bodies_of(both) == [first.data, second.data]


async def test_an_object_that_is_too_large_is_not_transcoded(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    with new_settings(cluster, tmp_path, transcoded_max_bytes=1000) as chosen:
        async with running(chosen, pixels) as web:
            one = sample(ct_instance())
            await web.stow(one.data)
            named = f"{DICOM}; transfer-syntax={RLELossless}"
            answer = await web.client.get(ROOT + one.instance, headers={"Accept": named})
            assert answer.status_code == 406
            assert "too large" in answer.json()["detail"]


# Validators and ranges


@pytest.mark.conforms("PS3.18 §10.4.3", "If-None-Match is answered with 304 while nothing changes")
async def test_metadata_that_a_client_holds_is_not_sent_again(web: Web) -> None:
    one = sample(ct_instance())
    await web.stow(one.data)
    for level in (one.study, one.series, one.instance):
        url = f"{ROOT}{level}/metadata"
        first = await web.client.get(url)
        etag = first.headers["etag"]
        again = await web.client.get(url, headers={"If-None-Match": f'"other", {etag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        other = {"If-None-Match": etag, "Accept": 'multipart/related; type="application/dicom+xml"'}
        assert (await web.client.get(url, headers=other)).status_code == 200
    held = (await web.client.get(f"{ROOT}{one.study}/metadata")).headers["etag"]
    uids = {
        "StudyInstanceUID": one.dataset.StudyInstanceUID,
        "SeriesInstanceUID": one.dataset.SeriesInstanceUID,
    }
    await web.stow(part10_bytes(ct_instance(InstanceNumber=2, **uids)))
    url = f"{ROOT}{one.study}/metadata"
    assert (await web.client.get(url, headers={"If-None-Match": held})).status_code == 200


@pytest.mark.conforms("PS3.18 §8.4", "Ranges of what is no multipart (RFC 9110 §14)")
async def test_a_range_of_bytes_is_sent_where_it_is_asked_for(corpus: Corpus) -> None:
    one = corpus.ct[0]
    paths = [(one.instance, DICOM), (f"{one.instance}/frames/1", "application/octet-stream")]
    for path, accept in paths:
        whole = await corpus.get(path, accept)
        assert whole.headers["accept-ranges"] == "bytes"
        size, etag = len(whole.content), whole.headers["etag"]
        for asked, first, last in (
            ("bytes=0-0", 0, 0),
            ("bytes=100-299", 100, 299),
            (f"bytes={size - 10}-", size - 10, size - 1),
            ("bytes=-7", size - 7, size - 1),
            (f"bytes=5-{size * 2}", 5, size - 1),
            (f"bytes=-{size * 2}", 0, size - 1),
        ):
            headers = {"Accept": accept, "Range": asked, "If-Range": etag}
            part = await corpus.web.client.get(ROOT + path, headers=headers)
            assert part.status_code == 206, asked
            assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
            assert part.content == whole.content[first : last + 1]
        for asked in ("bytes=2-1", "bytes=0-1,5-6", "lines=1-2", "bytes=-"):
            headers = {"Accept": accept, "Range": asked}
            assert (await corpus.web.client.get(ROOT + path, headers=headers)).status_code == 200
        stale = {"Accept": accept, "Range": "bytes=0-1", "If-Range": '"other"'}
        assert (await corpus.web.client.get(ROOT + path, headers=stale)).content == whole.content
        behind = {"Accept": accept, "Range": f"bytes={size}-"}
        refused = await corpus.web.client.get(ROOT + path, headers=behind)
        assert refused.status_code == 416
        assert refused.headers["content-range"] == f"bytes */{size}"
        held = {"Accept": accept, "If-None-Match": etag}
        assert (await corpus.web.client.get(ROOT + path, headers=held)).status_code == 304


# Bulk data and pixel data


@pytest.mark.conforms("PS3.18 §10.4.1.1.5", "All bulk data of an instance, a series, a study")
async def test_all_bulk_data_comes_with_its_addresses(web: Web) -> None:
    one = sample(with_bulk_data())
    await web.stow(one.data)
    for level in (one.instance, one.series, one.study):
        answer = await web.client.get(f"{ROOT}{level}/bulkdata")
        parts = parts_of(answer)
        assert len(parts) == 2
        for headers, body in parts:
            value = await web.client.get(headers["content-location"])
            assert value.content == body
            named = {"Accept": 'multipart/related; type="application/octet-stream"'}
            [(again, _)] = parts_of(
                await web.client.get(headers["content-location"], headers=named)
            )
            assert again["content-location"] == headers["content-location"]
    nothing = sample(ct_instance())
    await web.stow(nothing.data)
    assert (await web.client.get(f"{ROOT}{nothing.study}/bulkdata")).status_code == 404


@pytest.mark.conforms("PS3.18 §10.4.1.1.7", "All frames of an instance, a series, a study")
async def test_pixel_data_is_every_frame_with_its_address(corpus: Corpus) -> None:
    for one in (corpus.ct[0], corpus.ultrasound[RLELossless]):
        for level in (one.instance, one.series, one.study):
            parts = parts_of(await corpus.get(f"{level}/pixeldata"))
            for headers, body in parts:
                frame = await corpus.web.client.get(
                    headers["content-location"], headers={"Accept": "*/*"}
                )
                assert bodies_of(frame) == [body]
    native = await corpus.get(
        f"{corpus.ultrasound[RLELossless].study}/pixeldata",
        'multipart/related; type="application/octet-stream"',
    )
    stored = decoded_frames(corpus.ultrasound[RLELossless].dataset)
    assert bodies_of(native) == [np.ascontiguousarray(frame).tobytes() for frame in stored]
    report = next(one for one in corpus.all if "PixelData" not in one.dataset)
    assert (await corpus.get(f"{report.instance}/pixeldata")).status_code == 404


@pytest.mark.conforms("PS3.18 §8.7.3.4", "Frames are compressed without loss on request")
async def test_frames_are_compressed_where_that_is_asked_for(corpus: Corpus) -> None:
    one = corpus.ct[0]
    for media_type, target in (
        ("image/jls", JPEGLSLossless),
        ("image/jp2", JPEG2000Lossless),
        ("image/jphc", HTJ2KLossless),
        ("image/dicom-rle", RLELossless),
    ):
        answer = await corpus.get(f"{one.instance}/frames/1", media_type)
        assert answer.headers["content-type"] == f"{media_type}; transfer-syntax={target}"
        assert 0 < len(answer.content) < len(one.dataset.PixelData)
        back = await corpus.get(one.instance, f"{DICOM}; transfer-syntax={target}")
        assert answer.content in back.content


@pytest.mark.conforms("PS3.18 §10.4.3", "404 at each level that is not there")
@pytest.mark.parametrize(
    "suffix", ["", "/metadata", "/rendered", "/frames/1", "/bulkdata/00420011"]
)
async def test_what_is_not_there_is_not_found_at_each_level(corpus: Corpus, suffix: str) -> None:
    one = corpus.ct[0]
    paths = [
        f"{one.series}/instances/1.2.3{suffix}",
        f"{one.study}/series/1.2.3/instances/1{suffix}",
    ]
    paths += [f"/studies/1.2.3/series/1/instances/1{suffix}"]
    paths += [one.instance.replace(one.study, "/studies/1.2.840.99999") + suffix]
    if suffix in ("", "/metadata"):
        paths += [f"{one.study}/series/1.2.3{suffix}", f"/studies/1.2.3{suffix}"]
    for path in paths:
        answer = await corpus.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("uid", ["%00", "abc", "1.2.%00", "*", "1.2.3%0A", "1" * 2000])
async def test_what_is_no_uid_is_not_found(corpus: Corpus, uid: str) -> None:
    answer = await corpus.get(f"/studies/{uid}")
    assert answer.status_code == 404
    answer = await corpus.get(f"{corpus.ct[0].study}/series/{uid}/metadata")
    assert answer.status_code == 404


@pytest.mark.conforms("PS3.18 §10.1", "Each archive is a root of its own")
async def test_a_study_of_another_archive_is_not_found(corpus: Corpus) -> None:
    other = corpus.samples["other archive"]
    for path in (other.study, other.instance, f"{other.series}/metadata"):
        assert (await corpus.get(path)).status_code == 404
        joint = await corpus.web.client.get("/dicomweb" + path)
        assert joint.status_code == 200


async def test_an_archive_that_is_not_there_is_not_found(corpus: Corpus) -> None:
    for title in ("NOBODY", "%00", "ARCHIVE%20", "archive"):
        answer = await corpus.web.client.get(f"/archives/{title}/dicomweb{corpus.ct[0].study}")
        assert answer.status_code == 404, title
        assert answer.headers["content-type"] == "application/problem+json"


# Metadata


def pydicom_json(data: bytes) -> dict[str, Any]:
    """The header as pydicom makes it: long binary values by a URI, no pixel data."""
    dataset = pydicom.dcmread(io.BytesIO(data), force=True)
    for keyword in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if keyword in dataset:
            delattr(dataset, keyword)
    model: dict[str, Any] = dataset.to_json_dict(1025, lambda element: "long")
    model.pop("00080005", None)
    return model


def comparable(model: Any) -> Any:
    """The same model with every BulkDataURI alike, and without the empty Value that pydicom writes.

    An empty attribute has no Value (PS3.18 §F.2.5).
    """
    if isinstance(model, dict):
        return {
            key: "long" if key == "BulkDataURI" else comparable(value)
            for key, value in model.items()
            if (key, value) != ("Value", [])
        }
    return [comparable(one) for one in model] if isinstance(model, list) else model


@pytest.mark.conforms("PS3.18 §10.4.1.1.2", "Metadata is the header of each instance")
async def test_metadata_is_what_pydicom_reads(corpus: Corpus) -> None:
    for one in corpus.all:
        if one is corpus.samples["other archive"]:
            continue
        (model,) = (await corpus.get(f"{one.instance}/metadata")).json()
        character_set = model.pop("00080005")
        assert character_set == {"vr": "CS", "Value": ["ISO_IR 192"]}
        assert comparable(model) == comparable(pydicom_json(one.data)), one.syntax


@pytest.mark.parametrize("level", ["study", "series"])
async def test_metadata_of_a_study_or_series_is_that_of_each_instance(
    corpus: Corpus, level: str
) -> None:
    answer = await corpus.get(getattr(corpus.ct[0], level) + "/metadata")
    assert answer.headers["content-type"] == "application/dicom+json"
    singles = [(await corpus.get(f"{one.instance}/metadata")).json()[0] for one in corpus.ct]
    assert answer.json() == singles


@pytest.mark.parametrize(
    ("coding", "used"),
    [
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("zstd;q=0, gzip", "gzip"),
        ("gzip;q=0.0", None),
        ("identity", None),
    ],
)
async def test_metadata_is_compressed_as_the_client_accepts(
    corpus: Corpus, coding: str, used: str | None
) -> None:
    path = f"{ROOT}{corpus.ct[0].study}/metadata"
    plain = (await corpus.get(f"{corpus.ct[0].study}/metadata")).content
    request = corpus.web.client.build_request("GET", path, headers={"Accept-Encoding": coding})
    answer = await corpus.web.client.send(request, stream=True)
    body = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers.get("content-encoding") == used
    assert "Accept-Encoding" in answer.headers["vary"]
    if used == "gzip":
        body = gzip.decompress(body)
    elif used == "zstd":
        body = zstandard.decompress(body)
    assert body == plain


@pytest.mark.conforms("PS3.18 §8.7.3.2", "Metadata comes as XML, a part for each instance")
async def test_metadata_comes_as_xml(corpus: Corpus) -> None:
    named = 'multipart/related; type="application/dicom+xml"'
    for name, one in corpus.samples.items():
        if name == "other archive":
            continue
        told = (await corpus.get(f"{one.series}/metadata")).json()
        parts = parts_of(await corpus.get(f"{one.series}/metadata", named))
        assert {headers["content-type"] for headers, _ in parts} == {"application/dicom+xml"}
        assert [read_xml(body, 10) for _, body in parts] == [
            read_xml(write_xml(each), 10) for each in told
        ]
    alone = await corpus.get(f"{corpus.ct[0].instance}/metadata", "application/dicom+xml")
    assert read_xml(alone.content, 10)["00080018"]["Value"] == [corpus.ct[0].dataset.SOPInstanceUID]
    several = await corpus.get(f"{corpus.ct[0].study}/metadata", "application/dicom+xml")
    assert several.status_code == 406


async def test_metadata_says_the_type_that_was_accepted(corpus: Corpus) -> None:
    answer = await corpus.get(f"{corpus.ct[0].study}/metadata", "application/json")
    assert answer.headers["content-type"] == "application/json"


# Bulk data


def bulk_data_uris(model: Any) -> list[str]:
    if isinstance(model, dict):
        own = [model["BulkDataURI"]] if "BulkDataURI" in model else []
        return own + [uri for value in model.values() for uri in bulk_data_uris(value)]
    return [uri for one in model for uri in bulk_data_uris(one)] if isinstance(model, list) else []


@pytest.mark.conforms("PS3.18 §10.4.1.1.5", "What the metadata names by a URI can be had from it")
@pytest.mark.parametrize("name", ["bulk", "bulk big endian", "bulk deflated"])
async def test_bulk_data_comes_from_the_address_that_the_metadata_names(
    corpus: Corpus, name: str
) -> None:
    one = corpus.samples[name]
    (model,) = (await corpus.get(f"{one.instance}/metadata")).json()
    uris = bulk_data_uris(model)
    assert len(uris) == 2
    assert all(uri.startswith(f"{ROOT}{one.instance}/bulkdata/") for uri in uris)
    values = [(await corpus.web.client.get(uri)).content for uri in uris]
    assert values == [np.arange(1024).astype("<u2").tobytes(), bytes(range(256)) * 8]


async def test_a_document_comes_out_as_its_bytes(corpus: Corpus) -> None:
    one = corpus.samples["pdf"]
    (model,) = (await corpus.get(f"{one.instance}/metadata")).json()
    uri = model["00420011"]["BulkDataURI"]
    answer = await corpus.web.client.get(uri)
    assert answer.content == one.dataset.EncapsulatedDocument
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    multipart = await corpus.web.client.get(
        uri, headers={"Accept": 'multipart/related; type="application/octet-stream"'}
    )
    assert bodies_of(multipart) == [one.dataset.EncapsulatedDocument]


@pytest.mark.parametrize("path", ["00100010", "nonsense", "00283000/9/00283006", "../../metadata"])
async def test_bulk_data_of_another_path_is_not_found(corpus: Corpus, path: str) -> None:
    answer = await corpus.get(f"{corpus.samples['bulk'].instance}/bulkdata/{path}")
    assert answer.status_code == 404


async def test_bulk_data_as_a_picture_is_not_acceptable(corpus: Corpus) -> None:
    answer = await corpus.get(
        f"{corpus.samples['pdf'].instance}/bulkdata/00420011", "application/pdf"
    )
    assert answer.status_code == 406


# Frames

ENCAPSULATED = [
    (JPEGLSLossless, "image/jls"),
    (JPEG2000Lossless, "image/jp2"),
    (HTJ2KLossless, "image/jphc"),
    (RLELossless, "image/dicom-rle"),
    (JPEGBaseline8Bit, "image/jpeg"),
]


def little_endian(frame: np.ndarray[Any, Any]) -> bytes:
    return frame.astype(frame.dtype.newbyteorder("<")).tobytes()


@pytest.mark.conforms("PS3.18 §10.4.1.1.6", "Frames of native pixel data are their bytes")
@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
)
async def test_native_frames_come_as_little_endian(corpus: Corpus, syntax: str) -> None:
    one = corpus.ultrasound[syntax]
    answer = await corpus.get(f"{one.instance}/frames/1,2,3")
    frames = [little_endian(frame) for frame in decoded_frames(one.dataset)]
    assert bodies_of(answer) == frames
    assert {fields["content-type"] for fields, _ in parts_of(answer)} == {
        f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    }


@pytest.mark.parametrize("name", ["big endian", "bulk deflated"])
async def test_words_come_as_little_endian(corpus: Corpus, name: str) -> None:
    one = corpus.samples[name]
    answer = await corpus.get(f"{one.instance}/frames/1", "application/octet-stream")
    (frame,) = decoded_frames(one.dataset)
    assert answer.content == little_endian(frame)


@pytest.mark.conforms("PS3.18 §10.4.1.1.6", "A frame list is answered in its order")
async def test_a_frame_list_is_answered_in_its_order(corpus: Corpus) -> None:
    one = corpus.ultrasound[ExplicitVRLittleEndian]
    frames = [little_endian(frame) for frame in decoded_frames(one.dataset)]
    answer = await corpus.get(f"{one.instance}/frames/3,1,3")
    assert bodies_of(answer) == [frames[2], frames[0], frames[2]]


@pytest.mark.conforms("PS3.18 §8.7.3.4", "Compressed frames are sent as they are stored")
@pytest.mark.parametrize(("syntax", "media_type"), ENCAPSULATED)
@pytest.mark.parametrize("named", ["*", "syntax", "media type"])
async def test_compressed_frames_come_as_they_are_stored(
    corpus: Corpus, syntax: str, media_type: str, named: str
) -> None:
    one = corpus.ultrasound[syntax]
    accept = {
        "*": 'multipart/related; type="application/octet-stream"; transfer-syntax=*',
        "syntax": f'multipart/related; type="application/octet-stream"; transfer-syntax={syntax}',
        "media type": f'multipart/related; type="{media_type}"; transfer-syntax={syntax}',
    }[named]
    stored = list(pydicom.encaps.generate_frames(one.dataset.PixelData, number_of_frames=3))
    answer = await corpus.get(f"{one.instance}/frames/1,2,3", accept)
    assert bodies_of(answer) == stored
    kind = media_type if named == "media type" else "application/octet-stream"
    assert parts_of(answer)[0][0]["content-type"] == f"{kind}; transfer-syntax={syntax}"


@pytest.mark.conforms("PS3.18 §8.7.3.4", "Octet-stream without a syntax is little endian pixels")
@pytest.mark.parametrize("syntax", [syntax for syntax, _ in ENCAPSULATED])
async def test_native_pixels_are_decoded_on_request(corpus: Corpus, syntax: str) -> None:
    one = corpus.ultrasound[syntax]
    frames = decoded_frames(one.dataset)
    answer = await corpus.get(
        f"{one.instance}/frames/3,1", 'multipart/related; type="application/octet-stream"'
    )
    got = [np.frombuffer(body, np.uint8).reshape(frames[0].shape) for body in bodies_of(answer)]
    assert [parts[0]["content-type"] for parts in parts_of(answer)] == [
        f"application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    ] * 2
    if syntax == JPEGBaseline8Bit:
        assert np.abs(got[0].astype(int) - frames[2]).max() <= 2
    else:
        np.testing.assert_array_equal(got[0], frames[2])
        np.testing.assert_array_equal(got[1], frames[0])
    single = await corpus.get(f"{one.instance}/frames/1", "application/octet-stream")
    assert single.content == got[1].tobytes()


async def test_single_bits_begin_at_a_byte_of_their_own(corpus: Corpus) -> None:
    one = corpus.samples["single bits"]
    bits = np.unpackbits(np.frombuffer(one.dataset.PixelData, np.uint8), bitorder="little")
    frames = [bits[number * 25 : number * 25 + 25] for number in range(3)]
    answer = await corpus.get(f"{one.instance}/frames/1,2,3")
    expected = [np.packbits(frame, bitorder="little").tobytes() for frame in frames]
    assert bodies_of(answer) == expected


@pytest.mark.parametrize(
    ("frames", "status"),
    [
        ("4", 404),
        ("1,4", 404),
        ("0", 400),
        ("-1", 400),
        ("1,", 400),
        ("all", 400),
        ("1-3", 400),
        ("%D9%A1", 400),
        ("9" * 5000, 400),
        (",".join(["1"] * 10_001), 400),
    ],
)
async def test_a_frame_that_is_not_there_or_no_number_is_told(
    corpus: Corpus, frames: str, status: int
) -> None:
    one = corpus.ultrasound[ExplicitVRLittleEndian]
    answer = await corpus.get(f"{one.instance}/frames/{frames}")
    assert answer.status_code == status
    assert answer.json()["status"] == status


@pytest.mark.parametrize(
    "accept",
    ["image/png", "application/dicom", f"application/octet-stream; transfer-syntax={RLELossless}"],
)
async def test_frames_in_another_form_are_not_acceptable(corpus: Corpus, accept: str) -> None:
    one = corpus.ultrasound[JPEGLSLossless]
    assert (await corpus.get(f"{one.instance}/frames/1", accept)).status_code == 406


async def test_several_frames_are_not_sent_as_a_single_part(corpus: Corpus) -> None:
    one = corpus.ultrasound[ExplicitVRLittleEndian]
    answer = await corpus.get(f"{one.instance}/frames/1,2", "application/octet-stream")
    assert answer.status_code == 406


async def test_a_report_has_no_frames(corpus: Corpus) -> None:
    answer = await corpus.get(f"{corpus.samples['report'].instance}/frames/1")
    assert answer.status_code == 404


@pytest.mark.parametrize("name", ["another sign J2K", "another sign HTJ2K"])
async def test_a_frame_of_another_sign_than_its_header_goes_as_pixels_to_who_takes_anything(
    corpus: Corpus, name: str
) -> None:
    one = corpus.samples[name]
    path = f"{one.instance}/frames/1"
    anything = await corpus.get(
        path, 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
    )
    assert parts_of(anything)[0][0]["content-type"].endswith(ExplicitVRLittleEndian)
    assert bodies_of(anything) == [little_endian(_AROUND_ZERO)]
    stored = list(pydicom.encaps.generate_frames(one.dataset.PixelData, number_of_frames=1))
    asked = f'multipart/related; type="application/octet-stream"; transfer-syntax={one.syntax}'
    assert bodies_of(await corpus.get(path, asked)) == stored


async def test_a_damaged_frame_is_had_as_stored_and_not_decoded(corpus: Corpus) -> None:
    path = f"{corpus.samples['damaged'].instance}/frames/1"
    stored = await corpus.get(path, "application/octet-stream; transfer-syntax=*")
    assert stored.status_code == 200
    decoded = await corpus.get(path, "application/octet-stream")
    assert decoded.status_code == 406
    assert "frame 1" in decoded.json()["detail"]


# What is kept of an access, and what happens when a disk is gone


async def test_reading_is_on_record_once(corpus: Corpus) -> None:
    one = corpus.ultrasound[RLELossless]
    for _ in range(3):
        await corpus.get(f"{one.instance}/frames/1,2", "*/*")
    async with corpus.web.store.database.transaction() as tx:
        rows = await tx.tuples(
            "SELECT outcome, caller_kind, caller FROM audit_record WHERE action = 'read'"
            " AND door = 'WADO-RS' AND archive_id IS NOT NULL AND patient_id IS NOT NULL"
            f" AND series_instance_uid = '{one.dataset.SeriesInstanceUID}'"
            " AND remote_address = '127.0.0.1'"
        )
    roots = 2  # another test reads the same series at the joint root
    assert 1 <= len(rows) <= roots
    assert set(rows) == {("success", "local", "loopback")}


async def test_bytes_that_are_gone_are_told_before_an_answer_begins(web: Web) -> None:
    one = sample(ct_instance())
    await web.stow(one.data)
    for pack in web.packs():
        pack.unlink()
    for path in (one.study, f"{one.instance}/frames/1", one.instance):
        answer = await web.client.get(ROOT + path)
        assert answer.status_code == 503, path
        assert answer.headers["retry-after"]
