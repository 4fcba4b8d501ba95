"""The driver's judgement of results, by arrays whose truth is written down here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fusetune.bench.kernels import Case, KernelSource, shared_arrays
from fusetune.bench.kernels.lane import LaneError
from fusetune.bench.kernels.process import Answer, KernelFacts
from fusetune.bench.kernels.shared_arrays import Array, SharedTree, mapped, moved, read_tree
from fusetune.bench.kernels.verify import Finding, Verifier, compare, swapped, varied

N = 4096
RANDOM = np.random.default_rng(0)


def bf16(values: Any) -> Array:
    """Round to bfloat16, ties to even."""
    wide = np.asarray(values, np.float32).view(np.uint32)
    return Array.of(((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16), "bfloat16")


def in_dtype(values: Any, dtype: str) -> Array:
    with np.errstate(over="ignore"):
        return bf16(values) if dtype == "bfloat16" else Array.of(np.asarray(values).astype(dtype))


def f64(values: Any) -> Array:
    return Array.of(np.asarray(values, np.float64))


def judged(
    result: Any,
    truth: Any,
    eager: Any = None,
    *,
    dtype: str = "float32",
    read: int = 1,
    tolerance: float | None = None,
) -> Finding:
    """Compare one result, after a call that read some tensors and changed none."""
    inputs = {f"x{i}": in_dtype(np.ones(np.shape(truth)), dtype) for i in range(read)}
    as_array = [each if isinstance(each, Array) else in_dtype(each, dtype) for each in (result, truth)]
    plain = as_array[1] if eager is None else in_dtype(eager, dtype)
    return compare(
        Answer([as_array[0]], inputs),
        inputs,
        Answer([f64(truth)], inputs),
        Answer([plain], inputs),
        (),
        tolerance=tolerance,
    )


def refused(*arguments: Any, **options: Any) -> str:
    with pytest.raises(LaneError) as caught:
        judged(*arguments, **options)
    assert caught.value.status == "wrong"
    return caught.value.reason


TRUTH = RANDOM.standard_normal(N)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_result_rounded_once_passes(dtype: str) -> None:
    found = judged(TRUTH, TRUTH, dtype=dtype)
    eps = in_dtype([1.0], dtype).eps
    assert 0 < found.error <= eps / 2
    assert found.error == found.eager_error
    assert found.tolerance <= eps + 5e-7


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_zeros_fail_at_any_scale(dtype: str) -> None:
    for scale in (1e-4, 1.0, 1e4):
        assert "off by" in refused(np.zeros(N), TRUTH * scale, dtype=dtype)


def test_half_precision_inside_of_single_precision_fails() -> None:
    refused(TRUTH.astype(np.float16), TRUTH)
    refused(bf16(TRUTH).values, TRUTH)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_one_element_that_was_not_written_fails(dtype: str) -> None:
    result = TRUTH.copy()
    last = int(np.abs(TRUTH).argsort()[N // 2])
    result[last] = 0
    assert f"at [{last}]" in refused(result, TRUTH, dtype=dtype)


def test_an_error_everywhere_fails_though_no_element_is_far_off() -> None:
    # One element is large, so the largest error is small beside it. The rms is not.
    truth, wrong = np.concatenate([[50.0], TRUTH]), TRUTH * (1 + 1e-6)
    reason = refused(np.concatenate([[50.0], wrong]), truth)
    assert "rms" in reason


def test_twice_the_error_of_the_reference_passes_and_more_does_not() -> None:
    noise = RANDOM.standard_normal(N) * 1e-4
    judged(TRUTH + 1.9 * noise, TRUTH, TRUTH + noise)
    refused(TRUTH + 2.5 * noise, TRUTH, TRUTH + noise)


def test_a_long_sum_may_be_off_by_the_root_of_its_length() -> None:
    # One result of 10,000 inputs: sqrt(10,000) * 4 eps = 4.8e-5.
    judged([100.0 * (1 + 4e-5)], [100.0], read=10_000)
    refused([100.0 * (1 + 6e-5)], [100.0], read=10_000)


def test_a_tolerance_that_was_given_is_used() -> None:
    judged(TRUTH * 1.01, TRUTH, tolerance=0.02)
    refused(TRUTH * 1.03, TRUTH, tolerance=0.02)
    refused(TRUTH * (1 + 1e-6), TRUTH, TRUTH * 1.01, tolerance=1e-7)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_is_no_wildcard(bad: float) -> None:
    result = TRUTH.copy()
    result[7] = bad
    assert "at [7]" in refused(result, TRUTH)
    assert "at [0]" in refused(np.full(N, bad), TRUTH)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_nan_and_infinities_of_the_reference_must_be_there(special: float) -> None:
    truth = TRUTH.copy()
    truth[7] = special
    judged(truth, truth)
    for wrong in (0.0, 3e38, -special):
        if np.isnan(special) and wrong != 0.0:
            continue
        result = truth.copy()
        result[7] = wrong
        refused(result, truth)


def test_what_overflows_in_the_dtype_alone_is_an_infinity() -> None:
    truth = TRUTH.copy()
    truth[7] = 1e6  # beyond fp16
    eager = truth.copy()
    judged(eager, truth, eager, dtype="float16")
    result = truth.copy()
    result[7] = -1e6
    refused(result, truth, eager, dtype="float16")


def test_a_kernel_may_be_finite_where_the_reference_overflows_on_the_way() -> None:
    eager = TRUTH.copy()
    eager[7] = np.nan
    judged(TRUTH, TRUTH, eager)
    result = TRUTH.copy()
    result[7] += 1
    refused(result, TRUTH, eager)


def test_shape_and_dtype_are_exact() -> None:
    assert "shape" in refused(Array.of(np.float32(TRUTH[:-1])), TRUTH)
    assert "shape" in refused(Array.of(np.float32(TRUTH).reshape(2, -1)), TRUTH)
    assert "float64" in refused(f64(TRUTH), TRUTH)
    assert "float16" in refused(Array.of(np.float16(TRUTH)), TRUTH)


def test_an_empty_result_passes() -> None:
    assert judged(np.zeros(0), np.zeros(0)) == Finding()


def test_the_number_of_results_is_exact() -> None:
    x = Array.of(np.float32(TRUTH))
    inputs: dict[str, Any] = {"x": x}
    right = Answer([x, x], inputs)
    for results in ([x], [x, x, x], None):
        with pytest.raises(LaneError, match="returned"):
            compare(Answer(results, inputs), inputs, Answer([f64(TRUTH)] * 2, inputs), right, ())
    compare(Answer((x, x), inputs), inputs, Answer([f64(TRUTH)] * 2, inputs), right, ())


def test_integers_are_those_of_the_reference_in_one_precision_or_the_other() -> None:
    counts = np.arange(8)
    x = Array.of(np.float32(TRUTH[:8]))

    def run(result: Any, plain: Any, true: Any) -> Finding:
        answers = [Answer([Array.of(np.asarray(each))], {"x": x}) for each in (result, true, plain)]
        return compare(answers[0], {"x": x}, answers[1], answers[2], ())

    run(counts, counts, counts)
    other = counts.copy()
    other[3] = 9  # a tie that rounding decides
    run(other, counts, other)
    run(other, other, counts)
    with pytest.raises(LaneError, match=r"is 9 at \[3\], not 3 \(1 of 8"):
        run(other, counts, counts)
    with pytest.raises(LaneError, match="is False at"):
        run(~np.array([True, False]), np.array([True, False]), np.array([True, False]))


# What is updated in place.


def updated(
    result: Any, truth: Any, eager: Any, before: Any, *, dtype: str = "float32", others: Any = None
) -> Finding:
    """Compare a tensor that a call updates, beside one that it only reads."""
    read = in_dtype(TRUTH, dtype)
    old = {"p": in_dtype(before, dtype), "g": read}
    after = {"p": in_dtype(result, dtype), "g": read if others is None else in_dtype(others, dtype)}
    exact = {"p": f64(truth), "g": f64(TRUTH)}
    plain = {"p": in_dtype(eager, dtype), "g": read}
    return compare(Answer(None, after), old, Answer(None, exact), Answer(None, plain), ("p",))


def a_step(dtype: str, size: float) -> tuple[Any, Any, Any]:
    before = in_dtype(RANDOM.standard_normal(N), dtype).values.astype(np.float64)
    truth = before - size * TRUTH
    return before, truth, in_dtype(truth, dtype).values.astype(np.float64)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("size", [1e-1, 1e-3])
def test_an_update_passes_and_doing_nothing_fails(dtype: str, size: float) -> None:
    before, truth, eager = a_step(dtype, size)
    updated(eager, truth, eager, before, dtype=dtype)
    with pytest.raises(LaneError, match=r"of its true change|off by"):
        updated(before, truth, eager, before, dtype=dtype)


def test_doing_nothing_has_small_errors_in_bf16() -> None:
    before, truth, eager = a_step("bfloat16", 1e-3)
    with pytest.raises(LaneError, match="moves 0 of its true change"):
        updated(before, truth, eager, before, dtype="bfloat16")


def test_a_step_twice_or_half_as_long_fails_in_bf16() -> None:
    before, truth, eager = a_step("bfloat16", 3e-3)
    for share in (0.5, 2.0, -1.0):
        wrong = before + share * (truth - before)
        with pytest.raises(LaneError, match="of its true change"):
            updated(wrong, truth, eager, before, dtype="bfloat16")


def test_rounding_by_chance_is_better_than_the_reference_and_passes() -> None:
    before, truth, eager = a_step("bfloat16", 1e-3)
    low = bf16(truth).values.astype(np.float64)
    gap = np.maximum(np.abs(truth), 2.0**-126) * 2.0**-7
    dithered = bf16(truth + (RANDOM.random(N) - 0.5) * gap).values
    assert not np.array_equal(low, dithered)
    updated(dithered, truth, eager, before, dtype="bfloat16")


def test_an_input_that_is_only_read_must_not_change() -> None:
    before, truth, eager = a_step("float32", 0.1)
    others = TRUTH.copy()
    others[5] = 0
    with pytest.raises(LaneError) as caught:
        updated(eager, truth, eager, before, others=others)
    assert caught.value.status == "mutated"
    assert "changed g" in caught.value.reason
    assert "[5]" in caught.value.reason


def test_the_sign_of_a_zero_and_the_bits_of_nan_count_in_an_input() -> None:
    old = {"x": Array.of(np.array([0.0, np.nan], np.float32))}
    new = {"x": Array.of(np.array([-0.0, np.nan], np.float32))}
    answers = Answer(None, old), Answer(None, old)
    compare(Answer(None, old), old, *answers, ())
    with pytest.raises(LaneError, match="changed x"):
        compare(Answer(None, new), old, *answers, ())


@pytest.mark.parametrize("where", [0, 255, -1, -256])
def test_a_write_beside_a_tensor_is_seen(where: int) -> None:
    before, truth, eager = a_step("float32", 0.1)
    tree = moved({"p": in_dtype(before, "float32")}, by_bytes=4, guard_bytes=256, seed=3)
    window = tree["p"]
    storage = window.storage.copy()
    after = Array(window.dtype, window.shape, window.strides, storage, window.offset)
    after.bits[...] = np.float32(eager)
    exact, plain = Answer(None, {"p": f64(truth)}), Answer(None, {"p": in_dtype(eager, "float32")})
    compare(Answer(None, {"p": after}), tree, exact, plain, ("p",))
    storage[where] ^= 1
    with pytest.raises(LaneError, match="beside") as caught:
        compare(Answer(None, {"p": after}), tree, exact, plain, ("p",))
    assert caught.value.status == "mutated"


def test_the_worst_of_several_findings_is_kept() -> None:
    both = Finding(1e-3, 1e-3, 2e-3, ("One.",)).and_also(Finding(1e-7, 2e-7, 1.1e-7, ("One.", "Two.")))
    assert both == Finding(1e-7, 2e-7, 1.1e-7, ("One.", "Two."))


def test_swapped_elements_keep_the_sum_and_all_but_two_places() -> None:
    tree = {"x": Array.of(TRUTH), "n": Array.of(np.arange(9)), "bounds": Array.of(np.linspace(0, 1, 9))}
    got = swapped(tree, np.random.default_rng(1))
    assert int((got["x"].values != TRUTH).sum()) == 2
    assert sorted(got["x"].values) == sorted(TRUTH)
    for name in ("n", "bounds"):
        np.testing.assert_array_equal(got[name].values, tree[name].values)


def test_varied_values_keep_their_signs_and_scale() -> None:
    tree = {"x": Array.of(TRUTH), "zeros": Array.of(np.zeros(9)), "other": Array.of(TRUTH)}
    got = varied(tree, {id(tree["x"]), id(tree["zeros"])}, np.random.default_rng(1))
    ratio = got["x"].values / TRUTH
    assert 0.5 <= ratio.min() < 0.6 < 1.4 < ratio.max() < 1.5
    assert (got["zeros"].values > 0).all()
    np.testing.assert_array_equal(got["other"].values, TRUTH)


def test_large_results_are_compared_in_parts_with_the_same_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = RANDOM.standard_normal((63, 65))
    result = truth * (1 + 1e-7 * RANDOM.standard_normal(truth.shape))
    wrong = result.copy()
    wrong[40, 3] += 0.5
    nan = result.copy()
    nan[61, 64] = np.nan
    whole = judged(result, truth, truth), refused(wrong, truth), refused(nan, truth)
    monkeypatch.setattr(shared_arrays, "PART", 100)
    parts = judged(result, truth, truth), refused(wrong, truth), refused(nan, truth)
    assert parts[1:] == whole[1:]
    assert "[40, 3]" in parts[1]
    assert "[61, 64]" in parts[2]
    assert parts[0].error == pytest.approx(whole[0].error, rel=1e-12)


class OneSetAtATime:
    """The lane of a reference that adds 1 to `x`, and says how many large inputs are open."""

    def __init__(self, facts: KernelFacts) -> None:
        self.known = facts
        self.made: list[int] = []

    def facts(self) -> KernelFacts:
        return self.known

    def make_inputs(self, seed: int, elements: int) -> Any:
        self.made.append(elements)
        return {"x": Array.of(np.random.default_rng(seed).random(elements))}

    def results(self, inputs: SharedTree, **options: bool) -> Answer:
        tree = read_tree(inputs.text, inputs.file)
        return Answer(mapped(tree["x"], lambda x: Array.of(x.values + 1)), tree)

    truth = results

    def first_results(self) -> None: ...


def test_large_inputs_are_tried_once_at_their_size_and_closed() -> None:
    elements = 1 << 20
    lane: Any = OneSetAtATime(KernelFacts((), None, False, 16, elements, True, 8 * elements))
    verifier = Verifier(lane, Case(KernelSource("gelu"), "gelu", elements, "float64"))
    found = verifier.verify(lane)
    assert lane.made.count(elements) == 1
    assert found.checked > 5
    assert max(each.elements for each in verifier._sets) < elements / 8
    before = list(lane.made)
    verifier.verify(lane, thorough=False)
    assert lane.made == before


def test_large_inputs_whose_shape_is_fixed_are_tried_one_seed_after_the_other() -> None:
    elements = 1 << 20
    lane: Any = OneSetAtATime(KernelFacts((), None, False, 16, elements, False, 8 * elements))
    verifier = Verifier(lane, Case(KernelSource("gelu"), "gelu", elements, "float64"))
    found = verifier.verify(lane)
    assert (lane.made, found.checked, len(verifier._sets)) == ([elements] * 3, 3, 1)
