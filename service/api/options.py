"""Reads the options of a request, from its query and its form."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import ValidationError

from service.api.request_body import MAX_NAME
from service.errors import InvalidParameterError, TooLargeError, shorten
from service.schemas.options import MAX_REGIONS, AnswerOptions

LONGEST_QUERY = 200
"""Largest query in bytes whose options are cached."""
MAX_OPTIONS = 32 + MAX_REGIONS
"""Maximum number of options in a query."""
MAX_PROBLEMS = 3
"""Maximum number of wrong options in an error."""
REGION = "region"
"""The option that may be repeated."""

OptionsType = TypeVar("OptionsType", bound=AnswerOptions)


def read_options(query: bytes, kind: type[OptionsType]) -> OptionsType:
    """Parse the options in a query.

    Raises:
        InvalidParameterError: an option is unknown or wrong.
    """
    if len(query) > LONGEST_QUERY:
        return check_options(read_pairs(query), kind)
    options = cached_options(query, kind)
    assert isinstance(options, kind)  # noqa: S101 - the cache forgets the type
    return options


@lru_cache(maxsize=256)
def cached_options(query: bytes, kind: type[AnswerOptions]) -> AnswerOptions:
    """See `read_options`."""
    return check_options(read_pairs(query), kind)


def read_pairs(query: bytes) -> list[tuple[str, str]]:
    """Return the names and values in a query."""
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_OPTIONS)
    except ValueError:
        raise InvalidParameterError(f"the query has more than {MAX_OPTIONS} options; /docs lists them") from None


def check_options(pairs: Iterable[tuple[str, str]], kind: type[OptionsType]) -> OptionsType:
    """Validate the names and values of options, from the query and a form."""
    given: dict[str, str] = {}
    regions: list[str] = []
    for name, value in pairs:
        if name == REGION:
            regions.append(value)
        elif given.setdefault(name, value) != value:
            raise InvalidParameterError(f"{shorten(name, MAX_NAME)}: it has two different values; send it once")
    if len(regions) > MAX_REGIONS:
        raise TooLargeError(f"there are {len(regions)} regions, more than {MAX_REGIONS}; send several requests")
    try:
        return kind.model_validate(given | {REGION: regions} if regions else given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        problems = [
            f"{shorten(name_of(problem['loc']), MAX_NAME)}: {problem['msg']}" for problem in found[:MAX_PROBLEMS]
        ]
        more = f"; and {len(found) - MAX_PROBLEMS} more" if len(found) > MAX_PROBLEMS else ""
        raise InvalidParameterError(f"{'; '.join(problems)}{more}; /docs lists the options") from None


def name_of(place: Sequence[str | int]) -> str:
    """Return the option at a ``place`` of pydantic; of several with one name, with its number."""
    if not place:
        return "options"
    name, *index = place
    return f"{name} {int(index[0]) + 1}" if name == REGION and index else str(place[-1])
