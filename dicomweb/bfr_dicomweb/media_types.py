"""Media types: which representation a request accepts (PS3.18 §8.7)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from bfr_core.errors import ArchiveError, Invalid

MULTIPART_RELATED = "multipart/related"
APPLICATION_DICOM = "application/dicom"
APPLICATION_ZIP = "application/zip"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
OCTET_STREAM = "application/octet-stream"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

# PS3.18 tables 8.7.3-2, 8.7.3-4 and 8.7.3-5: the default transfer syntax first.
TRANSFER_SYNTAXES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        APPLICATION_DICOM: (EXPLICIT_VR_LITTLE_ENDIAN,),
        OCTET_STREAM: (
            EXPLICIT_VR_LITTLE_ENDIAN,
            "1.2.840.10008.1.2.1.98",
            "1.2.840.10008.1.2.1.99",
            "1.2.840.10008.1.2",
            "1.2.840.10008.1.2.2",
        ),
        "image/jpeg": (
            "1.2.840.10008.1.2.4.70",
            "1.2.840.10008.1.2.4.50",
            "1.2.840.10008.1.2.4.51",
            "1.2.840.10008.1.2.4.57",
        ),
        "image/dicom-rle": ("1.2.840.10008.1.2.5",),
        "image/jls": ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
        "image/jp2": ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
        "image/jpx": ("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"),
        "image/jphc": (
            "1.2.840.10008.1.2.4.201",
            "1.2.840.10008.1.2.4.202",
            "1.2.840.10008.1.2.4.203",
        ),
        "image/jxl": (
            "1.2.840.10008.1.2.4.110",
            "1.2.840.10008.1.2.4.111",
            "1.2.840.10008.1.2.4.112",
        ),
        "video/mpeg2": (
            "1.2.840.10008.1.2.4.100",
            "1.2.840.10008.1.2.4.100.1",
            "1.2.840.10008.1.2.4.101",
            "1.2.840.10008.1.2.4.101.1",
        ),
        "video/mp4": (
            "1.2.840.10008.1.2.4.102",
            "1.2.840.10008.1.2.4.102.1",
            "1.2.840.10008.1.2.4.103",
            "1.2.840.10008.1.2.4.103.1",
            "1.2.840.10008.1.2.4.104",
            "1.2.840.10008.1.2.4.104.1",
            "1.2.840.10008.1.2.4.105",
            "1.2.840.10008.1.2.4.105.1",
            "1.2.840.10008.1.2.4.106",
            "1.2.840.10008.1.2.4.106.1",
        ),
        "video/h265": ("1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108"),
    }
)

# Names that older editions of PS3.18 and clients in use give to the same types.
_OTHER_NAMES = {
    "image/x-dicom-rle": "image/dicom-rle",
    "image/x-jls": "image/jls",
    "image/jpeg-ls": "image/jls",
    "image/jph": "image/jphc",
    "video/mpeg": "video/mpeg2",
}
_MEDIA_TYPE_OF = {
    uid: media_type
    for media_type, uids in TRANSFER_SYNTAXES.items()
    if media_type != APPLICATION_DICOM
    for uid in uids
}

# RFC 9110 §5.6.2 token, §5.6.4 quoted-string. A bare parameter value is taken wider than a token:
# clients send type=application/dicom without the quotes that its slash needs.
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_TYPE = re.compile(rf"[ \t]*({_NAME}/{_NAME})[ \t]*(?=;|,|$)")
_PARAMETER = re.compile(
    rf"[ \t]*;[ \t]*(?:({_NAME})[ \t]*=[ \t]*({_QUOTED}|[^\s;,\"]*)[ \t]*)?(?=;|,|$)"
)
_WEIGHT = re.compile(r"(0(\.\d{0,3})?|1(\.0{0,3})?)")
_HEADER_MAX_CHARACTERS = 16384


class NotAcceptable(ArchiveError):
    """Nothing that the resource can be sent as is accepted: 406 (PS3.18 §8.7.8.1)."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type or range with its parameters (RFC 9110 §8.3.1)."""

    name: str  # "image/jpeg", "image/*", "*/*"; lower case
    parameters: Mapping[str, str] = field(default_factory=dict)  # names in lower case, unquoted


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One thing a request accepts."""

    name: str  # of a part, when it asks for multipart/related; may be a wildcard
    multipart: bool
    transfer_syntax: str | None  # a UID, "*", or None: the default of the media type
    quality: float


@dataclass(frozen=True, slots=True)
class Offer:
    """One representation that a resource can be sent as."""

    media_type: str  # of each part, when multipart
    multipart: bool = False
    transfer_syntax_uid: str | None = None  # None when the media type has no transfer syntax
    # Also answers a request that names no transfer syntax, as data that are only kept in lossy
    # form do (PS3.18 §8.7.3), beside the default of the media type.
    when_unnamed: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request accepts: the query parameter goes before the header field."""

    query: tuple[MediaRange, ...]
    header: tuple[MediaRange, ...]


