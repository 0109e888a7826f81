"""WADO-RS: a study as one ZIP file with a DICOMDIR that dcmtk and pydicom read."""

import contextlib
import io
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from pydicom import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from tests.conftest import need
from tests.dicomweb.conftest import Web
from tests.samples import ct_instance, ct_series, encapsulated_pdf, part10_bytes, sr_report
from tests.samples.images import new_uid

pytestmark = pytest.mark.asyncio(loop_scope="module")

ZIP = {"Accept": "application/zip"}
ROOTS = ("/dicomweb", "/archives/ARCHIVE/dicomweb")


def study_of_every_kind() -> list[Dataset]:
    """A study with two slices, a compressed one, a report and a scanned referral."""
    study = new_uid()
    return [
        *ct_series(2, StudyInstanceUID=study),
        ct_instance(transfer_syntax_uid=JPEG2000Lossless, StudyInstanceUID=study),
        sr_report(StudyInstanceUID=study),
        encapsulated_pdf(StudyInstanceUID=study),
    ]


async def stored(web: Web, datasets: Sequence[Dataset]) -> tuple[str, list[bytes]]:
    """Store the objects and return the path of their study and their bytes."""
    files = [part10_bytes(one) for one in datasets]
    answer = await web.stow(*files)
    assert answer.status_code == 200, answer.text
    return f"/studies/{datasets[0].StudyInstanceUID}", files


def unpacked(answer: httpx.Response, folder: Path) -> Path:
    """The folder into which unzip has put the answer, whose sums it has checked."""
    assert answer.status_code == 200, answer.text
    folder.mkdir()
    (folder.parent / "answer.zip").write_bytes(answer.content)
    run(need("unzip"), "-q", "-d", str(folder), str(folder.parent / "answer.zip"))
    return folder


@contextlib.contextmanager
def file_set(folder: Path) -> Iterator[FileSet]:
    """The file-set as pydicom reads it."""
    files = FileSet(folder / "DICOMDIR")
    yield files
    files._stage["t"].cleanup()  # it leaves that to the end of the process, with a warning


def run(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
    return done.stdout.decode("latin-1")


@pytest.mark.conforms(
    "PS3.18 §10.4.1.1.1", "application/zip holds the objects as stored, beside a DICOMDIR"
)
@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("sealed", [False, True])
async def test_a_study_comes_as_a_zip_of_its_files(web: Web, root: str, sealed: bool) -> None:
    study, files = await stored(web, study_of_every_kind())
    if sealed:
        await web.seal()
    answer = await web.client.get(root + study, headers=ZIP)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="DICOM.ZIP"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        first, *names = archive.namelist()
        assert first == "DICOMDIR"
        assert sorted(archive.read(name) for name in names) == sorted(files)
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.flag_bits for info in archive.infolist()} == {0}


@pytest.mark.conforms("PS3.10 §8.6", "The DICOMDIR tells of each object under the right record")
async def test_pydicom_finds_every_object_through_the_dicomdir(web: Web, tmp_path: Path) -> None:
    datasets = study_of_every_kind()
    study, _ = await stored(web, datasets)
    folder = unpacked(await web.client.get(ROOTS[0] + study, headers=ZIP), tmp_path / "set")
    with file_set(folder) as files:
        assert {one.SOPInstanceUID for one in files} == {one.SOPInstanceUID for one in datasets}
        assert {one.load().SOPInstanceUID for one in files} == {
            one.SOPInstanceUID for one in datasets
        }
        types = {one.SOPInstanceUID: one.node.record_type for one in files}
        assert [types[one.SOPInstanceUID] for one in datasets] == [
            "IMAGE", "IMAGE", "IMAGE", "SR DOCUMENT", "ENCAP DOC",
        ]  # fmt: skip
        (patient,) = files.find_values("PatientName")
        assert patient == "Testsson^Åsa"
        syntaxes = {one.SOPInstanceUID: one.ReferencedTransferSyntaxUIDInFile for one in files}
        assert syntaxes[datasets[2].SOPInstanceUID] == JPEG2000Lossless


