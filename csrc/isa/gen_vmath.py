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


def worst(g, exact, low, high, bits: int) -> float:
    """The largest relative error of g, in units of 2^-bits."""
    points = [mpf(low) + (mpf(high) - low) * (2 * i + 1) / 1000 for i in range(500)]
    return float(max(abs(g(x) / exact(x) - 1) for x in points) * 2**bits)


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


def gelu_tables(intervals: int, span: mpf, degree: int, bits: int) -> list[str]:
    """Centres of the intervals of R, and its coefficients in t - centre; column i mod intervals is that of the key
    i = exponent and first bits of t / span + 1, as they stand in the number."""
    parts = intervals // 4
    edges = [(mpf(2) ** (i // parts) * (1 + mpf(i % parts) / parts) - 1) * span for i in range(intervals + 1)]
    columns, errors = [], []
    for a, b in zip(edges, edges[1:], strict=False):
        # a centre near the middle where R is nearly a number of this type: its rounding would matter most (Gal 1986)
        middles = [rounded((a + b) / 2 + k * (b - a) / 4096, 20) for k in range(-40, 41)]
        center = min(middles, key=lambda t: abs(rounded(ratio(t), bits) / ratio(t) - 1))
        c = [rounded(x, bits) for x in interpolate(ratio, a, b, degree, center)]
        columns.append([center, *c])
        errors.append(worst(lambda t, c=c, center=center: mp.polyval(c[::-1], t - center), ratio, a, b, bits))
    print(f"GELU_RATIO {intervals} intervals, degree {degree:2d}: {max(errors):.3f}")
    bias = 127 if bits == 24 else 1023
    columns = [columns[(i - bias * parts) % intervals] for i in range(intervals)]
    return [table("GELU_CENTER", [[column[0]] for column in columns], bits),
            table("GELU_RATIO", [[column[k] for column in columns] for k in range(1, degree + 2)], bits)]


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

    # Phi(-t) = exp(-t^2/2) R(t); an octave of t / GELU_SPAN + 1 in [1, 16) is cut into 2 or 4 intervals
    span = mpf(1) if single else mpf("2.625")
    constant("GELU_SPAN", span)
    constant("GELU_MAX", 15 * span * mpf("0.999"))
    if single:
        out.append("#if LOOKUP == 16")
        out += gelu_tables(16, span, 5, bits)
        out.append("#else")
        out += gelu_tables(8, span, 7, bits)
        out.append("#endif")
    else:
        out += gelu_tables(8, span, 17, bits)
    constant("INV_SQRT_2PI", 1 / mp.sqrt(2 * mp.pi))

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
