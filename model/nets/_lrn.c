/* The inner loops of lrn.py: y = x * (k + s * sum of neighbours' x^2)^-0.75, and its gradient; one pass over memory.

In:  float32 or bfloat16 (n, height, width, channels), contiguous; k > 0, s >= 0.  Out: the same type and shape.
The neighbours are the five maps around a response in its column, or the 5x5 square around it in its map. Only float32
+, - and * in a fixed order, compiled without fused products: the same bits on every processor, by any threads.

Plain C, called through ctypes. Where it was not compiled, lrn.py uses torch, and a step takes up to twice as long. */

#include "kernels.h"

enum { REACH = 2, FIVE = 2 * REACH + 1 };
enum { PIXELS = 512, BLOCK = 4 }; /* across: pixels of a piece of work, and of a block, see across() */
enum { LANES = 64 };              /* within: maps at a time; with them a picture of 27x27 takes 240 kB */

/* One call, for all threads. `gradient` is that of y, or NULL for the forward pass. */
typedef struct {
    const void *x, *gradient;
    void *out;
    int64_t count, height, width, channels, columns; /* count: pixels (across) or pictures (within) */
    int within, bf16, failed;
    float k, s;
    int64_t next; /* the next piece of work */
} job;

/* b^-0.25 of b > 0: a guess from the exponent, then two steps of third order; within 2 units of the last place. */
INLINE float fourth_root(float b) {
    uint32_t bits;
    memcpy(&bits, &b, sizeof bits);
    bits = 0x4f583c00 - (bits >> 2);
    float q;
    memcpy(&q, &bits, sizeof q);
    for (int step = 0; step < 2; step++) {
        const float square = q * q, error = 1.0f - b * square * square;
        q = q + q * (error * (0.25f + 0.15625f * error));
    }
    return b > 3.4028234e38f ? 0.0f : q; /* of infinity; NaN stays NaN */
}

/* The sum of five values, `stride` apart. */
INLINE float five(const float *a, int64_t stride) {
    return a[0] + a[stride] + a[2 * stride] + a[3 * stride] + a[4 * stride];
}

/* The squares of `maps` responses from index i on. */
INLINE void squares(const job *j, int64_t i, int64_t maps, float *restrict to, int bf16) {
    for (int64_t c = 0; c < maps; c++) {
        const float x = load(j->x, i + c, bf16);
        to[c] = x * x;
    }
}

/* The output of responses whose five squares, or sums of squares, begin at `around` and are `stride` apart. */
INLINE void forward(const job *j, int64_t i, int64_t maps, const float *restrict around, int64_t stride, int bf16) {
    const void *restrict x = j->x;
    void *restrict out = j->out;
    const float k = j->k, s = j->s;
    for (int64_t c = 0; c < maps; c++) {
        const float q = fourth_root(k + s * five(around + c, stride));
        store(out, i + c, load(x, i + c, bf16) * (q * q * q), bf16);
    }
}

/* With base b of each response: g b^-0.75, and its terms in the sums of its neighbours, g x b^-1.75. */
INLINE void terms(const job *j, int64_t i, int64_t maps, const float *restrict around, int64_t stride,
                  float *restrict direct, float *restrict to, int bf16) {
    const void *restrict x = j->x, *restrict g = j->gradient;
    const float k = j->k, s = j->s;
    for (int64_t c = 0; c < maps; c++) {
        const float q = fourth_root(k + s * five(around + c, stride)), square = q * q;
        const float d = load(g, i + c, bf16) * (square * q);
        direct[c] = d;
        to[c] = d * load(x, i + c, bf16) * (square * square);
    }
}

/* The gradient of x: g b^-0.75 - 2 * 0.75 * s * x * the sum of the neighbours' terms. */
INLINE void backward(const job *j, int64_t i, int64_t maps, const float *restrict around, int64_t stride,
                     const float *restrict direct, int bf16) {
    const void *restrict x = j->x;
    void *restrict out = j->out;
    const float factor = -1.5f * j->s;
    for (int64_t c = 0; c < maps; c++)
        store(out, i + c, direct[c] + factor * (load(x, i + c, bf16) * five(around + c, stride)), bf16);
}

