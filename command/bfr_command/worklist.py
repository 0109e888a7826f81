"""The modality worklist from the command line: what a RIS would feed."""

import argparse
import json
from pathlib import Path
from typing import Any

from bfr_command.database_session import command_store, this_operator
from bfr_core import connections, service_requests
from bfr_core.errors import Invalid
from bfr_core.instances import Dataset, person_name_value, text
from bfr_core.settings import Settings

KEYS: Dataset = {
    "00080050": {"vr": "SH"},
    "00100020": {"vr": "LO"},
    service_requests.STEPS: {"vr": "SQ"},
}


async def add(settings: Settings, arguments: argparse.Namespace) -> int:
    """Add the items of files, or the one that the options describe."""
    items = [item for path in arguments.files for item in _read(path)]
    if not arguments.files:
        items = [_described(arguments)]
    async with command_store(settings) as store, store.database.transaction() as tx:
        access = this_operator()
        archive = await connections.find_archive(tx, access, arguments.archive)
        for item in items:
            await service_requests.put_examination(tx, access, archive.archive_id, item)
    print(f"{len(items)} in the worklist of {archive.ae_title}")
    return 0


async def show(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print the worklist, one item a line: day, time, station, modality, accession, status."""
    async with command_store(settings) as store:
        access = this_operator()
        async with store.database.transaction() as tx:
            archive = await connections.find_archive(tx, access, arguments.archive)
        for item in await service_requests.search_worklist(
            store, access, archive.archive_id, KEYS, settings.dimse_find_matches_max
        ):
            [step] = item[service_requests.STEPS]["Value"]
            tags = ("00400002", "00400003", "00400001", "00080060")
            columns = [*(text(step, tag) for tag in tags), text(item, "00080050")]
            print("\t".join([*columns, text(step, service_requests.STEP_STATUS)]))
    return 0


def _read(path: Path) -> list[Dataset]:
    """Return the items of a file: one data set of DICOM JSON or a list of them."""
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise Invalid(f"{path} is no JSON") from error
    items = found if isinstance(found, list) else [found]
    if not all(_is_dataset(item) for item in items):
        raise Invalid(f"{path} holds no data set of DICOM JSON (PS3.18 Annex F)")
    return items


def _is_dataset(item: object) -> bool:
    return isinstance(item, dict) and all(
        isinstance(one, dict) and isinstance(one.get("vr"), str) for one in item.values()
    )


def _described(arguments: argparse.Namespace) -> Dataset:
    missing = [
        f"--{name.replace('_', '-')}"
        for name in ("accession", "patient_id", "patient_name", "station", "modality", "date")
        if not getattr(arguments, name)
    ]
    if missing:
        raise Invalid(f"without a file the item needs {', '.join(missing)}")
    procedure = arguments.description
    step = {
        "00080060": _element("CS", arguments.modality),
        "00400001": _element("AE", arguments.station),
        "00400002": _element("DA", arguments.date),
        "00400003": _element("TM", arguments.time),
        "00400006": {"vr": "PN"},
        "00400007": _element("LO", procedure),
        "00400009": _element("SH", arguments.accession),
    }
    return {
        "00080050": _element("SH", arguments.accession),
        "00080090": {"vr": "PN"},
        "00100010": {"vr": "PN", "Value": [person_name_value(arguments.patient_name)]},
        "00100020": _element("LO", arguments.patient_id),
        "00100030": _element("DA", arguments.birth_date),
        "00100040": _element("CS", arguments.sex),
        "00321060": _element("LO", procedure),
        "00401001": _element("SH", arguments.accession),
        service_requests.STEPS: {"vr": "SQ", "Value": [step]},
    }


def _element(vr: str, value: str) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]} if value else {"vr": vr}
