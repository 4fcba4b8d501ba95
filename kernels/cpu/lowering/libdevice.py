"""Functions of libdevice that have another name in C, or are an expression."""

from __future__ import annotations

import re

from fusetune.kernels.cpu.lowering import directed_rounding, special_functions

# sinpi and cospi: the difference of x and the nearest multiple of 1/2 is exact. normcdf: the rounding error of erfc's
# argument is corrected by erfc's slope. Conversions: PTX's results out of range and for NaN.
FUNCTIONS = r"""
INLINE double nv_sinpi(double x) {
  const double halves = rint(2 * fmod(x, 2.0)), left = 3.141592653589793 * (fmod(x, 2.0) - 0.5 * halves);
  const int32_t quarter = (int32_t)halves & 3;
  const double y = quarter & 1 ? cos(left) : sin(left);
  return x == 0 || x != x ? x : x - x != 0 ? NAN : quarter & 2 ? -y : y;
}
INLINE double nv_cospi(double x) {
  const double halves = rint(2 * fmod(x, 2.0)), left = 3.141592653589793 * (fmod(x, 2.0) - 0.5 * halves);
  const int32_t quarter = (int32_t)halves & 3;
  const double y = quarter & 1 ? sin(left) : cos(left);
  return x - x != 0 ? NAN : quarter == 1 || quarter == 2 ? -y : y;
}
INLINE double nv_normcdf(double x) {
  const double root = 0.7071067811865476, rest = -4.833646656726457e-17;
  const double t = -x * root, lost = -(fma(x, root, t) + x * rest);
  const double y = erfc(t), slope = -1.1283791670955126 * exp(-t * t);
  return x < -40 ? 0 : x > 40 ? 1 : 0.5 * (y + slope * lost);
}
#define NV_TO_INTEGER(from, type, to, integer, low, high, beyond_low, beyond_high, of_nan) \
  INLINE integer nv_##from##_to_##to(type x) {                                             \
    return x != x ? (integer)(of_nan) : x < low ? (integer)(beyond_low) :                  \
           x >= high ? (integer)(beyond_high) : (integer)x;                                \
  }
INLINE int32_t nv_mul24(int32_t a, int32_t b) { return (a << 8 >> 8) * (b << 8 >> 8); }
INLINE uint32_t nv_brev(uint32_t x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(x);
}
/* Four bytes of eight, each chosen by three bits. */
INLINE uint32_t nv_byte_perm(uint32_t a, uint32_t b, uint32_t chosen) {
  const uint64_t bytes = (uint64_t)b << 32 | a;
  uint32_t found = 0;
  for (int i = 0; i < 4; ++i) found |= (uint32_t)(bytes >> 8 * (chosen >> 4 * i & 7) & 0xff) << 8 * i;
  return found;
}
NV_TO_INTEGER(f32, float, i32, int32_t, -0x1p31f, 0x1p31f, INT32_MIN, INT32_MAX, 0)
NV_TO_INTEGER(f32, float, u32, uint32_t, 0.0f, 0x1p32f, 0, UINT32_MAX, 0)
NV_TO_INTEGER(f32, float, i64, int64_t, -0x1p63f, 0x1p63f, INT64_MIN, INT64_MAX, INT64_MIN)
NV_TO_INTEGER(f32, float, u64, uint64_t, 0.0f, 0x1p64f, 0, UINT64_MAX, INT64_MIN)
NV_TO_INTEGER(f64, double, i32, int32_t, -0x1p31, 0x1p31, INT32_MIN, INT32_MAX, INT32_MIN)
NV_TO_INTEGER(f64, double, u32, uint32_t, 0.0, 0x1p32, 0, UINT32_MAX, INT32_MIN)
NV_TO_INTEGER(f64, double, i64, int64_t, -0x1p63, 0x1p63, INT64_MIN, INT64_MAX, INT64_MIN)
NV_TO_INTEGER(f64, double, u64, uint64_t, 0.0, 0x1p64, 0, UINT64_MAX, INT64_MIN)
"""

