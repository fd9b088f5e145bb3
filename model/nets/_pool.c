/* The inner loops of pool.py: the maximum of 3x3 squares, two apart, and its gradient; one pass over memory each.

In:  float32 or bfloat16 (n, height, width, channels), contiguous, sides of at least 3; squares hang over the edges.
Out: the same type, with the place of each maximum in its square as one byte (torch has eight): 0..8, by rows.
The same values as torch's, bit for bit: NaN is the largest, of equal values the first counts.

Plain C, called through ctypes. Where it was not compiled, pool.py uses torch. */

#include "kernels.h"

enum { SIDE = 3, STEP = 2 };
enum { LANES = 64 }; /* channels at a time */

/* One call, for all threads. Backward, `x` is the gradient of the maxima and `out` that of the responses. */
typedef struct {
    const void *x;
    void *out;
    uint8_t *places;
    int64_t n, height, width, channels, rows, columns; /* rows, columns: of squares */
    int bf16, back;
    int64_t next; /* the next picture */
} job;

/* The maxima of one square of `height` by `width` responses, from index i on, to index o. */
INLINE void maxima(const job *j, int64_t i, int64_t o, int64_t height, int64_t width, int64_t lanes, int bf16) {
    const void *restrict x = j->x;
    float largest[LANES];
    int32_t place[LANES];
    for (int64_t c = 0; c < lanes; c++) largest[c] = load(x, i + c, bf16);
    for (int64_t c = 0; c < lanes; c++) place[c] = 0;
    for (int32_t row = 0; row < height; row++)
        for (int32_t column = 0; column < width; column++) {
            const int64_t at = i + (row * j->width + column) * j->channels;
            const int32_t here = SIDE * row + column;
            for (int64_t c = 0; c < lanes; c++) {
                const float value = load(x, at + c, bf16);
                const int larger = (value > largest[c]) | (value != value);
                largest[c] = larger ? value : largest[c];
                place[c] = larger ? here : place[c];
            }
        }
    void *restrict out = j->out;
    uint8_t *restrict places = j->places + o;
    for (int64_t c = 0; c < lanes; c++) store(out, o + c, largest[c], bf16);
    for (int64_t c = 0; c < lanes; c++) places[c] = place[c];
}

/* The gradient of one place, index i, in row and column of picture n: the sum of those of the squares that it is the
largest of, at most four, in their order. As in torch, a bfloat16 sum is rounded after each; the first needs none. */
INLINE void sum(const job *j, int64_t i, int64_t n, int64_t row, int64_t column, int64_t lanes, int bf16) {
    const void *restrict x = j->x;
    float total[LANES];
    int added = 0;
    for (int64_t r = (row - 1) / STEP; r <= row / STEP && r < j->rows; r++)
        for (int64_t q = (column - 1) / STEP; q <= column / STEP && q < j->columns; q++, added++) {
            const int64_t o = ((n * j->rows + r) * j->columns + q) * j->channels + i % j->channels;
            const uint8_t here = SIDE * (row - STEP * r) + column - STEP * q;
            const uint8_t *restrict places = j->places + o;
            if (!added)
                for (int64_t c = 0; c < lanes; c++) total[c] = 0.0f + (places[c] == here ? load(x, o + c, bf16) : 0.0f);
            else
                for (int64_t c = 0; c < lanes; c++) {
                    const float more = total[c] + (places[c] == here ? load(x, o + c, bf16) : 0.0f);
                    total[c] = bf16 ? rounded(more) : more;
                }
        }
    void *restrict out = j->out;
    for (int64_t c = 0; c < lanes; c++) store(out, i + c, total[c], bf16);
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* All squares of picture n, or all places. The branches on `lanes` let the compiler make loops of constant length. */
INLINE void picture(const job *j, int64_t n, int bf16) {
    const int64_t rows = j->back ? j->height : j->rows, columns = j->back ? j->width : j->columns;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++)
            for (int64_t c = 0; c < j->channels; c += LANES) {
                const int64_t to = ((n * rows + row) * columns + column) * j->channels + c;
                const int64_t from = ((n * j->height + STEP * row) * j->width + STEP * column) * j->channels + c;
                const int64_t below = least(j->height - STEP * row, SIDE), right = least(j->width - STEP * column, SIDE);
                const int64_t left = j->channels - c;
                if (j->back)
                    left < LANES ? sum(j, to, n, row, column, left, bf16) : sum(j, to, n, row, column, LANES, bf16);
                else
                    left < LANES ? maxima(j, from, to, below, right, left, bf16)
                                 : maxima(j, from, to, below, right, LANES, bf16);
            }
}

EACH_PROCESSOR
static void picture_of_floats(const job *j, int64_t n) { picture(j, n, 0); }

EACH_PROCESSOR
static void picture_of_bf16(const job *j, int64_t n) { picture(j, n, 1); }

/* One thread: take pictures while there are any. */
static void work(void *argument) {
    job *j = argument;
    for (int64_t n = take(&j->next); n < j->n; n = take(&j->next))
        (j->bf16 ? picture_of_bf16 : picture_of_floats)(j, n);
}

/* Write the maxima of x and their places to `out` and `places`; or, with `back`, the gradient of the responses to `out`,
from that of the maxima, x, and their places. */
void max_pool(int back, int bf16, const void *x, void *out, uint8_t *places, int64_t n, int64_t height, int64_t width,
              int64_t channels, int64_t rows, int64_t columns, int threads) {
    job j = {x, out, places, n, height, width, channels, rows, columns, bf16, back, 0};
    in_threads(threads, work, &j);
}
