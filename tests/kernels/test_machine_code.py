"""The parsers and the control-flow graph, on short listings written by hand."""

from __future__ import annotations

from fusetune.kernels.static.machine_code import parse_gcn, parse_sass, path_through

SASS = """
.text.k:
\t//## File "/some/where/k.py", line 3
        /*0000*/                   LDG.E R3, desc[UR4][R2.64] ;
        /*0010*/              @!P0 BRA `(.L_x_0) ;
\t//## File "/some/where/k.py", line 5
        /*0020*/              @!P1 LDG.E.128 R8, desc[UR4][R20.64+0x800] ;
        /*0030*/                   FADD R8, R8, R8 ;
        /*0040*/               @P1 EXIT ;
        /*0050*/                   STG.E.128 desc[UR4][R16.64+0x800], R4 ;
        /*0060*/                   EXIT ;
.L_x_0:
\t//## File "/some/where/k.py", line 7
        /*0070*/                   LDG.E.U16 R3, desc[UR4][R4.64] ;
        /*0080*/                   STG.E.U8 desc[UR4][R4.64], R3 ;
        /*0090*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*00a0*/                   STL.64 [R1], R4 ;
        /*00b0*/                   EXIT ;
.L_x_1:
        /*00c0*/                   BRA `(.L_x_1);
        /*00d0*/                   NOP;
"""

GCN = """
k:                                      ; @k
.Lfunc_begin0:
\t.loc\t1 3 0 prologue_end              ; k.py:3:0
\ts_load_dwordx2 s[2:3], s[0:1], 0x0
\ts_cbranch_vccz .LBB0_2
; %bb.1:
\t.loc\t1 5 30                          ; k.py:5:30 @[ k.py:9:1 ]
\tglobal_load_dwordx4 v[0:3], v[0:1], off
\tbuffer_store_dwordx2 v[0:1], v0, s[4:7], 0 offen
\ts_branch .LBB0_3
.LBB0_2:                                ; %Flow
\tglobal_load_ushort v0, v[0:1], off
\tscratch_store_dword off, v0, s32
\ts_barrier
.LBB0_3:
\ts_endpgm
\t.section\t.rodata,"a",@progbits
\ts_nop 0
"""


def test_sass_widths_kinds_and_source_lines() -> None:
    instructions = parse_sass(SASS)
    memory = [(i.kind, i.bits, i.source) for i in instructions if i.bits]
    assert memory == [
        ("load", 32, ("k.py", 3)),
        ("load", 128, ("k.py", 5)),
        ("store", 128, ("k.py", 5)),
        ("load", 16, ("k.py", 7)),
        ("store", 8, ("k.py", 7)),
    ]
    assert [i.opcode for i in instructions if i.kind in ("barrier", "spill")] == [
        "BAR.SYNC.DEFER_BLOCKING",
        "STL.64",
    ]


def test_sass_padding_is_no_code() -> None:
    assert [i.opcode for i in parse_sass(SASS)][-2:] == ["STL.64", "EXIT"]


def test_sass_path_holds_the_block_and_what_leads_to_it_but_no_other_branch() -> None:
    path = path_through(parse_sass(SASS), lambda i: i.kind == "load" and i.bits == 128)
    assert [i.opcode for i in path] == ["LDG.E", "BRA", "LDG.E.128", "FADD", "EXIT"]


def test_sass_path_of_the_last_store_passes_the_early_exit() -> None:
    path = path_through(parse_sass(SASS), lambda i: i.kind == "store" and i.bits == 128)
    assert [i.opcode for i in path] == ["LDG.E", "BRA", "LDG.E.128", "FADD", "EXIT", "STG.E.128", "EXIT"]


def test_gcn_widths_kinds_and_innermost_source_lines() -> None:
    instructions = parse_gcn(GCN)
    memory = [(i.kind, i.bits, i.source) for i in instructions if i.kind in ("load", "store")]
    assert memory == [
        ("load", 128, ("k.py", 5)),
        ("store", 64, ("k.py", 5)),
        ("load", 16, ("k.py", 5)),
    ]
    assert [i.kind for i in instructions if i.kind in ("barrier", "spill", "exit")] == [
        "spill",
        "barrier",
        "exit",
    ]


def test_gcn_path_holds_the_common_end() -> None:
    path = path_through(parse_gcn(GCN), lambda i: i.bits == 128)
    assert [i.opcode for i in path] == [
        "s_load_dwordx2",
        "s_cbranch_vccz",
        "global_load_dwordx4",
        "buffer_store_dwordx2",
        "s_branch",
        "s_endpgm",
    ]


def test_path_through_a_loop_counts_its_body_once() -> None:
    loop = """
        /*0000*/                   MOV R0, R1 ;
.L_x_0:
        /*0010*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/               @P0 BRA `(.L_x_0) ;
        /*0030*/                   EXIT ;
"""
    path = path_through(parse_sass(loop), lambda i: i.kind == "load")
    assert [i.opcode for i in path] == ["MOV", "LDG.E.128", "BRA", "EXIT"]
