"""The emulator's loads, stores, atomics and address spaces."""
from __future__ import annotations

import ctypes
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emulation import HEADER, bits_of, flushed, signed, specials, value
from test_emulate_floats import added
from tilewright import emulate


def launch(ptx: str, name: str, args: list[Any], memory: list[tuple[np.ndarray, str]], threads: int = 1,
           **options: Any) -> emulate.Report:
    return emulate.Module(HEADER + ptx).launch(name, 1, threads, args, memory, **options)


def at(x: np.ndarray) -> np.uint64:
    return np.uint64(x.ctypes.data)


def test_widths_vectors_and_signs() -> None:
    """Each type and vector: loaded, kept in a register of 64 bits where it may be, stored."""
    body, checks = [], []
    rng = np.random.default_rng(0)
    source = np.frombuffer(rng.bytes(64), np.uint8).copy()
    out = np.zeros(8 * 200, np.uint8)
    for space in ("global", "shared", "local"):
        base = {"global": "%in", "shared": "%s", "local": "%loc"}[space]
        for t in ("u8", "s8", "b8", "u16", "s16", "u32", "s32", "f32", "u64", "s64", "f64"):
            size = int(t[1:]) // 8
            for n in (1, 2, 4):
                if size * n > 16:
                    continue
                letter = "x" if t[0] != "f" else "f" if size == 4 else "d"
                registers = [f"%{letter}{i}" for i in range(n)]
                vector = f".v{n}" * (n > 1)
                listed = registers[0] if n == 1 else "{" + ", ".join(registers) + "}"
                body.append(f"ld.{space}{vector}.{t} {listed}, [{base}+16];")
                for i, r in enumerate(registers):
                    kept = int.from_bytes(source[16 + i * size:16 + (i + 1) * size].tobytes(), "little")
                    if t[0] == "f":
                        body.append(f"st.global.b{8 * size} [%out+{8 * len(checks)}], {r};")
                    else:
                        kept = signed(kept, 8 * size) & 2**64 - 1 if t[0] == "s" else kept
                        body.append(f"st.global.u64 [%out+{8 * len(checks)}], {r};")
                    checks.append((f"{space} {t} {n}", kept))
    assert len(checks) <= 200
    launch(f""".visible .entry k(.param .u64 out, .param .u64 in) {{
      .reg .b64 %out, %in, %loc, %y<8>, %x<4>, %d<4>; .reg .b32 %s, %f<4>;
      .shared .align 16 .b8 sh[64]; .local .align 16 .b8 lo[64];
      ld.param.u64 %out, [out]; ld.param.u64 %in, [in]; mov.u32 %s, sh; mov.u64 %loc, lo;
      ld.global.v2.u64 {{%y0, %y1}}, [%in]; ld.global.v2.u64 {{%y2, %y3}}, [%in+16];
      ld.global.v2.u64 {{%y4, %y5}}, [%in+32];
      st.shared.v2.b64 [%s], {{%y0, %y1}}; st.shared.v2.b64 [%s+16], {{%y2, %y3}};
      st.shared.v2.b64 [sh+32], {{%y4, %y5}};
      st.local.v2.b64 [%loc], {{%y0, %y1}}; st.local.v2.b64 [%loc+16], {{%y2, %y3}};
      st.local.v2.b64 [lo+32], {{%y4, %y5}};
      {' '.join(body)} ret; }}""", "k", [at(out), at(source)], [(out, "w"), (source, "r")])
    got = out.view(np.uint64)
    assert [(name, int(x)) for (name, _), x in zip(checks, got, strict=False)] == checks


def test_narrow_stores_take_the_low_bits() -> None:
    out = np.full(16, 0xAA, np.uint8)
    launch(""".visible .entry k(.param .u64 out) { .reg .b64 %a; .reg .b32 %r; .reg .b16 %h;
      ld.param.u64 %a, [out]; mov.u32 %r, 0x12345678; mov.u16 %h, 0x9ABC;
      st.global.u8 [%a+1], %r; st.global.u16 [%a+2], %r; st.global.v2.u8 [%a+4], {%h, %r}; st.global.u32 [%a+8], %r;
      ret; }""", "k", [at(out)], [(out, "rw")])
    assert out.tobytes().hex() == "aa787856" + "bc78aaaa" + "78563412" + "aaaaaaaa"


