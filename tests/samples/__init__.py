"""Samples: small DICOM objects with a story, built by code, each in any transfer syntax.

Every call makes a new object of a new study, unless the UIDs are given by keyword.
"""

from tests.samples.documents import encapsulated_pdf, rejection_note, sr_report
from tests.samples.encoding import (
    TRANSFER_SYNTAXES,
    dataset_bytes,
    decoded_frames,
    encoded,
    part10_bytes,
)
from tests.samples.images import (
    ct_instance,
    ct_series,
    dx_instance,
    mr_instance,
    secondary_capture,
    us_multiframe,
)

__all__ = [
    "TRANSFER_SYNTAXES",
    "ct_instance",
    "ct_series",
    "dataset_bytes",
    "decoded_frames",
    "dx_instance",
    "encapsulated_pdf",
    "encoded",
    "mr_instance",
    "part10_bytes",
    "rejection_note",
    "secondary_capture",
    "sr_report",
    "us_multiframe",
]
