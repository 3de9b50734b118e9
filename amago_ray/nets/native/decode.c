/* Attention of one new token per environment over its own cached keys and values.
 *
 * The cache of a layer is [num_envs, num_heads, 2, context, dim] float32, keys then values; the first live[e] slots of
 * environment e count. The work is bound by reading the cache once, so each head's scores stay in a small buffer and
 * nothing else is written. Compiled for several processors at once where the compiler can; loaded with ctypes.
 */

#include <math.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))

/* exp(x) for x <= 0 within 2 units in the last place: 2^n * p(r), which vectorises where a library call may not. */
INLINE float exp_negative(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = floorf(x * 1.44269504f + 0.5f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    union { int32_t i; float f; } scale;
    scale.i = ((int32_t)n + 127) << 23;
    return p * scale.f;
}

/* One head: q [dim], keys and values [live, dim], out [dim]; scores has room for live entries. */
INLINE void attend(const int dim, const float *q, const float *keys, const float *values, int64_t live, float *scores,
                   float *out) {
    float highest = -INFINITY;
    for (int64_t s = 0; s < live; s++) {
        float score = 0.0f;
        for (int d = 0; d < dim; d++) score += q[d] * keys[s * dim + d];
        scores[s] = score;
        highest = score > highest ? score : highest;
    }
    float total = 0.0f;
    for (int64_t s = 0; s < live; s++) {
        scores[s] = exp_negative(scores[s] - highest);
        total += scores[s];
    }
    float sums[256] = {0};
    for (int64_t s = 0; s < live; s++)
        for (int d = 0; d < dim; d++) sums[d] += scores[s] * values[s * dim + d];
    for (int d = 0; d < dim; d++) out[d] = sums[d] / total;
}

/* q and out: rows of num_heads * dim floats, q_stride apart for q. scores: context floats. dim is at most 256. */
CLONES void amago_ray_decode_attention(const float *q, int64_t q_stride, const float *cache, const int64_t *live,
                                       int64_t num_envs, int64_t num_heads, int64_t context, int64_t dim,
                                       float *scores, float *out) {
    for (int64_t e = 0; e < num_envs; e++) {
        for (int64_t h = 0; h < num_heads; h++) {
            const float *head_q = q + e * q_stride + h * dim;
            const float *keys = cache + (e * num_heads + h) * 2 * context * dim;
            const float *values = keys + context * dim;
            float *head_out = out + (e * num_heads + h) * dim;
            /* A width known to the compiler keeps the sums in registers. */
            switch (dim) {
            case 8: attend(8, head_q, keys, values, live[e], scores, head_out); break;
            case 16: attend(16, head_q, keys, values, live[e], scores, head_out); break;
            case 32: attend(32, head_q, keys, values, live[e], scores, head_out); break;
            case 64: attend(64, head_q, keys, values, live[e], scores, head_out); break;
            default: attend((int)dim, head_q, keys, values, live[e], scores, head_out);
            }
        }
    }
}
