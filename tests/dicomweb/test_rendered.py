"""Rendered resources: pictures of frames for eyes and browsers (PS3.18 §10.4.1.1.3, §8.3.5)."""

import html
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import httpx
import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from PIL import Image, ImageSequence
from pydicom import Dataset
from pydicom.uid import JPEGLSLossless
from tests.dicomweb.conftest import Web, new_settings, parts_of, running
from tests.samples import (
    TRANSFER_SYNTAXES,
    ct_instance,
    ct_series,
    dx_instance,
    encapsulated_pdf,
    part10_bytes,
    secondary_capture,
    sr_report,
    us_multiframe,
)

from bfr_core.pixels import PixelPool
from bfr_core.postgres import Cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = "/archives/ARCHIVE/dicomweb"
RAMP = np.arange(64, dtype=np.uint16).reshape(1, 64).repeat(32, 0) * 64
PDF = b"%PDF-1.4\n" + bytes(range(256)) * 20
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Gallery:
    """What the server of this module holds."""

    web: Web
    datasets: dict[str, Dataset]

    async def get(
        self, name: str, query: str = "", accept: str = "*/*", frames: str = ""
    ) -> httpx.Response:
        one = self.datasets[name]
        path = (
            f"{ROOT}/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
            f"/instances/{one.SOPInstanceUID}{frames}/rendered"
        )
        return await self.web.client.get(f"{path}?{query}", headers={"Accept": accept})

    def path(self, name: str) -> tuple[str, str, str]:
        """The study, the series and the instance of a sample."""
        one = self.datasets[name]
        study = f"{ROOT}/studies/{one.StudyInstanceUID}"
        series = f"{study}/series/{one.SeriesInstanceUID}"
        return study, series, f"{series}/instances/{one.SOPInstanceUID}"

    async def png(self, name: str, query: str = "", frames: str = "") -> Picture:
        answer = await self.get(name, query, "image/png", frames)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "image/png"
        picture: Picture = imagecodecs.png_decode(answer.content)
        return picture


def ramp(**attributes: Any) -> Dataset:
    """Values from 0 to 4032 in steps from left to right."""
    return ct_instance(pixels=RAMP, RescaleIntercept=0, **attributes)


