"""HTTP transactions: each request of the web role is observed, under the name of its resource."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bfr_core.observation import Observation

OUTCOMES: Mapping[int, str] = {
    403: "denied",
    404: "not_found",
    409: "conflict",
    503: "unavailable",
}
# Method and path of a route → transaction and resource. The path is the route's own: what a
# caller has put into it is nobody's label.
Names = Mapping[tuple[str, str], tuple[str, str]]


class ObservedRequests:
    """Observes every request of the application inside."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and record what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        observation = Observation("HTTP")
        status, whole = 500, False

        async def receive_observed() -> Message:
            message = await receive()
            observation.received_bytes += len(message.get("body", b""))
            return message

        async def send_observed(message: Message) -> None:
            nonlocal status, whole
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                observation.sent_bytes += len(message.get("body", b""))
                whole = not message.get("more_body", False)
            await send(message)

        outcome = "failed"
        try:
            await self._app(scope, receive_observed, send_observed)
            outcome = outcome_of_status(status) if whole else "aborted"
        except BaseException as error:
            outcome = "failed" if isinstance(error, Exception) else "aborted"
            raise
        finally:
            observation.transaction, observation.resource = self._name(scope)
            observation.end(outcome)

    def _name(self, scope: Scope) -> tuple[str, str]:
        path = getattr(scope.get("route"), "path", "")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        return self._names.get((method, path), ("HTTP", "other"))


def outcome_of_status(status: int) -> str:
    """Return what the HTTP status makes of a transaction, in the words of `metrics.outcome_of`."""
    if status < 400:
        return "success"
    return OUTCOMES.get(status, "invalid" if status < 500 else "failed")
