"""Search results: rows of the index and headers as DICOM JSON (PS3.18 §10.6.3, PS3.4 §C.6)."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from bfr_core.instances import Dataset, person_name_value
from bfr_core.retrieval import FoundInstance
from bfr_core.return_attributes import picked

INSTANCE_ATTRIBUTES = (
    "00080016",
    "00080018",
    "00080201",
    "00200013",
    "00280008",
    "00280010",
    "00280011",
    "00280100",
)

# What the index tells of each level, where an object has it.
STUDY_TAGS = frozenset(
    "00080005 00080020 00080030 00080050 00080056 00080061 00080080 00080090 00080201 00081030"
    " 00100010 00100020 00100021 00100030 00100040 0020000D 00200010 00201206 00201208".split()
)
SERIES_TAGS = frozenset(
    "00080005 00080056 00080060 0008103E 00180015 0020000D 0020000E 00200011 00201209 00400244"
    " 00400245 00400275".split()
)


def patient_dataset(row: Mapping[str, Any]) -> Dataset:
    """Return the patient attributes of a row as DICOM JSON."""
    return {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080056": _element("CS", "ONLINE"),
        "00100010": _element("PN", person_name_value(row["name"])),
        "00100020": _element("LO", row["patient_identifier"]),
        **({"00100021": _element("LO", row["issuer"])} if row["issuer"] else {}),
        "00100030": _element("DA", _date(row["birth_date"])),
        "00100040": _element("CS", row["sex"]),
    }


def patient_counts_dataset(studies: int, series: int, instances: int) -> Dataset:
    """Return how much an archive holds of a patient, as DICOM JSON."""
    return {
        "00201200": _element("IS", studies),
        "00201202": _element("IS", series),
        "00201204": _element("IS", instances),
    }


def study_dataset(row: Mapping[str, Any]) -> Dataset:
    """Return the patient and study attributes of a row as DICOM JSON, ordered by tag."""
    return {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080020": _element("DA", _date(row["study_date"])),
        "00080030": _element("TM", _time(row["study_time"])),
        "00080050": _element("SH", row["accession_number"]),
        "00080056": _element("CS", "ONLINE"),
        "00080061": {"vr": "CS", "Value": row["modalities"]} if row["modalities"] else {"vr": "CS"},
        "00080080": _element("LO", row["institution"]),
        "00080090": _element("PN", person_name_value(row["referring_physician"])),
        **({"00080201": _element("SH", row["timezone_offset"])} if row["timezone_offset"] else {}),
        "00081030": _element("LO", row["study_description"]),
        "00100010": _element("PN", person_name_value(row["name"])),
        "00100020": _element("LO", row["patient_identifier"]),
        **({"00100021": _element("LO", row["issuer"])} if row["issuer"] else {}),
        "00100030": _element("DA", _date(row["birth_date"])),
        "00100040": _element("CS", row["sex"]),
        "0020000D": _element("UI", row["study_instance_uid"]),
        "00200010": _element("SH", row["study_identifier"]),
        "00201206": _element("IS", row["number_of_series"]),
        "00201208": _element("IS", row["number_of_instances"]),
    }


def series_dataset(row: Mapping[str, Any]) -> Dataset:
    """Return the series attributes of a row as DICOM JSON."""
    result = {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080056": _element("CS", "ONLINE"),
        "00080060": _element("CS", row["modality"]),
        "0008103E": _element("LO", row["series_description"]),
        "00180015": _element("CS", row["body_part"]),
        "0020000D": _element("UI", row["study_instance_uid"]),
        "0020000E": _element("UI", row["series_instance_uid"]),
        "00200011": _element("IS", row["series_number"]),
        "00201209": _element("IS", row["number_of_series_instances"]),
    }
    if row["performed_date"] is not None:
        result["00400244"] = _element("DA", _date(row["performed_date"]))
    if row["performed_time"] is not None:
        result["00400245"] = _element("TM", _time(row["performed_time"]))
    if row["request_attributes"]:
        result["00400275"] = {"vr": "SQ", "Value": row["request_attributes"]}
    return result


def instance_dataset(
    found: FoundInstance, dataset: Dataset, includefield: Sequence[str]
) -> Dataset:
    """Return the attributes of an instance that an answer holds, from its header."""
    result: Dataset = {
        "00080005": _element("CS", "ISO_IR 192"),
        "00080056": _element("CS", "ONLINE"),
        "0020000D": _element("UI", found.study_instance_uid),
        "0020000E": _element("UI", found.series_instance_uid),
    }
    return result | picked(dataset, (*INSTANCE_ATTRIBUTES, *includefield))


def _element(vr: str, value: Any) -> dict[str, Any]:
    if value is None or value == "" or value == {}:
        return {"vr": vr}
    return {"vr": vr, "Value": [value]}


def _date(value: datetime.date | None) -> str:
    return "" if value is None else value.isoformat().replace("-", "")


def _time(value: datetime.time | None) -> str:
    if value is None:
        return ""
    return value.strftime("%H%M%S.%f" if value.microsecond else "%H%M%S")
