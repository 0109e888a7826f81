"""A bucket is named by one URL that holds no secret; its keys come from where AWS's tools look."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bfr_core.bucket_address import (
    PARAMETERS,
    BucketAddress,
    BucketKeys,
    read_bucket_address,
    read_bucket_keys,
)
from bfr_core.errors import Invalid
from bfr_core.settings import Settings

NEAR = "s3://packs/region/one?endpoint=https://s3.near.example:9000&region=se-1&profile=near"
FILE = """
[default]
aws_access_key_id = D
aws_secret_access_key = D%secret

[near]
aws_access_key_id = N
aws_secret_access_key = N+secret
aws_session_token = N-token

[half]
aws_access_key_id = H
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "credentials").write_text(FILE)
    return {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}


def address(url: str) -> BucketAddress:
    return read_bucket_address(url)


def test_the_url_tells_where_the_bucket_is() -> None:
    found = address(NEAR)
    assert found == BucketAddress(
        "packs", "region/one", "https://s3.near.example:9000", "se-1", "near"
    )
    assert str(found) == "packs/region/one at s3.near.example:9000"
    short = address("s3://packs?endpoint=http://127.0.0.1:8080/")
    assert short == BucketAddress("packs", "", "http://127.0.0.1:8080", "us-east-1", "")


@pytest.mark.parametrize(
    "url",
    [
        "https://s3.near.example/packs",
        "s3://packs",
        "s3://packs?endpoint=s3.near.example",
        "s3://packs?endpoint=ftp://s3.near.example",
        "s3://packs?endpoint=https://",
        "s3://packs?endpoint=https://host:x",
        "s3:///prefix?endpoint=https://host",
        "s3://packs?endpoint=https://host&endpoint=https://other",
        "s3://packs?endpoint=https://host&ssl=no",
        "s3://packs?endpoint=https://host#part",
        "s3://packs?endpoint",
        "s3://[packs?endpoint=https://host",
        "s3://key:hemligt@packs?endpoint=https://host",
        "s3://packs?endpoint=https://host&secret_access_key=hemligt",
    ],
)
@pytest.mark.parametrize("setting", ["BFR_BUCKET_URL", "BFR_SECOND_BUCKET_URL"])
def test_what_names_no_bucket_is_refused_by_its_setting(url: str, setting: str) -> None:
    with pytest.raises(Invalid, match=f"^{setting}: ") as refused:
        Settings.from_environment({"BFR_BUCKET_URL": NEAR, setting: url})
    assert "hemligt" not in refused.value.message


@given(st.text(max_size=40), st.sampled_from(["", "s3://", "s3://b?endpoint=", "s3://b?"]))
def test_any_text_is_an_address_or_refused(text: str, start: str) -> None:
    try:
        found = read_bucket_address(start + text)
    except ValueError:
        return
    assert found.bucket
    assert found.endpoint.startswith(("http://", "https://"))


def test_two_buckets_are_two() -> None:
    with pytest.raises(Invalid, match="name the same bucket"):
        Settings.from_environment({"BFR_BUCKET_URL": NEAR, "BFR_SECOND_BUCKET_URL": NEAR})
    with pytest.raises(Invalid, match="without BFR_BUCKET_URL"):
        Settings.from_environment({"BFR_SECOND_BUCKET_URL": NEAR})


def test_a_profile_names_the_section_of_the_keys(environment: dict[str, str]) -> None:
    environment |= {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "E-secret"}
    assert read_bucket_keys(address(NEAR), environment) == BucketKeys("N", "N+secret", "N-token")


def test_without_a_profile_the_environment_comes_first(environment: dict[str, str]) -> None:
    bucket = address("s3://packs?endpoint=https://host")
    assert read_bucket_keys(bucket, environment) == BucketKeys("D", "D%secret", None)
    environment |= {"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "E-secret"}
    assert read_bucket_keys(bucket, environment) == BucketKeys("E", "E-secret", None)


@pytest.mark.parametrize(
    ("profile", "variables", "told"),
    [
        ("half", {}, r"\[half\] of .* has no aws_secret_access_key"),
        ("none", {}, r"\[none\] of .* has no aws_access_key_id"),
        ("", {"AWS_ACCESS_KEY_ID": "E"}, "the environment has no aws_secret_access_key"),
    ],
)
def test_keys_that_are_missing_are_named(
    environment: dict[str, str], profile: str, variables: dict[str, str], told: str
) -> None:
    bucket = address(f"s3://packs?endpoint=https://host&profile={profile}")
    with pytest.raises(Invalid, match=told):
        read_bucket_keys(bucket, environment | variables)


def test_a_file_that_is_none_quotes_no_key(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("aws_secret_access_key = hemligt\n")
    environment = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
    with pytest.raises(Invalid, match="cannot be read as a credentials file") as refused:
        read_bucket_keys(address(NEAR), environment)
    assert "hemligt" not in refused.value.message


def test_the_parameters_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs/operations/object-storage.md").read_text()
    assert all(f"`{name}`" in text for name in PARAMETERS)
