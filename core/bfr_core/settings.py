"""Settings: what is fixed while a process runs, read once from the environment (`BFR_<NAME>`).

What an operator changes while the system runs (connections, nodes, archives) are rows with an
audit trail, not settings.
"""

import dataclasses
import math
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from bfr_core.bucket_address import read_bucket_address
from bfr_core.errors import Invalid

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting with its default; the unit is the last word of its name."""

    data_dir: Annotated[Path, "Folder of the embedded database, packs and demo files"] = Path("var")
    database_url: Annotated[
        str, "PostgreSQL (15 or later) for the roles; empty: the embedded one in data_dir"
    ] = ""
    database_owner_url: Annotated[
        str, "The same database as the owner of its tables, for `bfr migrate`; empty: database_url"
    ] = ""
    database_connections: Annotated[int, "Connections that each process keeps at the most"] = 8
    postgres_bin_dir: Annotated[
        str, "Folder with postgres and initdb for the embedded database; empty: the packaged ones"
    ] = ""
    postgres_shared_buffers_bytes: Annotated[int, "Shared buffers of the embedded database"] = (
        256 * MIB
    )

    roles: Annotated[tuple[str, ...], "Roles that `bfr up` runs and that /readyz waits for"] = (
        "web",
        "dimse",
        "worker",
    )
    stop_timeout_s: Annotated[float, "How long a role may take to end what it has begun"] = 15.0

    http_host: Annotated[str, "Address that the web role listens on"] = "127.0.0.1"
    http_port: Annotated[int, "Port of DICOMweb and the portals; 0: any free port"] = 8080
    web_processes: Annotated[
        int, "Processes of the web role that `bfr up` runs on one port; try one for two cores"
    ] = 1
    request_body_max_bytes: Annotated[int, "Largest body of one request"] = 16 * GIB
    request_parts_max: Annotated[int, "Most parts in one multipart request"] = 100_000
    search_results_max: Annotated[
        int, "Most results of one search answer; a client pages with offset"
    ] = 1000
    search_headers_max: Annotated[
        int, "The same where attributes are asked for that are read from the objects' headers"
    ] = 100
    search_parameters_max: Annotated[int, "Most parameters of one search"] = 1000
    search_counted_max: Annotated[
        int, "Most results that are counted; a count says when there are more"
    ] = 10_000

    dimse_host: Annotated[str, "Address that the dimse role listens on"] = "127.0.0.1"
    dimse_port: Annotated[int, "Port of the dimse role; 0: any free port"] = 11112
    dimse_max_pdu_bytes: Annotated[int, "Largest PDU that peers are told to send"] = 131_072
    dimse_max_associations: Annotated[int, "Associations at the same time"] = 50
    dimse_idle_timeout_s: Annotated[float, "Silence after which an association is aborted"] = 60.0
    dimse_processes: Annotated[
        int, "Processes of the dimse role that `bfr up` runs on one port"
    ] = 1
    dimse_tls_port: Annotated[
        int, "Port of DIMSE over TLS, where a certificate is set; 0: any free port"
    ] = 2762
    dimse_tls_certificate_file: Annotated[
        str, "Our certificate with its chain, PEM, read again when it changes; empty: no TLS"
    ] = ""
    dimse_tls_key_file: Annotated[
        str, "Private key of the certificate, PEM; empty: it is in the same file"
    ] = ""
    dimse_tls_ca_file: Annotated[
        str, "Authorities that sign the certificates of nodes, PEM; needed with a certificate"
    ] = ""
    dimse_private_storage_sop_classes: Annotated[
        tuple[str, ...],
        "Private SOP classes that are stored: UIDs, and roots that end with a dot; *: all",
    ] = ("*",)
    worklist_statuses: Annotated[
        tuple[str, ...],
        "Examinations in the modality worklist, by Scheduled Procedure Step Status (0040,0020)",
    ] = ("SCHEDULED", "ARRIVED", "READY", "STARTED")
    dimse_find_matches_max: Annotated[
        int, "Most matches of one C-FIND; when there are more, it ends with out of resources"
    ] = 10_000

    object_memory_bytes: Annotated[
        int, "An arriving object is kept in memory up to this size, then written as it comes"
    ] = 4 * MIB
    object_max_bytes: Annotated[int, "Largest object accepted"] = 8 * GIB
    header_max_bytes: Annotated[int, "Largest header (everything but pixel data)"] = 64 * MIB
    metadata_max_bytes: Annotated[
        int, "Largest metadata part of a request that stores objects as JSON or XML"
    ] = 64 * MIB
    header_max_depth: Annotated[int, "Deepest nesting of sequences"] = 32
    header_max_elements: Annotated[int, "Most data elements in one header"] = 1_000_000
    inline_binary_max_bytes: Annotated[
        int, "Longer binary values are bulk data with a URI of their own"
    ] = 1024
    animation_max_frames: Annotated[int, "Most frames of a rendered GIF or video"] = 500
    thumbnail_pixels: Annotated[int, "Width and height of the box of a thumbnail"] = 256
    transcoded_max_bytes: Annotated[
        int, "Largest object that DICOMweb sends in another transfer syntax than it is stored in"
    ] = 512 * MIB
    inflated_max_bytes: Annotated[int, "Largest deflated data set after inflation"] = 1 * GIB

    pack_max_bytes: Annotated[int, "A pack is closed when it has grown to this size"] = 1 * GIB
    free_space_min_bytes: Annotated[
        int, "Reception is refused when the disk has less room than this"
    ] = 512 * MIB
    bucket_url: Annotated[
        str,
        "S3-compatible store that packs go on to: s3://BUCKET/PREFIX?endpoint=https://HOST;"
        " empty: they stay in data_dir",
    ] = ""
    second_bucket_url: Annotated[str, "A second copy of everything, in another data centre"] = ""
    spool_max_bytes: Annotated[
        int,
        "Room for packs in data_dir when there is a bucket: reception is refused above it;"
        " 0: as much as the disk has",
    ] = 0
    seal_quiet_s: Annotated[
        float, "A series is sealed when nothing has arrived for it for this long"
    ] = 10.0
    manifest_cache_bytes: Annotated[
        int, "Memory of each process for manifests of sealed series that were read last"
    ] = 256 * MIB
    deleted_keep_days: Annotated[
        int, "Days before the bytes of deleted objects leave the packs (PDL 3:17: ten years)"
    ] = 3660
    orphan_keep_hours: Annotated[
        int, "Age at which a pack or manifest that nothing refers to is swept away"
    ] = 24
    verify_bytes_per_s: Annotated[
        int, "Stored bytes that the worker checks against their digests; 0: none"
    ] = 8 * MIB
    audit_coalesce_s: Annotated[
        float, "Reads of one series by one caller within this time are one access in the audit"
    ] = 60.0

    workitem_max_bytes: Annotated[int, "Largest body of a worklist request"] = 1 * MIB
    workitem_keep_days: Annotated[
        int, "A final workitem without a deletion lock is deleted after this time"
    ] = 400
    workitem_report_keep_hours: Annotated[
        int, "An event report waits this long for its receiver to connect"
    ] = 72
    workitem_channels_max: Annotated[
        int, "Event channels (WebSocket) that each web process keeps at the same time"
    ] = 200

    pixel_processes: Annotated[
        int, "Processes that decode and render frames, shared by those of the web role"
    ] = 2
    rendered_max_pixels: Annotated[int, "Largest frame that is rendered, in pixels"] = 100_000_000
    log_level: Annotated[str, "debug, info, warning or error"] = "info"
    log_format: Annotated[str, "text, or json: one object a line"] = "text"
    observe_host: Annotated[
        str, "Address of observe_port; whoever reaches it may read figures, never data of persons"
    ] = "127.0.0.1"
    observe_port: Annotated[
        int, "Port on which every role answers /metrics, /healthz and /readyz; 0: none"
    ] = 0
    traces_endpoint: Annotated[
        str, "OTLP/HTTP address that traces are sent to (http://…/v1/traces); empty: no traces"
    ] = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Return the settings that the environment gives, defaults for the rest.

        Raises Invalid naming a variable that is unknown or whose value cannot be used.
        """
        environment = os.environ if environment is None else environment
        fields = {f"BFR_{f.name.upper()}": f for f in dataclasses.fields(cls)}
        values: dict[str, typing.Any] = {}
        types = typing.get_type_hints(cls)
        for name, text in environment.items():
            if not name.startswith("BFR_") or name in NOT_SETTINGS:
                continue
            if name not in fields:
                raise Invalid(f"{name} is no setting of BFR")
            field = fields[name].name
            try:
                values[field] = _checked(field, _read(text, types[field]))
            except ValueError as error:
                raise Invalid(f"{name}: {error}") from error
        settings = cls(**values)
        if settings.database_owner_url and not settings.database_url:
            raise Invalid("BFR_DATABASE_OWNER_URL is given without BFR_DATABASE_URL")
        if settings.second_bucket_url and not settings.bucket_url:
            raise Invalid("BFR_SECOND_BUCKET_URL is given without BFR_BUCKET_URL")
        if settings.bucket_url and settings.bucket_url == settings.second_bucket_url:
            raise Invalid("BFR_BUCKET_URL and BFR_SECOND_BUCKET_URL name the same bucket")
        if settings.dimse_tls_certificate_file and not settings.dimse_tls_ca_file:
            raise Invalid("BFR_DIMSE_TLS_CERTIFICATE_FILE is given without BFR_DIMSE_TLS_CA_FILE")
        return settings

    def to_environment(self) -> dict[str, str]:
        """Return the variables that give a child process these same settings."""
        result = {}
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            result[f"BFR_{f.name.upper()}"] = (
                ",".join(value) if isinstance(value, tuple) else str(value)
            )
        return result

    @property
    def run_dir(self) -> Path:
        """The folder in which the processes of this machine find each other."""
        return self.data_dir / "run"

    @property
    def blobs_dir(self) -> Path:
        """The folder of packs and manifests."""
        return self.data_dir / "blobs"


