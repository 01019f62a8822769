"""Programs that are wrong on purpose, each of which the emulator must name by kind and line, beside what is right."""
from __future__ import annotations

import pickle

import numpy as np
import pytest

from emulation import HEADER
from programs import CP_ASYNC, fault, run
from tilewright import emulate


def test_out_of_bounds() -> None:
    past = "add.s64 %g, %g, {};\n  {} // HERE"
    out = np.zeros(64, np.uint32)
    memory = [(out, "rw")]
    found = fault(past.format(4, "st.global.u32 [%g], %t;"), "out-of-bounds", out=out, memory=memory)
    assert found.thread == (63, 0, 0) and "0 bytes past the end of memory[0], uint32 (64,)" in found.message
    found = fault(past.format(-4, "ld.global.u32 %r1, [%g];"), "out-of-bounds", out=out, memory=memory)
    assert found.thread == (0, 0, 0) and "4 bytes before memory[0]" in found.message
    fault("mov.u64 %g, 0;\n st.global.u32 [%g], %t;  // HERE", "out-of-bounds")
    fault("mov.u64 %g, -16;\n st.global.v4.u32 [%g], {%t, %t, %t, %t};  // HERE", "out-of-bounds")
    fault("st.shared.u32 [%s+3844], %t;  // HERE", "out-of-bounds")
    fault("ld.shared.u32 %r1, [%s+-4];  // HERE", "out-of-bounds")
    found = fault("st.global.u32 [%h], %t;  // HERE", "out-of-bounds")
    assert "read-only" in found.message
    fault("mov.u64 %rd1, depot; add.s64 %rd1, %rd1, 64;\n st.local.u32 [%rd1], %t;  // HERE", "out-of-bounds")
    fault("cvta.shared.u64 %rd1, 0;\n st.global.u32 [%rd1], %t;  // HERE", "out-of-bounds")


def test_gaps_of_a_view_are_out_of_bounds() -> None:
    base = np.zeros((64, 2), np.uint32)
    view = base[:, 0]
    body = "mul.wide.u32 %i, %t, 4;\n add.s64 %g, %g, %i;\n st.global.u32 [%g], %t;"
    run(body, out=base, memory=[(view, "w")])
    assert view.tolist() == list(range(64)) and not base[:, 1].any()
    fault(body.replace("[%g], %t;", "[%g+4], %t;  // HERE"), "out-of-bounds", out=base, memory=[(view, "w")])
    # views that overlap allow what any of them allows
    run(body, out=base, memory=[(base, "r"), (view, "w")])
    run(body, out=base, memory=[(base[::-1], "rw"), (base[3:], "r")])


def test_misaligned() -> None:
    fault("st.global.v2.u32 [%g], {%t, %t};  // HERE", "misaligned")
    fault("add.s64 %g, %g, 2;\n ld.global.u32 %r1, [%g];  // HERE", "misaligned")
    fault("st.shared.v4.u32 [%s], {%t, %t, %t, %t};  // HERE", "misaligned")
    fault("mov.u64 %rd1, depot;\n st.local.u64 [%rd1+4], %g;  // HERE", "misaligned")
    fault(CP_ASYNC.replace(" // HERE", "").replace("[%h], 16;", "[%h+4], 16;  // HERE"), "misaligned")


def test_uninitialised() -> None:
    fault("ld.shared.u32 %r1, [%s];  // HERE", "uninitialised")
    fault("mov.u64 %rd1, depot;\n ld.local.u32 %r1, [%rd1];  // HERE", "uninitialised")
    out = np.zeros(64, np.uint32)
    fault("ld.global.u32 %r1, [%g];  // HERE", "uninitialised", out=out, memory=[(out, "w")])
    run("st.global.u32 [%g], %t;\n ld.global.u32 %r1, [%g];", out=out, memory=[(out, "w")])
    # byte by byte: half of a word was written
    fault("cvt.u16.u32 %b1, %t;\n st.global.u16 [%g], %b1;\n ld.global.u32 %r1, [%g];  // HERE", "uninitialised",
          out=out, memory=[(out, "w")])
    fault("mov.u64 %rd1, depot; cvt.u16.u32 %b1, %t;\n st.local.u16 [%rd1], %b1;\n ld.local.u32 %r1, [%rd1];  // HERE",
          "uninitialised")
    # shared memory of the block before does not count
    fault("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p, %r1, 0;\n @%p st.shared.u32 [%s], %t;\n"
          " ld.shared.u32 %r2, [%s];  // HERE", "uninitialised", blocks=2)


def test_diverged_barriers() -> None:
    found = fault("setp.lt.u32 %p, %t, 40;\n @%p bar.sync 0;  // HERE", "barrier")
    assert "ended before this barrier" in found.message
    found = fault("setp.lt.u32 %p, %l, 16;\n @%p bra A;\n bar.sync 0;  // HERE\n bra.uni B;\nA: bar.sync 0;\nB:",
                  "barrier")
    assert "different places" in found.message
    # whole warps may come from two places
    run("setp.eq.u32 %p, %w, 0;\n @%p bra A;\n bar.sync 0;\n bra.uni B;\nA: bar.sync 0;\nB:")


