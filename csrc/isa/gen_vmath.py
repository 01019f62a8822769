"""Writes vmath_tables.h, the coefficients of vmath.h:  python csrc/isa/gen_vmath.py  (needs mpmath).

Every polynomial interpolates its function at Chebyshev nodes, in 60 digits, and is rounded last; that costs at most two
bits over the best polynomial of the same degree (Powell 1967), and the degrees have more to spare. The script prints
the relative error of each polynomial as rounded, evaluated exactly, in units of the type's epsilon / 2.
"""
from pathlib import Path

from mpmath import mp, mpf

mp.dps = 60
BITS = {32: 24, 64: 53}  # significand

HEAD = """\
// Coefficients of vmath.h, lowest degree first. Written by gen_vmath.py, and kept in git because a machine that builds
// tilewright need not have mpmath.
"""


def rounded(x, bits: int) -> mpf:
    """x to that many significant bits."""
    x = mpf(x)
    if x == 0:
        return x
    scale = mpf(2) ** (bits - 1 - mp.floor(mp.log(abs(x), 2)))
    return mp.nint(x * scale) / scale


def interpolate(f, low, high, degree: int, center=0) -> list[mpf]:
    """Coefficients in (x - center) of the polynomial through f at the Chebyshev nodes of [low, high]."""
    low, high, n = mpf(low), mpf(high), degree + 1
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    matrix = mp.matrix(n, n)
    for i, x in enumerate(nodes):
        for j in range(n):
            matrix[i, j] = (x - center) ** j
    return list(mp.lu_solve(matrix, mp.matrix([f(x) for x in nodes])))


def worst(g, exact, low, high, bits: int, size=None) -> float:
    """The largest error of g, relative to size (or to exact), in units of 2^-bits."""
    points = [mpf(low) + (mpf(high) - low) * (2 * i + 1) / 1000 for i in range(500)]
    return float(max(abs((g(x) - exact(x)) / (size or exact)(x)) for x in points) * 2**bits)


def text(x: mpf, bits: int) -> str:
    return f"REAL({mp.nstr(rounded(x, bits), 9 if bits == 24 else 17, min_fixed=0, max_fixed=0)})"


def table(name: str, rows: list[list[mpf]], bits: int) -> str:
    size = f"[{len(rows)}][{len(rows[0])}]" if len(rows[0]) > 1 else f"[{len(rows)}]"
    lines = [", ".join(text(x, bits) for x in row) for row in rows]
    body = ",\n".join(f"    {{{line}}}" if len(rows[0]) > 1 else f"    {line}" for line in lines)
    return f"static const real {name}{size} = {{\n{body},\n}};"


def ratio(t: mpf) -> mpf:
    """R(t) = erfcx(t / sqrt(2)) / 2."""
    return mp.erfc(t / mp.sqrt(2)) * mp.exp(t * t / 2) / 2


def pieces(name: str, f, top, degree: int, intervals: int, octave: int, start, bits: int, slope=None,
           size=None) -> list[str]:
    """A polynomial in t - centre on each of that many intervals of [0, top). Which one, say exponent and first bits of
    place = start + t * scale: an octave of place holds `octave` intervals, and column i mod intervals is that of the
    key i = those bits as they stand in the number. slope: of f at 0, where it is to be met exactly;
    size: what the errors are relative to, |f| unless given."""
    edges = [mpf(start)]
    for _ in range(intervals):
        edges.append(edges[-1] + mpf(2) ** mp.floor(mp.log(edges[-1], 2)) / octave)
    scale = rounded((edges[-1] - edges[0]) / top, bits)
    ts = [(e - edges[0]) / scale for e in edges]
    first = int((127 if bits == 24 else 1023) * octave + (mpf(start) - 1) * octave)
    columns: list = [None] * intervals
    errors = []
    for i, (a, b) in enumerate(zip(ts, ts[1:], strict=False)):
        if f(mpf(0)) == 0 and i == 0:  # the relative error counts down to 0
            center, head = mpf(0), [mpf(0)] if slope is None else [mpf(0), mpf(slope)]
            rest = interpolate(lambda t, head=head: (f(t) - mp.polyval(head[::-1], t)) / t ** len(head), a, b,
                               degree - len(head))
            c = [rounded(x, bits) for x in [*head, *rest]]
        else:
            # a centre near the middle where f is nearly of this type: its rounding would matter most (Gal 1986)
            middles = [rounded((a + b) / 2 + k * (b - a) / 4096, 20) for k in range(-40, 41)]
            center = min(middles, key=lambda t: abs(rounded(f(t), bits) / f(t) - 1))
            c = [rounded(x, bits) for x in interpolate(f, a, b, degree, center)]
        columns[(first + i) % intervals] = [center, *c]
        errors.append(worst(lambda t, c=c, center=center: mp.polyval(c[::-1], t - center), f, a, b, bits, size or f))
    print(f"{name:10s} {intervals} intervals, degree {degree:2d}: {max(errors):.3f}")
    return [f"#define {name}_START {text(mpf(start), bits)}", f"#define {name}_SCALE {text(scale, bits)}",
            f"#define {name}_SHIFT (MANTISSA - {int(mp.log(octave, 2))})",
            table(f"{name}_CENTER", [[column[0]] for column in columns], bits),
            table(f"{name}_PIECES", [[column[k] for column in columns] for k in range(1, degree + 2)], bits)]


