"""What warps do together: shuffles, votes, matches, reductions, barriers that reduce, matrix fragments and products."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from conformance import SEED
from emulation import HEADER, bits_of, is_nan, value
from tilewright import emulate

LANES = 32


def warp(body: str, inputs: np.ndarray, results: int = 1, threads: int = LANES, shared: np.ndarray | None = None,
         **options: Any) -> np.ndarray:
    """Runs a body with inputs %x0 … (columns of `inputs`) and gives %d0 … of every thread."""
    n = inputs.shape[1]
    out = np.zeros((threads, results), np.uint32)
    loads = " ".join(f"ld.global.b32 %x{i}, [%in+{4 * i}];" for i in range(n))
    stores = " ".join(f"st.global.b32 [%out+{4 * i}], %d{i};" for i in range(results))
    fill = ""
    if shared is not None:  # every thread writes a piece of 4 bytes at a time
        fill = "".join(f"ld.global.b32 %w, [%src+{k}]; st.shared.b32 [%dst+{k}], %w; " for k in
                       range(0, shared.nbytes, 4 * threads)) + "bar.sync 0;"
    ptx = HEADER + f""".visible .entry k(.param .u64 out, .param .u64 in, .param .u64 source) {{
      .reg .b32 %x<{n + 1}>, %d<{results + 1}>, %t, %lane, %w, %dst; .reg .b64 %out, %in, %src, %i; .reg .pred %p, %q;
      .shared .align 16 .b8 tile[{max(16, 0 if shared is None else shared.nbytes)}];
      mov.u32 %t, %tid.x; mov.u32 %lane, %laneid;
      ld.param.u64 %out, [out]; ld.param.u64 %in, [in]; ld.param.u64 %src, [source];
      mul.wide.u32 %i, %t, {4 * n}; add.s64 %in, %in, %i; mul.wide.u32 %i, %t, {4 * results}; add.s64 %out, %out, %i;
      mul.wide.u32 %i, %t, 4; add.s64 %src, %src, %i; mov.u32 %dst, tile; shl.b32 %w, %t, 2; add.u32 %dst, %dst, %w;
      {loads} {fill} {body} {stores} ret; }}"""
    source = np.zeros(4, np.uint32) if shared is None else shared
    emulate.Module(ptx).launch("k", 1, threads, [np.uint64(a.ctypes.data) for a in (out, inputs, source)],
                               [(out, "w"), (inputs, "r"), (source, "r")], **options)
    return out


def random_words(columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([SEED, seed]).integers(0, 2**32, (LANES, columns), dtype=np.uint32)


def shuffled(mode: str, lane: int, b: int, c: int) -> tuple[int, bool]:
    """The manual's definition: the source lane, and whether it was in range."""
    clamp, segment = c & 31, c >> 8 & 31
    lowest, bound = lane & segment, lane & segment | clamp & ~segment & 31
    j = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": lowest | b & ~segment & 31}[mode]
    in_range = j >= bound if mode == "up" else j <= bound
    return (j if in_range else lane), in_range


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffles(mode: str) -> None:
    x = random_words(1)
    for width in (32, 16, 8, 1):
        c = (32 - width) << 8 | (0 if mode == "up" else 31)
        for b in (0, 1, 3, 8, 16, 31):
            got = warp(f"shfl.sync.{mode}.b32 %d0|%p, %x0, {b}, {c}, 0xffffffff; selp.b32 %d1, 1, 0, %p;", x, 2)
            wanted = [(int(x[j, 0]), int(p)) for j, p in (shuffled(mode, lane, b, c) for lane in range(LANES))]
            assert [tuple(row) for row in got.tolist()] == wanted, (width, b)


