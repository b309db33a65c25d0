"""Places: what of them may be written down."""

import pytest

from export.format.remote import public_url


@pytest.mark.parametrize(
    ("place", "written"),
    [
        ("pictures/a.png?b", "pictures/a.png?b"),
        ("https://user:secret@host/a.png?token=1", "https://host/a.png"),
        ("zip://a.jpg::https://user:secret@host/x.zip?token=1", "zip://a.jpg::https://host/x.zip"),
    ],
)
def test_no_user_password_or_query_of_a_url_is_written_down(place: str, written: str) -> None:
    assert public_url(place) == written