def frame_name(name: str) -> str:
    """Return the name that the standard now gives to a media type of frames."""
    return _OTHER_NAMES.get(name, name)


def frame_media_type(transfer_syntax_uid: str) -> str:
    """Return the media type of a frame in a transfer syntax (PS3.18 tables 8.7.3-4 and 8.7.3-5).

    A transfer syntax outside the tables gives application/octet-stream.
    """
    return _MEDIA_TYPE_OF.get(transfer_syntax_uid, OCTET_STREAM)


def default_transfer_syntax(media_type: str) -> str | None:
    """Return the transfer syntax that a media type has when none is named, None when it has none.

    PS3.18 tables 8.7.3-2, 8.7.3-4 and 8.7.3-5.
    """
    uids = TRANSFER_SYNTAXES.get(media_type)
    return uids[0] if uids else None


def parse_media_type(text: str) -> MediaType:
    """Return the media type that a Content-Type field names (RFC 9110 §8.3.1).

    Raises Invalid when it is malformed or names a parameter twice (RFC 6838 §4.3).
    """
    media_type, end = _read_media_type(text, 0)
    if media_type is None or end < len(text) or len(text) > _HEADER_MAX_CHARACTERS:
        raise Invalid("The media type of Content-Type is malformed.")
    return media_type


def parse_accept(header: str | None, query: Sequence[str] = ()) -> Accepted:
    """Return what the Accept header field and the `accept` query parameters accept.

    Members that are malformed are left out, as PS3.18 §8.7.7 demands; so are wildcards in the query
    parameter (§8.3.3.1), and those with the weight 0 are kept, as they forbid.
    Raises Invalid when either is longer than 16 384 characters.
    """
    ranges = tuple(_media_ranges(value) for value in query)
    return Accepted(
        query=tuple(one for value in ranges for one in value if "*" not in one.name),
        header=tuple(_media_ranges(header)) if header is not None else (),
    )


def choose(accepted: Accepted, offers: Sequence[Offer]) -> Offer:
    """Return the offer that a request prefers; of equals the one offered first.

    The first offer is the default of its resource category, which a wildcard asks for
    (PS3.18 §8.7.7 and §8.7.8.1).
    Raises NotAcceptable when nothing offered is accepted, or the request has neither an Accept
    header field nor an `accept` query parameter (§8.7.5).
    """
    if not accepted.query and not accepted.header:
        raise NotAcceptable("The request names no media type that it accepts.")
    for ranges in (accepted.query, accepted.header):
        best: Offer | None = None
        best_rank: tuple[float, int] = (0.0, 0)
        for offer in offers:
            rank = _rank(offer, ranges)
            if rank > best_rank:
                best, best_rank = offer, rank
        if best is not None:
            return best
    names = ", ".join(sorted({_offer_name(offer) for offer in offers}))
    raise NotAcceptable(f"The request accepts none of the representations here: {names}.")


def _rank(offer: Offer, ranges: Iterable[MediaRange]) -> tuple[float, int]:
    """Return how much an offer is wanted: its weight, and whether its media type was named.

    Of the ranges that match, the most precise decides the weight (RFC 9110 §12.5.1).
    """
    matches = [
        (precision, one.quality)
        for one in ranges
        if (precision := _precision(offer, one)) is not None
    ]
    if not matches:
        return (0.0, 0)
    (name_precision, _), quality = max(matches)
    return (quality, min(name_precision, 1)) if quality > 0 else (0.0, 0)