def generate(width: int) -> list[str]:
    bits = BITS[width]
    single = width == 32
    out = []

    def constant(name: str, value) -> None:
        out.append(f"#define {name} {text(value, bits)}")

    def polynomial(name: str, f, low, high, degree: int, whole, exact) -> list[mpf]:
        c = [rounded(x, bits) for x in interpolate(f, low, high, degree)]
        error = worst(lambda x: whole(x, mp.polyval(c[::-1], x)), exact, low, high, bits)
        print(f"{name:10s} f{width} degree {degree:2d}: {error:.3f}")
        out.append(table(name, [[x] for x in c], bits))
        return c

    # exp: x = n ln2 + r; n LN2_HI is exact for the n that occur
    ln2 = mp.log(2)
    high = rounded(ln2, 15 if single else 41)
    constant("LOG2E", 1 / ln2)
    constant("LN2_HI", high)
    constant("LN2_LO", ln2 - high)
    constant("EXP_MIN", -120 if single else -760)  # even x exp(x) rounds to 0 there
    constant("EXP_MAX", 89 if single else 710)     # and exp(x) to infinity here
    constant("EXPM1_MIN", -20 if single else -40)  # expm1(x) rounds to -1 there
    # expm1(r) = r + r^2 EXPM1(r)
    edge = ln2 / 2 * mpf("1.001")
    expm1 = polynomial("EXPM1", lambda x: mp.hyp1f1(1, 3, x) / 2, -edge, edge, 4 if single else 9,
                       lambda x, p: x + x**2 * p, mp.expm1)
    # exp(-w/2) = EXP_HALF(w): the same, with powers of -1/2 in the coefficients
    out.append(table("EXP_HALF", [[c * mpf(-0.5) ** k] for k, c in enumerate([mpf(1), mpf(1), *expm1])], bits))
    # log1p(e) = e + e^2 LOG1P(e), 0 <= e <= 1
    polynomial("LOG1P", lambda x: mp.log1p(x) / x**2 - 1 / x, 0, 1, 9 if single else 20,
               lambda x, p: x + x**2 * p, mp.log1p)

    # Phi(-t) = exp(-t^2/2) R(t), and what gelu and its derivative make of it
    constant("GELU_MAX", mpf("14.7") if single else mpf(39))  # gelu(-x) and gelu'(-x) round to 0
    top = mpf("14.71") if single else mpf("39.01")
    constant("INV_SQRT_2PI", 1 / mp.sqrt(2 * mp.pi))
    if single:
        out.append("#if LOOKUP == 16")
        # R is made smaller by as much as the roots of 2 are made larger: a factor found by trying three million, with
        # which they all lie within 0.15 units of a float
        factor = mp.exp(mpf("0.010026923559452392"))
        out.append(table("ROOTS", [[factor * mpf(2) ** (mpf(i) / 16)] for i in range(16)], bits))
        # e^-s = 1 + s P(s) with s = r/2: a polynomial in r, |r| <= ln(2) / 16
        edge = ln2 / 16 * mpf("1.001")
        polynomial("ROOT_HALF", lambda r: mp.expm1(-r / 2) / r if r else mpf("-0.5"), -edge, edge, 2,
                   lambda r, p: 1 + r * p, lambda r: mp.exp(-r / 2))
        out += pieces("GELU_LEFT", lambda t: t * ratio(t) / factor, top, 5, 16, 4, "1.25", bits)
        density = 1 / mp.sqrt(2 * mp.pi)
        out += pieces("GELU_SLOPE", lambda t: (ratio(t) - t * density) / factor, top, 5, 16, 4, "1.25", bits,
                      size=lambda t: (ratio(t) + t * density) / factor)
        constant("TANH_MAX", mpf("9.05"))  # 1 from here on
        out += pieces("TANH", mp.tanh, mpf("9.06"), 4, 32, 8, "1.25", bits, slope=1)
        out.append("#else")
        out += pieces("GELU_RATIO", ratio, top, 7, 8, 2, 1, bits)
        out.append("#endif")
    else:
        out += pieces("GELU_RATIO", ratio, top, 17, 8, 2, 1, bits)

    # gelu(approximate="tanh") = x sigmoid(x (A + B x^2)), each constant as a sum of two
    a = 2 * mp.sqrt(2 / mp.pi)
    constant("GELU_TANH_MAX", 30)  # A t + B t^3 is beyond the range of exp
    for name, value in (("GELU_TANH_A", a), ("GELU_TANH_B", a * mpf("0.044715"))):
        constant(name, value)
        constant(f"{name}_LO", value - rounded(value, bits))
    return out


if __name__ == "__main__":
    sections = [f"#{word} TW_BITS == {width}\n" + "\n".join(generate(width)) + "\n"
                for word, width in (("if", 32), ("elif", 64))]
    Path(__file__).with_name("vmath_tables.h").write_text(HEAD + "".join(sections) + "#endif\n")