@pytest_asyncio.fixture(
    loop_scope="module", scope="module", params=["receiving", "sealed"], ids=str
)
async def gallery(
    request: pytest.FixtureRequest,
    cluster: Cluster,
    pixels: PixelPool,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Gallery]:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 8]
    table.add_new(0x00283006, "OW", (255 - np.arange(4096) // 16).astype("<u2").tobytes())
    with_table = ramp(WindowCenter=None, WindowWidth=None)
    with_table.VOILUTSequence = [table]
    damaged = us_multiframe(frames=1, transfer_syntax_uid=JPEGLSLossless)
    damaged.Rows = 7
    pdf = encapsulated_pdf(document=PDF)
    pdf.EncapsulatedDocumentLength = len(PDF)
    wave = sr_report()
    del wave.ValueType, wave.ConceptNameCodeSequence, wave.ContentSequence
    datasets = {
        "ramp": ramp(WindowCenter=2048, WindowWidth=4096),
        "table": with_table,
        "inverse": dx_instance(),
        "colour": us_multiframe(frames=3),
        "report": sr_report(),
        "pdf": pdf,
        "wave": wave,
        "damaged": damaged,
        "without size": secondary_capture(Columns=None),
        **{
            str(syntax): us_multiframe(frames=2, transfer_syntax_uid=syntax)
            for syntax in TRANSFER_SYNTAXES
            if syntax != "1.2.840.10008.1.2.4.51"
        },
    }
    with new_settings(cluster, tmp_path_factory.mktemp("gallery")) as settings:
        async with running(settings, pixels) as web:
            answer = await web.stow(*(part10_bytes(one) for one in datasets.values()))
            assert answer.status_code == 200, answer.json().get("0008119A")
            if request.param == "sealed":
                await web.seal()
            yield Gallery(web, datasets)


def expected(centre: float, width: float) -> Picture:
    """The ramp seen through a linear window (PS3.3 §C.11.2.1.2.1)."""
    shade = ((RAMP - (centre - 0.5)) / (width - 1) + 0.5).clip(0, 1)
    picture: Picture = np.rint(shade * 255).astype(np.uint8)
    return picture


@pytest.mark.conforms("PS3.18 §8.7.3.3", "image/jpeg is the default of a rendered single frame")
@pytest.mark.parametrize("accept", ["*/*", "image/*", "image/jpeg", "image/png;q=0.5, image/jpeg"])
async def test_a_picture_is_a_jpeg_unless_asked_otherwise(gallery: Gallery, accept: str) -> None:
    answer = await gallery.get("ramp", accept=accept)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    picture = imagecodecs.jpeg8_decode(answer.content)
    assert np.abs(picture.astype(int) - expected(2048, 4096)).max() <= 12


@pytest.mark.parametrize("query", ["accept=image/png", "accept=image/png&quality=10"])
async def test_a_picture_is_a_png_when_asked_for(gallery: Gallery, query: str) -> None:
    np.testing.assert_array_equal(await gallery.png("ramp"), expected(2048, 4096))
    answer = await gallery.get("ramp", query)
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize("syntax", [uid for uid in TRANSFER_SYNTAXES if not uid.endswith(".51")])
async def test_every_transfer_syntax_makes_the_same_picture(gallery: Gallery, syntax: str) -> None:
    plain = await gallery.png("colour")
    picture = await gallery.png(str(syntax))
    assert picture.shape == plain.shape == (48, 64, 3)
    assert np.abs(picture.astype(int) - plain).mean() < 6


@pytest.mark.conforms("PS3.18 §8.3.5.1.4", "window goes before the window of the object")
@pytest.mark.parametrize(("centre", "width"), [(1000, 500), (2048, 4096), (100.5, 10), (300, 1)])
async def test_a_window_goes_before_that_of_the_object(
    gallery: Gallery, centre: float, width: float
) -> None:
    picture = await gallery.png("ramp", f"window={centre},{width},linear")
    if width == 1:
        np.testing.assert_array_equal(picture, np.where(centre - 0.5 < RAMP, 255, 0))
    else:
        np.testing.assert_array_equal(picture, expected(centre, width))


async def test_windows_of_other_functions(gallery: Gallery) -> None:
    exact = await gallery.png("ramp", "window=2000,1000,linear-exact")
    shade = ((RAMP - 2000.0) / 1000 + 0.5).clip(0, 1)
    np.testing.assert_array_equal(exact, np.rint(shade * 255).astype(np.uint8))
    sigmoid = await gallery.png("ramp", "window=2000,1000,sigmoid")
    shade = 1 / (1 + np.exp(-4 * (RAMP - 2000.0) / 1000))
    np.testing.assert_array_equal(sigmoid, np.rint(shade * 255).astype(np.uint8))


async def test_a_table_that_is_bulk_data_is_looked_up(gallery: Gallery) -> None:
    picture = await gallery.png("table")
    np.testing.assert_array_equal(picture, (255 - RAMP // 16).astype(np.uint8))


async def test_monochrome1_is_shown_inverted(gallery: Gallery) -> None:
    stored = np.frombuffer(gallery.datasets["inverse"].PixelData, "<u2").reshape(80, 96)
    picture = await gallery.png("inverse")
    assert picture[stored == stored.max()].max() < picture[stored == stored.min()].min()


@pytest.mark.conforms("PS3.18 §8.3.5.1.3", "viewport is the box that the picture is scaled into")
@pytest.mark.parametrize(
    ("viewport", "shape"), [("32,32", (16, 32)), ("128,64", (64, 128)), ("10,1000", (5, 10))]
)
async def test_a_viewport_is_a_box_for_the_whole_picture(
    gallery: Gallery, viewport: str, shape: tuple[int, int]
) -> None:
    assert (await gallery.png("ramp", f"viewport={viewport}")).shape == shape


@pytest.mark.conforms("PS3.18 §8.3.5.1.2", "quality from 1 to 100")
async def test_a_better_quality_takes_more_bytes(gallery: Gallery) -> None:
    sizes = [len((await gallery.get("colour", f"quality={n}")).content) for n in (1, 50, 100)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2]


@pytest.mark.conforms("PS3.18 §10.4.1.1.6", "Frames are rendered one by one")
async def test_frames_are_rendered_by_number(gallery: Gallery) -> None:
    pictures = [await gallery.png("colour", frames=f"/frames/{n}") for n in (1, 2, 3)]
    np.testing.assert_array_equal(pictures[0], await gallery.png("colour"))
    stored = gallery.datasets["colour"].pixel_array
    for picture, frame in zip(pictures, stored, strict=True):
        np.testing.assert_array_equal(picture, frame)


@pytest.mark.parametrize(
    ("frames", "status"), [("/frames/4", 404), ("/frames/0", 400), ("/frames/1,x", 400)]
)
async def test_a_frame_that_is_not_there_is_told(
    gallery: Gallery, frames: str, status: int
) -> None:
    answer = await gallery.get("colour", frames=frames)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.conforms("PS3.18 §10.4.3", "406 for an object that makes no picture")
@pytest.mark.parametrize("name", ["wave", "damaged", "without size"])
async def test_what_makes_no_picture_is_not_acceptable(gallery: Gallery, name: str) -> None:
    answer = await gallery.get(name)
    assert answer.status_code == 406
    assert answer.json()["detail"]


@pytest.mark.parametrize("accept", ["image/jp2", "video/mp4", "text/html", "application/dicom"])
async def test_a_picture_of_another_type_is_not_acceptable(gallery: Gallery, accept: str) -> None:
    assert (await gallery.get("ramp", accept=accept)).status_code == 406


@pytest.mark.conforms("PS3.18 §8.3.5", "400 names the parameter that is wrong")
@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("viewport=10", "viewport"),
        ("viewport=0,10", "viewport"),
        ("viewport=10,-1", "viewport"),
        ("viewport=9000,10", "viewport"),
        ("viewport=00000000000000000099999,10", "viewport"),
        ("viewport=10,10,0,0,5", "viewport"),
        ("viewport=10,10,-1,0,5,5", "viewport"),
        ("viewport=10,10,0,0,0,5", "viewport"),
        ("viewport=10,10,0,0,a,5", "viewport"),
        ("viewport=%D9%A1,10", "viewport"),
        ("window=1,2", "window"),
        ("window=1,2,cubic", "window"),
        ("window=x,2,linear", "window"),
        ("window=nan,2,linear", "window"),
        ("window=1,inf,linear", "window"),
        ("window=1,0.5,linear", "window"),
        ("window=1,0,sigmoid", "window"),
        ("quality=0", "quality"),
        ("quality=101", "quality"),
        ("quality=high", "quality"),
        ("annotation=patient", "annotation"),
        ("iccprofile=srgb", "iccprofile"),
    ],
)
async def test_a_parameter_that_is_wrong_is_named(gallery: Gallery, query: str, named: str) -> None:
    answer = await gallery.get("ramp", query)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]


# A part of the picture


@pytest.mark.conforms("PS3.18 §8.3.5.1.3", "viewport shows a region, mirrored by negative sizes")
async def test_a_region_of_the_picture_is_shown_and_mirrored(gallery: Gallery) -> None:
    whole = await gallery.png("ramp")
    part = await gallery.png("ramp", "viewport=20,10,8,4,20,10")
    np.testing.assert_array_equal(part, whole[4:14, 8:28])
    mirrored = await gallery.png("ramp", "viewport=20,10,8,4,-20,10")
    np.testing.assert_array_equal(mirrored, whole[4:14, 8:28][:, ::-1])
    below = await gallery.png("colour", "viewport=20,10,8,4,20,-10")
    colour = await gallery.png("colour")
    np.testing.assert_array_equal(below, colour[4:14, 8:28][::-1])
    outside = await gallery.get("ramp", "viewport=20,10,60,0,20,10")
    assert outside.status_code == 406
    assert "region" in outside.json()["detail"]


# Several pictures


@pytest.mark.conforms("PS3.18 §10.4.1.1.3", "Several frames, a series and a study come in parts")
async def test_several_pictures_come_in_parts(gallery: Gallery) -> None:
    study, series, instance = gallery.path("colour")
    pictures = [await gallery.png("colour", frames=f"/frames/{n}") for n in (1, 2, 3)]
    named = {"Accept": 'multipart/related; type="image/png"'}
    for path in (study, series, instance, f"{instance}/frames/1,2,3"):
        answer = await gallery.web.client.get(f"{path}/rendered", headers=named)
        parts = parts_of(answer)
        assert [headers["content-location"] for headers, _ in parts] == [
            f"{instance}/frames/{n}/rendered" for n in (1, 2, 3)
        ]
        for (headers, body), picture in zip(parts, pictures, strict=True):
            assert headers["content-type"] == "image/png"
            np.testing.assert_array_equal(imagecodecs.png_decode(body), picture)
    report, _, _ = gallery.path("report")
    assert (await gallery.web.client.get(f"{report}/rendered")).status_code == 406
    broken, _, _ = gallery.path("damaged")
    assert (await gallery.web.client.get(f"{broken}/rendered")).status_code == 406


@pytest.mark.conforms("PS3.18 §8.7.4", "The frames of an instance come as one moving picture")
async def test_frames_come_as_one_moving_picture(gallery: Gallery) -> None:
    stored = gallery.datasets["colour"].pixel_array.astype(int)
    gif = await gallery.get("colour", accept="image/gif")
    assert gif.headers["content-type"] == "image/gif"
    assert frames_of(gif.content) == (3, stored.shape[2:0:-1])
    mp4 = await gallery.get("colour", accept="video/mp4")
    assert mp4.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(mp4.content), "r") as container:
        shown = [one.to_ndarray(format="gray") for one in container.decode(video=0)]
    assert len(shown) == 3
    for picture, frame in zip(shown, stored, strict=True):
        rows, columns = frame.shape[:2]
        luminance = frame @ (0.299, 0.587, 0.114)
        assert np.abs(picture[:rows, :columns] - luminance).mean() < 25
    two = await gallery.get("colour", accept="image/gif", frames="/frames/1,3")
    assert frames_of(two.content)[0] == 2


