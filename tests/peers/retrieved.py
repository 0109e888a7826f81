"""What comes out of an archive through WADO-RS (PS3.18 §10.4), as bytes."""

import io
from collections.abc import Sequence
from pathlib import Path

import httpx
import pydicom

ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
META_START = 132 + 12  # preamble, "DICM", and the element that tells the length of the rest


def retrieve_study(root: str, study_instance_uid: str) -> dict[str, bytes]:
    """Return the Part 10 files of a study by SOP Instance UID."""
    answer = httpx.get(
        f"{root}/studies/{study_instance_uid}", headers={"Accept": ACCEPT}, timeout=120
    )
    assert answer.status_code == 200, answer.text[:300]
    boundary = answer.headers["Content-Type"].rpartition("boundary=")[2].strip('"').encode()
    found = {}
    for part in answer.content.split(b"\r\n--" + boundary):
        data = part.partition(b"\r\n\r\n")[2]
        if data:
            found[sop_instance_uid_of(data)] = data
    return found


def sop_instance_uid_of(part10: bytes) -> str:
    """Return what the data set of a Part 10 file calls itself."""
    return _uid_in(io.BytesIO(part10), "SOPInstanceUID")


def dataset_of(part10: bytes) -> bytes:
    """Return the data set of a Part 10 file: all after the File Meta Information (PS3.10 §7.1)."""
    assert part10[128:132] == b"DICM"
    return part10[META_START + int.from_bytes(part10[140:144], "little") :]


def files_below(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder and its folders."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and is_part10(path)]


def is_part10(path: Path) -> bool:
    """Return whether a file begins as Part 10 says."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def studies_of(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return files by Study Instance UID, without those that name no study."""
    studies: dict[str, list[Path]] = {}
    for path in files:
        uid = _uid_in(path, "StudyInstanceUID")
        if uid:
            studies.setdefault(uid, []).append(path)
    return studies


def _uid_in(file: Path | io.BytesIO, keyword: str) -> str:
    """Return a UID as it stands in the file, also one that breaks a rule; empty when missing."""
    element = pydicom.dcmread(file, specific_tags=[keyword]).get_item(keyword)
    return "" if element is None else bytes(element.value or b"").rstrip(b"\0 ").decode()
