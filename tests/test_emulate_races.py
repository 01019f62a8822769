"""Programs whose accesses are in no order, on purpose, each of which the emulator must name, beside those in order."""
from __future__ import annotations

import re

import numpy as np
import pytest

from programs import CP_ASYNC, fault, program, run
from tilewright import emulate

EXCHANGE = """
  st.shared.u32 [%s], %t;
  bar.sync 0;
  xor.b32 %r1, %o, 128;
  mov.u32 %r3, shared_words;
  add.u32 %r3, %r3, %r1;
  ld.shared.u32 %r2, [%r3];
  bar.sync 0;  // second
  st.shared.u32 [%s], %r2;  // HERE
  st.global.u32 [%g], %r2;
"""


@pytest.mark.parametrize("seed", range(5))
def test_a_dropped_barrier(seed: int) -> None:
    assert run(EXCHANGE, seed=seed)[:64].tolist() == [t ^ 32 for t in range(64)]
    found = fault(EXCHANGE.replace("bar.sync 0;  // second", ""), "race", seed=seed)
    assert re.search(r"in no order with a (read|write) by thread \(\d+, 0, 0\) at PTX line \d+", found.message)


def test_a_barrier_dropped_before_reading() -> None:
    """The first warp runs to the end before the second writes: nothing is there yet, which is a fault as well."""
    body = EXCHANGE.replace("bar.sync 0;\n  xor", "xor").replace("HERE", "")
    for seed in range(4):
        with pytest.raises(emulate.Fault) as caught:
            run(body, seed=seed)
        assert caught.value.kind in ("race", "uninitialised")


SYNCWARP = """
  st.shared.u32 [%s], %t;
  bar.warp.sync 0xffffffff;
  xor.b32 %r1, %o, 4;
  mov.u32 %r3, shared_words;
  add.u32 %r3, %r3, %r1;
  ld.shared.u32 %r2, [%r3];
  bar.warp.sync 0xffffffff;  // second
  st.shared.u32 [%s], %r2;  // HERE
  st.global.u32 [%g], %r2;
"""


def test_a_missing_syncwarp() -> None:
    assert run(SYNCWARP)[:64].tolist() == [t ^ 1 for t in range(64)]
    fault(SYNCWARP.replace("bar.warp.sync 0xffffffff;  // second", ""), "race", seed=1)
    # a shuffle brings lanes together and orders no memory
    fault(SYNCWARP.replace("bar.warp.sync 0xffffffff;  // second", "shfl.sync.idx.b32 %r5, %r1, 0, 31, 0xffffffff;"),
          "race", seed=1)


def test_syncwarp_of_some_lanes_orders_only_those() -> None:
    half = """
  st.shared.u32 [%s], %t;
  setp.lt.u32 %p, %l, 16;
  @!%p bra OTHERS;
  bar.warp.sync 0xffff;
  bra.uni MEET;
OTHERS:
  bar.warp.sync 0xffff0000;
MEET:
  xor.b32 %r1, %o, {};
  mov.u32 %r3, shared_words;
  add.u32 %r3, %r3, %r1;
  ld.shared.u32 %r2, [%r3];  // HERE
  st.global.u32 [%g], %r2;
"""
    assert run(half.format(32), threads=32)[:32].tolist() == [t ^ 8 for t in range(32)]
    fault(half.format(64), "race", threads=32)


@pytest.mark.parametrize(("reads", "threads"), [
    ("setp.ge.u32 %p, %t, 0;", 32),
    ("rem.u32 %r1, %t, 63; setp.eq.u32 %p, %r1, 0;", 64),
], ids=["one warp", "two warps"])
def test_earlier_readers_are_remembered(reads: str, threads: int) -> None:
    """The last thread reads after the others, and writes: in no order with them, though it read last itself."""
    body = f"""
  st.shared.u32 [%s], %t;
  bar.sync 0;
  {reads}
  @%p ld.shared.u32 %r2, [shared_words+4];
  setp.eq.u32 %p, %t, {threads - 1};
  @%p st.shared.u32 [shared_words+4], 7;  // HERE
"""
    fault(body, "race", threads=threads)
    run(body.replace("setp.eq.u32 %p, %t", "bar.sync 0;\n  setp.eq.u32 %p, %t"), threads=threads)


def test_bytes_that_are_neighbours_do_not_race() -> None:
    body = """
  mov.u32 %r1, shared_words;
  add.u32 %r1, %r1, %t;
  cvt.u16.u32 %b1, %t;
  st.shared.u8 [%r1], %b1;
  bar.sync 0;
  ld.shared.u8 %r2, [%r1];
  st.global.u32 [%g], %r2;
"""
    assert run(body)[:64].tolist() == list(range(64))
    fault(body.replace("add.u32 %r1, %r1, %t;", "shr.u32 %r2, %t, 1; add.u32 %r1, %r1, %r2;")
          .replace("[%r1], %b1;", "[%r1], %b1;  // HERE"), "race")


