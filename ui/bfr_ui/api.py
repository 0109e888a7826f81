"""The JSON that the portals read. What names a person comes in bodies, never in a URL."""

import datetime
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bfr_core import cases, connections, events, patients, roles, statistics
from bfr_core.access import Access
from bfr_core.errors import ArchiveError, Invalid, NotFound
from bfr_core.patients import Patient, PatientStudy, StudySeries
from bfr_core.store import Store
from bfr_ui.errors import problem

TRANSACTION = "portals"
PATIENTS_MAX = 200
STUDIES_MAX = 1000
EVENTS_SHOWN = 30
BODY_MAX_BYTES = 64 * 1024

Handler = Callable[[Request, Store, Access], Awaitable[object]]


async def session(request: Request, store: Store, access: Access) -> object:
    """Tell who the caller is to us."""
    return {"subject": access.subject, "kind": access.kind, "version": request.app.state.version}


async def search_patients(request: Request, store: Store, access: Access) -> object:
    """Find patients by number or name."""
    body = await _body(request)
    query, limit = body.get("query", ""), body.get("limit", 50)
    if not isinstance(query, str) or len(query) > 200:
        raise Invalid("query is a text of at most 200 characters")
    if type(limit) is not int or not 1 <= limit <= PATIENTS_MAX:
        raise Invalid(f"limit is a whole number from 1 to {PATIENTS_MAX}")
    found = await patients.search_patients(store, access, query, limit + 1)
    return {"patients": [_patient(one) for one in found[:limit]], "more": len(found) > limit}


async def read_patient(request: Request, store: Store, access: Access) -> object:
    """Tell of one patient and all their studies."""
    key = request.path_params["patient_key"]
    if not key.isascii() or not key.isdigit() or len(key) > 18:
        raise NotFound("there is no such patient")
    patient, studies = await patients.find_patient(store, access, int(key))
    return {"patient": _patient(patient), "studies": [_study(one) for one in studies]}


async def read_study(request: Request, store: Store, access: Access) -> object:
    """Tell of one study, its patient and its series."""
    patient, study, series = await patients.find_study(
        store, access, request.path_params["ae_title"], request.path_params["study"]
    )
    return {
        "patient": _patient(patient),
        "study": _study(study),
        "series": [_series(one) for one in series],
    }


async def latest_studies(request: Request, store: Store, access: Access) -> object:
    """Tell which studies arrived last."""
    text = request.query_params.get("limit", "100")
    is_number = text.isascii() and text.isdigit() and len(text) <= 9
    if not is_number or not 1 <= int(text) <= STUDIES_MAX:
        raise Invalid(f"limit is a whole number from 1 to {STUDIES_MAX}")
    found = await patients.latest_studies(
        store,
        access,
        modality=request.query_params.get("modality"),
        archive=request.query_params.get("archive"),
        limit=int(text),
    )
    return {
        "studies": [
            {
                **_study(one),
                "patient": {
                    "patient_key": str(one.patient_id),
                    "patient_identifier": one.patient_identifier,
                    "name": one.patient_name,
                },
            }
            for one in found
        ]
    }


async def status(request: Request, store: Store, access: Access) -> object:
    """Tell how the whole system stands."""
    async with store.database.transaction() as tx:
        states = await roles.role_states(tx, store.settings.roles)
        contents = await statistics.archive_contents(tx)
        jobs = await statistics.job_counts(tx)
        open_cases = await cases.count_open_cases(tx)
        latest = await events.latest_events(tx, EVENTS_SHOWN)
        listed = await connections.list_connections(tx)
        archives = {one.connection_id: one for one in await connections.list_archives(tx)}
        nodes = await connections.list_nodes(tx)
    return {
        "version": request.app.state.version,
        "roles": [asdict(one) for one in states],
        "archives": [asdict(one) for one in contents],
        "connections": [
            {
                "name": one.name,
                "environment": one.environment,
                "archive": archives[one.connection_id].ae_title
                if one.connection_id in archives
                else None,
                "nodes": [
                    {"ae_title": node.ae_title, "host": node.host, "port": node.port}
                    for node in nodes
                    if node.connection_id == one.connection_id
                ],
            }
            for one in listed
        ],
        "storage": {
            "total_bytes": store.blobs.total_bytes(),
            "free_bytes": store.blobs.free_bytes(),
        },
        "jobs": asdict(jobs),
        "open_cases": open_cases,
        "events": [asdict(one) for one in latest],
        "dimse_port": store.settings.dimse_port,
    }