def test_hints_change_nothing() -> None:
    x, out = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    loads = ["ld.global.nc.f32", "ld.global.ca.f32", "ld.volatile.global.f32", "ld.global.nc.L1::no_allocate.f32",
             "ld.global.L1::evict_last.L2::128B.f32", "ld.relaxed.gpu.global.f32", "ld.acquire.sys.global.f32",
             "ldu.global.f32"]
    stores = ["st.global.f32", "st.global.cs.f32", "st.volatile.global.f32", "st.global.L1::no_allocate.f32",
              "st.global.wt.f32", "st.relaxed.cta.global.f32", "st.release.gpu.global.f32", "st.weak.global.f32"]
    body = " ".join(f"{load} %f, [%b+{4 * i}]; prefetch.global.L2 [%b]; {store} [%a+{4 * i}], %f;"
                    for i, (load, store) in enumerate(zip(loads, stores, strict=True)))
    launch(f""".visible .entry k(.param .u64 out, .param .u64 in) {{ .reg .b64 %a, %b; .reg .f32 %f;
      ld.param.u64 %a, [out]; ld.param.u64 %b, [in]; {body} ret; }}""", "k", [at(out), at(x)], [(out, "w"), (x, "r")])
    assert out.tolist() == x.tolist()


GENERIC = """
.global .align 8 .u32 counter = 7;
.global .align 4 .f32 halves[3] = {0f3F000000, 0.25, 1.5};
.const .align 4 .b8 bytes[8] = {1, 2, 3, 4, 250, 251, 252, 253};
.global .align 8 .u64 pointer = counter;
.global .align 8 .u64 generics[2] = {generic(bytes), halves};
.func (.param .b32 result) sum(.param .b64 where, .param .align 8 .b8 pair[16])
{
  .reg .b64 %a; .reg .b32 %x, %y, %z;
  ld.param.u64 %a, [where];
  ld.param.u32 %y, [pair+4];
  ld.param.u32 %z, [pair+12];
  ld.u32 %x, [%a];
  add.u32 %x, %x, %y;
  add.u32 %x, %x, %z;
  st.u32 [%a], %y;
  st.param.b32 [result+0], %x;
  ret;
}
.visible .entry k(.param .u64 out, .param .align 8 .b8 twin[16])
{
  .reg .b64 %out, %a, %b; .reg .b32 %r<9>; .reg .pred %p<4>;
  .shared .align 16 .b8 pad[32]; .shared .align 16 .b8 sh[16];
  .local .align 16 .b8 depot[16];
  .extern .shared .align 16 .b8 dynamic[];
  ld.param.u64 %out, [out];
  mov.u32 %r1, 100; st.shared.u32 [pad], %r1; st.shared.u32 [sh+4], %r1;
  mov.u32 %r2, 200; st.local.u32 [depot+4], %r2;
  mov.u32 %r3, 300; st.shared.u32 [dynamic+8], %r3;
  mov.u64 %a, sh; cvta.shared.u64 %a, %a; add.s64 %a, %a, 4;
  isspacep.shared %p0, %a; isspacep.local %p1, %a; isspacep.global %p2, %a;
  selp.u32 %r4, 1, 0, %p0; @%p1 or.b32 %r4, %r4, 2; @%p2 or.b32 %r4, %r4, 4;
  st.global.u32 [%out], %r4;
  { .param .b64 x; .param .align 8 .b8 y[16]; .param .b32 z;
    st.param.b64 [x+0], %a; st.param.u32 [y+4], 11; st.param.v2.u32 [y+8], {5, 22};
    call (z), sum, (x, y); ld.param.b32 %r5, [z+0]; }
  ld.shared.u32 %r6, [sh+4];
  st.global.v2.u32 [%out+8], {%r5, %r6};
  mov.u64 %b, depot; cvta.local.u64 %b, %b; add.s64 %b, %b, 4;
  isspacep.local %p1, %b; selp.u32 %r4, 1, 0, %p1;
  { .param .b64 x; .param .align 8 .b8 y[16]; .param .b32 z;
    st.param.b64 [x+0], %b; st.param.u32 [y+4], 33; st.param.u32 [y+12], 44;
    call (z), sum, (x, y); ld.param.b32 %r5, [z+0]; }
  cvta.to.local.u64 %b, %b; ld.local.u32 %r6, [%b];
  st.global.v4.u32 [%out+16], {%r5, %r6, %r4, 0};
  ld.shared.u32 %r6, [dynamic+8]; st.global.u32 [%out+32], %r6;
  mov.u32 %r7, dynamic; st.global.u32 [%out+36], %r7;
  mov.u64 %a, counter; ld.global.u32 %r1, [%a]; add.u32 %r1, %r1, 1; st.global.u32 [counter], %r1;
  ld.global.u64 %a, [pointer]; ld.u32 %r2, [%a]; st.global.v2.u32 [%out+40], {%r1, %r2};
  ld.const.s8 %r1, [bytes+5]; ld.global.u64 %a, [generics]; ld.u8 %r2, [%a+1]; st.global.v2.u32 [%out+48], {%r1, %r2};
  ld.global.u64 %a, [generics+8]; ld.global.u32 %r1, [%a+4]; st.global.u32 [%out+56], %r1;
  ld.param.u32 %r1, [twin+8]; st.global.u32 [%out+60], %r1;
  mov.b64 %a, twin; cvta.param.u64 %a, %a; ld.u32 %r1, [%a+12]; st.global.u32 [%out+64], %r1;
  ret;
}
"""


