/* The inner loops of area.py: shrink a window of a photo by area averaging.

In:  uint8 pixels, and for each new row and column the old ones it depends on, with integer weights.
Out: uint8 pixels, the same bytes that area.py computes without this file: all arithmetic is on integers.

Plain C, called through ctypes. Where it was not compiled, area.py uses NumPy, and a photo takes 1.8 times as long. */

#include "../compiled.h"

typedef int32_t four __attribute__((vector_size(16))); /* a pixel: red, green, blue and one unused value */
typedef int16_t eight __attribute__((vector_size(16)));

/* Mix old rows to a new one. Weights sum to 2^16; the result is in 1/32 of a grey level, halves to even. */
EACH_PROCESSOR
static void mix_rows(const uint8_t *old, int64_t stride, int64_t length, int64_t rows, const int32_t *weights,
                     int32_t *restrict sums, int16_t *restrict mixed) {
    for (int64_t j = 0; j < length; j++) sums[j] = weights[0] * old[j];
    for (int64_t r = 1; r < rows; r++) {
        const uint8_t *restrict row = old + r * stride;
        const int32_t weight = weights[r];
        for (int64_t j = 0; j < length; j++) sums[j] += weight * row[j];
    }
    for (int64_t j = 0; j < length; j++) mixed[j] = (sums[j] + 1023 + (sums[j] >> 11 & 1)) >> 11;
}

/* Mix old columns to new ones, each from the same number of pairs. Weights sum to 2^11; halves up. */
INLINE void mix_columns_of(
    int64_t pairs, const int16_t *mixed, int64_t columns, const int64_t *firsts, const int16_t *weights, uint8_t *out) {
    for (int64_t k = 0; k < columns; k++) {
        four sum = {32768, 32768, 32768, 32768};
        for (int64_t pair = 0; pair < pairs; pair++) {
            const int16_t *weight = weights + 2 * (k * pairs + pair);
            eight levels; /* two pixels and two values more */
            memcpy(&levels, mixed + 3 * firsts[k] + 6 * pair, sizeof levels);
#ifdef __x86_64__
            int32_t both;
            memcpy(&both, weight, sizeof both);
            const eight beside = SHUFFLED(eight, levels, 0, 3, 1, 4, 2, 5, 2, 5);
            sum += (four)_mm_madd_epi16((__m128i)beside, _mm_set1_epi32(both));
#else
            sum += (four){levels[0], levels[1], levels[2], 0} * weight[0];
            sum += (four){levels[3], levels[4], levels[5], 0} * weight[1];
#endif
        }
        /* The upper half of each sum is the level. The fourth byte is overwritten by the next pixel. */
        const sixteen bytes = SHUFFLED(sixteen, (sixteen)sum, 2, 6, 10, 14, 2, 6, 10, 14, 2, 6, 10, 14, 2, 6, 10, 14);
        memcpy(out + 3 * k, &bytes, 4);
    }
}

EACH_PROCESSOR
static void mix_columns(int64_t pairs, const int16_t *mixed, int64_t columns, const int64_t *firsts,
                        const int16_t *weights, uint8_t *out) {
    if (pairs == 2) /* photos of less than twice the size: a constant, so that the compiler unrolls */
        mix_columns_of(2, mixed, columns, firsts, weights, out);
    else
        mix_columns_of(pairs, mixed, columns, firsts, weights, out);
}

/* `pixels` points to the first row and column with weight; `width` columns have some. Every new row is mixed from
`row_taps` old ones from its `row_firsts` on, every new column from `column_pairs` pairs; rows after `last_row` and
columns from `width` on have no weight. Returns 0, or 1 if out of memory. */
int shrink_window(const uint8_t *pixels, int64_t stride, int64_t width, int64_t last_row, int64_t rows,
                  int64_t row_taps, const int64_t *row_firsts, const int32_t *row_weights, int64_t columns,
                  int64_t column_pairs, const int64_t *column_firsts, const int16_t *column_weights, uint8_t *out) {
    const int64_t length = 3 * width;
    int32_t *sums = malloc(length * sizeof *sums);
    int16_t *mixed = calloc(length + 6 * column_pairs + 2, sizeof *mixed); /* a load reads two more values */
    uint8_t *row = malloc(3 * columns + 1);                                  /* a store writes one more byte */
    if (sums && mixed && row)
        for (int64_t k = 0; k < rows; k++) {
            const int64_t first = row_firsts[k], left = last_row - first + 1;
            mix_rows(pixels + first * stride, stride, length, left < row_taps ? left : row_taps,
                     row_weights + k * row_taps, sums, mixed);
            mix_columns(column_pairs, mixed, columns, column_firsts, column_weights, row);
            memcpy(out + 3 * columns * k, row, 3 * columns);
        }
    const int failed = !sums || !mixed || !row;
    free(sums);
    free(mixed);
    free(row);
    return failed;
}
