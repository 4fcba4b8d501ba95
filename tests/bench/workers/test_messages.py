"""What a worker may say to its run."""

from __future__ import annotations

import pytest

from fusetune.bench.results import Record
from fusetune.bench.spec import left_out
from fusetune.bench.workers.messages import ForeignMessage, Message, decode, encode


def test_the_record_of_a_factor_that_was_left_out_arrives_as_it_is() -> None:
    record = Record("grad_clip=default,seed=0", {"grad_clip": left_out([0.1])}, 0, "ok")
    told = Record.from_dict(decode(encode(Message("7f", "record", record.as_dict()))).content)
    assert told == record
    assert type(told.factors["grad_clip"]) is type(left_out([]))


def test_code_of_others_has_no_place_in_a_message() -> None:
    with pytest.raises(ForeignMessage, match="has no place in a message"):
        decode(encode(Message("7f", "record", {"reason": pytest.approx})))
