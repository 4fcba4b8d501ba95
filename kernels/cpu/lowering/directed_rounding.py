"""Sums, products, quotients and roots with directed rounding, rounded once in the direction that their name gives.

The hardware rounds to nearest. An exact error term then tells on which side of the exact value the result is, and so
whether its neighbour is the right one. The thread's rounding mode stays as it is.
"""

from __future__ import annotations

FUNCTIONS = r"""
enum { DIRECTED_TO_ZERO, DIRECTED_DOWN, DIRECTED_UP };
/* 0, which the compiler cannot know: what went by it is not fused with what comes after. */
uint64_t directed_no_bits = 0;
INLINE double directed_alone(double x) { return f64_of_bits(bits_of_f64(x) ^ directed_no_bits); }
INLINE float directed_alonef(float x) { return f32_of_bits(bits_of_f32(x) ^ (uint32_t)directed_no_bits); }

/* -1, 0 or 1: where the neighbour is, if not x itself. `above`: the exact value is above x. */
INLINE int directed_step(bool above, bool below, bool negative, int mode) {
  const bool up = mode == DIRECTED_UP || (mode == DIRECTED_TO_ZERO && negative);
  return up ? above : -(int)below;
}
/* x, which is the exact value rounded somehow; exact - x has the sign of `residual`. */
INLINE double directed_f64(double x, double residual, int mode) {
  const bool negative = bits_of_f64(x) >> 63;
  const int step = directed_step(residual > 0, residual < 0, negative, mode);
  return f64_of_bits(bits_of_f64(x) + (uint64_t)(int64_t)(negative ? -step : step));
}
INLINE float directed_f32(double exact, int mode) {
  const float x = (float)exact;
  const bool negative = bits_of_f32(x) >> 31;
  const int step = directed_step((double)x < exact, (double)x > exact, negative, mode);
  return f32_of_bits(bits_of_f32(x) + (uint32_t)(negative ? -step : step));
}
/* A double that lies on the same side of every float as the exact value: rounded to odd. */
INLINE double directed_odd(double x, double residual) {
  const uint64_t magnitude = bits_of_f64(x) - (x > 0 ? residual < 0 : residual > 0);
  return residual < 0 || residual > 0 ? f64_of_bits(magnitude | 1) : x;
}
/* What was lost in sum = a + b, exactly; of the right sign where the sum overflowed, NaN where a or b is not finite. */
INLINE double directed_lost(double a, double b, double sum) {
  const bool swapped = fabs(a) < fabs(b);
  const double large = swapped ? b : a, small = swapped ? a : b;
  return small - (sum - large);
}
/* A zero that is the sum of two numbers: IEEE 754 has it negative where it is rounded down, but for 0 + 0. */
INLINE double directed_zero(double sum, bool any_negative, int mode) {
  return mode == DIRECTED_DOWN && sum == 0 && any_negative ? -0.0 : sum;
}
INLINE bool directed_negative(double a) { return bits_of_f64(a) >> 63; }
/* (high + low) * 2^exponent, where `low` is less than an ulp of `high`. */
INLINE double directed_scaled(double high, double low, int exponent, int mode) {
  const double x = ldexp(high, exponent);
  const double residual = x - x != 0 ? -x : (high - ldexp(x, -exponent)) + low;
  return directed_f64(x, residual, mode);
}
INLINE bool directed_plain(double x) { return x != 0 && x - x == 0; }

INLINE double directed_add(double a, double b, int mode) {
  a = directed_alone(a), b = directed_alone(b);
  const double sum = a + b;
  const double found = directed_f64(sum, directed_lost(a, b, sum), mode);
  return directed_zero(found, directed_negative(a) || directed_negative(b), mode);
}
INLINE double directed_mul(double a, double b, int mode) {
  if (!directed_plain(a) || !directed_plain(b)) return directed_alone(a * b);
  int of_a, of_b;
  const double x = frexp(a, &of_a), y = frexp(b, &of_b), product = directed_alone(x * y);
  return directed_scaled(product, fma(x, y, -product), of_a + of_b, mode);
}
INLINE double directed_div(double a, double b, int mode) {
  if (!directed_plain(a) || !directed_plain(b)) return a / b;
  int of_a, of_b;
  const double x = frexp(a, &of_a), y = frexp(b, &of_b), quotient = x / y, left = fma(-quotient, y, x);
  return directed_scaled(quotient, y > 0 ? left : -left, of_a - of_b, mode);
}
INLINE double directed_sqrt(double a, int mode) {
  if (!(a > 0) || a - a != 0) return sqrt(a);
  int exponent;
  double x = frexp(a, &exponent);
  const int odd = exponent & 1;
  x *= odd ? 2 : 1;
  const double root = sqrt(x);
  return directed_scaled(root, fma(-root, root, x), (exponent - odd) / 2, mode);
}
INLINE double directed_fma(double a, double b, double c, int mode) {
  if (!directed_plain(a) || !directed_plain(b) || c - c != 0) {
    const bool product_negative = directed_negative(a) != directed_negative(b);
    return directed_zero(fma(a, b, c), product_negative || directed_negative(c), mode);
  }
  int of_a, of_b, of_c;
  const double x = frexp(a, &of_a), y = frexp(b, &of_b), z = frexp(c, &of_c);
  /* Far apart only the sign of the smaller one matters, so it may come nearer, up to 2^400. */
  const int apart = of_c - of_a - of_b;
  const int exponent = c != 0 && apart > 400 ? of_c - 400 : of_a + of_b;
  const double third = ldexp(z, apart > 400 ? 400 : apart < -400 ? -400 : apart);
  const double product = directed_alone(x * y), rest = fma(x, y, -product);
  const double sum = product + third, lost = directed_lost(product, third, sum);
  const double carried = lost + rest, beneath = directed_lost(lost, rest, carried);
  const double high = sum + carried, low = directed_lost(sum, carried, high) + beneath;
  if (high == 0) return mode == DIRECTED_DOWN ? -0.0 : 0.0;
  return directed_scaled(high, low, exponent, mode);
}

/* In float: what double has is exact, or rounded to odd, so that the second rounding comes out right. */
INLINE float directed_addf(float a, float b, int mode) {
  const double sum = (double)a + (double)b, odd = directed_odd(sum, directed_lost(a, b, sum));
  return directed_f32(directed_zero(odd, directed_negative(a) || directed_negative(b), mode), mode);
}
INLINE float directed_mulf(float a, float b, int mode) { return directed_f32((double)a * (double)b, mode); }
INLINE float directed_divf(float a, float b, int mode) {
  const double quotient = (double)a / (double)b, left = fma(-quotient, (double)b, (double)a);
  return directed_f32(directed_odd(quotient, b > 0 ? left : -left), mode);
}
INLINE float directed_sqrtf(float a, int mode) {
  const double root = sqrt((double)a);
  return directed_f32(directed_odd(root, fma(-root, root, (double)a)), mode);
}
INLINE float directed_fmaf(float a, float b, float c, int mode) {
  const double product = directed_alone((double)a * (double)b), sum = product + (double)c;
  const double odd = directed_odd(sum, directed_lost(product, c, sum));
  return directed_f32(directed_zero(odd, directed_negative(product) || directed_negative(c), mode), mode);
}

INLINE double directed_f64_of_i64(int64_t x, int mode) {
  const double y = (double)x;
  return directed_f64(y, (double)((__int128)x - (__int128)y), mode);
}
INLINE double directed_f64_of_u64(uint64_t x, int mode) {
  const double y = (double)x;
  return directed_f64(y, (double)((__int128)x - (__int128)y), mode);
}
/* 1 / sqrt(x), to the nearest: the middles between floats have squares that are exact in double. */
INLINE float directed_rsqrt(float x) {
  const float near = (float)(1.0 / sqrt((double)x));
  if (!(x > 0) || x - x != 0) return near;
  const float up = f32_of_bits(bits_of_f32(near) + 1), down = f32_of_bits(bits_of_f32(near) - 1);
  const double above = 0.5 * ((double)near + up), below = 0.5 * ((double)near + down);
  return fma(above * above, (double)x, -1.0) < 0 ? up : fma(below * below, (double)x, -1.0) > 0 ? down : near;
}
"""

