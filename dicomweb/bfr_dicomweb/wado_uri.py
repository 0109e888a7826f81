"""WADO-URI: one instance by query parameters, as it is or rendered (PS3.18 chapter 9).

Each request is turned into the one of WADO-RS that means the same: there is one way to negotiate,
to transcode and to render.
"""

import re
from collections.abc import Mapping
from urllib.parse import urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_core.errors import Invalid
from bfr_core.frames import EXPLICIT_VR_LITTLE_ENDIAN
from bfr_core.instances import UID, Dataset
from bfr_core.json_model import first_value
from bfr_core.retrieval import retrieve_instances
from bfr_dicomweb import rendered, wado
from bfr_dicomweb.media_types import APPLICATION_DICOM, NotAcceptable, parse_accept
from bfr_dicomweb.resources import target_of

DOOR = "WADO-URI"
UIDS = {"studyUID": "study", "seriesUID": "series", "objectUID": "instance"}
OF_DICOM = frozenset({"anonymize", "transferSyntax"})
OF_PICTURES = frozenset(
    "annotation imageAnnotation columns frameNumber imageQuality presentationSeriesUID"
    " presentationUID region rows windowCenter windowWidth".split()
)
PARAMETERS = frozenset({"requestType", "contentType", "charset", *UIDS}) | OF_DICOM | OF_PICTURES
# What goes together, and is nothing alone (§9.5.1.2).
PAIRS = (
    ("rows", "columns"),
    ("windowCenter", "windowWidth"),
    ("presentationSeriesUID", "presentationUID"),
)
ROWS, COLUMNS = "00280010", "00280011"
CHARACTER_SETS = re.compile(r"[\w.:*+-]+(;q=[01](\.\d{0,3})?)?", re.ASCII)
UTF_8 = frozenset({"*", "utf-8", "utf8"})
DECIMAL = re.compile(r"[01]|[01]?\.\d{1,12}|[01]\.")


async def retrieve(request: Request) -> Response:
    """Answer with an instance, as DICOM or rendered (§9.4, §9.5)."""
    parameters = read_parameters(request)
    path = {name: parameters[uid] for uid, name in UIDS.items()}
    if "ae_title" in request.path_params:
        path["ae_title"] = request.path_params["ae_title"]
    accept = parameters.get("contentType") or request.headers.get("accept", "*/*")
    if _wants_dicom(accept):
        _refuse(parameters, OF_PICTURES, f"means nothing to {APPLICATION_DICOM}")
        if "anonymize" in parameters:
            raise NotAcceptable("anonymize: instances are not anonymised here")
        accept = _dicom_accept(parameters.get("transferSyntax"))
        return await wado.retrieve(_asked(request, path, {}, accept), door=DOOR)
    _refuse(parameters, OF_DICOM, f"is for {APPLICATION_DICOM} alone")
    if "presentationUID" in parameters:
        raise NotAcceptable("presentationUID: presentation states are not applied here")
    if "frameNumber" in parameters:
        path["frames"] = parameters["frameNumber"]
    image: Dataset = {}
    if "region" in parameters:
        image = await _header(request, path)
    query = rendered_query(parameters, image)
    answer = await rendered.retrieve_rendered(_asked(request, path, query, accept), door=DOOR)
    if answer.headers["content-type"].startswith("text/") and not _takes_utf_8(parameters):
        raise NotAcceptable("charset: text goes out as UTF-8")
    return answer


def read_parameters(request: Request) -> dict[str, str]:
    """Return the parameters of the query. Raises Invalid naming the one at fault."""
    parameters: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in PARAMETERS:
            raise Invalid(f"{name[:64]!r} is no parameter of WADO-URI")
        if name in parameters:
            raise Invalid(f"{name} is there twice")
        parameters[name] = value
    if parameters.get("requestType") != "WADO":
        raise Invalid("requestType must be WADO")
    for name in UIDS:
        if name not in parameters:
            raise Invalid(f"{name} is missing")
    for name in (*UIDS, "transferSyntax", "presentationSeriesUID", "presentationUID"):
        if name in parameters and not _is_uid(parameters[name]):
            raise Invalid(f"{name} is no UID")
    for pair in PAIRS:
        if (pair[0] in parameters) != (pair[1] in parameters):
            raise Invalid(f"{pair[0]} and {pair[1]} go together")
    if "presentationUID" in parameters:
        _refuse(parameters, {"frameNumber", "windowCenter"}, "does not go with presentationUID")
    frame = parameters.get("frameNumber", "1")
    if not frame.isascii() or not frame.isdigit() or not 1 <= len(frame) <= 9 or int(frame) < 1:
        raise Invalid("frameNumber is a whole number from 1")
    if parameters.get("anonymize", "yes") != "yes":
        raise Invalid("anonymize is yes or not there")
    if "charset" in parameters and not all(map(CHARACTER_SETS.fullmatch, _charsets(parameters))):
        raise Invalid("charset is a list of character sets")
    _check_content_type(parameters.get("contentType"))
    return parameters


