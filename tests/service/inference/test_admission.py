import pytest

from service.errors import QueueFullError, TooLargeError
from service.inference.admission import CapacityLimiter, Permit


def test_a_seat_gives_back_what_it_has_taken() -> None:
    room = CapacityLimiter(4, 100, 1)
    with Permit(room) as seat:
        seat.take(size=60)
        seat.take(pictures=2)
        assert (room.pictures, room.bytes) == (2, 60)
        with pytest.raises(QueueFullError, match="60 bytes"), Permit(room) as other:
            other.take(size=60)
        with pytest.raises(QueueFullError, match="2 pictures"), Permit(room) as other:
            other.take(pictures=3)
    assert (room.pictures, room.bytes) == (0, 0)


@pytest.mark.parametrize("too_much", [{"pictures": 3}, {"size": 51}])
def test_what_would_never_fit_is_not_told_to_come_again(too_much: dict[str, int]) -> None:
    with Permit(CapacityLimiter(4, 100, 1)) as seat:
        seat.take(pictures=2, size=50)
        with pytest.raises(TooLargeError, match="than may wait at all"):
            seat.take(**too_much)
