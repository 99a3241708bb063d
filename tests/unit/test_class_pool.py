"""Which classes and marks of a router are in use, and which is the next: at 900 groups, beyond, and where there are no more."""

import pytest

from tidegate.policy.group import GUESTS, GroupId
from tidegate.policy.state import GroupState, Limit
from tidegate.router.statefile import CLASSES, StateFileManager

CAP = Limit(20_000, 5_000)


def capped(first: int, last: int) -> list[GroupState]:
    return [GroupState(GroupId(number), limit=CAP) for number in range(first, last + 1)]


@pytest.mark.parametrize(
    ("groups", "in_use", "following"),
    [(0, 0, 1), (1, 1, 2), (799, 799, 800), (899, 899, 900), (900, 900, 901), (901, 901, 902), (9_898, 9_898, 9_899)],
)
def test_a_router_filled_from_the_first_group_on_goes_on_with_the_next(groups: int, in_use: int, following: int) -> None:
    pool = StateFileManager(capped(1, groups))
    assert len(pool.classes_in_use()) == in_use
    assert pool.classes_free() == CLASSES - in_use
    found = pool.next_group()
    assert found == following
    assert (found.mark, found.class_minor) == (100 + following, str(100 + following))


def test_the_last_class_is_1_9999_and_after_it_there_is_none() -> None:
    pool = StateFileManager([GroupState(GUESTS, limit=CAP), *capped(1, 9_899)])
    names = pool.classes_in_use()
    assert (names[0], names[-1], len(set(names))) == ("1:100", "1:9999", CLASSES)
    assert (pool.classes_free(), pool.next_group()) == (0, None)
    with pytest.raises(ValueError, match="9899"):
        GroupId(9_900)


def test_a_deleted_groups_number_is_the_next_again() -> None:
    assert StateFileManager(capped(1, 4) + capped(6, 900)).next_group() == 5


def test_a_group_without_a_limit_and_an_inactive_one_take_no_class_but_have_their_number() -> None:
    pool = StateFileManager([GroupState(GroupId(1)), GroupState(GroupId(2), limit=CAP, active=False)])
    assert (pool.classes_in_use(), pool.groups_active(), pool.next_group()) == ((), 1, 3)
