/* What both kernels are made of: numbers side by side, and functions compiled for several processors at once. */

#ifndef AMAGO_RAY_VECTORS_H
#define AMAGO_RAY_VECTORS_H

#include <stdint.h>

#if defined(ONE_PROCESSOR) /* the one that the compiler's options name */
#define CLONES
#elif defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

#define LANES 16

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t integers __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE vector larger(vector a, vector b) {
    integers first = a > b;
    return (vector)(((integers)a & first) | ((integers)b & ~first));
}

/* e^x = 2^n p(r) for x <= 0, within 2 units in the last place; 0 far below. */
INLINE vector exp_negative(vector x) {
    integers keep = ~(x < -87.0f); /* not a number stays one */
    x = (vector)((integers)x & keep);
    /* Conversion cuts towards zero: for these x this rounds to the nearest. */
    integers exponent = __builtin_convertvector(x * 1.44269504f - 0.5f, integers);
    vector n = __builtin_convertvector(exponent, vector);
    vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return (vector)((integers)(p * (vector)((exponent + 127) << 23)) & keep);
}

#endif