# Variables with our prefix that belong to the test run, not to the system.
NOT_SETTINGS = frozenset({"BFR_REQUIRE_PEERS", "BFR_TEST_DATABASE_BIN_DIR", "BFR_WRITE_PICTURES"})

ROLE_NAMES = ("web", "dimse", "worker")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")
URL_SCHEMES = ("postgresql://", "postgres://")
PORTS = ("http_port", "dimse_port", "dimse_tls_port", "observe_port")
STEP_STATUSES = (
    "SCHEDULED",
    "ARRIVED",
    "READY",
    "STARTED",
    "DEPARTED",
    "COMPLETED",
    "DISCONTINUED",
)
SOP_CLASSES = re.compile(r"\*|[0-9]+(\.[0-9]+)*\.?")
MAY_BE_ZERO = (
    *PORTS,
    "free_space_min_bytes",
    "spool_max_bytes",
    "inline_binary_max_bytes",
    "seal_quiet_s",
    "deleted_keep_days",
    "verify_bytes_per_s",
    "audit_coalesce_s",
    "dimse_max_pdu_bytes",  # 0: no maximum (PS3.8 §D.1)
)
PDU_LENGTH_MIN_BYTES = 4096
PDU_LENGTH_MAX_BYTES = 2**32 - 1  # PS3.8 §D.1.1: four bytes


