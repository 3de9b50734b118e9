/* Acting for one new token per environment: multilayer perceptrons, and a Transformer over cached keys and values.
 *
 * Matrices of activations hold one row per environment, whose width is rounded up to whole vectors; what lies past
 * the true width is never read. The work is small, so what counts is that nothing waits: weights come packed in the order in
 * which they are read, keys with one row per channel, so that scores of many slots are computed side by side.
 * Compiled for several processors at once where the compiler can; loaded with ctypes.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "vectors.h"

/* Rows of a product computed together: with one vector each they fit into sixteen registers. */
#define ROWS 6
#define MAX_HEAD_DIM 256
/* Slots whose scores, and whose shares of the result, are summed independently, to hide the latency of adding. */
#define CHAINS 4

typedef int16_t short_integers __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef union {
    float number;
    uint32_t bits;
} Bits;

/* weight: for each LANES outputs in turn [inputs, LANES]; bias [outputs]; outputs are rounded up to whole vectors. */
typedef struct {
    const float *weight, *bias;
    int64_t inputs, outputs;
} Linear;

typedef struct {
    const float *gain, *shift;
} Norm;

typedef struct {
    Linear qkv, output, expand, contract;
    Norm output_norm;
} Layer;

typedef struct {
    Linear embed;
    const Layer *layers;
    int64_t num_layers, width, hidden_width, num_heads, head_dim;
    Norm output_norm;
} Transformer;

/* keys [layers, E, heads, head_dim, num_slots], values [layers, E, heads, num_slots, head_dim], whole vectors of slots;
   float16 where `half`, else float32. slot [E]: where the new token goes; live [E]: so many slots count, the first ones. */
typedef struct {
    void *keys, *values;
    int64_t half, num_slots;
    const int64_t *slot, *live;
} Cache;

INLINE void product(const int rows, const float *x, int64_t x_stride, const Linear *map, int64_t output, float slope,
                    float *y) {
    vector sums[ROWS];
    const float *weight = map->weight + output * map->inputs;
    for (int r = 0; r < rows; r++) sums[r] = *(const vector *)(map->bias + output);
    for (int64_t i = 0; i < map->inputs; i++) {
        vector column = *(const vector *)(weight + i * LANES);
        for (int r = 0; r < rows; r++) sums[r] += x[r * x_stride + i] * column;
    }
    for (int r = 0; r < rows; r++)
        *(vector *)(y + r * map->outputs + output) = slope == 1.0f ? sums[r] : larger(sums[r], sums[r] * slope);
}

/* y [rows, outputs] = activation(x map); the activation is x where positive, else slope * x. */
INLINE void linear(const float *x, int64_t x_stride, int64_t rows, const Linear *map, float slope, float *y) {
    for (int64_t output = 0; output < map->outputs; output += LANES) {
        for (int64_t r = 0; r < rows; r += ROWS) {
            const float *from = x + r * x_stride;
            float *to = y + r * map->outputs;
            switch (rows - r) {
            case 1: product(1, from, x_stride, map, output, slope, to); break;
            case 2: product(2, from, x_stride, map, output, slope, to); break;
            case 3: product(3, from, x_stride, map, output, slope, to); break;
            case 4: product(4, from, x_stride, map, output, slope, to); break;
            case 5: product(5, from, x_stride, map, output, slope, to); break;
            default: product(ROWS, from, x_stride, map, output, slope, to);
            }
        }
    }
}

/* Layer norm of `width` entries of one row, without gain and shift where `norm` is null. */
INLINE void normalize(const float *x, int64_t width, const Norm *norm, float *y) {
    float mean = 0.0f, variance = 0.0f;
    for (int64_t i = 0; i < width; i++) mean += x[i];
    mean /= width;
    for (int64_t i = 0; i < width; i++) variance += (x[i] - mean) * (x[i] - mean);
    float scale = 1.0f / sqrtf(variance / width + 1e-5f);
    if (norm)
        for (int64_t i = 0; i < width; i++) y[i] = (x[i] - mean) * scale * norm->gain[i] + norm->shift[i];
    else
        for (int64_t i = 0; i < width; i++) y[i] = (x[i] - mean) * scale;
}

INLINE void normalize_rows(const float *x, int64_t stride, int64_t rows, int64_t width, const Norm *norm, float *y) {
    for (int64_t r = 0; r < rows; r++) normalize(x + r * stride, width, norm, y + r * stride);
}

/* Turn the pairs (i, i + dim / 2) of one head by the angles of its row. */
INLINE void rotate(float *x, int64_t dim, const float *cosines, const float *sines) {
    for (int64_t i = 0; i < dim / 2; i++) {
        float first = x[i], second = x[i + dim / 2];
        x[i] = first * cosines[i] - second * sines[i];
        x[i + dim / 2] = second * cosines[i] + first * sines[i];
    }
}