def test_spaces_variables_and_parameters(tmp_path: Path) -> None:
    module = emulate.Module(HEADER + GENERIC, cache=tmp_path)
    for counted in (8, 9):  # variables keep their contents between launches
        out = np.zeros(17, np.uint32)
        module.launch("k", 1, 1, [at(out), struct.pack("<4i", 1, 2, 3, 4)], [(out, "w")], shared=64)
        assert out[0] == 1
        assert out[2:4].tolist() == [100 + 11 + 22, 11]
        assert out[4:8].tolist() == [200 + 33 + 44, 33, 1, 0]
        assert out[8:10].tolist() == [300, 48]
        assert out[10:12].tolist() == [counted, counted]
        assert out[12:14].view(np.int32).tolist() == [251 - 256, 2]
        assert out[14:15].view(np.float32)[0] == 0.25
        assert out[15:].tolist() == [3, 4]


class Pair(ctypes.Structure):
    _fields_ = [("a", ctypes.c_int64), ("b", ctypes.c_int64)]


def test_arguments_of_every_kind() -> None:
    out = np.zeros(8, np.int64)
    launch(""".visible .entry k(.param .u64 .ptr .global .align 8 out, .param .u8 a, .param .s16 b, .param .f32 c,
        .param .f64 d,
        .param .align 8 .b8 e[16], .param .u32 f) { .reg .b64 %o, %x; .reg .f32 %f; .reg .f64 %d;
      ld.param.u64 %o, [out]; ld.param.u8 %x, [a]; st.global.u64 [%o], %x; ld.param.s16 %x, [b];
      st.global.u64 [%o+8], %x;
      ld.param.f32 %f, [c]; cvt.rni.s64.f32 %x, %f; st.global.u64 [%o+16], %x; ld.param.f64 %d, [d];
      cvt.rni.s64.f64 %x, %d;
      st.global.u64 [%o+24], %x; ld.param.u64 %x, [e+8]; st.global.u64 [%o+32], %x; ld.param.u32 %x, [f];
      st.global.u64 [%o+40], %x; ret; }""", "k",
           [ctypes.c_void_p(out.ctypes.data), np.uint8(200), ctypes.c_int16(-5), 6.0, np.float64(-9), Pair(1, -2), 77],
           [(out, "w")])
    assert out[:6].tolist() == [200, -5, 6, -9, -2, 77]