def test_votes_matches_and_reductions() -> None:
    x = random_words(2)
    x[:, 1] &= 3
    some = 0x0F0F3FF1
    lanes = [i for i in range(LANES) if some >> i & 1]
    odd = "and.b32 %w, %x0, 1; setp.ne.u32 %p, %w, 0;"
    body = f"""{odd}
      mov.u32 %d0, 0; mov.u32 %d1, 0; mov.u32 %d2, 0; mov.u32 %d3, 0; mov.u32 %d4, 0; mov.u32 %d5, 0; mov.u32 %d6, 0;
      mov.u32 %d7, 0; mov.u32 %d8, 0; mov.u32 %d9, 0; mov.u32 %d10, 0; mov.u32 %d11, 0; mov.u32 %d12, 0;
      mov.u32 %d13, 0;
      mov.u32 %w, {some:#x}; shr.u32 %w, %w, %lane; and.b32 %w, %w, 1; setp.eq.u32 %q, %w, 0; @%q bra END;
      vote.sync.ballot.b32 %d0, %p, {some:#x}; vote.sync.any.pred %q, %p, {some:#x}; selp.u32 %d1, 1, 0, %q;
      vote.sync.all.pred %q, !%p, {some:#x}; selp.u32 %d2, 1, 0, %q; vote.sync.uni.pred %q, %p, {some:#x};
      selp.u32 %d3, 1, 0, %q; match.any.sync.b32 %d4, %x1, {some:#x}; match.all.sync.b32 %d5|%q, %x1, {some:#x};
      selp.u32 %d6, 1, 0, %q; redux.sync.add.u32 %d7, %x0, {some:#x}; redux.sync.min.s32 %d8, %x0, {some:#x};
      redux.sync.max.s32 %d9, %x0, {some:#x}; redux.sync.min.u32 %d10, %x0, {some:#x};
      redux.sync.max.u32 %d11, %x0, {some:#x};
      redux.sync.and.b32 %d12, %x0, {some:#x}; redux.sync.xor.b32 %d13, %x0, {some:#x};
    END:"""
    got = warp(body, x, 14, seed=3)
    values = [int(x[i, 0]) for i in lanes]
    signed = [v - (v >> 31 << 32) for v in values]
    ballot = sum((int(x[i, 0]) & 1) << i for i in lanes)
    xor = 0
    for v in values:
        xor ^= v
    for i in range(LANES):
        if i not in lanes:
            assert not got[i].any()
            continue
        same = sum(1 << j for j in lanes if x[j, 1] == x[i, 1])
        assert got[i].tolist() == [
            ballot, int(ballot != 0), int(ballot == 0), int(ballot in (0, some)), same, 0, 0, sum(values) & 2**32 - 1,
            min(signed) & 2**32 - 1, max(signed) & 2**32 - 1, min(values), max(values),
            int(np.bitwise_and.reduce(values)), xor]


def test_match_all_of_64_bits_and_active_lanes() -> None:
    x = np.tile(random_words(1)[:1], (LANES, 1))
    body = """mov.b64 %i, {%x0, %lane}; match.all.sync.b64 %d0|%p, %i, 0xffffffff; mov.b64 %i, {%x0, 5};
      match.all.sync.b64 %d1|%p, %i, 0xffffffff; selp.u32 %d2, 1, 0, %p; activemask.b32 %d3;
      elect.sync %d4|%p, 0xfffffff0;"""
    body = body.replace("elect", "setp.lt.u32 %q, %lane, 4; @%q bra END; elect").replace(
        "0xfffffff0;", "0xfffffff0; selp.u32 %d5, 1, 0, %p; END:")
    body = "mov.u32 %d4, 99; mov.u32 %d5, 99; " + body
    got = warp(body, x, 6)
    assert (got[:, 0] == 0).all() and (got[:, 1] == 2**32 - 1).all() and (got[:, 2] == 1).all()
    assert (got[:, 3] == 2**32 - 1).all()
    assert (got[4:, 4] == 4).all() and got[4:, 5].tolist() == [1] + [0] * 27 and (got[:4, 4:] == 99).all()


def test_barriers_that_reduce() -> None:
    x = random_words(1)
    x = np.concatenate([x, x + 1, x[:16]])
    threads = len(x)
    body = """and.b32 %w, %x0, 1; setp.ne.u32 %p, %w, 0; barrier.sync 0; bar.red.popc.u32 %d0, 0, %p;
      barrier.cta.red.and.pred %q, 1, %p; selp.u32 %d1, 1, 0, %q; bar.red.or.pred %q, 0, !%p; selp.u32 %d2, 1, 0, %q;
      barrier.sync.aligned 2, 96;"""
    got = warp(body, x, 3, threads)
    odd = int((x & 1).sum())
    assert (got == [odd, int(odd == threads), int(odd < threads)]).all()


# ---- matrices ----

