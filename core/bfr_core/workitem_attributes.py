"""The attributes of a workitem: what must, may and may not be sent (PS3.4 table CC.2.5-3)."""

import datetime
from collections.abc import Iterable, Mapping

from pydicom.datadict import keyword_for_tag

from bfr_core.errors import Invalid
from bfr_core.instances import Dataset
from bfr_core.json_model import first_value, items_of
from bfr_core.workitem_states import State

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"  # the SOP class of every workitem

SOP_CLASS_UID = "00080016"
SOP_INSTANCE_UID = "00080018"
TRANSACTION_UID = "00081195"
PROCEDURE_STEP_STATE = "00741000"
PRIORITY = "00741200"
WORKLIST_LABEL = "00741202"
LABEL = "00741204"
START_DATETIME = "00404005"
MODIFICATION_DATETIME = "00404010"
INPUT_READINESS_STATE = "00404041"
PROGRESS_INFORMATION = "00741002"
PERFORMED_PROCEDURE = "00741216"
STATION_NAME_CODE = "00404025"
HUMAN_PERFORMERS = "00404034"
REFERENCED_REQUEST = "0040A370"
CANCELLATION_DATETIME = "00404052"
DISCONTINUATION_REASON_CODE = "0074100E"
REASON_FOR_CANCELLATION = "00741238"
CONTACT_URI = "0074100A"
CONTACT_DISPLAY_NAME = "0074100C"
OUTPUT_INFORMATION = "00404033"

# N-CREATE: type 1, and type 2, which may be empty but not left out. Patient ID, Study Instance
# UID, Scheduled Human Performers and Replaced Procedure Step depend on what only the sender knows.
CREATE_VALUED = (PROCEDURE_STEP_STATE, PRIORITY, LABEL, START_DATETIME, INPUT_READINESS_STATE)
CREATE_PRESENT = (
    WORKLIST_LABEL,
    "00741210",  # Scheduled Processing Parameters Sequence
    STATION_NAME_CODE,
    "00404026",  # Scheduled Station Class Code Sequence
    "00404027",  # Scheduled Station Geographic Location Code Sequence
    "00404018",  # Scheduled Workitem Code Sequence
    "00400400",  # Comments on the Scheduled Procedure Step
    "00404021",  # Input Information Sequence
    "00100010",
    "00101002",  # Other Patient IDs Sequence
    "00100030",
    "00100040",
    "00380010",  # Admission ID
    "00380014",  # Issuer of Admission ID Sequence
    "00081080",  # Admitting Diagnoses Description
    "00081084",  # Admitting Diagnoses Code Sequence
    REFERENCED_REQUEST,
    PROGRESS_INFORMATION,
    PERFORMED_PROCEDURE,
)
CREATE_EMPTY = (TRANSACTION_UID, PROGRESS_INFORMATION, PERFORMED_PROCEDURE)
ITEMS_VALUED: Mapping[str, tuple[str, ...]] = {
    HUMAN_PERFORMERS: ("00404009", "00404037", "00404036"),
    REFERENCED_REQUEST: ("0020000D",),
    "00101002": ("00100020",),
}
ITEMS_PRESENT: Mapping[str, tuple[str, ...]] = {
    REFERENCED_REQUEST: (
        "00080050",
        "00080051",
        "00400026",
        "00400027",
        "00401001",
        "00321060",
        "00321064",
    ),
}
# N-SET: not allowed.
UPDATE_FORBIDDEN = (
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    PROCEDURE_STEP_STATE,
    "00100010",
    "00100020",
    "00100030",
    "00100040",
    "00380010",
    "00380014",
    "00081080",
    "00081084",
    REFERENCED_REQUEST,
    "00741224",  # Replaced Procedure Step Sequence
)
# What no state may be without (Final State R, N-CREATE type 1).
NEVER_EMPTY = (PRIORITY, LABEL, START_DATETIME, INPUT_READINESS_STATE)
ENUMERATED: Mapping[str, tuple[str, ...]] = {
    PRIORITY: ("HIGH", "MEDIUM", "LOW"),
    INPUT_READINESS_STATE: ("INCOMPLETE", "UNAVAILABLE", "READY"),
}
CANCEL_REQUEST = frozenset(
    {REASON_FOR_CANCELLATION, DISCONTINUATION_REASON_CODE, CONTACT_URI, CONTACT_DISPLAY_NAME}
)
# Final State P: of each performed procedure. The output may be none, but has to be told.
PERFORMED_VALUED = ("00404028", "00404050", "00404019", "00404051")

