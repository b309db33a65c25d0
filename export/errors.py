"""Everything that can go wrong with artifacts and has a cure its user can apply.

ArtifactError            an artifact cannot be made, read or trusted; the command line exits with 1
└── VerdictError         it was made, measured and found wanting; nothing is kept, and the command line exits with 3
    ├── ParityError      it does not answer as the trained network does
    ├── PriceError       it loses more than was allowed
    └── CheckError       a node does not run where it should, or the answers differ there
"""


class ArtifactError(Exception):
    """Base class; the message says what is wrong and what to do about it."""


class VerdictError(ArtifactError):
    """The model was made and measured, and will not do."""


class ParityError(VerdictError):
    """The exported model does not answer as the trained one does."""


class PriceError(VerdictError):
    """The smaller model loses more accuracy than was allowed."""


class CheckError(VerdictError):
    """The model does not run on the provider as it should."""