INTEGER_ATOMICS = {
    "add": lambda old, b, t: old + b, "exch": lambda old, b, t: b, "and": lambda old, b, t: old & b,
    "or": lambda old, b, t: old | b, "xor": lambda old, b, t: old ^ b,
    "min": lambda old, b, t: min(old, b), "max": lambda old, b, t: max(old, b),
    "inc": lambda old, b, t: 0 if old >= b else old + 1, "dec": lambda old, b, t: b if old == 0 or old > b else old - 1,
}
TYPES = {"add": ("u32", "s32", "u64"), "exch": ("b32", "b64"), "and": ("b32", "b64"), "or": ("b32", "b64"),
         "xor": ("b32", "b64"), "min": ("u32", "s32", "u64", "s64"), "max": ("u32", "s32", "u64", "s64"),
         "inc": ("u32",), "dec": ("u32",)}


@pytest.mark.parametrize("space", ["global", "shared", "generic"])
def test_atomics(space: str) -> None:
    """The old value, and the new one, of every operation on special operands."""
    entries, wanted = [], []
    for name, types in TYPES.items():
        for t in types:
            w = int(t[1:])
            for a, b in zip(specials(f"b{w}"), specials(f"b{w}")[5:] + specials(f"b{w}")[:5], strict=True):
                x, y = (signed(v, w) if t[0] == "s" else v for v in (a, b))
                wanted.append((w, a, INTEGER_ATOMICS[name](x, y, t) & (1 << w) - 1))
                entries.append((f"{name}.{t}", w, a, f"{b:#x}"))
    for a, b, c in ((5, 5, 9), (5, 6, 9)):
        for w in (16, 32, 64):
            entries.append((f"cas.b{w}", w, a, f"{b}, {c}"))
            wanted.append((w, a, c if a == b else a))
    for t in ("f32", "f64"):
        for a, b in zip(specials(t), specials(t)[7:] + specials(t)[:7], strict=True):
            w = int(t[1:])
            total = added(a, b, t)
            if t == "f32" and space != "shared":
                total = flushed(added(flushed(a, t), flushed(b, t), t), t)
            if np.isnan(float(value(total, t))) and t == "f64":
                continue
            entries.append((f"add.{t}", w, a, f"0{'fd'[w == 64]}{b:0{w // 4}x}"))
            wanted.append((w, a, total))
    place = {"global": "[%a]", "generic": "[%a]", "shared": "[sh]"}[space]
    dot = "" if space == "generic" else f".{space}"
    body = []
    for i, (what, w, a, b) in enumerate(entries):
        register = "%h" if w == 16 else "%r" if w == 32 else "%l"
        body.append(f"add.s64 %a, %out, {16 * i + 8};")
        body.append(f"mov.b{w} {register}, {a:#x}; st{dot}.b{w} {place}, {register};")
        body.append(f"atom{dot}.{what} {register}, {place}, {b}; st.global.b{w} [%out+{16 * i}], {register};")
        if space == "shared":
            body.append(f"ld.shared.b{w} {register}, [sh]; st.global.b{w} [%a], {register};")
    out = np.zeros((len(entries), 2), np.uint64)
    launch(f""".visible .entry k(.param .u64 out) {{ .reg .b64 %out, %a, %l; .reg .b32 %r; .reg .b16 %h;
      .shared .align 8 .b8 sh[8]; ld.param.u64 %out, [out]; {' '.join(body)} ret; }}""", "k", [at(out)], [(out, "rw")])
    for (what, w, *_), (_, old, new), got in zip(entries, wanted, out.tolist(), strict=True):
        assert [x & (1 << w) - 1 for x in got] == [old, new], what


