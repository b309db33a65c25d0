"""Errors of artifacts that a user can resolve.

ArtifactError            an artifact cannot be made, read or trusted; the command line exits with 1
└── VerdictError         the model was made and rejected after measuring it; the command line exits with 3
    ├── ParityError      its outputs differ from the trained network's
    ├── PriceError       it loses more accuracy than allowed
    └── CheckError       a node does not run on the provider, or the outputs differ there
"""


class ArtifactError(Exception):
    """Base class. The message says what is wrong and how to resolve it."""


class VerdictError(ArtifactError):
    """The model was made, measured and rejected."""


class ParityError(VerdictError):
    """The outputs of the exported model differ from those of the trained network."""


class PriceError(VerdictError):
    """The model of lower precision loses more accuracy than allowed."""


class CheckError(VerdictError):
    """The model does not run completely or correctly on the provider."""