def frames_of(gif: bytes) -> tuple[int, tuple[int, int]]:
    """How many frames a GIF has, and its size."""
    with Image.open(io.BytesIO(gif)) as moving:
        return len(list(ImageSequence.Iterator(moving))), moving.size


async def test_an_animation_of_too_many_frames_is_refused(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    one = us_multiframe(frames=3)
    with new_settings(cluster, tmp_path, animation_max_frames=2) as chosen:
        async with running(chosen, pixels) as web:
            await web.stow(part10_bytes(one))
            gallery = Gallery(web, {"colour": one})
            refused = await gallery.get("colour", accept="image/gif")
            assert refused.status_code == 406
            assert "at most 2 frames" in refused.json()["detail"]
            two = await gallery.get("colour", accept="image/gif", frames="/frames/1,2")
            assert two.status_code == 200


# Thumbnails


@pytest.mark.conforms("PS3.18 §10.4.1.1.4", "A thumbnail stands for each level")
async def test_a_thumbnail_stands_for_each_level(gallery: Gallery) -> None:
    study, series, instance = gallery.path("colour")
    named = {"Accept": "image/png"}
    middle = await gallery.png("colour", "viewport=256,256", frames="/frames/2")
    for path in (study, series, instance, f"{instance}/frames/2"):
        answer = await gallery.web.client.get(f"{path}/thumbnail", headers=named)
        assert answer.status_code == 200, answer.text
        np.testing.assert_array_equal(imagecodecs.png_decode(answer.content), middle)
    small = await gallery.web.client.get(f"{study}/thumbnail?viewport=16,16")
    assert small.headers["content-type"] == "image/jpeg"
    assert max(imagecodecs.jpeg8_decode(small.content).shape[:2]) == 16
    report, _, _ = gallery.path("report")
    assert (await gallery.web.client.get(f"{report}/thumbnail")).status_code == 406


async def test_a_series_is_shown_by_the_image_in_its_middle(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    slices = ct_series(5)
    with new_settings(cluster, tmp_path) as chosen:
        async with running(chosen, pixels) as web:
            await web.stow(*(part10_bytes(one) for one in slices))
            gallery = Gallery(web, {"middle": slices[2]})
            study, series, instance = gallery.path("middle")
            expected = (await web.client.get(f"{instance}/thumbnail")).content
            for path in (study, series):
                assert (await web.client.get(f"{path}/thumbnail")).content == expected


# Documents


@pytest.mark.conforms("PS3.18 §8.7.4", "A structured report comes as HTML or text")
async def test_a_report_comes_as_a_page_or_as_text(gallery: Gallery) -> None:
    report = gallery.datasets["report"]
    page = await gallery.get("report", accept="text/html")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    text = await gallery.get("report", accept="text/plain")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    for item in report.ContentSequence:
        assert item.ConceptNameCodeSequence[0].CodeMeaning in text.text
        assert html.escape(item.ConceptNameCodeSequence[0].CodeMeaning) in page.text
        if "TextValue" in item:
            assert html.escape(item.TextValue) in page.text
    assert "<script" not in page.text
    for asked, told in (("", "Födelsedatum"), ("de, en;q=0.5", "Birth date"), ("sv-SE", "Enhet")):
        headers = {"Accept": "text/html", "Accept-Language": asked}
        _, _, path = gallery.path("report")
        answer = await gallery.web.client.get(f"{path}/rendered", headers=headers)
        assert told in answer.text
        assert f'<html lang="{answer.headers["content-language"]}">' in answer.text
        assert "1985-01-01" in answer.text


async def test_what_a_report_says_is_never_markup(
    cluster: Cluster, pixels: PixelPool, tmp_path: Path
) -> None:
    evil = sr_report(PatientName="<script>alert(1)</script>")
    evil.ContentSequence[0].ConceptNameCodeSequence[0].CodeMeaning = "<b onclick=x>"
    with new_settings(cluster, tmp_path) as chosen:
        async with running(chosen, pixels) as web:
            await web.stow(part10_bytes(evil))
            page = await Gallery(web, {"evil": evil}).get("evil", accept="text/html")
            assert "<script" not in page.text
            assert "<b " not in page.text


@pytest.mark.conforms("PS3.18 §8.7.4", "An encapsulated document comes as what it is")
async def test_a_document_comes_as_what_it_is(gallery: Gallery) -> None:
    answer = await gallery.get("pdf")
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.content == PDF
    assert (await gallery.get("pdf", accept="image/jpeg")).status_code == 406
