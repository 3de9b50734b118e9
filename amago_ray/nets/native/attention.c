/* Causal attention over packed sequences, forward and backward, for training.
 *
 * Rows lie sequence after sequence; the unit of work is one head of one sequence, which fits in a core's own cache: its
 * keys and values are copied into buffers, transposed where sums run over channels, and queries pass in blocks of ROWS
 * whose partial sums stay in registers. Only scores that causality and the window allow are computed. Units do not
 * touch each other's results, so these do not depend on the number of threads. Loaded with ctypes.
 *
 * Source: Dao et al. 2022 (arXiv 2205.14135), algorithms 1 and 4, without tiling over keys: a row of scores is short.
 */

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vectors.h"

#define ROWS 8
#define MAX_THREADS 64

typedef struct {
    const float *q, *k, *v; /* [rows, heads, dim], heads and channels contiguous */
    int64_t q_stride, k_stride, v_stride; /* floats from row to row */
    float *out, *logsumexp; /* what forward computes: [rows, heads, dim] and [heads, rows] */
    const float *out_gradient; /* null in a forward call */
    float *q_gradient, *k_gradient, *v_gradient; /* what backward computes: [rows, heads, dim] */
    const int64_t *sequences; /* pairs (first row, length), in the order of work */
    int64_t num_sequences, num_heads, dim, num_rows, longest;
    int64_t window; /* 0: none */
    int64_t next; /* 0; the unit that the next free thread takes */
    float scale;
} Call;

/* Buffers of one thread. Transposed ones are [dim, padded]; the others have rows of `width` floats. */
typedef struct {
    float *keys_t, *values_t, *keys, *values, *key_sums, *value_sums;
    float *scores, *gradients; /* [ROWS, padded] */
} Buffers;

INLINE int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* The largest of `count` numbers, a multiple of LANES. */
INLINE float largest(const float *from, int64_t count) {
    vector most = *(const vector *)from;
    for (int64_t j = LANES; j < count; j += LANES) most = larger(*(const vector *)(from + j), most);
    float highest = most[0];
    for (int lane = 1; lane < LANES; lane++) highest = most[lane] > highest ? most[lane] : highest;
    return highest;
}

/* Rows [length, dim], `stride` apart, into rows of `width` floats; the rest is 0. */
INLINE void copy_rows(const int dim, const int width, const float *from, int64_t stride, int64_t length, int64_t padded,
                      float *rows) {
    memset(rows, 0, sizeof(float) * padded * width);
    for (int64_t j = 0; j < length; j++)
        for (int d = 0; d < dim; d++) rows[j * width + d] = from[j * stride + d];
}

/* [padded, width] as [dim, padded]. */
INLINE void transpose(const int dim, const int width, const float *rows, int64_t padded, float *transposed) {
    for (int64_t j = 0; j < padded; j += LANES)
        for (int d = 0; d < dim; d++)
            for (int lane = 0; lane < LANES; lane++) transposed[d * padded + j + lane] = rows[(j + lane) * width + d];
}

/* to[r, j] = sum over d of a[r, d] * b[d, j], for j from `first` up to `last`. */
INLINE void products(const int dim, const int width, const float *a, const float *b, int64_t padded, int64_t first,
                     int64_t last, float *to) {
    for (int64_t j = first; j < last; j += LANES) {
        vector sums[ROWS] = {0};
        for (int d = 0; d < dim; d++) {
            vector column = *(const vector *)(b + d * padded + j);
            for (int r = 0; r < ROWS; r++) sums[r] += column * a[r * width + d];
        }
        for (int r = 0; r < ROWS; r++) *(vector *)(to + r * padded + j) = sums[r];
    }
}

/* to[r] = sum over j of weights[r, j] * rows[j]. */
INLINE void weighted_sums(const int width, const float *weights, const float *rows, int64_t padded, int64_t first,
                          int64_t last, float *to) {
    for (int c = 0; c < width; c += LANES) {
        vector sums[ROWS] = {0};
        for (int64_t j = first; j < last; j++) {
            vector row = *(const vector *)(rows + j * width + c);
            for (int r = 0; r < ROWS; r++) sums[r] += row * weights[r * padded + j];
        }
        for (int r = 0; r < ROWS; r++) *(vector *)(to + r * width + c) = sums[r];
    }
}

