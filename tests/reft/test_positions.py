"""Which tokens are edited: by rule, never padding, never the answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csreft_core.reft.positions import parse_positions, token_index

pytestmark = pytest.mark.fast

rows_of_tokens = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=4
)  # prompt and answer tokens of each row
sides = st.sampled_from(["left", "right"])


def laid_out(rows: list[tuple[int, int]], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Index and prompt length of a padded batch."""
    width = max(map(sum, rows)) + 1
    mask = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, (n, a) in enumerate(rows):
        mask[i, slice(width - n - a, width) if side == "left" else slice(0, n + a)] = True
    return token_index(mask), torch.tensor([n for n, _ in rows])


def edited(rule: str, rows, side, tied=True) -> list[list[int]]:
    """The group of each real token of each row."""
    index, length = laid_out(rows, side)
    groups = parse_positions(rule, tied=tied).groups(index, length)
    assert (groups[index < 0] == -1).all()
    return [row[place >= 0].tolist() for row, place in zip(groups, index, strict=True)]


@pytest.mark.parametrize(
    ("rule", "n", "expected"),
    [
        ("all", 5, [0, 0, 0, 0, 0, 0, 0]),
        ("all_prompt", 5, [0, 0, 0, 0, 0, -1, -1]),
        ("f2", 5, [0, 0, -1, -1, -1, -1, -1]),
        ("l2", 5, [-1, -1, -1, 0, 0, -1, -1]),
        ("f1+l2", 5, [0, -1, -1, 0, 0, -1, -1]),
        ("f2+l2", 3, [0, 0, 0, -1, -1]),
        ("f4+l4", 5, [0, 0, 0, 0, 0, -1, -1]),
        ("f2", 1, [0, -1, -1]),
        ("l3", 2, [0, 0, -1, -1]),
        ("f2+l2", 1, [0, -1, -1]),
    ],
)
def test_rules_on_one_prompt_with_two_answer_tokens(rule, n, expected):
    for side in ("left", "right"):
        assert edited(rule, [(n, 2), (9, 2)], side)[0] == expected


@pytest.mark.parametrize(
    ("n", "expected"),
    # Caps floor(n/2) and ceil(n/2): of one token the last group has it, of three it has two.
    [(1, [1]), (2, [0, 1]), (3, [0, 1, 1]), (4, [0, 0, 1, 1]), (6, [0, 0, -1, -1, 1, 1])],
)
def test_untied_groups_of_short_prompts(n, expected):
    assert edited("f2+l2", [(n, 0)], "left", tied=False) == [expected]


@settings(max_examples=150, deadline=None)
@given(rows=rows_of_tokens, p=st.integers(0, 5), s=st.integers(0, 5), side=sides)
def test_first_and_last_real_prompt_tokens_and_never_an_answer_token(rows, p, s, side):
    rule = "+".join([f"f{p}"] * (p > 0) + [f"l{s}"] * (s > 0))
    if not rule:
        return
    for tied in {True, not (p and s)}:
        for (n, a), groups in zip(rows, edited(rule, rows, side, tied), strict=True):
            first = min(p, n // 2 if s else n)
            last = min(s, -(-n // 2) if p else n)
            expected = [g < first or n - last <= g < n for g in range(n + a)]
            assert [g >= 0 for g in groups] == expected
            assert groups[n:] == [-1] * a


@settings(max_examples=60, deadline=None)
@given(rows=rows_of_tokens, rule=st.sampled_from(["all", "all_prompt", "f2", "l3", "f2+l2"]))
def test_padding_side_changes_nothing(rows, rule):
    assert edited(rule, rows, "left") == edited(rule, rows, "right")


@settings(max_examples=60, deadline=None)
@given(rows=rows_of_tokens, rule=st.sampled_from(["all", "all_prompt", "f2", "l3", "f2+l2"]))
def test_a_token_at_a_time_gives_the_same_as_all_at_once(rows, rule):
    index, length = laid_out(rows, "left")
    positions = parse_positions(rule)
    columns = [positions.groups(index[:, c : c + 1], length) for c in range(index.shape[1])]
    assert torch.equal(torch.cat(columns, 1), positions.groups(index, length))


def test_index_counts_real_tokens_also_behind_a_hole():
    mask = torch.tensor([[False, True, True, False, True]])
    assert token_index(mask).tolist() == [[-1, 0, 1, -1, 2]]


def test_all_edits_generated_tokens_and_all_prompt_does_not():
    assert parse_positions("all").generated
    assert not parse_positions("all_prompt").generated
    assert parse_positions("f2+l2", tied=False).n_groups == 2
    assert parse_positions("f2+l2").n_groups == 1
