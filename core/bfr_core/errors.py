"""The five errors, sorted by what the caller can do about them.

    ArchiveError
    ├── Invalid       change it
    ├── Denied        ask for another permission
    ├── NotFound      it is not here, or you may not know that it is
    ├── Conflict      look again: it does not fit what is here
    └── Unavailable   try again, unchanged

Each rim has one table from these to its own language. A broken rule of an information
specification is no error: it is a case.
"""


class ArchiveError(Exception):
    """Something could not be done; `message` is one sentence that names the part at fault.

    The message may reach a log and another organisation, so it never holds a person's id or name.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Invalid(ArchiveError):
    """What was sent breaks its standard: change it before sending again."""


class Denied(ArchiveError):
    """The caller may not do this."""


class NotFound(ArchiveError):
    """There is no such thing, or the caller may not know of it."""


class Conflict(ArchiveError):
    """What was sent contradicts what is stored."""


class Unavailable(ArchiveError):
    """An engine is away or full: the same call may succeed later."""
