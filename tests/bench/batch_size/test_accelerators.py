"""The table of devices that are not there."""

from __future__ import annotations

import re

import pytest

from fusetune.bench.batch_size.accelerators import ACCELERATORS, accelerator
from fusetune.bench.errors import InputError

GIB = 2**30


@pytest.mark.parametrize("name", ACCELERATORS)
def test_what_a_card_has_is_a_little_less_than_it_is_sold_with(name: str) -> None:
    card = ACCELERATORS[name]
    sold = int(re.search(r"(\d+) GB", card.title).group(1))
    # Sold in units of 10^9 or 2^30 bytes; page tables and error correction take up to a tenth.
    assert 0.88 * sold <= card.capacity_bytes / GIB <= sold
    assert 0.94 * card.capacity_bytes < card.usable_bytes < card.capacity_bytes


def test_cards_from_compute_capability_8_on_have_bf16() -> None:
    assert {name for name, card in ACCELERATORS.items() if not card.bf16} == {"t4", "v100-16", "v100-32"}


def test_the_names_of_the_documentation_are_there() -> None:
    wanted = {"a100-40", "a100-80", "h100-80", "h200", "l4", "t4", "rtx-3090", "rtx-4090", "v100-16"}
    assert wanted <= set(ACCELERATORS)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"--device: unknown 'h100-8'; known: a10, .*Did you mean 'h100-80'\?"
    ):
        accelerator("h100-8")
