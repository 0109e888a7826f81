"""Certificates for tests, made by the openssl program: authorities, and what they sign."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import need

EXTENSIONS = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority(Certificate):
    """Who signs certificates."""

    directory: Path

    def issue(self, name: str, days: int = 30) -> Certificate:
        """A certificate for this machine with the common name."""
        key, request, certificate, extensions = (
            self.directory / f"{name}.{kind}" for kind in ("key", "csr", "pem", "ext")
        )
        extensions.write_text(EXTENSIONS)
        openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request,
            "-subj", f"/O=Region/CN={name}",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key,
            "-CAcreateserial", "-days", days, "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return Certificate(certificate, key)


def new_authority(directory: Path) -> Authority:
    """An authority with a folder of its own."""
    directory.mkdir(parents=True)
    key, certificate = directory / "ca.key", directory / "ca.pem"
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate,
        "-subj", f"/CN=Authority of {directory.name}", "-days", 30,
    )  # fmt: skip
    return Authority(certificate, key, directory)


def openssl(*arguments: object) -> str:
    """Run openssl and return what it prints."""
    command = [need("openssl"), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
