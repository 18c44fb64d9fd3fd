"""Which links are branches: of the shared tree, and of one origin's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwalk.config import IntakeConfig, Spreading, TreeConfig
from meshwalk.proto.broadcast.lateness import SMOOTHING, WINDOW_S, Lateness
from meshwalk.proto.broadcast.tree import Branch, Tree

from .scene import neighbour_of, peer

KEY, OTHER = b"k" * 32, b"l" * 32


def tree_of(count: int, config: TreeConfig | None = None, flood: bool = False) -> Tree:
    tree = Tree(config or TreeConfig(), Spreading.FLOOD if flood else Spreading.TREE)
    for number in range(1, count + 1):
        added = tree.add(neighbour_of(number, rtt_s=0.01 * (10 - number)), IntakeConfig())
        assert not added.is_eager
        tree.graft(added, b"", by_us=True)
    return tree


def branch(tree: Tree, number: int) -> Branch:
    return tree.branches[peer(number)]


def test_a_link_that_is_grafted_is_a_branch_for_everybody() -> None:
    tree = tree_of(2)
    assert tree.eager == 2
    assert all(tree.is_eager(each, KEY) for each in tree.branches.values())
    assert all(tree.is_pushed_by(each, KEY) for each in tree.branches.values())


def test_a_pruned_link_is_none_until_it_is_grafted() -> None:
    tree = tree_of(2)
    one = branch(tree, 1)
    tree.prune(one, b"", 5.0)
    assert (tree.eager, tree.is_eager(one, KEY), tree.is_pushed_by(one, KEY)) == (1, False, False)
    assert one.pruned_at == 5.0
    tree.graft(one, b"", by_us=False)
    assert (tree.eager, tree.is_eager(one, KEY)) == (2, True)


def test_an_origin_has_branches_of_its_own_one_way_only() -> None:
    tree = tree_of(2)
    one = branch(tree, 1)
    tree.prune(one, b"", 0.0)
    tree.graft(one, KEY, by_us=True)
    assert tree.is_pushed_by(one, KEY)
    assert not tree.is_eager(one, KEY), "what is pushed one way is not pushed back"
    assert not tree.is_pushed_by(one, OTHER)
    tree.graft(one, KEY, by_us=False)
    assert tree.is_eager(one, KEY)
    assert not tree.is_eager(one, OTHER)
    assert tree.is_moved(KEY, peer(1))
    assert not tree.is_moved(KEY, peer(2))


def test_one_origin_may_be_pruned_on_a_branch_of_the_others() -> None:
    tree = tree_of(1)
    one = branch(tree, 1)
    tree.prune(one, KEY, 0.0)
    assert not tree.is_eager(one, KEY)
    assert not tree.is_pushed_by(one, KEY)
    assert tree.is_eager(one, OTHER)
    assert tree.scopes_of(one) == [b""]
    tree.graft(one, KEY, by_us=True)
    assert tree.scopes_of(one) == [KEY, b""]


def test_a_second_copy_shows_a_circle_in_the_tree_that_it_came_by() -> None:
    tree = tree_of(3)
    one, two = branch(tree, 1), branch(tree, 2)
    assert tree.scope_to_prune(one, KEY, peer(2)) == b""
    tree.graft(two, KEY, by_us=True)
    assert tree.scope_to_prune(one, KEY, peer(2)) == KEY, "the others' tree is not to blame"
    assert tree.scope_to_prune(two, KEY, peer(1)) == KEY
    assert tree.scope_to_prune(one, OTHER, peer(2)) == b""
    tree.prune(one, b"", 0.0)
    assert tree.scope_to_prune(one, OTHER, None) == OTHER


def test_a_lost_branch_breaks_the_tree_until_one_is_grafted() -> None:
    tree = tree_of(3)
    tree.prune(branch(tree, 1), b"", 0.0)
    assert tree.scope_to_graft(KEY, None, 0.0) is None
    tree.remove(peer(1))
    assert tree.scope_to_graft(KEY, None, 0.0) is None, "it was none"
    tree.remove(peer(2))
    assert tree.scope_to_graft(KEY, None, 0.0) == b""
    tree.graft(branch(tree, 3), b"", by_us=True)
    assert tree.scope_to_graft(KEY, None, 0.0) is None


def late(count: int, until: float) -> Lateness:
    found = Lateness()
    for turn in range(count):
        found.note(until - (count - turn) * WINDOW_S, was_late=True)
    return found


def test_one_that_is_late_is_no_sign_and_many_in_a_row_are() -> None:
    tree = tree_of(2)
    assert tree.scope_to_graft(KEY, late(1, 9.0), 9.0) is None
    assert tree.scope_to_graft(KEY, late(9, 9.0), 9.0) == KEY
    for turn in range(9):
        tree.late.note(turn * WINDOW_S, was_late=True)
    assert tree.scope_to_graft(KEY, None, 9.0) == b""


def test_what_one_stall_holds_up_is_late_once() -> None:
    found = Lateness()
    for turn in range(100):
        found.note(turn * WINDOW_S / 200, was_late=True)
    assert found.share(0.9 * WINDOW_S) == 0.0, "it is not over"
    assert found.share(WINDOW_S) == SMOOTHING
    assert found.share(100.0) == SMOOTHING


def test_who_has_no_branch_left_makes_the_nearest_one() -> None:
    tree = tree_of(3)
    assert tree.best_to_graft() is None
    for each in tree.branches.values():
        tree.prune(each, b"", 0.0)
    assert tree.best_to_graft() is branch(tree, 3)
    assert tree_of(0).best_to_graft() is None
    assert tree.scope_to_graft(KEY, None, 0.0) == b""


def test_a_flood_has_no_tree() -> None:
    tree = tree_of(2, flood=True)
    one = branch(tree, 1)
    tree.prune(one, b"", 0.0)
    tree.prune(one, KEY, 0.0)
    assert tree.is_eager(one, KEY)
    assert tree.is_pushed_by(one, KEY)
    tree.remove(peer(2))
    assert tree.scope_to_graft(KEY, late(9, 9.0), 9.0) is None
    assert tree.best_to_graft() is None


@pytest.mark.parametrize(
    ("way_ms", "hops", "is_better"),
    [(100, 4, False), (80, 3, False), (50, 4, True), (60, 2, True), (20, 30, False)],
)
def test_a_way_is_better_by_a_factor_and_a_least_time(
    way_ms: int, hops: int, is_better: bool
) -> None:
    assert tree_of(0).is_better(way_ms * 1000, hops, 100_000, 4) is is_better
    assert not tree_of(0).is_better(0, 1, 4000, 1), "below it jitter decides"


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3), st.integers(0, 20)), max_size=80))
def test_trees_of_their_own_are_bounded(steps: list[tuple[bool, int, int]]) -> None:
    tree = tree_of(3, TreeConfig(own_trees_max=4))
    for grafts, number, origin in steps:
        scope = bytes([origin]) * 32 if origin else b""
        if grafts:
            tree.graft(branch(tree, number), scope, by_us=bool(origin % 2))
        else:
            tree.prune(branch(tree, number), scope, 0.0)
        assert tree.own_trees <= 4
        if scope and not grafts:
            assert not tree.is_eager(branch(tree, number), scope), "the newest is there"
    for number in (1, 2, 3):
        tree.remove(peer(number))
    assert not any(own.grafted | own.parents | own.pruned for own in tree._own.values())
