"""Frames are rendered as the image presentation says (PS3.3 §C.11, PS3.18 §8.3.5)."""

import base64
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.pixels.processing import apply_color_lut
from tests.core.frame_samples import (
    COLOUR,
    EXPLICIT,
    GREY,
    PNG,
    TAGS,
    Array,
    header,
    little_endian,
    lookup_table,
    sequence,
)

from bfr_core.errors import Invalid
from bfr_core.pixels import (
    frame_attributes,
    render_frame,
)


def render(array: Array, dataset: dict[str, Any], **options: Any) -> Array:
    options.setdefault("media_type", PNG)
    return imagecodecs.png_decode(render_frame(little_endian(array), dataset, EXPLICIT, **options))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"media_type": "image/gif"}, "image/gif"),
        ({"quality": 0}, "quality"),
        ({"viewport": (0, 5)}, "viewport"),
        ({"viewport": (100000, 100000)}, "viewport"),
        ({"window": (0.0, 0.5, "linear")}, "out of range"),
        ({"window": (0.0, 0.0, "sigmoid")}, "out of range"),
        ({"window": (float("nan"), 9.0, "linear")}, "out of range"),
        ({"window": (0.0, 9.0, "round")}, "not round"),
        ({"max_pixels": 900}, "900 pixels"),
    ],
)
def test_rendering_out_of_range_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        render(GREY, header(GREY), **options)


def test_without_window_the_least_value_is_black_and_the_greatest_white() -> None:
    array = np.array([[100, 150, 200]], np.uint16)
    assert render(array, header(array)).tolist() == [[0, 128, 255]]


def test_padding_does_not_count_for_black_and_white() -> None:
    array = np.array([[-2000, -1900, 0, 50, 100]], np.int16)
    dataset = header(array, padding=0x10000 - 2000, padding_limit=-1900)
    assert render(array, dataset).tolist() == [[0, 0, 0, 128, 255]]


def test_a_frame_of_one_value_or_of_padding_only_is_black() -> None:
    array = np.full((2, 2), 7, np.uint16)
    assert not render(array, header(array)).any()
    assert not render(array, header(array, padding=7)).any()


@pytest.mark.parametrize("attributes", [{"photometric": "MONOCHROME1"}, {"shape": "INVERSE"}])
def test_inverse_images_are_inverted_once(attributes: dict[str, Any]) -> None:
    array = np.array([[0, 10]], np.uint16)
    assert render(array, header(array, **attributes)).tolist() == [[255, 0]]
    both = header(array, photometric="MONOCHROME1", shape="INVERSE")
    assert render(array, both).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("linear", [0, 0, 128, 255, 255]),
        ("linear-exact", [0, 0, 127, 255, 255]),
        ("LINEAR_EXACT", [0, 0, 127, 255, 255]),
        ("sigmoid", [5, 30, 128, 225, 250]),
    ],
)
def test_window_functions_follow_their_equations(function: str, expected: list[int]) -> None:
    array = np.array([[-1000, -500, 0, 500, 1000]], np.int16)
    found = render(array, header(array), window=(0.0, 1000.0, function))
    assert np.abs(found[0].astype(int) - expected).max() <= 1


def test_the_first_window_of_the_object_is_used_and_the_asked_one_goes_before_it() -> None:
    array = np.arange(0, 256, 15).astype(np.uint8).reshape(2, 9)
    dataset = header(array, centre=128, width=256)
    dataset[TAGS["centre"]]["Value"].append(5)
    dataset[TAGS["width"]]["Value"].append(2)
    assert np.array_equal(render(array, dataset), array)
    assert set(render(array, dataset, window=(100.0, 1.0, "linear")).flat) == {0, 255}


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_without_width_counts_as_none(width: int) -> None:
    array = np.array([[100, 200]], np.uint16)
    assert render(array, header(array, centre=5, width=width)).tolist() == [[0, 255]]


def test_values_are_rescaled_before_the_window() -> None:
    array = np.array([[0, 1024, 2048]], np.uint16)
    dataset = header(array, slope=1, intercept=-1024)
    assert render(array, dataset, window=(0.5, 2049.0, "linear")).tolist() == [[0, 128, 255]]


def test_modality_and_voi_tables_are_looked_up() -> None:
    array = np.array([[0, 1, 2, 9]], np.uint8)
    dataset = header(array)
    dataset["00283000"] = sequence(lookup_table(0, [30, 20, 10], 16))
    assert render(array, dataset).tolist() == [[255, 128, 0, 0]]
    dataset["00283010"] = sequence(lookup_table(10, list(range(0, 4095, 195)), 12))
    assert render(array, dataset).tolist() == [[243, 121, 0, 0]]


def test_a_table_may_begin_below_zero() -> None:
    array = np.array([[-2, -1, 0]], np.int16)
    dataset = header(array)
    dataset["00283010"] = sequence(lookup_table(0x10000 - 2, [0, 100, 255], 8))
    assert render(array, dataset).tolist() == [[0, 100, 255]]