def test_atomics_do_not_race_with_each_other() -> None:
    body = """
  setp.eq.u32 %p, %t, 0;
  @%p st.shared.u32 [shared_words], 0;
  bar.sync 0;
  atom.shared.add.u32 %r1, [shared_words], 1;
  bar.sync 0;  // last
  ld.shared.u32 %r2, [shared_words];  // HERE
  st.global.u32 [%g], %r2;
"""
    assert set(run(body, seed=3)[:64]) == {64}
    fault(body.replace("bar.sync 0;  // last", ""), "race")


def test_races_can_be_reported_or_ignored() -> None:
    text, line = program(EXCHANGE.replace("bar.sync 0;  // second", ""))
    out, inputs = np.zeros(64, np.uint32), np.zeros(1, np.uint32)
    module = emulate.Module(text)
    args = [np.uint64(out.ctypes.data), np.uint64(inputs.ctypes.data)]
    report = module.launch("kernel", 1, 64, args, [(out, "w")], races="report")
    assert report.races and all(f.kind == "race" and line in (f.ptx_line, f.other_ptx_line) for f in report.races)
    assert sum(f.count for f in report.races) >= 32 and "PTX line" in str(report.races[0])
    assert module.launch("kernel", 1, 64, args, [(out, "w")], races="ignore").findings == ()


def test_cp_async_that_is_not_waited_for() -> None:
    assert run(CP_ASYNC)[:64].tolist() == [4 * t + 1 for t in range(64)]
    fault(CP_ASYNC.replace("wait_group 0", "wait_group 1"), "async")
    fault(CP_ASYNC.replace("cp.async.wait_group 0;", ""), "async")
    unused = CP_ASYNC.replace("cp.async.wait_group 0;", "").replace("// HERE", "")
    unused = unused.replace("ld.shared.u32 %r3, [%r2+4];", "").replace("[%h], 16;", "[%h], 16;  // HERE")
    assert "never waited" in fault(unused, "async").message


def test_cp_async_whose_source_changes() -> None:
    changed = CP_ASYNC.replace("// HERE", "").replace("wait_group 0;", "wait_group 0;  // HERE")
    changed = changed.replace("cp.async.commit_group;", "cp.async.commit_group; st.global.u32 [%h+8], 77;")
    assert "changed" in fault(changed, "async", inputs_as="rw").message


def test_cp_async_of_another_thread_needs_a_barrier_too() -> None:
    other = CP_ASYNC.replace("ld.shared", "xor.b32 %r2, %r2, 512;\n  ld.shared")
    assert run(other)[:64].tolist() == [4 * (t ^ 32) + 1 for t in range(64)]
    with pytest.raises(emulate.Fault) as caught:
        run(other.replace("bar.sync 0;", "bar.warp.sync 0xffffffff;"), seed=1)
    assert caught.value.kind in ("race", "uninitialised")


def test_cp_async_fills_with_zeros_and_reads_no_more_than_asked() -> None:
    out = np.zeros(64, np.uint32)
    body = CP_ASYNC.replace("[%h], 16;", "[%h], 16, %r4;").replace("cp.async.cg", "mov.u32 %r4, {};\n  cp.async.cg")
    assert run(body.format(4))[:64].tolist() == [0] * 64
    assert run(body.format(8), out=out)[:64].tolist() == [4 * t + 1 for t in range(64)]
    # nothing is read: the address may be any
    assert run(body.format(0).replace("add.s64 %h, %h, %i;", "mov.u64 %h, 16;"))[:64].tolist() == [0] * 64


PAIR = """
  setp.eq.u32 %p, %w, 0;
  @!%p bra CONSUMER;
  st.shared.u32 [%s], %t;
  bar.arrive 3, 64;
  bra.uni END;
CONSUMER:
  bar.sync 3, 64;
  ld.shared.u32 %r2, [%s+-128];  // HERE
  st.global.u32 [%g], %r2;
END:
"""


def test_producer_and_consumer() -> None:
    assert run(PAIR)[32:64].tolist() == list(range(32))
    assert run(PAIR, seed=9)[32:64].tolist() == list(range(32))
    store, arrive = "  st.shared.u32 [%s], %t;\n", "  bar.arrive 3, 64;\n"
    fault(PAIR.replace(store + arrive, arrive + store), "race")


def test_a_barrier_of_some_warps_orders_only_those() -> None:
    """Warps 0 and 1 meet, warps 2 and 3 meet; then each reads from a warp of its own pair, or of the other."""
    body = """
  st.shared.u32 [%s], %t;
  shr.u32 %r1, %w, 1;
  add.u32 %r1, %r1, 1;
  bar.sync %r1, 64;
  xor.b32 %r1, %o, {};
  mov.u32 %r3, shared_words;
  add.u32 %r3, %r3, %r1;
  ld.shared.u32 %r2, [%r3];  // HERE
  st.global.u32 [%g], %r2;
"""
    assert run(body.format(128), threads=128)[:128].tolist() == [t ^ 32 for t in range(128)]
    fault(body.format(256), "race", threads=128)