/* Normalise the pixels first..last-1, each with its columns' maps. Each loop handles a block of pixels before the next
one begins: a sum reads what several stores wrote, and would wait for them if they had just been made. */
INLINE void across(const job *j, int64_t first, int64_t last, int64_t maps, float *memory, int bf16) {
    const int64_t row = maps + 2 * REACH; /* zeros on both sides */
    float *near = memory, *around = memory + BLOCK * row, *direct = around + BLOCK * row;
    for (int64_t pixel = first; pixel < last; pixel += BLOCK) {
        const int64_t block = last - pixel < BLOCK ? last - pixel : BLOCK;
        for (int64_t column = 0; column < j->columns; column++) {
            const int64_t i = pixel * j->channels + column * maps, next = j->channels;
            for (int64_t b = 0; b < block; b++) squares(j, i + b * next, maps, near + b * row + REACH, bf16);
            if (!j->gradient) {
                for (int64_t b = 0; b < block; b++) forward(j, i + b * next, maps, near + b * row, 1, bf16);
                continue;
            }
            for (int64_t b = 0; b < block; b++)
                terms(j, i + b * next, maps, near + b * row, 1, direct + b * row, around + b * row + REACH, bf16);
            for (int64_t b = 0; b < block; b++)
                backward(j, i + b * next, maps, around + b * row, 1, direct + b * row, bf16);
        }
    }
}

/* Sums of five along a row of the picture, from width + 4 places to width. */
INLINE void along(const float *restrict row, float *restrict sums, int64_t width) {
    for (int64_t i = 0; i < width * LANES; i++) sums[i] = five(row + i, LANES);
}

/* Normalise `maps` maps of one picture, the first response at index `corner`: sums along rows, then across them. */
INLINE void within(const job *j, int64_t corner, int64_t maps, float *memory, int bf16) {
    const int64_t width = j->width, line = width * LANES;
    float *row = memory, *sums = row + line + 2 * REACH * LANES; /* both with zeros on two sides */
    float *around = sums + line * (j->height + 2 * REACH), *direct = around + line * (j->height + 2 * REACH);
    for (int64_t h = 0; h < j->height; h++) {
        for (int64_t w = 0; w < width; w++)
            squares(j, corner + (h * width + w) * j->channels, maps, row + (w + REACH) * LANES, bf16);
        along(row, sums + (h + REACH) * line, width);
    }
    for (int64_t h = 0; h < j->height; h++) {
        for (int64_t w = 0; w < width; w++) {
            const int64_t i = corner + (h * width + w) * j->channels, at = h * line + w * LANES;
            if (j->gradient)
                terms(j, i, maps, sums + at, line, direct + at, row + (w + REACH) * LANES, bf16);
            else
                forward(j, i, maps, sums + at, line, bf16);
        }
        if (j->gradient) along(row, around + (h + REACH) * line, width);
    }
    for (int64_t at = 0; j->gradient && at < j->height * width; at++)
        backward(j, corner + at * j->channels, maps, around + at * LANES, line, direct + at * LANES, bf16);
}

/* The pieces of work first..last-1, of one type; constants let the compiler make one loop for each type. */
INLINE void piece(const job *j, int64_t first, int64_t last, float *memory, int bf16) {
    if (!j->within) {
        across(j, first, last, j->channels / j->columns, memory, bf16);
        return;
    }
    for (int64_t n = first; n < last; n++)
        for (int64_t c = 0; c < j->channels; c += LANES) {
            const int64_t corner = n * j->height * j->width * j->channels + c;
            if (j->channels - c >= LANES)
                within(j, corner, LANES, memory, bf16);
            else
                within(j, corner, j->channels - c, memory, bf16);
        }
}

EACH_PROCESSOR
static void piece_of_floats(const job *j, int64_t first, int64_t last, float *memory) {
    piece(j, first, last, memory, 0);
}

EACH_PROCESSOR
static void piece_of_bf16(const job *j, int64_t first, int64_t last, float *memory) {
    piece(j, first, last, memory, 1);
}

/* One thread: take pieces while there are any. The scratch memory is zero where nothing is written. */
static void work(void *argument) {
    job *j = argument;
    const int64_t across = 3 * BLOCK * (j->channels / j->columns + 2 * REACH);
    const int64_t planes = 3 * j->height + 4 * REACH + 1; /* of rows: two with zeros above and below, direct, one row */
    const int64_t unit = j->within ? 1 : PIXELS;
    float *memory = calloc(j->within ? (planes * j->width + 2 * REACH) * LANES : across, sizeof *memory);
    if (!memory) __atomic_store_n(&j->failed, 1, __ATOMIC_RELAXED);
    for (;;) {
        const int64_t first = unit * take(&j->next);
        if (!memory || first >= j->count) break;
        const int64_t last = j->count - first < unit ? j->count : first + unit;
        (j->bf16 ? piece_of_bf16 : piece_of_floats)(j, first, last, memory);
    }
    free(memory);
}

/* Normalise x to `out`, or compute the gradient of x to `out` from that of y. Returns 0, or 1 if out of memory. */
int normalise(int within, int bf16, const void *x, const void *gradient, void *out, int64_t n, int64_t height,
              int64_t width, int64_t channels, int64_t columns, float k, float s, int threads) {
    const int64_t count = within ? n : n * height * width;
    job j = {x, gradient, out, count, height, width, channels, columns, within, bf16, 0, k, s, 0};
    in_threads(threads, work, &j);
    return j.failed;
}