def test_reductions_and_packed_atomics() -> None:
    out = np.zeros(4, np.uint32)
    launch(""".visible .entry k(.param .u64 out) { .reg .b64 %a; .reg .b32 %r, %t; .reg .b16 %h;
      ld.param.u64 %a, [out]; mov.u32 %t, %tid.x;
      red.global.add.u32 [%a], %t; red.relaxed.gpu.global.max.s32 [%a+4], %t;
      mov.b32 %r, 0x40003C00; atom.global.add.noftz.f16x2 %r, [%a+8], %r;
      mov.b16 %h, 0x3F80; red.global.add.noftz.bf16 [%a+12], %h; ret; }""", "k", [at(out)], [(out, "rw")], threads=32)
    assert out.tolist() == [sum(range(32)), 31, bits_of(64, "f16") << 16 | bits_of(32, "f16"), bits_of(32, "bf16")]


def test_two_kernels_each_have_their_own_shared_memory() -> None:
    """What a function uses lies at one place for both; the arrays of one kernel are out of bounds for the other."""
    ptx = """
.shared .align 4 .b8 first[64];
.shared .align 4 .b8 common[8];
.shared .align 4 .b8 second[128];
.func touch() { .reg .b32 %r; mov.u32 %r, 5; st.shared.u32 [common+4], %r; ret; }
.visible .entry one(.param .u64 out) { .reg .b64 %a; .reg .b32 %r; ld.param.u64 %a, [out]; call touch;
  mov.u32 %r, first; st.global.u32 [%a], %r; ld.shared.u32 %r, [common+4]; st.global.u32 [%a+4], %r;
  mov.u32 %r, %total_smem_size; st.global.u32 [%a+8], %r; ret; }
.visible .entry two(.param .u64 out) { .reg .b64 %a; .reg .b32 %r; ld.param.u64 %a, [out]; call touch;
  mov.u32 %r, second; st.global.u32 [%a], %r; mov.u32 %r, %total_smem_size; st.global.u32 [%a+8], %r;
  st.shared.u32 [second+128], %r; ret; }
"""
    out = np.zeros(3, np.uint32)
    launch(ptx, "one", [at(out)], [(out, "w")])
    assert out.tolist() == [8, 5, 8 + 64]
    with pytest.raises(emulate.Fault, match="out-of-bounds"):
        launch(ptx, "two", [at(out)], [(out, "w")])
    assert out.tolist() == [8, 5, 8 + 128]


def test_many_threads_may_fill_the_cache_and_launch_at_once(tmp_path: Path) -> None:
    ptx = HEADER + """.visible .entry k(.param .u64 out, .param .u32 n) { .reg .b64 %a, %i; .reg .b32 %t, %n, %s;
      .shared .align 4 .b8 sh[512]; ld.param.u64 %a, [out]; ld.param.u32 %n, [n]; mov.u32 %t, %tid.x;
      mov.u32 %s, sh; mad.lo.u32 %s, %t, 4, %s; st.shared.u32 [%s], %n; bar.sync 0; ld.shared.u32 %n, [%s];
      mul.wide.u32 %i, %t, 4; add.s64 %a, %a, %i; st.global.u32 [%a], %n; ret; }"""

    def work(n: int) -> list[int]:
        out = np.zeros(128, np.uint32)
        emulate.Module(ptx, cache=tmp_path).launch("k", 1, 128, [at(out), np.uint32(n)], [(out, "w")])
        return out.tolist()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(9))) == [[n] * 128 for n in range(9)]
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".so", ".so"]


def test_cache_is_filled_once_and_survives_its_removal(tmp_path: Path) -> None:
    ptx = HEADER + ".visible .entry k() { ret; }"
    emulate.Module(ptx, cache=tmp_path).launch("k", 1, 1, [])
    files = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    assert len(files) == 2 and all(name.endswith(".so") for name in files)  # the runtime and the module, and no debris
    emulate.Module(ptx, cache=tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == files
    for p in tmp_path.iterdir():
        p.unlink()
    emulate.Module(ptx, cache=tmp_path).launch(None, 1, 1, [])
