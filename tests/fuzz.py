"""Fuzzing with coverage: `python -m tests.fuzz TARGET --seconds N` feeds a reader what breaks it.

A reader may answer any bytes with Invalid. Anything else that it raises is a fault: the bytes are
then in a file `crash-…`, and belong into the tests of the reader when it is mended.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["bfr_core", "bfr_dicomweb"]):
    from bfr_core.composing import compose
    from bfr_core.errors import ArchiveError
    from bfr_core.header import HeaderLimits, read_header
    from bfr_core.part10 import part10_prefix
    from bfr_core.settings import Settings
    from bfr_dicomweb.dicom_xml import read_xml
    from bfr_dicomweb.media_types import parse_accept
    from bfr_dicomweb.multipart import PartReader
    from bfr_dicomweb.stow_metadata import MetadataBody

LIMITS = HeaderLimits(header_max_bytes=1 << 20, max_elements=10_000, inflated_max_bytes=1 << 20)
PREFIX = part10_prefix(
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    sop_class_uid="1.2.3",
    sop_instance_uid="1.2.3.4",
    source_ae_title="",
)


def multipart(data: bytes) -> None:
    """A body in two pieces, cut where the first byte says."""
    reader = PartReader("x")
    cut = data[0] if data else 0
    for piece in (data[1 : 1 + cut], data[1 + cut :]):
        reader.feed(piece)
    reader.close()


def header(data: bytes) -> None:
    """A data set behind a header of ours, or a file of the fuzzer's own."""
    read_header(PREFIX + data[1:] if data[:1] < b"\x80" else data[1:], LIMITS)


def xml(data: bytes) -> None:
    """A data set in the Native DICOM Model."""
    read_xml(data, 8)


def metadata(data: bytes) -> None:
    """Metadata in JSON, made into an object."""
    body = MetadataBody(Settings(), "http://localhost/")
    body.add_metadata(1, data, "application/dicom+json")
    for _, dataset in body.datasets:
        list(compose(dataset, lambda _: None, lambda *_: iter(()), 8, 1000))


def accept(data: bytes) -> None:
    """An Accept header field."""
    parse_accept(data.decode("latin-1"))


XML = (
    b'<?xml version="1.0"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/'
    b'NativeDICOM"><DicomAttribute tag="00100010" vr="PN" keyword="PatientName"><PersonName'
    b' number="1"><Alphabetic><FamilyName>A</FamilyName></Alphabetic></PersonName>'
    b'</DicomAttribute><DicomAttribute tag="00400275" vr="SQ"><Item number="1">'
    b'<DicomAttribute tag="00280010" vr="US"><Value number="1">5</Value></DicomAttribute>'
    b"</Item></DicomAttribute></NativeDicomModel>"
)
JSON = (
    b'[{"00080016":{"vr":"UI","Value":["1.2"]},"00080018":{"vr":"UI","Value":["1.3"]},'
    b'"00100010":{"vr":"PN","Value":[{"Alphabetic":"A^B"}]},"00280010":{"vr":"US","Value":[5]},'
    b'"00400275":{"vr":"SQ","Value":[{"00401001":{"vr":"SH","Value":["x"]}}]},'
    b'"7FE00010":{"vr":"OW","InlineBinary":"AAAA"}}]'
)
# Something good of each kind: by chance nothing gets past its first bytes.
SEEDS = {
    "multipart": b"\x10--x\r\nContent-Type: application/dicom\r\n\r\nabc\r\n--x--\r\n",
    "header": b"\x00\x08\x00\x60\x00CS\x02\x00CT\x10\x00\x10\x00PN\x02\x00AB",
    "xml": XML,
    "metadata": JSON,
    "accept": b'multipart/related; type="application/dicom"; transfer-syntax=*;q=0.5, */*',
}
TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (multipart, header, xml, metadata, accept)
}


def main() -> None:
    """Feed one reader until the time is over or something breaks."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    arguments = parser.parse_args()
    read = TARGETS[arguments.target]

    def feed(data: bytes) -> None:
        try:
            read(data)
        except ArchiveError:
            pass

    with tempfile.TemporaryDirectory() as corpus:
        (Path(corpus) / "seed").write_bytes(SEEDS[arguments.target])
        options = [f"-max_total_time={arguments.seconds}", "-max_len=4096", "-timeout=20"]
        atheris.Setup([sys.argv[0], *options, corpus], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