/* to[j] += sum over r of weights[r, j] * rows[r]. */
INLINE void scatter_sums(const int width, const float *weights, const float *rows, int64_t padded, int64_t first,
                         int64_t last, float *to) {
    for (int c = 0; c < width; c += LANES) {
        vector held[ROWS];
        for (int r = 0; r < ROWS; r++) held[r] = *(const vector *)(rows + r * width + c);
        for (int64_t j = first; j < last; j++) {
            vector sum = *(const vector *)(to + j * width + c);
            for (int r = 0; r < ROWS; r++) sum += held[r] * weights[r * padded + j];
            *(vector *)(to + j * width + c) = sum;
        }
    }
}

/* A block of rows [ROWS, width] from row `start` of [length, dim], times `scale`; rows beyond the end are 0. */
INLINE void copy_block(const int dim, const int width, const float *from, int64_t stride, int64_t start, int64_t length,
                       float scale, float *to) {
    for (int r = 0; r < ROWS; r++)
        for (int d = 0; d < width; d++)
            to[r * width + d] = d < dim && start + r < length ? from[(start + r) * stride + d] * scale : 0.0f;
}

/* Scores of a block of queries; what a query may not see is -infinity. Sets the range of keys that the block sees. */
INLINE void block_scores(const int dim, const int width, const Call *call, const Buffers *b, const float *queries,
                         int64_t start, int64_t padded, int64_t *first, int64_t *last) {
    int64_t window = call->window;
    *last = round_up(start + ROWS, LANES);
    *first = window > 0 && start >= window ? (start - window + 1) / LANES * LANES : 0;
    products(dim, width, queries, b->keys_t, padded, *first, *last, b->scores);
    for (int r = 0; r < ROWS; r++) {
        float *scores = b->scores + r * padded;
        for (int64_t j = start + r + 1; j < *last; j++) scores[j] = -INFINITY;
        for (int64_t j = *first; window > 0 && j <= start + r - window; j++) scores[j] = -INFINITY;
    }
}

INLINE void forward(const int dim, const Call *call, const Buffers *b, int64_t row, int64_t length, int64_t head) {
    const int width = (dim + LANES - 1) / LANES * LANES;
    const int64_t padded = round_up(length, LANES), row_floats = call->num_heads * dim;
    copy_rows(dim, width, call->k + row * call->k_stride + head * dim, call->k_stride, length, padded, b->keys);
    copy_rows(dim, width, call->v + row * call->v_stride + head * dim, call->v_stride, length, padded, b->values);
    transpose(dim, width, b->keys, padded, b->keys_t);
    for (int64_t start = 0; start < length; start += ROWS) {
        float queries[ROWS * width], outputs[ROWS * width], total[ROWS];
        int64_t first, last;
        copy_block(dim, width, call->q + row * call->q_stride + head * dim, call->q_stride, start, length, call->scale,
                   queries);
        block_scores(dim, width, call, b, queries, start, padded, &first, &last);
        for (int r = 0; r < ROWS; r++) {
            float *scores = b->scores + r * padded, highest = largest(scores + first, last - first);
            vector sum = {0};
            for (int64_t j = first; j < last; j += LANES) {
                *(vector *)(scores + j) = exp_negative(*(vector *)(scores + j) - highest);
                sum += *(vector *)(scores + j);
            }
            total[r] = 0.0f;
            for (int lane = 0; lane < LANES; lane++) total[r] += sum[lane];
            if (start + r < length) call->logsumexp[head * call->num_rows + row + start + r] = highest + logf(total[r]);
        }
        weighted_sums(width, b->scores, b->values, padded, first, last, outputs);
        for (int r = 0; r < ROWS && start + r < length; r++)
            for (int d = 0; d < dim; d++)
                call->out[(row + start + r) * row_floats + head * dim + d] = outputs[r * width + d] / total[r];
    }
}

