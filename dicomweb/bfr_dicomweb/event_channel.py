"""The event channel: reports to a subscriber over WebSocket (PS3.18 §8.10, §11.13)."""

import asyncio
import contextlib
import logging

from starlette.websockets import WebSocket, WebSocketDisconnect

from bfr_core.errors import ArchiveError, Unavailable
from bfr_core.store import Store
from bfr_core.workitem_reports import ReportReader
from bfr_dicomweb.errors import answer_error
from bfr_dicomweb.resources import target_of

log = logging.getLogger("bfr.event_channel")

DOOR = "UPS-RS"
# A notification comes at once; this is how long a report waits when one was missed.
LOOK_AGAIN_AFTER_S = 5.0


class Channels:
    """How many channels this process keeps."""

    def __init__(self) -> None:
        self.open = 0


async def open_channel(websocket: WebSocket) -> None:
    """Send the reports for an application entity, from where its last channel ended (§8.10.4)."""
    channels: Channels = websocket.app.state.channels
    channels.open += 1
    try:
        reader = await _opened(websocket, channels)
        if reader is not None:
            await _serve(websocket, reader)
    finally:
        channels.open -= 1


async def _opened(websocket: WebSocket, channels: Channels) -> ReportReader | None:
    """Return the reader of the channel that was opened, None when it was denied."""
    try:
        target = await target_of(websocket)
        if channels.open > target.store.settings.workitem_channels_max:
            raise Unavailable("too many event channels are open")
        reader = ReportReader(
            target.store, target.access, websocket.path_params["aetitle"], target.archive_id
        )
        await reader.open(target.access, DOOR)
    except ArchiveError as error:
        await websocket.send_denial_response(await answer_error(websocket, error))
        return None
    await websocket.accept()
    return reader


async def _serve(websocket: WebSocket, reader: ReportReader) -> None:
    sending = asyncio.create_task(_send_reports(websocket, reader))
    closing = asyncio.create_task(_until_closed(websocket))
    try:
        await asyncio.wait({sending, closing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        closing.cancel()
        results = await asyncio.gather(sending, closing, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result


async def _send_reports(websocket: WebSocket, reader: ReportReader) -> None:
    store: Store = websocket.app.state.store
    async with store.notifications.listening() as heard:
        while True:
            heard.clear()
            try:
                while reports := await reader.read():
                    for report in reports:
                        await websocket.send_text(report.decode())
                    await reader.mark_sent()
            except Unavailable as error:
                log.warning("event reports wait: %s", error.message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(heard.wait(), LOOK_AGAIN_AFTER_S)


async def _until_closed(websocket: WebSocket) -> None:
    """Return when the other side has gone; what it sends means nothing."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