def test_diverged_collectives() -> None:
    shuffle = "shfl.sync.idx.b32 %r1, %t, 0, 31, 0xffffffff;  // HERE"
    found = fault(f"setp.lt.u32 %p, %l, 16;\n @!%p bar.sync 0;\n @%p {shuffle}", "divergent")
    assert "only lanes 0xffff came" in found.message
    fault("setp.lt.u32 %p, %l, 16;\n @%p bra A;\n"
          " vote.sync.ballot.b32 %r1, 1, 0xffffffff;\nA: shfl.sync.idx.b32 %r1, %t, 0, 31, 0xffffffff;  // HERE",
          "divergent")
    fault("shfl.sync.idx.b32 %r1, %t, 0, 31, 0xffff;  // HERE", "divergent")
    # a lane that ended is not waited for, and cannot be read from
    run("setp.lt.u32 %p, %l, 16;\n @!%p exit;\n shfl.sync.idx.b32 %r1, %t, 0, 31, 0xffffffff;")
    found = fault("setp.lt.u32 %p, %l, 16;\n @!%p exit;\n shfl.sync.idx.b32 %r1, %t, 20, 31, 0xffffffff;  // HERE",
                  "divergent")
    assert "lane 20" in found.message
    fault("mov.u32 %r1, 0; st.shared.u32 [%s], %t; setp.lt.u32 %p, %l, 16;\n @!%p exit;\n"
          " ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [shared_words];  // HERE", "divergent")


def test_deadlocks() -> None:
    found = fault("setp.eq.u32 %p, %w, 0;\n @%p bar.sync 0;  // HERE\n @!%p bar.sync 1;", "deadlock")
    assert "different places" in found.message
    found = fault("bar.sync 1, 128;  // HERE", "deadlock")
    assert "128 threads" in found.message
    spin = """
  setp.eq.u32 %p, %t, 32;
  @%p bra SET;
WAIT:
  ld.volatile.global.u32 %r1, [%h+4092];
  setp.eq.u32 %q, %r1, 7;
  @!%q bra WAIT;  // HERE
  bra.uni END;
SET:
END:
"""
    assert "waits for what no thread will do" in fault(spin, "deadlock", limit=1 << 22).message
    flag = np.zeros(1024, np.uint32)
    waits = "ld.param.u64 %rd1, [out];" + spin.replace("[%h+4092]", "[%rd1+4092]")
    run(waits.replace("SET:", "SET:\n st.volatile.global.u32 [%rd1+4092], 7;"), out=flag)
    assert flag[1023] == 7


def test_an_endless_loop() -> None:
    fault("mov.u32 %r1, 0;\nLOOP: add.u32 %r1, %r1, 1; st.global.u32 [%g], %r1;\n bra LOOP;  // HERE", "endless",
          limit=1 << 20)


def test_trap_and_places_in_the_source() -> None:
    text = HEADER + """.file 1 "kernels/example.py"
.visible .entry kernel()
{
  .reg .pred %p; .reg .b32 %t;
  .loc 1 41 5
  mov.u32 %t, %tid.x;
  setp.eq.u32 %p, %t, 1;
  .loc 1 42 9, function_name $L__info, inlined_at 1 50 1
  @%p trap;
  ret;
}
"""
    with pytest.raises(emulate.Fault) as caught:
        emulate.Module(text).launch("kernel", (2, 1), (2, 2, 1), [])
    line = 1 + text.splitlines().index("  @%p trap;")
    assert caught.value.kind == "trap" and caught.value.ptx_line == line
    assert caught.value.source == ("kernels/example.py", 42)
    assert caught.value.block == (0, 0, 0) and "example.py:42" in str(caught.value)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.kind, copy.source) == (str(caught.value), "trap", caught.value.source)


def test_launches_that_no_device_takes() -> None:
    text = HEADER + """.visible .entry one(.param .u32 a, .param .align 8 .b8 pair[16]) .maxntid 64, 1, 1 { ret; }
.visible .entry two() .reqntid 32 { .shared .align 4 .b8 big[49152]; .reg .b32 %r; mov.u32 %r, big; ret; }
"""
    module = emulate.Module(text)
    pair = bytes(16)
    module.launch("one", 1, 64, [np.int32(1), pair])
    module.launch("one", 1, 64, [7, pair])
    x = np.zeros(4)
    x.flags.writeable = False
    for arguments in (("three", 1, 32, []), (None, 1, 32, []), ("one", 1, 65, [np.int32(1), pair]),
                      ("one", 1, 64, [pair]), ("one", 1, 64, [np.int64(1), pair]),
                      ("one", 1, 64, [np.int32(1), bytes(8)]), ("one", 1, 64, [1.0, pair]),
                      ("one", 1, 64, [2**32, pair]), ("one", 1, 64, ["1", pair]),
                      ("two", 1, 31, []), ("two", 1, 32, [], (), 227 * 1024), ("one", 0, 64, [np.int32(1), pair]),
                      ("one", 1, (8, 8, 128), [np.int32(1), pair]), ("two", 1, 32, [], [(x, "rw")]),
                      ("two", 1, 32, [], [(np.zeros(3), "x")])):
        with pytest.raises(emulate.Fault) as caught:
            module.launch(*arguments)
        assert caught.value.kind == "launch", arguments