INLINE void backward(const int dim, const Call *call, const Buffers *b, int64_t row, int64_t length, int64_t head) {
    const int width = (dim + LANES - 1) / LANES * LANES;
    const int64_t padded = round_up(length, LANES), row_floats = call->num_heads * dim;
    const int64_t offset = row * row_floats + head * dim;
    copy_rows(dim, width, call->k + row * call->k_stride + head * dim, call->k_stride, length, padded, b->keys);
    copy_rows(dim, width, call->v + row * call->v_stride + head * dim, call->v_stride, length, padded, b->values);
    transpose(dim, width, b->keys, padded, b->keys_t);
    transpose(dim, width, b->values, padded, b->values_t);
    memset(b->key_sums, 0, sizeof(float) * padded * width);
    memset(b->value_sums, 0, sizeof(float) * padded * width);
    for (int64_t start = 0; start < length; start += ROWS) {
        float queries[ROWS * width], above[ROWS * width], sums[ROWS * width];
        int64_t first, last;
        copy_block(dim, width, call->q + row * call->q_stride + head * dim, call->q_stride, start, length, call->scale,
                   queries);
        copy_block(dim, width, call->out_gradient + offset, row_floats, start, length, 1.0f, above);
        block_scores(dim, width, call, b, queries, start, padded, &first, &last);
        products(dim, width, above, b->values_t, padded, first, last, b->gradients);
        for (int r = 0; r < ROWS; r++) {
            float *scores = b->scores + r * padded, *gradients = b->gradients + r * padded;
            /* Rows beyond the end have no gradient, so any finite weights do for them. */
            float mean = 0.0f, logsumexp = 0.0f;
            if (start + r < length) {
                const float *out = call->out + offset + (start + r) * row_floats;
                for (int d = 0; d < dim; d++) mean += out[d] * above[r * width + d];
                logsumexp = call->logsumexp[head * call->num_rows + row + start + r];
            }
            for (int64_t j = first; j < last; j += LANES) {
                *(vector *)(scores + j) = exp_negative(*(vector *)(scores + j) - logsumexp);
                *(vector *)(gradients + j) = *(vector *)(scores + j) * (*(vector *)(gradients + j) - mean);
            }
        }
        scatter_sums(width, b->scores, above, padded, first, last, b->value_sums);
        scatter_sums(width, b->gradients, queries, padded, first, last, b->key_sums);
        weighted_sums(width, b->gradients, b->keys, padded, first, last, sums);
        for (int r = 0; r < ROWS && start + r < length; r++)
            for (int d = 0; d < dim; d++)
                call->q_gradient[offset + (start + r) * row_floats + d] = sums[r * width + d] * call->scale;
    }
    for (int64_t j = 0; j < length; j++)
        for (int d = 0; d < dim; d++) {
            call->k_gradient[offset + j * row_floats + d] = b->key_sums[j * width + d];
            call->v_gradient[offset + j * row_floats + d] = b->value_sums[j * width + d];
        }
}

INLINE void unit(const int dim, const Call *call, const Buffers *b, int64_t row, int64_t length, int64_t head) {
    if (call->out_gradient)
        backward(dim, call, b, row, length, head);
    else
        forward(dim, call, b, row, length, head);
}

/* Works until no unit is left. A width known to the compiler keeps the sums in registers. */
CLONES static void work(Call *call, const Buffers *b) {
    for (;;) {
        int64_t taken = __atomic_fetch_add(&call->next, 1, __ATOMIC_RELAXED);
        if (taken >= call->num_sequences * call->num_heads) return;
        const int64_t *sequence = call->sequences + 2 * (taken / call->num_heads);
        int64_t head = taken % call->num_heads;
        switch (call->dim) {
        case 8: unit(8, call, b, sequence[0], sequence[1], head); break;
        case 16: unit(16, call, b, sequence[0], sequence[1], head); break;
        case 32: unit(32, call, b, sequence[0], sequence[1], head); break;
        case 64: unit(64, call, b, sequence[0], sequence[1], head); break;
        default: break;
        }
    }
}

static void *thread(void *argument) {
    Call *call = argument;
    int64_t width = round_up(call->dim, LANES), padded = round_up(call->longest, LANES);
    int64_t rows = padded * width, block = padded * ROWS;
    float *memory = aligned_alloc(64, sizeof(float) * (6 * rows + 2 * block));
    if (memory == NULL) return NULL;
    Buffers buffers = {memory,
                       memory + rows,
                       memory + 2 * rows,
                       memory + 3 * rows,
                       memory + 4 * rows,
                       memory + 5 * rows,
                       memory + 6 * rows,
                       memory + 6 * rows + block};
    work(call, &buffers);
    free(memory);
    return NULL;
}

/* Does the call on `num_threads` threads; returns 0, or 1 where memory ran out. */
int amago_ray_attention(Call *call, int64_t num_threads) {
    pthread_t others[MAX_THREADS];
    int64_t started = 0;
    while (started < num_threads - 1 && started < MAX_THREADS && !pthread_create(&others[started], NULL, thread, call))
        started++;
    thread(call);
    for (int64_t i = 0; i < started; i++) pthread_join(others[i], NULL);
    /* A thread without memory leaves its share to the others; without any, work is left over. */
    return call->next < call->num_sequences * call->num_heads;
}