RESOURCES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/api/session", session),
    ("POST", "/api/patients/search", search_patients),
    ("GET", "/api/patients/{patient_key}", read_patient),
    ("GET", "/api/archives/{ae_title}/studies/{study}", read_study),
    ("GET", "/api/studies", latest_studies),
    ("GET", "/api/status", status),
)


def routes() -> list[Route]:
    """Return a route per resource, and one for all else below /api."""
    offered = [
        Route(path, _endpoint(handler), methods=[method]) for method, path, handler in RESOURCES
    ]
    return [*offered, Route("/api/{path:path}", _endpoint(_no_resource))]


def transactions() -> dict[tuple[str, str], tuple[str, str]]:
    """Return the transaction and the resource behind the method and path of each route."""
    return {(method, path): (TRANSACTION, path) for method, path, _ in RESOURCES}


async def _no_resource(request: Request, store: Store, access: Access) -> object:
    raise NotFound("there is no such resource")


def _endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        store = cast(Store, request.app.state.store)
        access = cast(Access, request.scope["state"]["access"])
        try:
            _refuse_nul(request)
            body = await handler(request, store, access)
        except ArchiveError as error:
            return problem(error)
        return Response(
            orjson.dumps(body), headers={"Cache-Control": "no-store"}, media_type="application/json"
        )

    return endpoint


def _refuse_nul(request: Request) -> None:
    """Raise Invalid for a NUL character, which no text of the database can hold."""
    values = [*request.path_params.values(), *request.query_params.values()]
    if any("\x00" in value for value in values):
        raise Invalid("the address holds a NUL character")


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > BODY_MAX_BYTES:
            raise Invalid(f"the body is larger than {BODY_MAX_BYTES} bytes")
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Invalid("the body is no JSON") from error
    if not isinstance(body, dict):
        raise Invalid("the body is no JSON object")
    return body


def _patient(one: Patient) -> dict[str, object]:
    return {
        "patient_key": str(one.patient_id),
        "patient_identifier": one.patient_identifier,
        "issuer": one.issuer,
        "name": one.name,
        "birth_date": one.birth_date,
        "sex": one.sex or None,
        "number_of_studies": one.number_of_studies,
        "latest_study_date": one.latest_study_date,
    }


def _study(one: PatientStudy) -> dict[str, object]:
    thumbnail = None
    if one.thumbnail_sop_instance_uid is not None:
        thumbnail = {
            "series_instance_uid": one.thumbnail_series_instance_uid,
            "sop_instance_uid": one.thumbnail_sop_instance_uid,
        }
    return {
        "archive": one.archive,
        "study_instance_uid": one.study_instance_uid,
        "study_date": one.study_date,
        "study_time": _seconds(one.study_time),
        "description": one.description,
        "accession_number": one.accession_number,
        "modalities": one.modalities,
        "body_parts": one.body_parts,
        "institution": one.institution,
        "referring_physician": one.referring_physician,
        "number_of_series": one.number_of_series,
        "number_of_instances": one.number_of_instances,
        "size_bytes": one.size_bytes,
        "state": "receiving" if one.receiving else "complete",
        "received_at": one.received_at,
        "thumbnail": thumbnail,
    }


def _series(one: StudySeries) -> dict[str, object]:
    return {
        "series_instance_uid": one.series_instance_uid,
        "modality": one.modality,
        "series_number": one.series_number,
        "description": one.description,
        "body_part": one.body_part,
        "number_of_instances": one.number_of_instances,
        "size_bytes": one.size_bytes,
        "state": "receiving" if one.receiving else "complete",
        "representative_sop_instance_uid": one.representative_sop_instance_uid,
    }


def _seconds(time: datetime.time | None) -> str | None:
    return None if time is None else time.strftime("%H:%M:%S")