# Symbol -> the C expression of its operands. Integers are signed.
EXPRESSIONS = {
    "__nv_isnanf": "({0} != {0})",
    "__nv_isnand": "({0} != {0})",
    "__nv_isinff": "(fabsf({0}) == INFINITY)",
    "__nv_isinfd": "(fabs({0}) == INFINITY)",
    "__nv_finitef": "(fabsf({0}) < INFINITY)",
    "__nv_isfinited": "(fabs({0}) < INFINITY)",
    "__nv_signbitf": "(int32_t)(bits_of_f32({0}) >> 31)",
    "__nv_signbitd": "(int32_t)(bits_of_f64({0}) >> 63)",
    "__nv_saturatef": "({0} > 0.0f ? {0} < 1.0f ? {0} : 1.0f : 0.0f)",
    "__nv_float_as_int": "(int32_t)bits_of_f32({0})",
    "__nv_float_as_uint": "(int32_t)bits_of_f32({0})",
    "__nv_int_as_float": "f32_of_bits((uint32_t){0})",
    "__nv_uint_as_float": "f32_of_bits((uint32_t){0})",
    "__nv_double_as_longlong": "(int64_t)bits_of_f64({0})",
    "__nv_longlong_as_double": "f64_of_bits((uint64_t){0})",
    "__nv_clz": "({0} == 0 ? 32 : __builtin_clz((uint32_t){0}))",
    "__nv_clzll": "({0} == 0 ? 64 : __builtin_clzll((uint64_t){0}))",
    "__nv_popc": "__builtin_popcount((uint32_t){0})",
    "__nv_popcll": "__builtin_popcountll((uint64_t){0})",
    "__nv_ffs": "__builtin_ffs({0})",
    "__nv_ffsll": "__builtin_ffsll({0})",
    "__nv_abs": "({0} < 0 ? -{0} : {0})",
    "__nv_llabs": "({0} < 0 ? -{0} : {0})",
    "__nv_brev": "(int32_t)nv_brev((uint32_t){0})",
    "__nv_brevll": "(int64_t)((uint64_t)nv_brev((uint32_t){0}) << 32 | nv_brev((uint32_t)((uint64_t){0} >> 32)))",
    "__nv_byte_perm": "(int32_t)nv_byte_perm((uint32_t){0}, (uint32_t){1}, (uint32_t){2})",
    "__nv_mul24": "nv_mul24({0}, {1})",
    "__nv_umul24": "(int32_t)(((uint32_t){0} & 0xffffffu) * ((uint32_t){1} & 0xffffffu))",
    "__nv_sad": "({0} < {1} ? {1} - {0} + {2} : {0} - {1} + {2})",
    "__nv_usad": "(int32_t)(((uint32_t){0} < (uint32_t){1} ? {1} - {0} : {0} - {1}) + {2})",
    "__nv_hadd": "(int32_t)(((int64_t){0} + {1}) >> 1)",
    "__nv_rhadd": "(int32_t)(((int64_t){0} + {1} + 1) >> 1)",
    "__nv_uhadd": "(int32_t)(((uint64_t)(uint32_t){0} + (uint32_t){1}) >> 1)",
    "__nv_urhadd": "(int32_t)(((uint64_t)(uint32_t){0} + (uint32_t){1} + 1) >> 1)",
    "__nv_hiloint2double": "f64_of_bits((uint64_t)(uint32_t){0} << 32 | (uint32_t){1})",
    "__nv_double2hiint": "(int32_t)(bits_of_f64({0}) >> 32)",
    "__nv_double2loint": "(int32_t)bits_of_f64({0})",
    "__nv_llrint": "nv_f64_to_i64(rint({0}))",
    "__nv_llrintf": "nv_f32_to_i64(rintf({0}))",
    "__nv_llround": "nv_f64_to_i64(round({0}))",
    "__nv_llroundf": "nv_f32_to_i64(roundf({0}))",
    "__nv_ilogb": "special_ilogb({0})",
    "__nv_ilogbf": "special_ilogb((double){0})",
    "__nv_logb": "logb({0})",
    "__nv_logbf": "logbf({0})",
    "__nv_ldexp": "ldexp({0}, {1})",
    "__nv_ldexpf": "ldexpf({0}, {1})",
    "__nv_scalbn": "ldexp({0}, {1})",
    "__nv_scalbnf": "ldexpf({0}, {1})",
    "__nv_powi": "pow({0}, (double){1})",
    "__nv_powif": "(float)pow((double){0}, (double){1})",
    "__nv_mulhi": "(int32_t)((int64_t){0} * {1} >> 32)",
    "__nv_umulhi": "(int32_t)((uint64_t)(uint32_t){0} * (uint32_t){1} >> 32)",
    "__nv_mul64hi": "(int64_t)((__int128){0} * {1} >> 64)",
    "__nv_umul64hi": "(int64_t)((unsigned __int128)(uint64_t){0} * (uint64_t){1} >> 64)",
    # The fast functions have the accuracy of the others here.
    "__nv_fast_cosf": "cosf({0})",
    "__nv_fast_exp10f": "exp10f({0})",
    "__nv_fast_expf": "masked_expf({0})",
    "__nv_fast_fdividef": "({0} / {1})",
    "__nv_fast_log10f": "log10f({0})",
    "__nv_fast_log2f": "log2f({0})",
    "__nv_fast_logf": "logf({0})",
    "__nv_fast_powf": "powf({0}, {1})",
    "__nv_fast_sinf": "sinf({0})",
    "__nv_fast_tanf": "tanf({0})",
    # Quotients and roots are never contracted with a later operation, so they need no protection from it.
    "__nv_fdiv_rn": "({0} / {1})",
    "__nv_ddiv_rn": "({0} / {1})",
    "__nv_frcp_rn": "(1.0f / {0})",
    "__nv_drcp_rn": "(1.0 / {0})",
    "__nv_fsqrt_rn": "sqrtf({0})",
    "__nv_dsqrt_rn": "sqrt({0})",
    "__nv_fmaf_rn": "fmaf({0}, {1}, {2})",
    "__nv_fma_rn": "fma({0}, {1}, {2})",
    "__nv_rcbrtf": "(float)(1.0 / cbrt({0}))",
    "__nv_rcbrt": "(1.0 / cbrt({0}))",
    "__nv_sinpif": "(float)nv_sinpi({0})",
    "__nv_sinpi": "nv_sinpi({0})",
    "__nv_cospif": "(float)nv_cospi({0})",
    "__nv_cospi": "nv_cospi({0})",
    "__nv_normcdff": "(float)nv_normcdf({0})",
    "__nv_normcdf": "nv_normcdf({0})",
    "__nv_int2float_rn": "(float){0}",
    "__nv_uint2float_rn": "(float)(uint32_t){0}",
    "__nv_ll2float_rn": "(float){0}",
    "__nv_ull2float_rn": "(float)(uint64_t){0}",
    "__nv_int2double_rn": "(double){0}",
    "__nv_uint2double_rn": "(double)(uint32_t){0}",
    "__nv_ll2double_rn": "(double){0}",
    "__nv_ull2double_rn": "(double)(uint64_t){0}",
    "__nv_double2float_rn": "(float){0}",
    **{
        f"__nv_{c}2{integer}_{mode}": f"nv_{element}_to_{to}({function}{'f' if c == 'float' else ''}({{0}}))"
        for c, element in (("float", "f32"), ("double", "f64"))
        for integer, to in (("int", "i32"), ("uint", "u32"), ("ll", "i64"), ("ull", "u64"))
        for mode, function in (("rn", "rint"), ("rz", "trunc"), ("rd", "floor"), ("ru", "ceil"))
    },
    **directed_rounding.EXPRESSIONS,
    **special_functions.EXPRESSIONS,
}

# Prefix of a part's function names -> its code. A kernel includes the parts that it uses.
_PARTS = {
    "nv_": FUNCTIONS,
    "directed_": directed_rounding.FUNCTIONS,
    "special_": special_functions.FUNCTIONS,
}


def functions_for(code: str) -> str:
    """The C functions that a kernel's code calls by name."""
    return "\n".join(
        functions for beginning, functions in _PARTS.items() if re.search(rf"\b{beginning}", code)
    )
