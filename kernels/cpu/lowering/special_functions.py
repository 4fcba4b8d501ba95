"""Functions that C's library lacks or has with low accuracy: in double, rounded to float for float results.

Bessel functions of the first and second kind are from the C library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

# Coefficients of powers of 16 / x - 1: sqrt(x) exp(-x) I0(x), and the same of I1, for x from 8 on.
# fmt: off
_I0_BEYOND_8 = (
    0.4021765094450081, 0.0033605519836678865, 0.0001362160743919305, 1.1143033788352458e-05,
    1.4838475658279207e-06, 2.973599383077841e-07, 8.872219737912384e-08, 3.9324708330539615e-08,
    2.154837797396305e-08, 7.563772001596294e-09, -6.747657951283063e-09, -1.3453822864344357e-08,
    -5.4047715852922335e-09, 7.697661807066973e-09, 7.430464692966742e-09, -3.820994672299635e-09,
    -5.9535695065518304e-09, 1.9833583862817004e-09, 3.6379547079774387e-09, -1.0267334267893136e-09,
    -1.6189807317905938e-09, 4.3888571547469544e-10, 4.5770878163141524e-10, -1.2429467480056573e-10,
    -6.067631880062131e-11, 1.6645451564642178e-11,
)
_I1_BEYOND_8 = (
    0.38939845902587233, -0.00974957719323576, -0.00021923576383388928, -1.5038547198145535e-05,
    -1.83491013269809e-06, -3.4838565069224345e-07, -1.0001288294873912e-07, -4.3128111751518845e-08,
    -2.337392820724756e-08, -8.436290416288976e-09, 6.7344648101029294e-09, 1.4076395433630581e-08,
    5.974437627087986e-09, -7.77859255224256e-09, -7.888351553643442e-09, 3.721979294684954e-09,
    6.2427412930025495e-09, -1.8736443977245844e-09, -3.794670973399041e-09, 9.568517355033334e-10,
    1.684898499503793e-09, -4.086980353473458e-10, -4.758819036118188e-10, 1.1618122392816485e-10,
    6.30596552772047e-11, -1.5626577102923738e-11,
)
# Of powers of 8 y^2 - 1: erfinv(y) / y, for |y| up to 1/2.
_ERFINV_OVER_Y = (
    0.9174083670522701, 0.03356743029704947, 0.0026140273452605754, 0.0002522747551746085,
    2.697700101018418e-05, 3.0637436236934544e-06, 3.619864126626641e-07, 4.3982777499014594e-08,
    5.456542916315438e-09, 6.879321338613199e-10, 8.785252799610099e-11, 1.1336795812171404e-11,
    1.4725045058101758e-12, 1.930085363663532e-13, 2.7415675767303887e-14, 3.655702828927595e-15,
)
# fmt: on
# I0(x) and 2 I1(x) / x by powers of x^2 / 4, for |x| up to 8.
_TERMS = 32
_I0_UP_TO_8 = [1 / math.factorial(k) ** 2 for k in range(_TERMS)]
_I1_UP_TO_8 = [1 / (math.factorial(k) * math.factorial(k + 1)) for k in range(_TERMS)]
# x sqrt(pi) erfcx(x), by powers of 1 / (2 x^2): the first terms of its asymptotic series, for x >= 10.
_ERFCX_BEYOND_10 = [(-1.0) ** k * math.prod(range(1, 2 * k, 2)) for k in range(14)]


def _polynomial(name: str, coefficients: Sequence[float]) -> str:
    """A C function of a polynomial, with the coefficients from the constant one on."""
    nested = repr(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        nested = f"({nested} * x + {coefficient!r})"
    return f"INLINE double {name}(double x) {{ return {nested}; }}"


_POLYNOMIALS = {
    "special_i0_up_to_8": _I0_UP_TO_8,
    "special_i0_beyond_8": _I0_BEYOND_8,
    "special_i1_up_to_8": _I1_UP_TO_8,
    "special_i1_beyond_8": _I1_BEYOND_8,
    "special_erfinv_over_y": _ERFINV_OVER_Y,
    "special_erfcx_beyond_10": _ERFCX_BEYOND_10,
}
_CODE = r"""
/* exp(x) / sqrt(x) * y, where exp(x) alone may overflow. */
INLINE double special_grown(double x, double y) {
  const double half = exp(0.5 * x);
  return x < 700 ? exp(x) / sqrt(x) * y : half / sqrt(x) * y * half;
}
INLINE double special_i0(double x) {
  const double a = fabs(x);
  if (a <= 8) return special_i0_up_to_8(0.25 * a * a);
  return a == INFINITY ? a : special_grown(a, special_i0_beyond_8(16 / a - 1));
}
INLINE double special_i1(double x) {
  const double a = fabs(x);
  if (a <= 8) return 0.5 * x * special_i1_up_to_8(0.25 * a * a);
  return a == INFINITY ? x : copysign(special_grown(a, special_i1_beyond_8(16 / a - 1)), x);
}
INLINE double special_jn(int32_t n, double x) { return n < 0 ? NAN : jn(n, x); }
INLINE double special_yn(int32_t n, double x) { return n < 0 ? NAN : yn(n, x); }
INLINE double special_lgamma(double x) { int sign; return lgamma_r(x, &sign); }