/* Entries of a cache. A float16 becomes a float32 by moving its bits, which leaves it HALF_SCALE times too small: what
   it is multiplied by makes up for that. */
#define HALF_SCALE 0x1p112f
#define LARGEST_HALF 65504.0f

INLINE vector load_vector(const void *cache, int64_t index, const int half) {
    if (!half) return *(const vector *)((const float *)cache + index);
    integers bits = __builtin_convertvector(*(const short_integers *)((const int16_t *)cache + index), integers);
    return (vector)((bits << 13) & (int32_t)0x8fffffff);
}

INLINE float load(const void *cache, int64_t index, const int half) {
    if (!half) return ((const float *)cache)[index];
    Bits x = {.bits = (uint32_t)((const int16_t *)cache)[index] << 13 & 0x8fffffff};
    return x.number;
}

/* Rounds to the nearest float16, to even where two are as near. */
INLINE void store(void *cache, int64_t index, float number, const int half) {
    if (half) {
        number = number > LARGEST_HALF ? LARGEST_HALF : number < -LARGEST_HALF ? -LARGEST_HALF : number;
        Bits x = {.number = number / HALF_SCALE};
        uint32_t rounded = (x.bits + 0xfff + (x.bits >> 13 & 1)) >> 13;
        ((uint16_t *)cache)[index] = (rounded & 0x7fff) | (x.bits >> 16 & 0x8000);
    } else {
        ((float *)cache)[index] = number;
    }
}

/* One head: stores the new key and value (kv [2, dim]) in `slot`, then attends with q [dim] to the first `live` slots of
   keys [dim, num_slots] and values [num_slots, dim], which begin at `first`. out [dim]; scores: num_slots floats. */
INLINE void attend(const int dim, const int half, const float *q, const float *kv, const Cache *cache, int64_t first,
                   int64_t slot, int64_t live, float *scores, float *out) {
    const float scale = half ? HALF_SCALE : 1.0f;
    const int64_t num_slots = cache->num_slots, num_vectors = (live + LANES - 1) / LANES;
    vector *vectors = (vector *)scores;
    int64_t i = 0;
    for (; i + CHAINS <= num_vectors; i += CHAINS) {
        vector sums[CHAINS] = {{0}};
        for (int d = 0; d < dim; d++)
            for (int c = 0; c < CHAINS; c++)
                sums[c] += q[d] * scale * load_vector(cache->keys, first + d * num_slots + (i + c) * LANES, half);
        for (int c = 0; c < CHAINS; c++) vectors[i + c] = sums[c];
    }
    for (; i < num_vectors; i++) {
        vectors[i] = (vector){0};
        for (int d = 0; d < dim; d++)
            vectors[i] += q[d] * scale * load_vector(cache->keys, first + d * num_slots + i * LANES, half);
    }
    /* The new key has one entry in each of many lines of memory, which have arrived only now. */
    float own = 0.0f;
    for (int d = 0; d < dim; d++) own += q[d] * kv[d];
    for (int d = 0; d < dim; d++) store(cache->keys, first + d * num_slots + slot, kv[d], half);
    for (int d = 0; d < dim; d++) store(cache->values, first + slot * dim + d, kv[dim + d], half);
    scores[slot] = own;
    for (int64_t s = live; s < num_vectors * LANES; s++) scores[s] = -INFINITY;
    vector high = vectors[0], sum = {0};
    for (i = 1; i < num_vectors; i++) high = larger(vectors[i], high);
    float highest = high[0], total = 0.0f;
    for (int lane = 1; lane < LANES; lane++) highest = high[lane] > highest ? high[lane] : highest;
    for (i = 0; i < num_vectors; i++) {
        /* Scores beyond float32 differ by what is not a number: that counts as little, too. */
        vectors[i] = exp_negative(larger(vectors[i] - highest, (vector){0} - 87.0f));
        sum += vectors[i];
    }
    for (int lane = 0; lane < LANES; lane++) total += sum[lane];
    float sums[CHAINS][MAX_HEAD_DIM] = {{0}};
    int64_t s = 0;
    for (; s + CHAINS <= live; s += CHAINS)
        for (int c = 0; c < CHAINS; c++)
            for (int d = 0; d < dim; d++)
                sums[c][d] += scores[s + c] * scale * load(cache->values, first + (s + c) * dim + d, half);
    for (; s < live; s++)
        for (int d = 0; d < dim; d++) sums[0][d] += scores[s] * scale * load(cache->values, first + s * dim + d, half);
    for (int d = 0; d < dim; d++) out[d] = (sums[0][d] + sums[1][d] + sums[2][d] + sums[3][d]) / total;
}

