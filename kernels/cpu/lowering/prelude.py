"""The C that every kernel begins with: conversions, guarded division, prefix masks."""

from __future__ import annotations

PRELUDE = r"""
#include <stdint.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <math.h>
#define INLINE static inline __attribute__((always_inline))
#define BITS(from, to, name) INLINE to name(from x) { union { from a; to b; } both = {x}; return both.b; }
BITS(float, uint32_t, bits_of_f32)
BITS(uint32_t, float, f32_of_bits)
BITS(double, uint64_t, bits_of_f64)
BITS(uint64_t, double, f64_of_bits)

INLINE float f32_of_bf16(uint16_t x) { return f32_of_bits((uint32_t)x << 16); }
INLINE uint16_t bf16_of_f32(float x) {
  uint32_t u = bits_of_f32(x);
  uint32_t nearest = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  uint32_t nan = (u >> 16) | 0x40u;
  return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : nearest);
}
INLINE float f32_of_f16(uint16_t h) {
  uint32_t magnitude = h & 0x7fffu, sign = (uint32_t)(h & 0x8000u) << 16;
  uint32_t normal = (magnitude << 13) + (112u << 23);
  uint32_t special = (magnitude << 13) | 0x7f800000u;
  uint32_t tiny = bits_of_f32((float)(int32_t)magnitude * 0x1p-24f);
  uint32_t u = magnitude >= 0x7c00u ? special : normal;
  return f32_of_bits((magnitude < 0x400u ? tiny : u) | sign);
}
INLINE uint16_t f16_of_f32(float x) {
  uint32_t u = bits_of_f32(x), sign = (u >> 16) & 0x8000u;
  u &= 0x7fffffffu;
  uint32_t tiny = bits_of_f32(f32_of_bits(u) + 0.5f) - 0x3f000000u;
  uint32_t normal = (u - (112u << 23) + 0xfffu + ((u >> 13) & 1u)) >> 13;
  uint32_t special = u > 0x7f800000u ? 0x7e00u | ((u >> 13) & 0x3ffu) : 0x7c00u;
  uint32_t finite = u < 0x38800000u ? tiny : normal;
  return (uint16_t)((u >= 0x47800000u ? special : finite) | sign);
}
/* The larger and the smaller of two floats: NaN is handed on, and -0 is smaller than 0. In bits, for two of them one
   after the other would become branches, which don't vectorise. */
#define EXTREMES(held, type, bits)                                                                   \
  INLINE type maximum_##held(type a, type b) {                                                       \
    bits larger = a > b || a != a ? bits_of_##held(a) : bits_of_##held(b);                           \
    bits equal = -(bits)(a == b);                                                                    \
    return held##_of_bits(larger & (bits_of_##held(a) | ~equal));                                    \
  }                                                                                                  \
  INLINE type minimum_##held(type a, type b) {                                                       \
    bits smaller = a < b || a != a ? bits_of_##held(a) : bits_of_##held(b);                          \
    bits equal = -(bits)(a == b);                                                                    \
    return held##_of_bits(smaller | (bits_of_##held(a) & equal));                                    \
  }
EXTREMES(f32, float, uint32_t)
EXTREMES(f64, double, uint64_t)
/* Rounded to odd: what is lost stays visible in the last bit, so that a second rounding comes out right. */
INLINE float odd_f32_of_f64(double x) {
  float y = (float)x;
  uint32_t u = bits_of_f32(y);
  if ((double)y == x || x != x) return y;
  u -= fabs((double)y) > fabs(x);
  return f32_of_bits(u | 1u);
}
INLINE uint16_t f16_of_f32_towards_zero(float x) {
  uint16_t h = f16_of_f32(x);
  return (uint16_t)(h - (fabsf(f32_of_f16(h)) > fabsf(x)));
}
INLINE uint16_t bf16_of_f32_towards_zero(float x) {
  uint16_t h = bf16_of_f32(x);
  return (uint16_t)(h - (fabsf(f32_of_bf16(h)) > fabsf(x)));
}
INLINE double odd_f64_of_i64(int64_t x) {
  bool large = x >= ((int64_t)1 << 53) || x <= -((int64_t)1 << 53);
  int64_t kept = (x & ~(int64_t)0xfff) | ((x & 0xfff) != 0 ? 0x800 : 0);
  return (double)(large ? kept : x);
}
INLINE double odd_f64_of_u64(uint64_t x) {
  uint64_t kept = (x & ~(uint64_t)0xfff) | ((x & 0xfff) != 0 ? 0x800 : 0);
  return (double)(x >= ((uint64_t)1 << 53) ? kept : x);
}
INLINE int32_t i32_of_f32(float x) { return x >= -0x1p31f && x < 0x1p31f ? (int32_t)x : INT32_MIN; }
INLINE int32_t i32_of_f64(double x) { return x > -0x1.00000002p31 && x < 0x1p31 ? (int32_t)x : INT32_MIN; }
INLINE int64_t i64_of_f32(float x) { return x >= -0x1p63f && x < 0x1p63f ? (int64_t)x : INT64_MIN; }
INLINE int64_t i64_of_f64(double x) { return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN; }
INLINE uint64_t u64_of_f64(double x) {
  return x < 0x1p63 ? (uint64_t)i64_of_f64(x) : (uint64_t)i64_of_f64(x - 0x1p63) ^ ((uint64_t)1 << 63);
}

/* Division by 0 gives 0 and the most negative number over -1 itself: the CPU would stop the process. */
#define DIVISION(name, type, utype)                                                              \
  INLINE type div_##name(type a, type b) { return b == 0 ? 0 : b == -1 ? (type)(0 - (utype)a) : a / b; } \
  INLINE type rem_##name(type a, type b) { return b == 0 || b == -1 ? 0 : a % b; }               \
  INLINE utype div_u##name(utype a, utype b) { return b == 0 ? 0 : a / b; }                      \
  INLINE utype rem_u##name(utype a, utype b) { return b == 0 ? 0 : a % b; }
DIVISION(i64, int64_t, uint64_t)
/* Quotients of integers of up to 32 bits are right in double, which has vector instructions: the exact quotient is
   never nearer than 2^-32 of itself to an integer that it is not. */
#define SHORT_DIVISION(name, type, utype)                                                        \
  INLINE type div_##name(type a, type b) {                                                       \
    double q = (double)a / (double)(b + (b == 0));                                               \
    return (type)(-(b != 0) & (int32_t)(q < 0x1p31 ? q : -0x1p31));                              \
  }                                                                                              \
  INLINE type rem_##name(type a, type b) { return (type)(-(b != 0) & (a - div_##name(a, b) * b)); } \
  INLINE utype div_u##name(utype a, utype b) {                                                   \
    double q = (double)a / (double)(b + (b == 0));                                               \
    return (utype)(-(b != 0) & (uint32_t)q);                                                     \
  }                                                                                              \
  INLINE utype rem_u##name(utype a, utype b) { return (utype)(-(b != 0) & (a - div_u##name(a, b) * b)); }
SHORT_DIVISION(i8, int8_t, uint8_t)
SHORT_DIVISION(i16, int16_t, uint16_t)
SHORT_DIVISION(i32, int32_t, uint32_t)

INLINE int64_t fewer(int64_t a, int64_t b) { return a < b ? a : b; }
/* Lanes, from the first on, for which start + lane < end (or =), at most until the sum wraps around. */
INLINE int64_t prefix_i32(int32_t start, int64_t end, bool or_equal, int64_t size) {
  int64_t left = fewer(end, INT32_MAX + (int64_t)!or_equal) + or_equal - start;
  return left < 0 ? 0 : left > size ? size : left;
}
INLINE int64_t prefix_i64(int64_t start, int64_t end, bool or_equal, int64_t size) {
  if (start > end || (start == end && !or_equal)) return 0;
  uint64_t left = (uint64_t)end - (uint64_t)start;
  return left >= (uint64_t)size ? size : (int64_t)left + or_equal;
}
INLINE bool wraps_i32(int32_t start, int32_t size) { return start > INT32_MAX - (size - 1); }
INLINE bool wraps_i64(int64_t start, int32_t size) { return start > INT64_MAX - (size - 1); }
/* Lanes from here on that share a quotient, where `at`, what is divided, grows by 1 from lane to lane; never across
   2^31, where numbers of 32 bits wrap around. */
INLINE int64_t lanes_left(int64_t at, int64_t quotient, int64_t divisor) {
  const int64_t unwrapped = at <= INT32_MAX ? (int64_t)INT32_MAX + 1 - at : INT64_MAX;
  return at >= 0 && divisor > 0 ? fewer(divisor - (at - quotient * divisor), unwrapped) : 1;
}
"""