# Return key types 1 and 2 of C-FIND.
RETURNED = frozenset(
    "00080005 00080016 00080018 00741200 00741204 00741202 00741210 00404025 00404026 00404027"
    " 00404034 00404005 00404018 00404041 00404021 0020000D 00100010 00100020 00101002 00100030"
    " 00100040 00380010 00380014 00081080 00081084 0040A370 00102000 001021C0 00380050 00741000"
    " 00741002".split()
)

UNSPECIFIED_REASON: Dataset = {
    "00080100": {"vr": "SH", "Value": ["110513"]},
    "00080102": {"vr": "SH", "Value": ["DCM"]},
    "00080104": {"vr": "LO", "Value": ["Discontinued for unspecified reason"]},
}


def check_create(dataset: Dataset) -> None:
    """Raise Invalid naming the attribute that a new workitem lacks or may not have."""
    for tag in CREATE_VALUED:
        if first_value(dataset, tag) is None:
            raise Invalid(f"{_name(tag)} is required with a value")
    for tag in CREATE_PRESENT:
        if tag not in dataset:
            raise Invalid(f"{_name(tag)} is required; it may be empty")
    for tag in CREATE_EMPTY:
        if dataset.get(tag, {}).get("Value"):
            raise Invalid(f"{_name(tag)} is empty in a new workitem")
    if first_value(dataset, PROCEDURE_STEP_STATE) != "SCHEDULED":
        raise Invalid(f"{_name(PROCEDURE_STEP_STATE)} of a new workitem is SCHEDULED")
    if first_value(dataset, SOP_CLASS_UID) not in (None, UPS_PUSH):
        raise Invalid(f"{_name(SOP_CLASS_UID)} of a workitem is {UPS_PUSH}")
    _check_common(dataset)


def check_update(dataset: Dataset) -> None:
    """Raise Invalid naming the attribute that an update may not change in this way."""
    for tag in UPDATE_FORBIDDEN:
        if tag in dataset:
            raise Invalid(f"{_name(tag)} cannot be updated")
    for tag in NEVER_EMPTY:
        if tag in dataset and first_value(dataset, tag) is None:
            raise Invalid(f"{_name(tag)} is required with a value")
    _check_common(dataset)


def check_cancel_request(dataset: Dataset) -> None:
    """Raise Invalid naming what is no part of a cancellation request (table CC.2.2-1)."""
    for tag in dataset:
        if tag not in CANCEL_REQUEST | {"00080005"}:
            raise Invalid(f"{_name(tag)} is no part of a cancellation request")
    _check_code_items(dataset)


def final_state_problem(dataset: Dataset, state: State) -> str | None:
    """Return what keeps the workitem from the final state (§CC.2.5.1.1); None when nothing does."""
    if state == "COMPLETED":
        performed = items_of(dataset, PERFORMED_PROCEDURE)
        if not performed:
            return f"{_name(PERFORMED_PROCEDURE)} has no value"
        for item in performed:
            for tag in PERFORMED_VALUED:
                if first_value(item, tag) is None:
                    return f"{_name(PERFORMED_PROCEDURE)}: {_name(tag)} has no value"
            if OUTPUT_INFORMATION not in item:
                return f"{_name(PERFORMED_PROCEDURE)}: {_name(OUTPUT_INFORMATION)} is not there"
    if state == "CANCELED":
        progress = items_of(dataset, PROGRESS_INFORMATION)
        if not progress or first_value(progress[0], DISCONTINUATION_REASON_CODE) is None:
            return f"{_name(PROGRESS_INFORMATION)}: {_name(DISCONTINUATION_REASON_CODE)} is missing"
    return None


