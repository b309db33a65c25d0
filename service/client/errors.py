"""All errors of the client.

ClientError
├── FileError           a file cannot be read or written
├── UnreachableError    no response: no connection, or not in time
├── RefusedError        the service answered with an error: its status, code and message
│   └── BusyError       the same with status 429 or 503, after all retries
└── AnswerError         the response is not one of this service, or of an incompatible version
"""


class ClientError(Exception):
    """Base class. The message names the problem and its cure."""


class FileError(ClientError):
    """A local file cannot be read or written."""


class UnreachableError(ClientError):
    """There was no response."""


class RefusedError(ClientError):
    """The service answered with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message


class BusyError(RefusedError):
    """The service is overloaded or not ready, also after all retries."""


class AnswerError(ClientError):
    """The response is not one of this service."""