def test_tables_kept_as_bulk_data_are_read_or_missed_aloud() -> None:
    array = np.array([[0, 1, 2]], np.uint8)
    dataset = header(array)
    dataset["00283010"] = sequence(
        {
            "00283002": {"vr": "US", "Value": [3, 0, 16]},
            "00283006": {"vr": "OW", "BulkDataURI": "bulkdata/1"},
        }
    )
    with pytest.raises(Invalid, match="bulk data that were not read"):
        render(array, dataset)
    entries = np.array([0, 32768, 65535], "<u2").tobytes()
    read = frame_attributes(dataset, 1, {"bulkdata/1": entries}.__getitem__)
    assert render(array, read).tolist() == [[0, 128, 255]]
    assert "BulkDataURI" in dataset["00283010"]["Value"][0]["00283006"]


def test_functional_groups_hold_for_their_frame() -> None:
    array = np.array([[0, 100]], np.uint16)

    def group(centre: float) -> dict[str, Any]:
        return {
            "00289132": sequence(
                {
                    TAGS["centre"]: {"vr": "DS", "Value": [centre]},
                    TAGS["width"]: {"vr": "DS", "Value": [1]},
                }
            )
        }

    dataset = header(array, frames=3)
    dataset["52009229"] = sequence(
        {
            "00289145": sequence(
                {TAGS["slope"]: {"vr": "DS", "Value": [2]}, TAGS["intercept"]: {"Value": [10]}}
            ),
            "00289110": sequence({"00280030": {"vr": "DS", "Value": [2, 1]}}),
            **group(50),
        }
    )
    dataset["52009230"] = {"vr": "SQ", "Value": [group(5), group(300), {}]}
    rendered = [render(array, dataset, frame_number=number) for number in (1, 2, 3)]
    assert [picture[0].tolist() for picture in rendered] == [[255, 255], [0, 0], [0, 255]]
    assert rendered[0].shape == (2, 2)


@pytest.mark.parametrize("kind", [np.uint32, np.int32, np.float32, np.float64])
def test_wide_and_floating_values_are_windowed_too(kind: type) -> None:
    array: Array = np.array([[0, 50, 100]], kind)
    dataset = header(array)
    if array.dtype.kind == "f":
        dataset.pop(TAGS["stored"])
        array = np.array([[0, 50, 100, np.nan, np.inf]], kind)
        dataset[TAGS["columns"]]["Value"] = [5]
        assert render(array, dataset).tolist() == [[0, 128, 255, 0, 255]]
    else:
        assert render(array, dataset).tolist() == [[0, 128, 255]]


def test_ybr_full_becomes_rgb() -> None:
    array = np.array([[[76, 85, 255], [150, 44, 21], [29, 255, 107]]], np.uint8)
    found = render(array, header(array, photometric="YBR_FULL")).astype(int)
    expected = [[[254, 0, 0], [0, 255, 1], [0, 0, 254]]]
    assert np.abs(found - expected).max() <= 1


def test_colour_of_more_than_8_bits_is_scaled() -> None:
    array = np.array([[[0, 2048, 4095]]], np.uint16)
    assert render(array, header(array, stored=12)).tolist() == [[[0, 128, 255]]]


def test_other_colour_spaces_are_refused() -> None:
    with pytest.raises(Invalid, match="YBR_PARTIAL_420"):
        render(COLOUR, header(COLOUR, photometric="YBR_PARTIAL_420"))


def palette(array: Array, segmented: bool, bits: int, data: list[bytes]) -> dict[str, Any]:
    dataset = header(array, photometric="PALETTE COLOR")
    for number, one in enumerate(data, 1):
        dataset[f"0028110{number}"] = {"vr": "US", "Value": [256, 0, bits]}
        tag = f"00281{2:x}{'2' if segmented else '0'}{number}"
        dataset[tag] = {"vr": "OW", "InlineBinary": base64.b64encode(one).decode()}
    return dataset


def peer_colours(array: Array, dataset: dict[str, Any]) -> Array:
    peer = Dataset.from_json({tag: one for tag, one in dataset.items() if tag >= "00281101"})
    peer.set_original_encoding(is_implicit_vr=False, is_little_endian=True)
    return apply_color_lut(array, peer)


@pytest.mark.parametrize("wide", [False, True])
def test_palettes_are_looked_up_as_pydicom_does(wide: bool) -> None:
    array = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rng = np.random.default_rng(3)
    kind = "<u2" if wide else "u1"
    data = [rng.integers(0, 65536 if wide else 256, 256).astype(kind).tobytes() for _ in range(3)]
    dataset = palette(array, segmented=False, bits=16 if wide else 8, data=data)
    expected = peer_colours(array, dataset)
    assert np.array_equal(render(array, dataset), expected >> 8 if wide else expected)


