"""The single-page application: its files, and its first page for every address of the portals."""

import mimetypes
import re
from importlib.resources import files
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

# What the page may load (viewer needs WebAssembly codecs, blob cursors and inline SVG styles).
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "worker-src 'self'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# The last part of a UID is digits: "/viewer/ARCHIVE/1.2.840.1" is a page and no file.
FILE_NAME = re.compile(r".*\.[0-9]*[A-Za-z][0-9A-Za-z]*")
mimetypes.add_type("application/wasm", ".wasm")
mimetypes.add_type("text/javascript", ".js")


def static_directory() -> Path:
    """Return where the built application lies."""
    return Path(str(files("bfr_ui"))) / "static"


async def page(request: Request) -> Response:
    """Answer with a file of the application, else with its first page for one of its addresses.

    An address that ends like a file name is a file: a missing one is 404, never the page, so
    that a browser does not take HTML for a script.
    """
    directory = static_directory()
    name = request.path_params["path"]
    path = _file(directory, name)
    if path is not None:
        immutable = name.startswith("assets/")
        caching = "public, max-age=31536000, immutable" if immutable else "no-cache"
        return FileResponse(path, headers={**SECURITY_HEADERS, "Cache-Control": caching})
    first_page = directory / "index.html"
    is_file_name = FILE_NAME.fullmatch(name.rsplit("/", 1)[-1]) or name.startswith("assets/")
    if is_file_name or not first_page.is_file():
        raise HTTPException(404)
    return FileResponse(first_page, headers={**SECURITY_HEADERS, "Cache-Control": "no-cache"})


def _file(directory: Path, name: str) -> Path | None:
    """Return the file of the application with this name, None when there is none."""
    if not name or "\x00" in name:
        return None
    path = (directory / name).resolve()
    try:
        is_file = path.is_relative_to(directory.resolve()) and path.is_file()
    except OSError:  # a name that no file system takes
        return None
    return path if is_file else None