/* All heads of one environment: q [heads, dim], kv [heads, 2, dim]. */
INLINE void attend_heads(const int half, const Cache *cache, int64_t first_head, int64_t num_heads, int64_t dim,
                         int64_t slot, int64_t live, const float *q, const float *kv, float *scores, float *out) {
    for (int64_t h = 0; h < num_heads; h++, q += dim, kv += 2 * dim, out += dim) {
        int64_t first = (first_head + h) * cache->num_slots * dim;
        /* A width known to the compiler keeps the sums in registers. */
        switch (dim) {
        case 8: attend(8, half, q, kv, cache, first, slot, live, scores, out); break;
        case 16: attend(16, half, q, kv, cache, first, slot, live, scores, out); break;
        case 32: attend(32, half, q, kv, cache, first, slot, live, scores, out); break;
        case 64: attend(64, half, q, kv, cache, first, slot, live, scores, out); break;
        default: attend((int)dim, half, q, kv, cache, first, slot, live, scores, out);
        }
    }
}

/* x [rows, maps[0].inputs], x_stride apart, through all maps with the activation between them, then, where there is
   one, the norm over its first `width` entries. out [rows, outputs of the last]; scratch: two matrices of the widest. */
CLONES void amago_ray_mlp(const Linear *maps, int64_t num_maps, float slope, const Norm *norm, int64_t width,
                          const float *x, int64_t x_stride, int64_t rows, float *scratch, int64_t scratch_size,
                          float *out) {
    for (int64_t i = 0; i < num_maps; i++) {
        int last = i == num_maps - 1;
        float *y = last ? out : scratch + i % 2 * (scratch_size / 2);
        linear(x, x_stride, rows, maps + i, last ? 1.0f : slope, y);
        x = y;
        x_stride = maps[i].outputs;
    }
    if (norm) normalize_rows(out, x_stride, rows, width, norm, out);
}

/* One token of each of `rows` environments through the Transformer: x [rows, embed.inputs], x_stride apart; positions
   [rows, width] or null; cosines and sines [rows, head_dim / 2] or null. out and state: [rows, width rounded up].
   scratch: rows * (3 * that width + the widest of q, k, v and the hidden layer) floats, then num_slots more. */
CLONES void amago_ray_decode(const Transformer *model, const Cache *cache, float slope, const float *x,
                             int64_t x_stride, int64_t rows, const float *positions, const float *cosines,
                             const float *sines, float *scratch, float *out) {
    const int64_t width = model->width, stride = model->embed.outputs, dim = model->head_dim;
    float *state = scratch, *normed = state + rows * stride, *heads = normed + rows * stride;
    float *scores = heads + rows * stride, *wide = scores + cache->num_slots;
    linear(x, x_stride, rows, &model->embed, 1.0f, state);
    if (positions)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < width; i++) state[r * stride + i] += positions[r * width + i];
    for (int64_t l = 0; l < model->num_layers; l++) {
        const Layer *layer = model->layers + l;
        normalize_rows(state, stride, rows, width, 0, normed);
        linear(normed, stride, rows, &layer->qkv, 1.0f, wide);
        for (int64_t r = 0; r < rows; r++) {
            float *q = wide + r * layer->qkv.outputs, *kv = q + width;
            for (int64_t h = 0; cosines && h < model->num_heads; h++) {
                rotate(q + h * dim, dim, cosines + r * dim / 2, sines + r * dim / 2);
                rotate(kv + h * 2 * dim, dim, cosines + r * dim / 2, sines + r * dim / 2);
            }
            int64_t slot = cache->slot[r], live = cache->live[r], first_head = (l * rows + r) * model->num_heads;
            if (cache->half)
                attend_heads(1, cache, first_head, model->num_heads, dim, slot, live, q, kv, scores, heads + r * stride);
            else
                attend_heads(0, cache, first_head, model->num_heads, dim, slot, live, q, kv, scores, heads + r * stride);
        }
        linear(heads, stride, rows, &layer->output, 1.0f, normed);
        normalize_rows(normed, stride, rows, width, &layer->output_norm, normed);
        for (int64_t i = 0; i < rows * stride; i++) state[i] += normed[i];
        normalize_rows(state, stride, rows, width, 0, normed);
        linear(normed, stride, rows, &layer->expand, slope, wide);
        normalize_rows(wide, layer->expand.outputs, rows, model->hidden_width, 0, wide);
        linear(wide, layer->expand.outputs, rows, &layer->contract, 1.0f, normed);
        for (int64_t i = 0; i < rows * stride; i++) state[i] += normed[i];
    }
    normalize_rows(state, stride, rows, width, &model->output_norm, out);
}