@pytest.mark.conforms("PS3.10 §8.2", "File IDs have components of eight characters")
async def test_dcmtk_reads_the_dicomdir_and_adds_to_it(web: Web, tmp_path: Path) -> None:
    datasets = study_of_every_kind()
    study, _ = await stored(web, datasets)
    folder = unpacked(await web.client.get(ROOTS[0] + study, headers=ZIP), tmp_path / "set")
    assert run(need("dcmftest"), str(folder / "DICOMDIR")).startswith("yes:")
    dump = run(need("dcmdump"), str(folder / "DICOMDIR"))
    for one in datasets:
        assert f"[{one.SOPInstanceUID}]" in dump
    for level in ("PATIENT", "STUDY"):
        assert dump.count(f"[{level}]") == 1
    assert dump.count("[SERIES]") == 4
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert all(len(part) <= 8 for path in paths for part in path.parts)
    # dcmmkdir checks what it is to add to: every record, every offset, every file.
    other = folder / "OTHER"
    other.write_bytes(part10_bytes(ct_instance()))
    said = run(
        need("dcmmkdir"), "--append", "--input-directory", str(folder),
        "--output-file", str(folder / "DICOMDIR"), "OTHER",
    )  # fmt: skip
    assert said == ""
    with file_set(folder) as both:
        assert len(both) == len(datasets) + 1


async def test_series_and_instances_come_as_zip_too(web: Web) -> None:
    datasets = study_of_every_kind()
    study, files = await stored(web, datasets)
    series = f"{study}/series/{datasets[0].SeriesInstanceUID}"
    instance = f"{series}/instances/{datasets[1].SOPInstanceUID}"
    for path, expected in ((series, files[:2]), (instance, files[1:2])):
        answer = await web.client.get(ROOTS[1] + path, headers=ZIP)
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert [archive.read(name) for name in archive.namelist()[1:]] == expected


@pytest.mark.conforms("PS3.18 §8.7.8.1", "A zip in another transfer syntax than stored is a 406")
async def test_what_is_asked_for_decides_about_zip(web: Web) -> None:
    study, _ = await stored(web, study_of_every_kind())

    async def asked(accept: str) -> tuple[int, str]:
        answer = await web.client.get(ROOTS[0] + study, headers={"Accept": accept})
        return answer.status_code, answer.headers["content-type"].partition(";")[0]

    assert await asked("application/zip; transfer-syntax=*") == (200, "application/zip")
    assert await asked("application/zip, text/html;q=0.9") == (200, "application/zip")
    assert await asked("*/*") == (200, "multipart/related")
    assert (await asked(f"application/zip; transfer-syntax={ExplicitVRLittleEndian}"))[0] == 406
    assert (await asked("application/zip; q=0"))[0] == 406
    answer = await web.client.get(f"{ROOTS[0]}{study}?accept=application/zip")
    assert answer.headers["content-type"] == "application/zip"
    assert (await web.client.get(f"{ROOTS[0]}/studies/1.2.3", headers=ZIP)).status_code == 404


async def test_bytes_that_are_missing_or_damaged_break_the_answer_off(web: Web) -> None:
    study = new_uid()
    datasets = [ct_instance(rows=1024, columns=1024, StudyInstanceUID=study) for _ in range(6)]
    for dataset in datasets:  # a series and so a pack each
        await stored(web, [dataset])
    *_, last = sorted(web.packs(), key=lambda path: path.stat().st_mtime_ns)
    whole = last.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        last.write_bytes(damaged)
        with pytest.raises(httpx.RemoteProtocolError):
            await web.client.get(f"{ROOTS[0]}/studies/{study}", headers=ZIP)
    for path in web.packs():
        path.unlink()
    answer = await web.client.get(f"{ROOTS[0]}/studies/{study}", headers=ZIP)
    assert answer.status_code == 503
