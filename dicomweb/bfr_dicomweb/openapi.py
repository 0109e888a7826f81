"""OpenAPI 3.1: what the doors of PS3.18 offer, for machines that know no DICOM.

Made of the same list as the routes; what this file adds is which parameters and bodies each
transaction has. A transaction that is missing here fails its test, not its caller.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bfr_dicomweb.media_types import APPLICATION_DICOM, APPLICATION_ZIP, DICOM_JSON, DICOM_XML

Described = Sequence[tuple[str, str, Callable[..., Any]]]

UID_SCHEMA: dict[str, Any] = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)*$", "maxLength": 64}
COUNT_SCHEMA: dict[str, Any] = {"type": "integer", "minimum": 0}
BOOLEAN_SCHEMA: dict[str, Any] = {"type": "string", "enum": ["true", "false"]}
TEXT_SCHEMA: dict[str, Any] = {"type": "string"}
PROBLEM = "application/problem+json"
MULTIPART = "multipart/related"
DATASETS = (DICOM_JSON, "application/json", MULTIPART)
DATASET = (*DATASETS, DICOM_XML)
PICTURES = ("image/jpeg", "image/png", "image/gif", "video/mp4", MULTIPART)
DOCUMENTS = ("text/html", "text/plain", "text/xml", "application/pdf")
FRAMES = ("application/octet-stream", MULTIPART, "image/jpeg", "image/jls", "image/jp2")

PATH_PARAMETERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "ae_title": ("AE title of the archive", {"type": "string", "maxLength": 16}),
    "study": ("Study Instance UID", UID_SCHEMA),
    "series": ("Series Instance UID", UID_SCHEMA),
    "instance": ("SOP Instance UID", UID_SCHEMA),
    "frames": ("Frame numbers by commas", {"type": "string", "pattern": r"^\d+(,\d+)*$"}),
    "workitem": ("SOP Instance UID of the workitem", UID_SCHEMA),
    "aetitle": ("AE title of the subscriber", {"type": "string", "maxLength": 16}),
    "path": ("Place of the value in the data set, as the metadata names it", TEXT_SCHEMA),
    "uid": ("SOP Instance UID", UID_SCHEMA),
    "transaction": ("Transaction UID", UID_SCHEMA),
}
SEARCH = {
    "limit": COUNT_SCHEMA,
    "offset": COUNT_SCHEMA,
    "includefield": TEXT_SCHEMA,
    "fuzzymatching": BOOLEAN_SCHEMA,
    "emptyvaluematching": BOOLEAN_SCHEMA,
    "multiplevaluematching": BOOLEAN_SCHEMA,
    "PatientID": TEXT_SCHEMA,
    "PatientName": TEXT_SCHEMA,
    "StudyDate": TEXT_SCHEMA,
    "AccessionNumber": TEXT_SCHEMA,
}
RENDERING = dict.fromkeys(("viewport", "window", "quality"), TEXT_SCHEMA)
URI = dict.fromkeys(
    ("requestType", "studyUID", "seriesUID", "objectUID", "contentType", "frameNumber"), TEXT_SCHEMA
)


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a transaction takes beside its path, and in which forms it answers."""

    query: Mapping[str, dict[str, Any]]
    bodies: Sequence[str]
    answers: Sequence[str]