def ldmatrix_fragment(tile: np.ndarray, matrix: int, lane: int, transposed: bool) -> int:
    """Elements 2·(l mod 4) and the next of row l/4 of an 8x8 matrix of 16-bit words."""
    m = tile[8 * matrix:8 * matrix + 8].T if transposed else tile[8 * matrix:8 * matrix + 8]
    low, high = m[lane // 4, 2 * (lane % 4)], m[lane // 4, 2 * (lane % 4) + 1]
    return int(low) | int(high) << 16


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("trans", ["", ".trans"])
def test_ldmatrix(count: int, trans: str) -> None:
    tile = np.random.default_rng(SEED).integers(0, 2**16, (32, 8), dtype=np.uint16)
    order = np.random.default_rng(SEED + 1).permutation(32).astype(np.uint32)  # rows lie anywhere
    targets = ", ".join(f"%d{i}" for i in range(count))
    got = warp(f"shl.b32 %w, %x0, 4; mov.u32 %dst, tile; add.u32 %w, %w, %dst; "
               f"ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {{{targets}}}, [%w];", order[:, None], count,
               shared=tile)
    rows = tile[order]
    for lane in range(LANES):
        assert got[lane].tolist() == [ldmatrix_fragment(rows, i, lane, bool(trans)) for i in range(count)]


def test_movmatrix() -> None:
    m = np.random.default_rng(SEED).integers(0, 2**16, (8, 8), dtype=np.uint16)
    x = np.array([[ldmatrix_fragment(m, 0, lane, False)] for lane in range(LANES)], np.uint32)
    got = warp("movmatrix.sync.aligned.m8n8.trans.b16 %d0, %x0;", x)
    assert got[:, 0].tolist() == [ldmatrix_fragment(m, 0, lane, True) for lane in range(LANES)]


def fragment(a: np.ndarray, width: int, rows_first: bool) -> np.ndarray:
    """A matrix of words as its lanes hold it: registers of 32 bits, from the figures of the manual.

    Along the long axis (k) a register holds 32/width neighbours; lanes 4g … 4g+3 hold four registers of row g, then
    come rows g + 8 and, beyond those, the next four registers along k. `rows_first`: A is (rows, k), B is (k, columns).
    """
    a = a if rows_first else a.T
    per = 32 // width
    words = np.zeros((a.shape[0], a.shape[1] // per), np.uint32)
    for i in range(per):
        words |= (a[:, i::per].astype(np.uint64) << width * i).astype(np.uint32)
    out = []
    for lane in range(LANES):
        g, q = divmod(lane, 4)
        out.append([int(words[g + r, q + c]) for c in range(0, words.shape[1], 4) for r in range(0, a.shape[0], 8)])
    return np.array(out, np.uint32)


def accumulator(c: np.ndarray, width: int) -> np.ndarray:
    """C or D as its lanes hold it: neighbours 2q and 2q+1 of row g, then of row g + 8."""
    out = []
    for lane in range(LANES):
        g, q = divmod(lane, 4)
        pairs = [(int(c[r, 2 * q]), int(c[r, 2 * q + 1])) for r in range(g, c.shape[0], 8)]
        out.append([x for p in pairs for x in p] if width == 32 else [low | high << 16 for low, high in pairs])
    return np.array(out, np.uint32)


def run_mma(opcode: str, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    columns = np.concatenate([a, b, c], 1)
    names, at = [], 0
    for part in (a, b, c):
        names.append("{" + ", ".join(f"%x{at + i}" for i in range(part.shape[1])) + "}")
        at += part.shape[1]
    d = "{" + ", ".join(f"%d{i}" for i in range(c.shape[1])) + "}"
    return warp(f"{opcode} {d}, {names[0]}, {names[1]}, {names[2]};", np.ascontiguousarray(columns), c.shape[1])


@pytest.mark.parametrize(("shape", "d", "t"), [
    ("m16n8k16", "f32", "f16"), ("m16n8k16", "f32", "bf16"), ("m16n8k16", "f16", "f16"), ("m16n8k8", "f32", "f16"),
    ("m16n8k8", "f32", "bf16"), ("m16n8k8", "f16", "f16"), ("m16n8k8", "f32", "tf32"), ("m16n8k4", "f32", "tf32"),
])
def test_products_of_floats(shape: str, d: str, t: str) -> None:
    """Small integers, whose products and sums are exact in every format: a test of positions, not of roundings."""
    k = int(shape.split("k")[1])
    rng = np.random.default_rng(SEED)
    a, b, c = rng.integers(-8, 9, (16, k)), rng.integers(-8, 9, (k, 8)), rng.integers(-99, 100, (16, 8))
    width = 32 if t == "tf32" else 16

    def encode(x: np.ndarray, type_: str) -> np.ndarray:
        return np.vectorize(lambda v: bits_of(int(v), type_), otypes=[np.uint32])(x)
    got = run_mma(f"mma.sync.aligned.{shape}.row.col.{d}.{t}.{t}.{d}", fragment(encode(a, t), width, True),
                  fragment(encode(b, t), width, False), accumulator(encode(c, d), 32 if d == "f32" else 16))
    assert (got == accumulator(encode(a @ b + c, d), 32 if d == "f32" else 16)).all()


def test_products_round_once_and_keep_what_is_special() -> None:
    rng = np.random.default_rng(SEED)
    k = 16
    def draw(shape: tuple[int, int], t: str) -> np.ndarray:
        return np.vectorize(lambda v: bits_of(float(v), t), otypes=[np.uint32])(rng.normal(size=shape))
    a, b, c = draw((16, k), "bf16"), draw((k, 8), "bf16"), draw((16, 8), "f32")
    a[0, 3], b[3, 0], a[1, 2], b[2, 5], c[2, 2] = 0x7F80, 0, 0x7F80, 0x3F80, 0x7F800000  # inf·0, inf·1, inf
    got = run_mma("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", fragment(a, 16, True), fragment(b, 16, False),
                  accumulator(c, 32))
    x, y, z = (np.array([[float(value(int(v), t)) for v in row] for row in m]) for m, t in
               ((a, "bf16"), (b, "bf16"), (c, "f32")))
    with np.errstate(invalid="ignore"):
        exact = x @ y + z
    size = np.nan_to_num(np.abs(x), posinf=0) @ np.abs(y) + np.nan_to_num(np.abs(z), posinf=0)
    bound = size * (2.0**-24 + 18 * 2.0**-53)  # one rounding to float32, and k + 2 in double
    lanes = accumulator(np.arange(128).reshape(16, 8), 32)
    for lane in range(LANES):
        for bits, place in zip(got[lane].tolist(), lanes[lane].tolist(), strict=True):
            r, s = divmod(place, 8)
            if np.isfinite(exact[r, s]):
                assert abs(float(value(bits, "f32")) - exact[r, s]) <= bound[r, s]
            elif np.isnan(exact[r, s]):
                assert is_nan(bits, "f32")
            else:
                assert float(value(bits, "f32")) == exact[r, s]


@pytest.mark.parametrize("shape", ["m16n8k16", "m16n8k32", "m8n8k16"])
@pytest.mark.parametrize("types", ["s8.s8", "s8.u8", "u8.s8", "u8.u8"])
def test_products_of_bytes(shape: str, types: str) -> None:
    m, k = int(shape[1:].split("n")[0]), int(shape.split("k")[1])
    rng = np.random.default_rng(SEED)
    a, b = rng.integers(0, 256, (m, k)), rng.integers(0, 256, (k, 8))
    c = rng.integers(-2**31, 2**31, (m, 8))
    c[:, 0], c[:, 1] = 2**31 - 1, -2**31
    x, y = (np.where((v > 127) & (t == "s8"), v - 256, v) for v, t in zip((a, b), types.split("."), strict=True))
    total = x @ y + c
    for clamp in ("", ".satfinite"):
        wanted = np.clip(total, -2**31, 2**31 - 1) if clamp else total
        got = run_mma(f"mma.sync.aligned.{shape}.row.col{clamp}.s32.{types}.s32", fragment(a, 8, True),
                      fragment(b, 8, False), accumulator(c & 0xFFFFFFFF, 32))
        assert (got == accumulator(wanted & 0xFFFFFFFF, 32)).all()


def test_special_registers() -> None:
    ptx = HEADER + """.visible .entry k(.param .u64 out) { .reg .b64 %a, %i, %l, %m; .reg .b32 %t, %n, %b, %r<16>;
      mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ctaid.y;
      mov.u32 %r5, %ctaid.z; mov.u32 %n, %ntid.x; mad.lo.u32 %t, %r1, %n, %r0; mov.u32 %b, %ntid.y;
      mul.lo.u32 %n, %n, %b; mad.lo.u32 %t, %r2, %n, %t; mov.u32 %b, %ntid.z; mul.lo.u32 %n, %n, %b;
      mov.u32 %r6, %nctaid.x; mad.lo.u32 %b, %r4, %r6, %r3; mov.u32 %r7, %nctaid.y; mul.lo.u32 %r7, %r7, %r6;
      mad.lo.u32 %b, %r5, %r7, %b; mad.lo.u32 %t, %b, %n, %t;
      mov.u32 %r6, %laneid; mov.u32 %r7, %warpid; mov.u32 %r8, %lanemask_eq; mov.u32 %r9, %lanemask_lt;
      mov.u32 %r10, %lanemask_le; mov.u32 %r11, %lanemask_gt; mov.u32 %r12, %lanemask_ge; mov.u32 %r13, WARP_SZ;
      mov.u32 %r14, %clock; mov.u64 %l, %clock64; mov.u64 %m, %globaltimer; mov.u32 %r15, %clock;
      ld.param.u64 %a, [out]; mul.wide.u32 %i, %t, 64; add.s64 %a, %a, %i;
      st.global.v4.u32 [%a], {%r0, %r1, %r2, %r3}; st.global.v4.u32 [%a+16], {%r4, %r5, %r6, %r7};
      st.global.v4.u32 [%a+32], {%r8, %r9, %r10, %r11}; st.global.v4.u32 [%a+48], {%r12, %r13, %r14, %r15}; ret; }"""
    grid, block = (2, 3, 2), (4, 5, 2)
    out = np.zeros((2, 3, 2, 2, 5, 4, 16), np.uint32)
    emulate.Module(ptx).launch("k", grid, block, [np.uint64(out.ctypes.data)], [(out, "w")], seed=8)
    for bz, by, bx, z, y, x in np.ndindex(out.shape[:-1]):
        thread = x + 4 * (y + 5 * z)
        lane = thread % 32
        got = out[bz, by, bx, z, y, x].tolist()
        le = (2 << lane) - 1
        assert got[:14] == [x, y, z, bx, by, bz, lane, thread // 32, 1 << lane, le >> 1, le, 2**32 - 1 - le,
                            2**32 - 1 - (le >> 1), 32]
        assert got[15] > got[14]  # clocks go forward


def test_what_a_trace_counts() -> None:
    """Instructions, barriers, bank conflicts and sectors of accesses whose counts are known."""
    ptx = HEADER + """.visible .entry k(.param .u64 out, .param .u32 stride) {
      .reg .b64 %a, %b, %i; .reg .b32 %t, %s, %r, %n;
      .shared .align 16 .b8 sh[8192]; mov.u32 %t, %tid.x; ld.param.u64 %a, [out]; ld.param.u32 %n, [stride];
      mul.lo.u32 %r, %t, %n; mov.u32 %s, sh; add.u32 %s, %s, %r;
      st.shared.u32 [%s], %t;
      bar.sync 0;
      ld.shared.u32 %r, [sh];
      cvt.u64.u32 %i, %t; mul.lo.u64 %i, %i, 64; add.s64 %b, %a, %i;
      st.global.u32 [%b], %r;
      mul.wide.u32 %i, %t, 4; add.s64 %b, %a, %i;
      ld.global.u32 %r, [%b+0];
      ret; }"""
    out = np.zeros(64 * 16 + 64, np.uint32)
    module = emulate.Module(ptx)
    for stride, factor in ((4, 1), (8, 2), (128, 32), (36, 1)):
        report = module.launch("k", 1, 64, [np.uint64(out.ctypes.data), np.uint32(stride)], [(out, "rw")], trace=True,
                               races="ignore")
        store, load = report.shared
        assert (store.opcode, store.requests, store.moved, store.factor) == ("st.shared.u32", 2, factor, factor)
        assert (load.opcode, load.moved, load.factor) == ("ld.shared.u32", 1, 1)  # all lanes read one word
        write, read = report.global_
        assert (write.requests, write.moved, write.ideal, write.factor) == (2, 32, 4, 8)
        assert read.moved in (4, 5) and read.ideal == 4  # NumPy need not align an array to a sector
        assert report.instructions["bar.sync"] == 64 and report.instructions["mul.wide.u32"] == 64
        assert report.barriers == 1 and report.kernel == "k"
        assert write.ptx_line == 1 + ptx.splitlines().index("      st.global.u32 [%b], %r;")
    plain = module.launch("k", 1, 64, [np.uint64(out.ctypes.data), np.uint32(4)], [(out, "rw")], races="ignore")
    assert plain.shared == () and plain.instructions == {}