/* exp(x^2) erfc(x). What is lost when x^2 is rounded comes back as a factor. */
INLINE double special_erfcx(double x) {
  const double square = x * x, lost = fma(x, x, -square);
  if (x > 10) return special_erfcx_beyond_10(1 / (2 * square)) / x * 0.5641895835477563;
  if (x < -27) return INFINITY;
  const double power = exp(square);
  return (power + power * lost) * erfc(x);
}
/* erfc(x) = y for y up to 1/2, by Newton's method on the logarithm: log(erfcx(x)) - x^2 = log(y). */
INLINE double special_erfc_tail(double y) {
  const double log_y = log(y);
  double x = sqrt(-log_y - 0.5 * log(-3.141592653589793 * log_y));
  for (int i = 0; i < 5; ++i) {
    const double scaled = special_erfcx(x);
    x += (log(scaled) - x * x - log_y) * scaled * 0.886226925452758;
  }
  return x;
}
INLINE double special_erfinv_middle(double y) { return y * special_erfinv_over_y(8 * y * y - 1); }
INLINE double special_erfinv(double y) {
  const double a = fabs(y);
  if (!(a < 1)) return a == 1 ? copysign(INFINITY, y) : NAN;
  return a <= 0.5 ? special_erfinv_middle(y) : copysign(special_erfc_tail(1 - a), y);
}
INLINE double special_erfcinv(double y) {
  if (!(y > 0 && y < 2)) return y == 0 ? INFINITY : y == 2 ? -INFINITY : NAN;
  if (y < 0.5) return special_erfc_tail(y);
  return y > 1.5 ? -special_erfc_tail(2 - y) : special_erfinv_middle(1 - y);
}
INLINE double special_normcdfinv(double y) { return -1.4142135623730951 * special_erfcinv(2 * y); }

/* The length of a vector, scaled by a power of two, so that no square overflows or vanishes; its reciprocal. */
INLINE double special_norm(double a, double b, double c, double d, bool reciprocal) {
  const double most = fmax(fmax(fabs(a), fabs(b)), fmax(fabs(c), fabs(d)));
  const bool infinite = fabs(a) == INFINITY || fabs(b) == INFINITY || fabs(c) == INFINITY || fabs(d) == INFINITY;
  if (infinite) return reciprocal ? 0 : INFINITY;
  if (most == 0) return a != a || b != b || c != c || d != d ? NAN : reciprocal ? INFINITY : 0;
  int exponent;
  frexp(most, &exponent);
  a = ldexp(a, -exponent), b = ldexp(b, -exponent), c = ldexp(c, -exponent), d = ldexp(d, -exponent);
  const double length = sqrt(a * a + b * b + c * c + d * d);
  return reciprocal ? ldexp(1 / length, -exponent) : ldexp(length, exponent);
}
INLINE int32_t special_ilogb(double x) {
  return x == 0 || x != x ? INT32_MIN : x - x != 0 ? INT32_MAX : (int32_t)logb(x);
}
/* The reciprocal of the upper half of the bits, as such a half; less than 2^-1022 counts as 0. */
INLINE double special_rcp64h(double x) {
  const uint64_t upper = 0xffffffff00000000u, half = 0x80000000u;
  const double a = f64_of_bits(bits_of_f64(x) & upper);
  const double y = fabs(a) < 0x1p-1022 ? copysign(INFINITY, a) : 1 / a;
  const double nearest = y - y != 0 ? y : f64_of_bits((bits_of_f64(y) + half) & upper);
  return fabs(nearest) < 0x1p-1022 ? copysign(0.0, a) : nearest;
}
"""
FUNCTIONS = "\n".join([*(_polynomial(name, row) for name, row in _POLYNOMIALS.items()), _CODE])

# Double functions of doubles, and after them those of an order and a double.
_OF_ONE = {
    **{name: name for name in ("j0", "j1", "y0", "y1", "tgamma")},
    "cyl_bessel_i0": "special_i0",
    "cyl_bessel_i1": "special_i1",
    "erfcx": "special_erfcx",
    "erfinv": "special_erfinv",
    "erfcinv": "special_erfcinv",
    "normcdfinv": "special_normcdfinv",
    "lgamma": "special_lgamma",
}
_OF_AN_ORDER = {"jn": "special_jn", "yn": "special_yn"}


def _expressions() -> dict[str, str]:
    """The C expression of each symbol, see `libdevice.EXPRESSIONS`."""
    found = {"__nv_rcp64h": "special_rcp64h({0})"}
    for name, function in _OF_ONE.items():
        found[f"__nv_{name}"] = f"{function}({{0}})"
        found[f"__nv_{name}f"] = f"(float){function}((double){{0}})"
    for name, function in _OF_AN_ORDER.items():
        found[f"__nv_{name}"] = f"{function}({{0}}, {{1}})"
        found[f"__nv_{name}f"] = f"(float){function}({{0}}, (double){{1}})"
    for name, operands, reciprocal in (
        ("rhypot", 2, True),
        ("norm3d", 3, False),
        ("rnorm3d", 3, True),
        ("norm4d", 4, False),
        ("rnorm4d", 4, True),
    ):
        for suffix, cast, single in (("", "", ""), ("f", "(double)", "(float)")):
            parts = [f"{cast}{{{place}}}" if place < operands else "0.0" for place in range(4)]
            call = f"special_norm({', '.join(parts)}, {str(reciprocal).lower()})"
            found[f"__nv_{name}{suffix}"] = single + call
    return found


EXPRESSIONS = _expressions()