# By the name of the handler; those of one transaction share an entry.
TRANSACTIONS: Mapping[str, Transaction] = {
    "retrieve_capabilities": Transaction(
        {}, (), ("application/vnd.sun.wadl+xml", "application/json")
    ),
    **dict.fromkeys(
        ("search_studies", "search_series", "search_instances", "search_workitems"),
        Transaction(SEARCH, (), DATASETS),
    ),
    "store_instances": Transaction(
        {}, (MULTIPART, APPLICATION_DICOM, DICOM_JSON, DICOM_XML), DATASET
    ),
    "retrieve": Transaction(
        {"accept": TEXT_SCHEMA, **URI},
        (),
        (APPLICATION_DICOM, APPLICATION_ZIP, MULTIPART, *PICTURES[:-1], *DOCUMENTS),
    ),
    "retrieve_metadata": Transaction({"accept": TEXT_SCHEMA}, (), DATASET),
    "retrieve_frames": Transaction({"accept": TEXT_SCHEMA}, (), FRAMES),
    "retrieve_pixel_data": Transaction({}, (), (MULTIPART,)),
    "retrieve_bulk_data": Transaction({}, (), ("application/octet-stream", MULTIPART)),
    "retrieve_all_bulk_data": Transaction({}, (), (MULTIPART,)),
    "retrieve_rendered": Transaction(RENDERING, (), (*PICTURES, *DOCUMENTS)),
    "retrieve_thumbnail": Transaction(RENDERING, (), PICTURES[:2]),
    "retrieve_instance": Transaction({}, (), (*DATASET, APPLICATION_DICOM)),
    "retrieve_workitem": Transaction({}, (), DATASET),
    **dict.fromkeys(
        ("count_studies", "count_series", "count_instances"),
        Transaction(SEARCH, (), ("application/json",)),
    ),
    "reject": Transaction({"code": TEXT_SCHEMA}, ("application/json",), ()),
    "request_commitment": Transaction({}, (DICOM_JSON, DICOM_XML), DATASET),
    "check_result": Transaction({}, (), DATASET),
    "list_changes": Transaction(
        {
            "since": COUNT_SCHEMA,
            "limit": COUNT_SCHEMA,
            "starttime": TEXT_SCHEMA,
            "endtime": TEXT_SCHEMA,
        },
        (),
        ("application/json",),
    ),
    "latest_change": Transaction({}, (), ("application/json",)),
    "create_workitem": Transaction({"workitem": UID_SCHEMA}, (DICOM_JSON, DICOM_XML), ()),
    "update_workitem": Transaction({"transaction-uid": UID_SCHEMA}, (DICOM_JSON, DICOM_XML), ()),
    "change_state": Transaction({}, (DICOM_JSON, DICOM_XML), ()),
    "request_cancellation": Transaction({}, (DICOM_JSON, DICOM_XML), ()),
    "subscribe": Transaction({"deletionlock": BOOLEAN_SCHEMA, "filter": TEXT_SCHEMA}, (), ()),
    "unsubscribe": Transaction({}, (), ()),
    "suspend": Transaction({}, (), ()),
}
OPERATION = {
    "/healthz": "Tells that the process runs",
    "/readyz": "Tells whether every role serves",
    "/metrics": "Tells the figures of all processes, in Prometheus' text format",
}


def document(roots: Sequence[str], resources: Described, version: str) -> dict[str, Any]:
    """Return the OpenAPI document of the resources below the roots, and of the health of all."""
    paths: dict[str, dict[str, Any]] = {}
    for root in roots:
        for method, path, handler in resources:
            place = re.sub(r":path}", "}", root + path) or "/"
            paths.setdefault(place, {})[method.lower()] = _operation(place, method, handler)
    for path, text in OPERATION.items():
        answer = {"description": text, "content": {"text/plain": {}, "application/json": {}}}
        responses = {"200": answer, "503": answer}
        paths[path] = {"get": {"summary": text, "tags": ["Operation"], "responses": responses}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "BFR, DICOMweb",
            "version": version,
            "description": "An origin server of DICOM PS3.18; see its conformance statement.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": {"Problem": PROBLEM_SCHEMA}},
    }


PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "What was wrong (RFC 9457)",
    "required": ["status", "title", "detail"],
    "properties": {
        "status": {"type": "integer"},
        "title": {"type": "string"},
        "detail": {"type": "string"},
    },
}


def _operation(path: str, method: str, handler: Callable[..., Any]) -> dict[str, Any]:
    transaction = TRANSACTIONS[name_of(handler)]
    parameters = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATH_PARAMETERS[name][0],
            "schema": PATH_PARAMETERS[name][1],
        }
        for name in re.findall(r"{(\w+)}", path)
    ]
    parameters += [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in transaction.query.items()
    ]
    problem = {
        "description": "The request is at fault; the body says how",
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    refused = {
        "description": problem["description"],
        "content": {
            **{one: {} for one in transaction.answers if transaction.bodies},
            PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}},
        },
    }
    done: dict[str, Any] = {"description": "Done"}
    if transaction.answers:
        done["content"] = {one: {} for one in transaction.answers}
    operation: dict[str, Any] = {
        "summary": str(handler.__doc__).splitlines()[0],
        "operationId": f"{method.lower()} {path}",
        "tags": [str(getattr(handler, "__module__", "")).rpartition(".")[2]],
        "parameters": parameters,
        "responses": {
            "2XX": done,
            "304": {"description": "The client holds it"},
            "4XX": refused,
            "503": {**problem, "description": "An engine is away or full: try again later"},
        },
    }
    if transaction.bodies:
        binary = {"type": "string", "format": "binary"}
        operation["requestBody"] = {
            "content": {
                one: {"schema": {} if "json" in one else binary} for one in transaction.bodies
            }
        }
    return operation


def name_of(handler: Callable[..., Any]) -> str:
    """Return the name under which a handler is described here."""
    return str(handler.__name__)
