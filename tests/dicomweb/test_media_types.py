"""What a request accepts decides what it is sent (PS3.18 §8.7)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.errors import Invalid
from bfr_dicomweb.media_types import (
    TRANSFER_SYNTAXES,
    NotAcceptable,
    Offer,
    choose,
    default_transfer_syntax,
    frame_media_type,
    parse_accept,
    parse_media_type,
)

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"

# What an instance stored as JPEG-LS can be sent as, the default first.
DICOM = Offer("application/dicom", multipart=True, transfer_syntax_uid=EXPLICIT)
DICOM_AS_STORED = Offer("application/dicom", multipart=True, transfer_syntax_uid=JPEG_LS)
DICOM_SINGLE = Offer("application/dicom", transfer_syntax_uid=EXPLICIT)
OCTETS = Offer("application/octet-stream", multipart=True, transfer_syntax_uid=EXPLICIT)
JLS = Offer("image/jls", multipart=True, transfer_syntax_uid=JPEG_LS)
JLS_SINGLE = Offer("image/jls", transfer_syntax_uid=JPEG_LS)
JSON = Offer("application/dicom+json")
XML = Offer("application/dicom+xml", multipart=True)
PNG = Offer("image/png")
JPEG = Offer("image/jpeg")
INSTANCE = [DICOM, DICOM_AS_STORED, DICOM_SINGLE]
FRAMES = [OCTETS, JLS, JLS_SINGLE]


@pytest.mark.parametrize(
    ("accept", "offers", "expected"),
    [
        ("*/*", INSTANCE, DICOM),
        ("multipart/related", INSTANCE, DICOM),
        ('multipart/related; type="application/dicom"', INSTANCE, DICOM),
        ("multipart/related; type=application/dicom", INSTANCE, DICOM),
        (
            'multipart/related; type="application/dicom"; transfer-syntax=*',
            [DICOM_AS_STORED, DICOM],
            DICOM_AS_STORED,
        ),
        (
            f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}',
            INSTANCE,
            DICOM_AS_STORED,
        ),
        (
            f'multipart/related; type="application/dicom"; transfer-syntax="{JPEG_LS}"',
            INSTANCE,
            DICOM_AS_STORED,
        ),
        ("application/dicom", INSTANCE, DICOM_SINGLE),
        ("application/dicom;q=0.5, multipart/related;q=0.7", INSTANCE, DICOM),
        ("application/dicom;q=0.8, multipart/related;q=0.7", INSTANCE, DICOM_SINGLE),
        ('multipart/related; type="application/octet-stream"', FRAMES, OCTETS),
        ('multipart/related; type="image/jls", */*;q=0.1', FRAMES, JLS),
        ('multipart/related; type="image/x-jls"', FRAMES, JLS),
        ("image/jls", FRAMES, JLS_SINGLE),
        ("image/*", FRAMES, JLS),
        ("multipart/*", FRAMES, OCTETS),
        ('multipart/related; type="image/*"', FRAMES, JLS),
        ('*/*, multipart/related; type="image/jls"', FRAMES, JLS),
        ('multipart/related; type="application/octet-stream";q=0, */*', FRAMES, JLS),
        ("application/dicom+json, application/json;q=0.5", [JSON, XML], JSON),
        ('multipart/related; type="application/dicom+xml"', [JSON, XML], XML),
        ("text/html,application/xhtml+xml,*/*;q=0.8", [JPEG, PNG], JPEG),
        ("image/avif,image/png,*/*;q=0.8", [JPEG, PNG], PNG),
        ("image/png;q=0.2,image/jpeg;q=0.20", [JPEG, PNG], JPEG),
        ("IMAGE/PNG", [JPEG, PNG], PNG),
        (', ,broken, image/jpeg;q=9, a/b;c="d,image/jpeg", image/png', [JPEG, PNG], PNG),
    ],
)
def test_the_offer_that_is_wanted_most_is_chosen(
    accept: str, offers: list[Offer], expected: Offer
) -> None:
    assert choose(parse_accept(accept), offers) == expected


@pytest.mark.parametrize(
    ("accept", "offers"),
    [
        (None, FRAMES),
        ("", FRAMES),
        ("image/png", FRAMES),
        ("application/dicom+xml", [JSON, XML]),
        ("image/jls;q=0", [JLS_SINGLE]),
        ("*/*;q=0", FRAMES),
        (f"image/jls; transfer-syntax={JPEG_BASELINE}", [JLS_SINGLE]),
        ('multipart/related; type="application/dicom"', [DICOM_AS_STORED]),
        ('multipart/related; type="application/dicom"; type="image/jls"', FRAMES),
        ("*/*", []),
    ],
)
def test_what_cannot_be_sent_as_accepted_is_not_acceptable(
    accept: str | None, offers: list[Offer]
) -> None:
    with pytest.raises(NotAcceptable):
        choose(parse_accept(accept), offers)


def test_a_type_without_transfer_syntax_means_its_default() -> None:
    baseline = Offer("image/jpeg", True, JPEG_BASELINE)
    lossless = Offer("image/jpeg", True, JPEG_LOSSLESS)
    accepted = parse_accept('multipart/related; type="image/jpeg"')
    assert choose(accepted, [baseline, lossless]) == lossless
    with pytest.raises(NotAcceptable):
        choose(accepted, [baseline])


def test_data_kept_only_in_lossy_form_answer_a_type_without_transfer_syntax() -> None:
    baseline = Offer("image/jpeg", True, JPEG_BASELINE, when_unnamed=True)
    assert choose(parse_accept('multipart/related; type="image/jpeg"'), [baseline]) == baseline


def test_the_query_parameter_goes_before_the_header_field() -> None:
    assert choose(parse_accept("image/jpeg", ["image/png"]), [JPEG, PNG]) == PNG
    assert choose(parse_accept(None, ["image/png;q=0.1"]), [JPEG, PNG]) == PNG
    assert choose(parse_accept("image/*", ["image/gif"]), [JPEG, PNG]) == JPEG
    assert choose(parse_accept("image/png", ["*/*"]), [JPEG, PNG]) == PNG


def test_each_frame_media_type_has_a_default_that_leads_back_to_it() -> None:
    for media_type in TRANSFER_SYNTAXES:
        uid = default_transfer_syntax(media_type)
        assert uid is not None
        if media_type != "application/dicom":
            assert frame_media_type(uid) == media_type
    assert default_transfer_syntax("image/png") is None
    assert frame_media_type("1.2.3.4") == "application/octet-stream"
    assert frame_media_type("1.2.840.10008.1.2.4.202") == "image/jphc"


@pytest.mark.parametrize("text", ["", "text", "a/b, c/d", "a/b; c=d; C=e", "a/b; c", 'a/b; c="d'])
def test_a_malformed_content_type_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_media_type(text)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z-]{1,8}", fullmatch=True),
        st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20),
        max_size=5,
    )
)
def test_quoted_parameters_come_back_as_they_were(parameters: dict[str, str]) -> None:
    text = "Multipart/Related"
    for name, value in parameters.items():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        text += f' ; {name.upper()}="{escaped}"'
    media_type = parse_media_type(text)
    assert media_type.name == "multipart/related"
    assert dict(media_type.parameters) == parameters


FRAGMENTS = st.sampled_from(
    'image/jpeg|*/*|image/*|multipart/related|;|,|q=|q=0|q=0.5|"|\\|type=|transfer-syntax=|*| |=|/'
    f"|application/dicom|image/jls|{JPEG_LS}".split("|")
)


@given(st.lists(FRAGMENTS | st.text(max_size=3), max_size=25).map("".join))
def test_no_accept_field_breaks_the_negotiation(accept: str) -> None:
    with contextlib.suppress(NotAcceptable):
        assert choose(parse_accept(accept, [accept]), [*INSTANCE, *FRAMES]) in INSTANCE + FRAMES


@given(
    weights=st.lists(st.integers(0, 1000), min_size=3, max_size=3),
    order=st.permutations(FRAMES),
    wildcard=st.integers(0, 1000),
)
def test_the_highest_weight_wins_and_then_the_order_of_the_offers(
    weights: list[int], order: list[Offer], wildcard: int
) -> None:
    members = [f"text/*;q={wildcard / 1000:.3f}"]
    for offer, weight in zip(FRAMES, weights, strict=True):
        name = f'multipart/related; type="{offer.media_type}"'
        name = name if offer.multipart else offer.media_type
        members.append(f"{name};q={weight / 1000:.3f}")
    weight_of = dict(zip(FRAMES, weights, strict=True))
    accepted = parse_accept(", ".join(members))
    if not any(weights):
        with pytest.raises(NotAcceptable):
            choose(accepted, order)
        return
    best = max(weights)
    assert choose(accepted, order) == next(o for o in order if weight_of[o] == best)


def test_an_accept_field_without_end_is_refused() -> None:
    with pytest.raises(Invalid):
        parse_accept("image/jpeg," * 5000)


def test_not_acceptable_names_what_could_be_sent() -> None:
    with pytest.raises(NotAcceptable, match=r'multipart/related; type="image/jls"'):
        choose(parse_accept("text/html"), FRAMES)