def with_cancellation(
    dataset: Dataset, now: datetime.datetime, request: Dataset | None = None
) -> Dataset:
    """Return the data set with what the archive fills in when a workitem is cancelled.

    The time, if nobody has told it; and, when the archive itself cancels on a request, the reason
    of the request or that there is none.
    """
    items = items_of(dataset, PROGRESS_INFORMATION)
    first = dict(items[0]) if items else {}
    if first_value(first, CANCELLATION_DATETIME) is None:
        first[CANCELLATION_DATETIME] = {"vr": "DT", "Value": [date_time(now)]}
    if request is not None:
        for tag in (REASON_FOR_CANCELLATION, DISCONTINUATION_REASON_CODE):
            if first_value(request, tag) is not None:
                first[tag] = request[tag]
        if first_value(first, DISCONTINUATION_REASON_CODE) is None:
            first[DISCONTINUATION_REASON_CODE] = {"vr": "SQ", "Value": [UNSPECIFIED_REASON]}
        contact = {
            tag: request[tag]
            for tag in (CONTACT_URI, CONTACT_DISPLAY_NAME)
            if first_value(request, tag) is not None
        }
        if CONTACT_URI in contact:
            first["00741008"] = {"vr": "SQ", "Value": [contact]}
    changed = {"vr": "SQ", "Value": [dict(sorted(first.items())), *items[1:]]}
    return {**dataset, PROGRESS_INFORMATION: changed}


def date_time(moment: datetime.datetime) -> str:
    """Return a DT value in UTC (PS3.5 §6.2)."""
    return moment.astimezone(datetime.UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def _check_common(dataset: Dataset) -> None:
    for tag in dataset:
        if tag.startswith(("0000", "0002")):
            raise Invalid(f"{_name(tag)} is no attribute of a data set")
    for tag, values in ENUMERATED.items():
        value = first_value(dataset, tag)
        if tag in dataset and value not in values:
            raise Invalid(f"{_name(tag)} is {', '.join(values)}, not {str(value)[:64]!r}")
    for sequence, tags in ITEMS_VALUED.items():
        for item in items_of(dataset, sequence):
            for tag in tags:
                if first_value(item, tag) is None:
                    raise Invalid(f"{_name(sequence)}: {_name(tag)} is required with a value")
    for sequence, tags in ITEMS_PRESENT.items():
        for item in items_of(dataset, sequence):
            for tag in tags:
                if tag not in item:
                    raise Invalid(f"{_name(sequence)}: {_name(tag)} is required; it may be empty")
    _check_code_items(dataset)


def _check_code_items(dataset: Dataset) -> None:
    """Check the items of code sequences, at every depth (tables CC.2.5-2a and 8.8-1)."""
    for tag, item in _items(dataset):
        if keyword_for_tag(int(tag, 16)).endswith("CodeSequence"):
            codes = ("00080100", "00080119", "00080120")
            if all(first_value(item, code) is None for code in codes):
                raise Invalid(f"{_name(tag)}: an item has no code")
            if first_value(item, "00080104") is None:
                raise Invalid(f"{_name(tag)}: {_name('00080104')} is required with a value")


def _items(dataset: Dataset) -> Iterable[tuple[str, Dataset]]:
    for tag, element in dataset.items():
        if element["vr"] == "SQ":
            for item in element.get("Value", []):
                yield tag, item
                yield from _items(item)


def _name(tag: str) -> str:
    keyword = keyword_for_tag(int(tag, 16))
    return f"{keyword} ({tag})" if keyword else tag
