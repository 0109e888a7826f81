"""WADO-RS: the Retrieve transaction (PS3.18 §10.4): objects and metadata."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bfr_core.codestreams import can_decode
from bfr_core.errors import Invalid
from bfr_core.frames import NATIVE_TRANSFER_SYNTAXES
from bfr_core.manifest import StoredInstance
from bfr_core.part10 import part10_prefix
from bfr_core.pixels import PixelPool
from bfr_core.receiving import header_limits
from bfr_core.retrieval import FoundInstance, retrieve_instances
from bfr_core.store import Store
from bfr_core.transcoding import COMPRESSED_TARGETS, TARGETS, transcode
from bfr_dicomweb.datasets import MANY_OFFERS, ONE_OFFERS, datasets_answer
from bfr_dicomweb.media_types import (
    APPLICATION_DICOM,
    APPLICATION_ZIP,
    Accepted,
    NotAcceptable,
    Offer,
    choose,
)
from bfr_dicomweb.multipart import (
    closing,
    content_length_bytes,
    content_type,
    new_boundary,
    part_header,
)
from bfr_dicomweb.resources import (
    BlobRange,
    Target,
    accepted_by,
    etag_of,
    length_of,
    not_modified,
    opened,
    pieces_answer,
    single_part,
    stream_pieces,
    target_of,
    with_bulk_data_uris,
)
from bfr_dicomweb.zip_archive import zip_answer

DOOR = "WADO-RS"
IDENTITY = {"Cache-Control": "no-store", "Vary": "Accept"}


@dataclass(frozen=True, slots=True)
class _Sent:
    """An object, and the transfer syntax that it is sent in."""

    stored: StoredInstance
    transfer_syntax_uid: str

    @property
    def as_stored(self) -> bool:
        return self.transfer_syntax_uid == self.stored.transfer_syntax_uid

    @property
    def piece(self) -> BlobRange:
        """Where it lies, with its Part 10 header."""
        blob = self.stored.blob
        return BlobRange(blob.key, blob.offset, blob.length)

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": f"{APPLICATION_DICOM}; transfer-syntax={self.transfer_syntax_uid}"}


async def retrieve(request: Request, door: str = DOOR) -> Response:
    """Answer with the objects of a study, a series or one instance (§10.4.1.1.1).

    As stored where that is accepted, else transcoded; as one ZIP file where that is asked for.
    """
    target = await target_of(request)
    found = await find(request, target, door=door)
    accepted = accepted_by(request)
    forms = (True, False) if len(found) == 1 else (True,)
    kinds = dict.fromkeys((one.stored.transfer_syntax_uid, _compressible(one)) for one in found)
    zipped = [Offer(APPLICATION_ZIP, False, uid, when_unnamed=True) for uid, _ in kinds]
    stored = [_offers(*kind, form)[0] for form in forms for kind in kinds]
    transcoded = [one for form in forms for kind in kinds for one in _offers(*kind, form)[1:]]
    chosen = choose(accepted, [*stored, *zipped, *transcoded])
    if chosen.media_type == APPLICATION_ZIP:
        for offer in zipped:
            choose(accepted, [offer])
        return await zip_answer(target.store, await find(request, target, headers=True, door=door))
    # Every object is to be acceptable, not one of them alone.
    syntaxes = {kind: _chosen(accepted, kind, chosen.multipart) for kind in kinds}
    sent = [
        _Sent(one.stored, syntaxes[one.stored.transfer_syntax_uid, _compressible(one)])
        for one in found
    ]
    if not chosen.multipart:
        return await _single(request, target.store, sent[0])
    if all(one.as_stored for one in sent):
        parts = [(one.headers, [one.piece]) for one in sent]
        return await multipart_answer(target.store, APPLICATION_DICOM, parts)
    boundary = new_boundary()
    kind = {**IDENTITY, "Content-Type": content_type(APPLICATION_DICOM, boundary)}
    chunks = _transcoded_parts(request, target.store, sent, boundary)
    return StreamingResponse(await opened(chunks), headers=kind)


async def retrieve_metadata(request: Request) -> Response:
    """Answer with the headers of a study, a series or one instance (§10.4.1.1.2)."""
    target = await target_of(request)
    offers = ONE_OFFERS if "instance" in request.path_params else MANY_OFFERS
    offer = choose(accepted_by(request), offers)
    form = f"{target.root} {offer}"
    if "if-none-match" in request.headers:
        known = await find(request, target)
        etag = etag_of(*(one.stored.digest for one in known), of=form)
        if (answer := not_modified(request, etag)) is not None:
            return answer
    found = await find(request, target, headers=True)
    headers = [with_bulk_data_uris(one.header, instance_path(target, one)) for one in found]
    answer = await datasets_answer(request, offer, headers)
    answer.headers["ETag"] = etag_of(*(one.stored.digest for one in found), of=form)
    return answer


def instance_path(target: Target, one: FoundInstance) -> str:
    """Return the path of an instance below the root that was asked."""
    return (
        f"{target.root}/studies/{one.study_instance_uid}/series/{one.series_instance_uid}"
        f"/instances/{one.stored.sop_instance_uid}"
    )


async def multipart_answer(
    store: Store,
    media_type: str,
    parts: Sequence[tuple[Mapping[str, str], Sequence[bytes | BlobRange]]],
) -> Response:
    """Return a multipart answer whose parts are streamed (§8.6.1.2).

    Raises Unavailable when the bytes of the first are gone.
    """
    boundary = new_boundary()
    pieces: list[bytes | BlobRange] = []
    for number, (headers, body) in enumerate(parts):
        pieces.append(part_header(boundary, headers, first=number == 0))
        pieces += body
    pieces.append(closing(boundary))
    length = content_length_bytes(
        boundary, [(headers, sum(map(length_of, body))) for headers, body in parts]
    )
    return await pieces_answer(
        store, pieces, length, {**IDENTITY, "Content-Type": content_type(media_type, boundary)}
    )


async def find(
    request: Request, target: Target, *, headers: bool = False, door: str = DOOR
) -> list[FoundInstance]:
    """Return the instances that the path names. Raises NotFound."""
    path = request.path_params
    return await retrieve_instances(
        target.store,
        target.access,
        door,
        archive_id=target.archive_id,
        study_instance_uid=path["study"],
        series_instance_uid=path.get("series"),
        sop_instance_uid=path.get("instance"),
        headers=headers,
    )


def _compressible(one: FoundInstance) -> bool:
    return one.stored.frames is not None


def _offers(transfer_syntax_uid: str, compressible: bool, multipart: bool) -> list[Offer]:
    """Return how an object can be sent: first as it is stored."""
    stored = Offer(APPLICATION_DICOM, multipart, transfer_syntax_uid, when_unnamed=True)
    if transfer_syntax_uid not in NATIVE_TRANSFER_SYNTAXES and not can_decode(transfer_syntax_uid):
        return [stored]
    targets = TARGETS + COMPRESSED_TARGETS if compressible else TARGETS
    others = [uid for uid in targets if uid != transfer_syntax_uid]
    return [stored, *(Offer(APPLICATION_DICOM, multipart, uid) for uid in others)]


def _chosen(accepted: Accepted, kind: tuple[str, bool], multipart: bool) -> str:
    return str(choose(accepted, _offers(*kind, multipart)).transfer_syntax_uid)


async def _single(request: Request, store: Store, sent: _Sent) -> Response:
    headers = {**IDENTITY, **sent.headers}
    etag = etag_of(sent.stored.digest, of=sent.transfer_syntax_uid)
    piece = sent.piece if sent.as_stored else await _transcoded(request, store, sent)
    return await single_part(request, store, [piece], headers, etag)


async def _transcoded_parts(
    request: Request, store: Store, listed: Sequence[_Sent], boundary: str
) -> AsyncIterator[bytes]:
    """Yield the parts, one object at a time; the first chunk holds the first object's bytes."""
    for number, sent in enumerate(listed):
        head = part_header(boundary, sent.headers, first=number == 0)
        if not sent.as_stored:
            yield head + await _transcoded(request, store, sent)
            continue
        async for chunk in stream_pieces(store, [head, sent.piece]):
            yield chunk
    yield closing(boundary)


async def _transcoded(request: Request, store: Store, sent: _Sent) -> bytes:
    """Return the object as a Part 10 file. Raises NotAcceptable when only the stored can be had."""
    stored, target = sent.stored, sent.transfer_syntax_uid
    if stored.blob.length > store.settings.transcoded_max_bytes:
        raise NotAcceptable("the object is too large to be transcoded: it can be had as stored")
    pool: PixelPool = request.app.state.pixels
    data = await asyncio.to_thread(store.blobs.read, stored.blob)
    try:
        dataset = await pool.run(transcode, data, target, header_limits(store.settings))
    except Invalid as error:
        raise NotAcceptable(f"the object cannot be transcoded: {error.message}") from error
    prefix = part10_prefix(
        transfer_syntax_uid=target,
        sop_class_uid=stored.sop_class_uid,
        sop_instance_uid=stored.sop_instance_uid,
        source_ae_title="",
    )
    return prefix + dataset
