"""Scalars are told from streams by line, and by PTX's count where ptxas gave an instruction another line."""

from __future__ import annotations

from fusetune.kernels.static.machine_code import Instruction, parse_sass
from fusetune.kernels.static.scalar_accesses import scalar_accesses

TTGIR = """
    %address = tt.load %record : !tt.ptr<i64> loc(#loc1)
    %x = tt.load %pointers, %mask : tensor<1024x!tt.ptr<f32>, #blocked> loc(#loc4)
    tt.store %pointers, %x, %mask : tensor<1024x!tt.ptr<f32>, #blocked> loc(#loc2)
#loc1 = loc("/some/where/k.py":3:10)
#loc2 = loc("/some/where/k.py":5:4)
#loc3 = loc("/some/where/k.py":4:8)
#loc4 = loc(callsite(#loc3 at #loc2))
"""

PTX = """
\t.loc\t1 3 10                          // k.py:3:10 @[ k.py:9:1 ]
\tld.global.b64 { %rd1 }, [ %rd2 + 0 ];
\tld.global.b64 { %rd3 }, [ %rd2 + 8 ];
\t.loc\t1 4 8                          // k.py:4:8
\t@%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
"""


def listing(second_pointer_line: int, second_width: str = ".64", guard: str = "") -> tuple[Instruction, ...]:
    """Two scalar loads and a vector load; the second scalar's line is as given."""
    return parse_sass(f"""
\t//## File "/some/where/k.py", line 3
        /*0000*/                   LDG.E.64 R2, desc[UR4][R8.64] ;
\t//## File "/some/where/k.py", line {second_pointer_line}
        /*0010*/              {guard} LDG.E{second_width} R4, desc[UR4][R8.64+0x8] ;
\t//## File "/some/where/k.py", line 4
        /*0020*/              @!P0 LDG.E.128 R12, desc[UR4][R2.64] ;
\t//## File "/some/where/k.py", line 5
        /*0030*/              @!P0 STG.E.128 desc[UR4][R4.64], R12 ;
        /*0040*/                   EXIT ;
""")


def scalar_opcodes(instructions: tuple[Instruction, ...], ptx: str = PTX) -> list[int]:
    """Return the positions of the scalar accesses."""
    scalars = scalar_accesses(instructions, TTGIR, ptx)
    return [i for i, instruction in enumerate(instructions) if id(instruction) in scalars]


def test_lines_tell_scalars_and_inlined_functions_count_where_they_are_written() -> None:
    assert scalar_opcodes(listing(3)) == [0, 1]


def test_a_scalar_that_got_the_line_of_a_stream_is_found_by_the_count_in_ptx() -> None:
    assert scalar_opcodes(listing(4)) == [0, 1]


def test_a_narrow_access_that_ptx_does_not_expect_to_be_a_scalar_stays_a_stream() -> None:
    assert scalar_opcodes(listing(4), ptx="") == [0]
    assert scalar_opcodes(listing(4, second_width="")) == [0]


def test_a_masked_access_is_no_scalar() -> None:
    assert scalar_opcodes(listing(4, guard="@!P0")) == [0]


def test_a_vector_on_the_line_of_a_scalar_is_a_stream() -> None:
    assert scalar_opcodes(listing(3, second_width=".128")) == [0]


def test_a_scalar_that_swapped_lines_with_a_stream_is_found_by_the_count_in_ptx() -> None:
    swapped = parse_sass("""
\t//## File "/some/where/k.py", line 3
        /*0000*/                   LDG.E.64 R2, desc[UR4][R8.64] ;
\t//## File "/some/where/k.py", line 4
        /*0010*/                   LDG.E.64 R4, desc[UR4][R8.64+0x8] ;
\t//## File "/some/where/k.py", line 3
        /*0020*/              @!P0 LDG.E.128 R12, desc[UR4][R2.64] ;
        /*0040*/                   EXIT ;
""")
    assert scalar_opcodes(swapped) == [0, 1]
