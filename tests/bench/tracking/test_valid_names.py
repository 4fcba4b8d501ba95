"""Names for trackers: of allowed characters, short enough, and different where the texts are."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from fusetune.bench.tracking import valid_name

ALLOWED = r"\w=,.-"


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=60), unique=True, max_size=20))
def test_a_name_is_valid_and_its_own(texts: list[str]) -> None:
    names = [valid_name(text, allowed=ALLOWED, longest=24) for text in texts]
    assert all(re.fullmatch(r"[A-Za-z0-9_=,.-]{1,24}", name) and name[0] != "." for name in names)
    assert len(set(names)) == len(texts)


@given(st.text(st.sampled_from("abcXYZ019_=,-"), min_size=1, max_size=24))
def test_a_valid_name_stays(text: str) -> None:
    assert valid_name(text, allowed=ALLOWED, longest=24) == text


def test_long_names_that_differ_at_their_end_stay_different() -> None:
    first, second = (valid_name("a" * 500 + end, allowed=ALLOWED, longest=100) for end in "bc")
    assert len(first) == len(second) == 100
    assert first != second
