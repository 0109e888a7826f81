"""Doctor and buckets: reachability, keys, rights, and what waits for them."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from tests.command.commands import Answer, bfr
from tests.core.spooled_site import with_buckets
from tests.object_storage import ACCESS_KEY_ID, SECRET_ACCESS_KEY, ObjectStorage
from tests.system import free_port

from bfr_core.bucket_address import read_bucket_address
from bfr_core.settings import Settings


@pytest.fixture
def bucketed(with_settings: Callable[..., Settings], object_storage: ObjectStorage) -> Settings:
    return with_buckets(
        with_settings(http_port=free_port(), dimse_port=free_port()), object_storage
    )


def said_of(answer: Answer, subject: str) -> list[tuple[str, str]]:
    lines = (re.split(r"\s+", line, maxsplit=2) for line in answer.out.splitlines())
    return [(state, text) for state, about, text in lines if about == subject]


def test_both_buckets_are_tried_and_left_as_they_were(
    bucketed: Settings, object_storage: ObjectStorage
) -> None:
    answer = bfr(bucketed, "doctor")
    assert [state for state, _ in said_of(answer, "bucket")] == ["ok", "ok"]
    assert said_of(answer, "spool") == [("ok", "0 packs and manifests, all in the buckets too")]
    for url in (bucketed.bucket_url, bucketed.second_bucket_url):
        assert object_storage.contents(url.removeprefix("s3://").partition("/")[0]) == {}


def test_a_profile_of_the_credentials_file_opens_its_bucket(
    bucketed: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials").write_text(
        f"[far]\naws_access_key_id = {ACCESS_KEY_ID}\naws_secret_access_key = {SECRET_ACCESS_KEY}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    # Whatever else the environment says is not for our buckets.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
    far = replace(bucketed, second_bucket_url=bucketed.second_bucket_url + "&profile=far")
    (near_state, near), (far_state, _) = said_of(bfr(far, "doctor"), "bucket")
    assert (near_state, far_state) == ("fault", "ok")
    assert "the secret key is wrong" in near or "may not do that" in near
    assert SECRET_ACCESS_KEY not in near


def test_faults_of_a_bucket_say_what_to_do(
    bucketed: Settings, object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"s3://packs?endpoint=http://127.0.0.1:{free_port()}"
    other = object_storage.url("no-such-bucket")
    answer = bfr(replace(bucketed, bucket_url=nowhere, second_bucket_url=other), "doctor")
    assert answer.status == 1
    (away_state, away), (missing_state, missing) = said_of(answer, "bucket")
    assert (away_state, missing_state) == ("fault", "fault")
    assert "does not answer: check endpoint, bucket and keys" in away
    assert "there is no such bucket" in missing
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    answer = bfr(bucketed, "doctor")
    state, text = said_of(answer, "bucket")[0]
    assert state == "fault"
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in text


def test_what_has_waited_long_for_a_bucket_is_a_fault(bucketed: Settings) -> None:
    with psycopg.connect(bucketed.database_owner_url, autocommit=True) as connection:
        urls = (bucketed.bucket_url, bucketed.second_bucket_url)
        near, far = (str(read_bucket_address(url)) for url in urls)
        connection.execute(
            "INSERT INTO spooled_blob (key, spooled_at, copies) VALUES"
            " ('1/a.pack', now() - interval '1 minute', %s), ('1/b.pack', now(), %s)",
            ([near], [near, far]),
        )
        state, text = said_of(bfr(bucketed, "doctor"), "spool")[0]
        assert state == "ok"
        assert text.startswith("1 packs and manifests wait for a bucket, the oldest 1 min")
        one = replace(bucketed, second_bucket_url="")
        assert said_of(bfr(one, "doctor"), "spool")[0][1].startswith("2 packs and manifests, all")
        connection.execute("UPDATE spooled_blob SET spooled_at = now() - interval '2 hours'")
        state, text = said_of(bfr(bucketed, "doctor"), "spool")[0]
        assert state == "fault"
        assert "the oldest 120 min: the worker's log says why" in text