@pytest.mark.parametrize("bits", [8, 16])
def test_segmented_palettes_are_expanded_as_pydicom_does(bits: int) -> None:
    array = np.arange(256, dtype=np.uint8).reshape(16, 16)
    kind, full = ("<u2", 65535) if bits == 16 else ("u1", 255)
    offset = [0, 0] if bits == 16 else [0, 0, 0, 0]
    # 2 + 126 entries, then the same two segments again by reference to the first byte.
    segments = [0, 2, 0, 9, 1, 126, full, 2, 2, *offset]
    dataset = palette(array, True, bits, [np.array(segments, kind).tobytes()] * 3)
    expected = peer_colours(array, dataset)
    found = render(array, dataset).astype(int)
    assert np.abs(found - (expected >> (bits - 8))).max() <= 1


@pytest.mark.parametrize(
    "segments",
    [
        [1, 256, 9],
        [0, 255] + [1] * 255,
        [0, 255, 1],
        [3, 1, 1],
        [0, 2, 1, 2, 2, 1],
        [0, 2, 1, 2, 2, 2, 8, 0],
        [0, 2, 1, 2, 2, 1, 8, 0],
        [0, 0, 0, 0],
        [],
    ],
)
def test_malformed_segments_are_refused(segments: list[int]) -> None:
    array = np.zeros((2, 2), np.uint8)
    data = np.array(segments, "<u2").tobytes()
    with pytest.raises(Invalid, match="Red Palette"):
        render(array, palette(array, True, 16, [data] * 3))


def test_a_viewport_keeps_the_proportions() -> None:
    for viewport, expected in [((12, 12), (12, 7)), ((240, 400), (400, 240)), ((1, 1), (1, 1))]:
        assert render(GREY, header(GREY), viewport=viewport).shape == expected


def test_pixels_that_are_not_square_are_made_so() -> None:
    dataset = header(GREY)
    dataset["00280034"] = {"vr": "IS", "Value": [1, 2]}
    assert render(GREY, dataset).shape == (40, 48)
    dataset["00280030"] = {"vr": "DS", "Value": [0.9, 0.3]}
    assert render(GREY, dataset).shape == (120, 24)
    assert render(GREY, dataset, viewport=(60, 60)).shape == (60, 12)


def test_made_smaller_each_pixel_is_the_mean_of_its_area() -> None:
    array = np.random.default_rng(4).integers(0, 256, (60, 40)).astype(np.uint8)
    dataset = header(array, centre=128, width=256)
    found = render(array, dataset, viewport=(10, 15)).astype(float)
    expected = array.reshape(15, 4, 10, 4).mean(axis=(1, 3))
    assert np.abs(found - expected).max() <= 0.51


def test_made_larger_values_lie_between_their_neighbours() -> None:
    array = np.array([[0, 255]], np.uint8)
    found = render(array, header(array), viewport=(8, 8))
    assert found.shape == (4, 8)
    assert found[0].tolist() == [0, 0, 32, 96, 159, 223, 255, 255]


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    value=st.integers(0, 255),
)
@settings(max_examples=50)
def test_no_size_leaves_the_box_or_changes_an_even_grey(
    rows: int, columns: int, width: int, height: int, value: int
) -> None:
    array = np.full((rows, columns), value, np.uint8)
    found = render(array, header(array, centre=128, width=256), viewport=(width, height))
    assert found.shape[0] <= height
    assert found.shape[1] <= width
    assert found.shape[0] == height or found.shape[1] == width
    assert (found == value).all()


def test_a_jpeg_is_near_the_png() -> None:
    y, x = np.mgrid[:64, :64]
    array = (x * 2 + y).astype(np.uint8)
    jpeg = render_frame(array.tobytes(), header(array), EXPLICIT)
    decoded = imagecodecs.jpeg8_decode(jpeg).astype(int)
    assert np.abs(decoded - render(array, header(array))).max() <= 4


ODD_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, -1, 1, 3, 8, 12, 16, 70000, 1e300, float("nan"), "x", "", {}]
)


@given(
    attributes=st.dictionaries(st.sampled_from(sorted(TAGS)), ODD_VALUES, max_size=4),
    extra=st.dictionaries(
        st.sampled_from(["00280030", "00280034", "00283000", "00283010", "52009230", "00281201"]),
        st.sampled_from(
            [
                {},
                {"Value": []},
                {"Value": [1]},
                {"Value": ["x", 0]},
                {"Value": [1, 0]},
                {"Value": [{}]},
                {"Value": [lookup_table(0, [1], 99)]},
                {"Value": "xy"},
                {"InlineBinary": "?"},
                None,
            ]
        ),
        max_size=3,
    ),
)
@settings(max_examples=300)
def test_odd_attributes_are_refused_or_passed_over_but_break_nothing(
    attributes: dict[str, Any], extra: dict[str, Any]
) -> None:
    dataset = {**header(GREY), **extra}
    for name, value in attributes.items():
        dataset[TAGS[name]] = {"vr": "US", "Value": [value]}
    try:
        picture = render_frame(little_endian(GREY), dataset, EXPLICIT)
    except Invalid:
        return
    assert picture.startswith(b"\xff\xd8\xff")
