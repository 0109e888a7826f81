"""Bucket address: an S3-compatible bucket as one URL, and the keys that open it."""

import configparser
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from bfr_core.errors import Invalid

FORM = "s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION"
PARAMETERS = ("endpoint", "region", "profile")
DEFAULT_REGION = "us-east-1"  # what most stores answer to that know no regions


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """Where the blobs of one data centre lie."""

    bucket: str
    prefix: str  # "" or without slashes at its ends
    endpoint: str
    region: str
    profile: str  # section of the credentials file; "": the environment, then [default]

    def __str__(self) -> str:
        path = f"{self.bucket}/{self.prefix}".rstrip("/")
        return f"{path} at {urlsplit(self.endpoint).netloc}"


@dataclass(frozen=True, slots=True)
class BucketKeys:
    """What signs requests; never shown."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None


def read_bucket_address(url: str) -> BucketAddress:
    """Return the address that the URL tells.

    Raises ValueError saying what is wrong with it, never quoting what may be a secret.
    """
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, strict_parsing=bool(parts.query), keep_blank_values=True)
    except ValueError:
        raise ValueError(f"is no URL of the form {FORM}") from None
    parameters = dict(given)
    if "@" in parts.netloc or "secret" in parts.query.lower():
        raise ValueError("keys do not belong in the URL: see docs/operations/object-storage.md")
    if parts.scheme != "s3" or not parts.netloc or parts.fragment:
        raise ValueError(f"a bucket is named as {FORM}")
    if len(given) > len(parameters) or not parameters.keys() <= {*PARAMETERS}:
        raise ValueError(f"only {', '.join(PARAMETERS)} may be given, each at most once")
    endpoint = parameters.get("endpoint", "").rstrip("/")
    try:
        place = urlsplit(endpoint)
        usable = place.scheme in ("http", "https") and place.hostname and place.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("endpoint is to be the http:// or https:// address of the store")
    return BucketAddress(
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        endpoint=endpoint,
        region=parameters.get("region") or DEFAULT_REGION,
        profile=parameters.get("profile", ""),
    )


def read_bucket_keys(
    address: BucketAddress, environment: Mapping[str, str] | None = None
) -> BucketKeys:
    """Return the keys of the bucket, from the environment or the credentials file of AWS's tools.

    Raises Invalid saying where they were looked for.
    """
    environment = os.environ if environment is None else environment
    named = environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    if not address.profile and "AWS_ACCESS_KEY_ID" in environment:
        found: Mapping[str, str] = {name.lower(): value for name, value in environment.items()}
        where = "the environment"
    else:
        found = _section(Path(named).expanduser(), address.profile or "default")
        where = f"[{address.profile or 'default'}] of {named}"
    try:
        return BucketKeys(
            found["aws_access_key_id"],
            found["aws_secret_access_key"],
            found.get("aws_session_token") or None,
        )
    except KeyError as error:
        raise Invalid(f"bucket {address}: {where} has no {error.args[0]}") from None


def _section(path: Path, name: str) -> Mapping[str, str]:
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        # What the parser says may quote the line of a key.
        raise Invalid(f"{path} cannot be read as a credentials file") from error
    return file[name] if file.has_section(name) else {}