def _read(text: str, kind: object) -> object:
    if kind is int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{text!r} is no whole number") from None
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{text!r} is no number") from None
    if kind is Path:
        if not text.strip():
            raise ValueError("is empty and names no folder")
        return Path(text)
    if kind is str:
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _checked(field: str, value: object) -> object:
    """Return the value. Raises ValueError saying why it cannot be used."""
    if isinstance(value, int | float):
        _check_number(field, value)
    elif isinstance(value, tuple):
        _check_list(field, value)
    elif field == "log_level" and str(value).lower() not in LOG_LEVELS:
        raise ValueError(f"{value!r} is none of {', '.join(LOG_LEVELS)}")
    elif field == "log_format" and value not in LOG_FORMATS:
        raise ValueError(f"{value!r} is none of {', '.join(LOG_FORMATS)}")
    elif field == "traces_endpoint" and value and not _is_http_address(str(value)):
        raise ValueError("an OTLP collector is named by an address that begins with http(s)://")
    elif field in ("bucket_url", "second_bucket_url"):
        if value:
            read_bucket_address(str(value))
    elif field.endswith("_url") and value:
        _check_database_url(str(value))
    return value


def _is_http_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _check_list(field: str, values: tuple[object, ...]) -> None:
    if field == "dimse_private_storage_sop_classes":
        if not all(SOP_CLASSES.fullmatch(str(one)) for one in values):
            raise ValueError("UIDs, roots of them that end with a dot, or *")
        return
    names = ROLE_NAMES if field == "roles" else STEP_STATUSES
    unknown = [one for one in values if one not in names]
    if unknown or not values or len(set(values)) < len(values):
        raise ValueError(f"each of {', '.join(names)} at most once, at least one of them")


def _check_database_url(url: str) -> None:
    # Neither the value nor what libpq says of it is told: both may quote a password.
    if not url.startswith(URL_SCHEMES):
        raise ValueError("a database is named by a URL that begins with postgresql://")
    try:
        conninfo_to_dict(url)
    except ProgrammingError:
        raise ValueError("is no URL of a PostgreSQL database") from None


def _check_number(field: str, value: int | float) -> None:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number that can be used")
    if field in PORTS:
        if not 0 <= value <= 65535:
            raise ValueError(f"{value} is not between 0 and 65535")
    elif value == 0 and field in MAY_BE_ZERO:
        return
    elif value <= 0:
        least = "0 or above" if field in MAY_BE_ZERO else "above 0"
        raise ValueError(f"{value} is not {least}")
    elif field == "dimse_max_pdu_bytes" and not (
        PDU_LENGTH_MIN_BYTES <= value <= PDU_LENGTH_MAX_BYTES
    ):
        raise ValueError(
            f"{value} is neither 0 nor between {PDU_LENGTH_MIN_BYTES} and {PDU_LENGTH_MAX_BYTES}"
        )