def rendered_query(parameters: Mapping[str, str], image: Dataset) -> dict[str, str]:
    """Return the parameters of a rendered resource that mean the same (§8.3.5.1).

    `image` tells Rows and Columns, for a region is told in parts of them. Raises Invalid.
    """
    query = {}
    if "imageAnnotation" in parameters or "annotation" in parameters:
        query["annotation"] = parameters.get("imageAnnotation") or parameters["annotation"]
    if "imageQuality" in parameters:
        query["quality"] = parameters["imageQuality"]
    if "windowCenter" in parameters:
        query["window"] = f"{parameters['windowCenter']},{parameters['windowWidth']},linear"
    region: tuple[int, ...] = ()
    if "region" in parameters:
        region = _region(parameters["region"], image)
    if "rows" in parameters:
        viewport: tuple[object, ...] = (parameters["columns"], parameters["rows"])
    else:
        viewport = region[2:]
    if viewport:
        query["viewport"] = ",".join(map(str, (*viewport, *region)))
    return query


def _region(text: str, image: Dataset) -> tuple[int, ...]:
    """Return left, top, width and height in pixels of a region (§9.5.1.2.5)."""
    parts = text.split(",")
    if len(parts) != 4 or not all(map(DECIMAL.fullmatch, parts)):
        raise Invalid("region is xmin,ymin,xmax,ymax, from 0.0 to 1.0")
    left, top, right, bottom = map(float, parts)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise Invalid("region: the least does not lie before the greatest, within 0.0 and 1.0")
    rows, columns = first_value(image, ROWS), first_value(image, COLUMNS)
    if not rows or not columns:
        raise NotAcceptable("the instance has no pixels that could be rendered")
    x, y = round(left * columns), round(top * rows)
    return x, y, max(round(right * columns) - x, 1), max(round(bottom * rows) - y, 1)


async def _header(request: Request, path: Mapping[str, str]) -> Dataset:
    target = await target_of(request)
    found = await retrieve_instances(
        target.store,
        target.access,
        DOOR,
        archive_id=target.archive_id,
        study_instance_uid=path["study"],
        series_instance_uid=path["series"],
        sop_instance_uid=path["instance"],
        headers=True,
    )
    header: Dataset = orjson.loads(found[0].header)
    return header


def _asked(
    request: Request, path: Mapping[str, str], query: Mapping[str, str], accept: str
) -> Request:
    """Return the request of WADO-RS for the path, the query and what is accepted."""
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"accept"]
    scope = {
        **request.scope,
        "path_params": dict(path),
        "query_string": urlencode(query).encode(),
        "headers": [*headers, (b"accept", accept.encode("latin-1"))],
    }
    return Request(scope, request.receive)


def _wants_dicom(accept: str) -> bool:
    ranges = parse_accept(accept).header
    wanted = max((one.quality for one in ranges if one.name == APPLICATION_DICOM), default=0.0)
    others = max((one.quality for one in ranges if one.name != APPLICATION_DICOM), default=0.0)
    return wanted > 0 and wanted >= others


def _dicom_accept(transfer_syntax_uid: str | None) -> str:
    if transfer_syntax_uid is not None:
        return f"{APPLICATION_DICOM}; transfer-syntax={transfer_syntax_uid}"
    # The default (§9.4.2.4); what cannot be had in it comes as WADO-RS sends it unasked.
    default = f"{APPLICATION_DICOM}; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}"
    return f"{default}, {APPLICATION_DICOM}; q=0.5"


def _check_content_type(text: str | None) -> None:
    if text is None:
        return
    ranges = parse_accept(text).header
    if not ranges or any(one.multipart for one in ranges):
        raise Invalid("contentType is application/dicom or one or more rendered media types")
    if re.search(r";\s*(transfer-syntax|charset)\s*=", text, re.IGNORECASE):
        raise Invalid("contentType: transfer syntax and charset are parameters of their own")
    if len(ranges) > 1 and any(one.name == APPLICATION_DICOM for one in ranges):
        raise Invalid(f"contentType: {APPLICATION_DICOM} stands alone")


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and UID.fullmatch(text) is not None


def _charsets(parameters: Mapping[str, str]) -> list[str]:
    return [one.replace(" ", "").lower() for one in parameters.get("charset", "*").split(",")]


def _takes_utf_8(parameters: Mapping[str, str]) -> bool:
    return any(one.partition(";")[0] in UTF_8 for one in _charsets(parameters))


def _refuse(parameters: Mapping[str, str], names: frozenset[str] | set[str], why: str) -> None:
    for name in sorted(names & parameters.keys()):
        raise Invalid(f"{name} {why}")
