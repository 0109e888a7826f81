"""A real S3 server for tests: OpenStack Swift with its S3 door, five processes on loopback."""

import datetime
import getpass
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import obstore
from obstore.store import S3Store
from tests.conftest import need
from tests.system import free_port

from bfr_core.child_process import die_with_parent

ACCESS_KEY_ID, SECRET_ACCESS_KEY = "bfr:archive", "for-tests-only"
REGION = "us-east-1"
SERVERS = ("account", "container", "object")
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
SWIFT_CONF = """\
[swift-hash]
swift_hash_path_prefix = bfr
swift_hash_path_suffix = bfr
"""
SERVER_CONF = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {directory}
devices = {directory}
mount_check = false
workers = 0
log_level = ERROR

[pipeline:main]
pipeline = {name}-server

[app:{name}-server]
use = egg:swift#{name}
"""
PROXY_CONF = """\
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {directory}
workers = 0
log_level = ERROR

[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache s3api tempauth slo dlo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:gatekeeper]
use = egg:swift#gatekeeper

[filter:healthcheck]
use = egg:swift#healthcheck

[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache_port}

[filter:s3api]
use = egg:swift#s3api
location = {region}
s3_acl = false
min_segment_size = 5242880

[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{name} = {secret} .admin

[filter:slo]
use = egg:swift#slo

[filter:dlo]
use = egg:swift#dlo
"""


class ObjectStorage:
    """One S3 server in a folder of its own; it keeps its port and objects when it is stopped."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._cache_port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._programs = {name: need(f"swift-{name}-server") for name in (*SERVERS, "proxy")}
        self._memcached = need("memcached")
        ring_builder = need("swift-ring-builder")
        directory.mkdir(parents=True)
        (directory / "disk").mkdir()
        (directory / "swift.conf").write_text(SWIFT_CONF)
        account, _, name = ACCESS_KEY_ID.partition(":")
        given = {"directory": directory, "user": getpass.getuser(), "region": REGION}
        for server in SERVERS:
            port = free_port()
            self._write(f"{server}-server.conf", SERVER_CONF, name=server, port=port, **given)
            ring = [ring_builder, f"{server}.builder"]
            for arguments in (
                ["create", "4", "1", "0"],
                ["add", f"r1z1-127.0.0.1:{port}/disk", "1"],
                ["rebalance"],
            ):
                subprocess.run([*ring, *arguments], cwd=directory, check=True, capture_output=True)
        secret = {"account": account, "name": name, "secret": SECRET_ACCESS_KEY}
        ports = {"port": self.port, "cache_port": self._cache_port}
        self._write("proxy-server.conf", PROXY_CONF, **ports, **given, **secret)

    def _write(self, file: str, text: str, **values: object) -> None:
        (self.directory / file).write_text(text.format(**values))

    @property
    def endpoint(self) -> str:
        """Where the S3 door answers."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, bucket: str, prefix: str = "") -> str:
        """Return the URL of a bucket as the settings take it."""
        query = urlencode({"endpoint": self.endpoint, "region": REGION})
        return f"s3://{bucket}/{prefix}?{query}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with the keys of every bucket."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        }

    def bucket(self, name: str) -> S3Store:
        """Return a bucket past all of our own code."""
        return S3Store(
            name,
            config={
                "endpoint": self.endpoint,
                "region": REGION,
                "access_key_id": ACCESS_KEY_ID,
                "secret_access_key": SECRET_ACCESS_KEY,
            },
            client_options={"allow_http": True},
        )

    def make_bucket(self, name: str) -> S3Store:
        """Make a bucket, as the operator of the store does."""
        bucket = self.bucket(name)
        url = obstore.sign(bucket, "PUT", "", datetime.timedelta(minutes=1))
        urllib.request.urlopen(urllib.request.Request(url, method="PUT", data=b"")).close()
        return bucket

    def contents(self, name: str) -> dict[str, bytes]:
        """Return every object of a bucket."""
        bucket = self.bucket(name)
        paths = [meta["path"] for page in obstore.list(bucket) for meta in page]
        return {path: bytes(obstore.get(bucket, path).bytes()) for path in paths}

    @property
    def is_running(self) -> bool:
        """True between `start` and `stop`."""
        return bool(self._processes)

    def start(self) -> None:
        """Start and return when it answers."""
        cache = [
            self._memcached,
            "-u",
            getpass.getuser(),
            "-l",
            "127.0.0.1",
            "-p",
            str(self._cache_port),
        ]
        commands = {"memcached": cache} | {
            name: [program, str(self.directory / f"{name}-server.conf")]
            for name, program in self._programs.items()
        }
        for name, command in commands.items():
            with (self.directory / f"{name}.log").open("ab") as log:
                self._processes.append(
                    subprocess.Popen(
                        command,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
                    )
                )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready():
            assert time.monotonic() < deadline, self.log
            assert all(process.poll() is None for process in self._processes), self.log
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        # The proxy may listen before those that it asks: a listing of buckets needs them all.
        try:
            with urllib.request.urlopen(f"{self.endpoint}/healthcheck", timeout=5):
                return all(self._listens(name) for name in SERVERS)
        except OSError:
            return False

    def _listens(self, name: str) -> bool:
        conf = (self.directory / f"{name}-server.conf").read_text()
        port = next(line for line in conf.splitlines() if line.startswith("bind_port"))
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port.split()[-1]}/healthcheck", timeout=5)
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        return True

    @property
    def log(self) -> str:
        """What the servers have said."""
        return "\n".join(path.read_text()[-2000:] for path in self.directory.glob("*.log"))

    def freeze(self) -> None:
        """Let it hang: connections are taken, nothing is answered."""
        for process in self._processes:
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        for process in self._processes:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Stop it, as when the data centre is away; its objects stay."""
        for process in self._processes:
            process.send_signal(signal.SIGKILL)
        for process in self._processes:
            process.wait(STOP_TIMEOUT_S)
        self._processes.clear()


@contextmanager
def running_object_storage(directory: Path) -> Iterator[ObjectStorage]:
    """Run an S3 server for the length of the block."""
    storage = ObjectStorage(directory)
    try:
        storage.start()
        yield storage
    finally:
        storage.stop()