def _precision(offer: Offer, one: MediaRange) -> tuple[int, int] | None:
    """Return how precisely a range names an offer and its transfer syntax, None when it does not.

    A wildcard media type stands for single part and multipart alike, and for any transfer syntax.
    """
    if one.multipart and not offer.multipart:
        return None
    wildcard = one.name.endswith("/*")
    if offer.multipart and not one.multipart and not wildcard:
        return None
    major = offer.media_type.partition("/")[0]
    if one.name == "*/*":
        name_precision = 0
    elif one.name == f"{major}/*" or (offer.multipart and one.name == "multipart/*"):
        name_precision = 1
    elif one.name == offer.media_type:
        name_precision = 2
    else:
        return None
    if one.multipart:
        name_precision += 1
    transfer_syntax_uid = offer.transfer_syntax_uid
    if transfer_syntax_uid is None or one.transfer_syntax == "*":
        return name_precision, 0
    if one.transfer_syntax is None:
        if wildcard:
            return name_precision, 0
        default = default_transfer_syntax(offer.media_type)
        is_default = transfer_syntax_uid == default or offer.when_unnamed
        return (name_precision, 1) if is_default else None
    return (name_precision, 2) if one.transfer_syntax == transfer_syntax_uid else None


def _offer_name(offer: Offer) -> str:
    name = (
        f'{MULTIPART_RELATED}; type="{offer.media_type}"' if offer.multipart else offer.media_type
    )
    if offer.transfer_syntax_uid is not None:
        name += f"; transfer-syntax={offer.transfer_syntax_uid}"
    return name


def _media_ranges(text: str) -> list[MediaRange]:
    if len(text) > _HEADER_MAX_CHARACTERS:
        raise Invalid(f"What is accepted is longer than {_HEADER_MAX_CHARACTERS} characters.")
    ranges = []
    position = 0
    while position < len(text):
        media_type, end = _read_media_type(text, position)
        media_range = _media_range(media_type) if media_type is not None else None
        if media_range is not None:
            ranges.append(media_range)
        position = end + 1
    return ranges


def _media_range(media_type: MediaType) -> MediaRange | None:
    """Return what a member of Accept asks for, None when its parameters are of no use."""
    parameters = media_type.parameters
    weight = parameters.get("q", "1")
    if not _WEIGHT.fullmatch(weight):
        return None
    name = media_type.name
    multipart = name == MULTIPART_RELATED
    if multipart:
        name = parameters.get("type", "*/*").strip().lower()
        if "/" not in name:
            return None
    return MediaRange(
        name=_OTHER_NAMES.get(name, name),
        multipart=multipart,
        transfer_syntax=parameters.get("transfer-syntax") or None,
        quality=float(weight),
    )


def _read_media_type(text: str, position: int) -> tuple[MediaType | None, int]:
    """Return the media type at a place and where it ends: at a comma or the end of the text.

    The media type is None when it is malformed.
    """
    match = _TYPE.match(text, position)
    if match is None:
        return None, _member_end(text, position)
    parameters: dict[str, str] = {}
    twice = False
    end = match.end()
    while end < len(text) and text[end] == ";":
        parameter = _PARAMETER.match(text, end)
        if parameter is None:
            return None, _member_end(text, end)
        if parameter[1] is not None:
            name = parameter[1].lower()
            twice = twice or name in parameters
            parameters[name] = _unquoted(parameter[2])
        end = parameter.end()
    return (None if twice else MediaType(match[1].lower(), parameters)), end


def _member_end(text: str, position: int) -> int:
    """Return where the list member at a place ends, past the commas in its quoted strings."""
    quoted = False
    while position < len(text):
        character = text[position]
        if quoted and character == "\\":
            position += 1
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            return position
        position += 1
    return len(text)


def _unquoted(value: str) -> str:
    if value.startswith('"'):
        return re.sub(r"\\(.)", r"\1", value[1:-1], flags=re.DOTALL)
    return value
