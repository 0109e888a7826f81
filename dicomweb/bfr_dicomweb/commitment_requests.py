"""Storage Commitment over HTTP: Request and Result Check (PS3.18 chapter 13, Annex J)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from bfr_core import commitment_requests
from bfr_core.commitment_requests import Decided, Requested
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_dicomweb.datasets import ONE_OFFERS, datasets_answer, read_dataset
from bfr_dicomweb.media_types import choose
from bfr_dicomweb.resources import accepted_by, archive_to_store_in, target_of

DOOR = "Storage Commitment"

REFERENCED_SOPS, FAILED_SOPS = "00081199", "00081198"
REFERENCED_STUDIES, FAILED_STUDIES = "00081110", "0008119B"
SERIES, BY_CLASS, INSTANCES = "00081115", "00081112", "0008114A"
STUDY_UID, SERIES_UID = "0020000D", "0020000E"
SOP_CLASS_UID, SOP_INSTANCE_UID = "00081150", "00081155"
FAILURE_REASON = "00081197"


async def request_commitment(request: Request) -> Response:
    """Commit to objects, each or with the reason why not (§13.4)."""
    target = await target_of(request)
    offer = choose(accepted_by(request), ONE_OFFERS)
    settings = target.store.settings
    sent = await read_dataset(
        request, max_bytes=settings.header_max_bytes, max_depth=settings.header_max_depth
    )
    decided = await commitment_requests.request_commitment(
        target.store,
        target.access,
        DOOR,
        await archive_to_store_in(target),
        request.path_params["transaction"],
        list(_requested(sent)),
    )
    return await datasets_answer(request, offer, [orjson.dumps(_answer(decided))])


async def check_result(request: Request) -> Response:
    """Answer with the result of an earlier request (§13.5)."""
    target = await target_of(request)
    offer = choose(accepted_by(request), ONE_OFFERS)
    decided = await commitment_requests.find_result(
        target.store,
        target.access,
        await archive_to_store_in(target),
        request.path_params["transaction"],
    )
    return await datasets_answer(request, offer, [orjson.dumps(_answer(decided))])


def _requested(sent: Dataset) -> Iterator[Requested]:
    """Yield the objects of a Storage Commitment Request Module (§J.1). Raises Invalid."""
    for item in _items(sent, REFERENCED_SOPS):
        yield Requested(_uid(item, SOP_CLASS_UID), _uid(item, SOP_INSTANCE_UID))
    for study in _items(sent, REFERENCED_STUDIES):
        for series in _items(study, SERIES):
            lies_in = (_uid(study, STUDY_UID), _uid(series, SERIES_UID))
            for group in _items(series, BY_CLASS):
                sop_class_uid = _uid(group, SOP_CLASS_UID)
                for item in _items(group, INSTANCES):
                    yield Requested(sop_class_uid, _uid(item, SOP_INSTANCE_UID), lies_in)


def _answer(decided: Decided) -> Dataset:
    """Return the Storage Commitment Response Module (§J.2), in the form of the request."""
    failed = {(one[0], one[1]): one[2] for one in decided.result.failed}
    parts: dict[str, list[tuple[Requested, Dataset]]] = {}
    for one in decided.requested:
        reason = failed.get((one.sop_class_uid, one.sop_instance_uid))
        if one.series is None:
            tag = REFERENCED_SOPS if reason is None else FAILED_SOPS
        else:
            tag = REFERENCED_STUDIES if reason is None else FAILED_STUDIES
        item = {SOP_INSTANCE_UID: _element("UI", one.sop_instance_uid)}
        if one.series is None:
            item = {SOP_CLASS_UID: _element("UI", one.sop_class_uid), **item}
        if reason is not None:
            item[FAILURE_REASON] = _element("US", reason)
        parts.setdefault(tag, []).append((one, item))
    answer: Dataset = {}
    for tag in sorted(parts):
        if tag in (REFERENCED_STUDIES, FAILED_STUDIES):
            answer[tag] = _element("SQ", *_studies(parts[tag]))
        else:
            answer[tag] = _element("SQ", *(item for _, item in parts[tag]))
    return answer


def _studies(found: Sequence[tuple[Requested, Dataset]]) -> Iterator[Dataset]:
    studies: dict[str, dict[str, dict[str, list[Dataset]]]] = {}
    for one, item in found:
        study, series = one.series or ("", "")
        groups = studies.setdefault(study, {}).setdefault(series, {})
        groups.setdefault(one.sop_class_uid, []).append(item)
    for study, all_series in studies.items():
        yield {
            SERIES: _element("SQ", *(_one_series(*pair) for pair in all_series.items())),
            STUDY_UID: _element("UI", study),
        }


def _one_series(uid: str, groups: Mapping[str, Sequence[Dataset]]) -> Dataset:
    by_class = [
        {SOP_CLASS_UID: _element("UI", sop_class), INSTANCES: _element("SQ", *items)}
        for sop_class, items in groups.items()
    ]
    return {BY_CLASS: _element("SQ", *by_class), SERIES_UID: _element("UI", uid)}


def _items(dataset: Dataset, tag: str) -> list[Dataset]:
    element = dataset.get(tag, {})
    items = element.get("Value", []) if isinstance(element, dict) else None
    if not isinstance(items, list) or not all(isinstance(one, dict) for one in items):
        raise Invalid(f"{tag}: is no sequence")
    return items


def _uid(dataset: Dataset, tag: str) -> str:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], str):
        raise Invalid(f"{tag}: one UID is needed")
    return values[0]


def _element(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}
