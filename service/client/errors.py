"""Everything that can keep a client from its answer.

ClientError
├── FileError           a file cannot be read or written
├── UnreachableError    nothing answered: no connection, or not in time
├── RefusedError        the service answered with an error: its status, code and message
│   └── BusyError       429 or 503, also after all retries
└── AnswerError         what answered is not this service, or a version that this client does not understand
"""


class ClientError(Exception):
    """Base class; the message says what is wrong and what to do about it."""


class FileError(ClientError):
    """A file of this machine cannot be read or written."""


class UnreachableError(ClientError):
    """Nothing answered."""


class RefusedError(ClientError):
    """The service answered with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message


class BusyError(RefusedError):
    """The service has too much to do, or is not ready; it was asked as often as the client may."""


class AnswerError(ClientError):
    """The answer is not one of this service."""