_MODES = {"rz": "DIRECTED_TO_ZERO", "rd": "DIRECTED_DOWN", "ru": "DIRECTED_UP"}
_OPERANDS = {"add": 2, "mul": 2, "div": 2, "sqrt": 1, "fma": 3}


def _expressions() -> dict[str, str]:
    """The C expression of each symbol, see `libdevice.EXPRESSIONS`."""
    found = {
        "__nv_fadd_rn": "directed_alonef(directed_alonef({0}) + directed_alonef({1}))",
        "__nv_dadd_rn": "directed_alone(directed_alone({0}) + directed_alone({1}))",
        "__nv_fsub_rn": "directed_alonef(directed_alonef({0}) - directed_alonef({1}))",
        "__nv_dsub_rn": "directed_alone(directed_alone({0}) - directed_alone({1}))",
        "__nv_fmul_rn": "directed_alonef({0} * {1})",
        "__nv_dmul_rn": "directed_alone({0} * {1})",
        "__nv_frsqrt_rn": "directed_rsqrt({0})",
    }
    for suffix, mode in _MODES.items():
        for operation, operands in _OPERANDS.items():
            arguments = ", ".join(f"{{{place}}}" for place in range(operands))
            single, double = ("fmaf", "fma") if operation == "fma" else (f"f{operation}", f"d{operation}")
            found[f"__nv_{single}_{suffix}"] = f"directed_{operation}f({arguments}, {mode})"
            found[f"__nv_{double}_{suffix}"] = f"directed_{operation}({arguments}, {mode})"
        found[f"__nv_fsub_{suffix}"] = f"directed_addf({{0}}, -{{1}}, {mode})"
        found[f"__nv_dsub_{suffix}"] = f"directed_add({{0}}, -{{1}}, {mode})"
        found[f"__nv_frcp_{suffix}"] = f"directed_divf(1.0f, {{0}}, {mode})"
        found[f"__nv_drcp_{suffix}"] = f"directed_div(1.0, {{0}}, {mode})"
        found[f"__nv_double2float_{suffix}"] = f"directed_f32({{0}}, {mode})"
        found[f"__nv_int2float_{suffix}"] = f"directed_f32((double){{0}}, {mode})"
        found[f"__nv_uint2float_{suffix}"] = f"directed_f32((double)(uint32_t){{0}}, {mode})"
        found[f"__nv_ll2float_{suffix}"] = f"directed_f32(odd_f64_of_i64({{0}}), {mode})"
        found[f"__nv_ull2float_{suffix}"] = f"directed_f32(odd_f64_of_u64((uint64_t){{0}}), {mode})"
        found[f"__nv_ll2double_{suffix}"] = f"directed_f64_of_i64({{0}}, {mode})"
        found[f"__nv_ull2double_{suffix}"] = f"directed_f64_of_u64((uint64_t){{0}}, {mode})"
    return found


EXPRESSIONS = _expressions()