GLOBAL = """
  mov.u32 %r1, %ctaid.x;
  mul.wide.u32 %i, %r1, {};
  add.s64 %g, %g, %i;
  st.global.u32 [%g], %r1;  // HERE
"""


def test_blocks_that_write_the_same_place() -> None:
    run(GLOBAL.format(256), blocks=4)
    found = fault(GLOBAL.format(252), "race", blocks=4)
    assert "of another block" in found.message
    # one block reads what another wrote
    fault("mov.u32 %r1, %ctaid.x; mul.wide.u32 %i, %r1, 256; add.s64 %rd1, %g, %i; st.global.u32 [%rd1], %r1;\n"
          " ld.global.u32 %r2, [%g];  // HERE", "race", blocks=2)
    # one block writes what another has read
    fault("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p, %r1, 0;\n @%p ld.global.u32 %r2, [%g];\n"
          " @!%p st.global.u32 [%g], %t;  // HERE", "race", blocks=2)


def test_threads_of_a_block_race_in_global_memory_too() -> None:
    body = """
  st.global.u32 [%g], %t;
  bar.sync 0;
  ld.param.u64 %rd1, [out];
  xor.b32 %r1, %o, 128;
  cvt.u64.u32 %i, %r1;
  add.s64 %rd1, %rd1, %i;
  ld.global.u32 %r2, [%rd1];  // HERE
  bar.sync 0;
  st.global.u32 [%g], %r2;
"""
    assert run(body)[:64].tolist() == [t ^ 32 for t in range(64)]
    fault(body.replace("bar.sync 0;\n  ld.param", "ld.param"), "race")


def test_what_is_written_must_not_be_read_as_read_only() -> None:
    body = "{} st.global.u32 [%g], %t;\n {} ld.global.nc.u32 %r1, [%g+{}];  // HERE"
    run(body.format("", "", 256))
    found = fault(body.format("", "", 0), "undefined")
    assert "ld.global.nc" in found.message


def test_the_last_block_may_read_what_the_others_fenced() -> None:
    """Partial results, a fence, a counter: the block that counts last adds them all up."""
    body = """
  mov.u32 %r1, %ctaid.x;
  ld.param.u64 %rd1, [out];
  mul.wide.u32 %i, %r1, 4;
  add.s64 %rd2, %rd1, %i;
  add.u32 %r2, %r1, 10;
  st.global.u32 [%rd2+64], %r2;
  membar.gl;
  atom.global.add.u32 %r3, [%rd1], 1;
  setp.ne.u32 %p, %r3, 3;
  @%p exit;
  ld.global.u32 %r4, [%rd1+64];
  ld.global.u32 %r5, [%rd1+68];
  ld.global.u32 %r6, [%rd1+72];
  ld.global.u32 %r7, [%rd1+76];
  add.u32 %r4, %r4, %r5;
  add.u32 %r4, %r4, %r6;
  add.u32 %r4, %r4, %r7;
  st.global.u32 [%rd1+4], %r4;
"""
    for seed in range(4):
        assert run(body, threads=1, blocks=4, seed=seed)[1] == 10 + 11 + 12 + 13
    with pytest.raises(emulate.Fault) as caught:
        run(body.replace("membar.gl;", ""), threads=1, blocks=4)
    assert caught.value.kind == "race"


def test_seeds_show_what_depends_on_the_order() -> None:
    """The sum of floats by atomics, and who comes first."""
    floats = ("cvt.rn.f32.u32 %f1, %t; add.f32 %f1, %f1, 1.0; rcp.rn.f32 %f1, %f1;\n ld.param.u64 %rd1, [out];\n"
              " red.global.add.f32 [%rd1], %f1;")
    sums = {int(run(floats, threads=64, seed=seed)[0]) for seed in range(6)}
    assert len(sums) > 1
    first = "ld.param.u64 %rd1, [out];\n atom.global.exch.b32 %r1, [%rd1], %t;"
    assert len({int(run(first, seed=seed)[0]) for seed in range(6)}) > 1
    assert len({int(run(first, threads=32, seed=seed)[0]) for seed in range(6)}) > 1  # the lanes of a warp
    whose = first.replace("%t;", "%w;")
    assert len({int(run(whose, threads=128, seed=seed)[0]) for seed in range(9)}) > 1  # warps
    assert int(run(first, seed=4)[0]) == int(run(first, seed=4)[0])
    blocks = "mov.u32 %r1, %ctaid.x; ld.param.u64 %rd1, [out];\n atom.global.exch.b32 %r2, [%rd1], %r1;"
    assert len({int(run(blocks, threads=1, blocks=8, seed=seed)[0]) for seed in range(6)}) > 1
