/* The inner loops of finish.py: a window of a picture to the values that a net reads, in one pass.

In:  uint8 pixels of a window, rows `stride` bytes apart.  Out: the window, reflected if asked, uint8, or float32:
((pixel - residual) - mean) * factor, in the order in which DALI's `normalize` computes it twice. Compiled without fused
products every processor computes the same bits.

Plain C, called through ctypes. Where it was not compiled, threads cut windows and DALI computes. */

#include "../compiled.h"

enum { BLOCK = 256 }; /* pixels of a row at a time, so that a row of any length needs little memory */

/* Reverse the order of pixels. Five at a time: 16 bytes are loaded, of which the first belongs to the pixel before the
five, and 16 are stored, of which the last belongs to the pixel after them. So there must be a sixth. */
INLINE void reflect(const uint8_t *restrict in, int64_t pixels, uint8_t *restrict out) {
    int64_t k = 0;
    for (; k + 5 < pixels; k += 5) {
        sixteen five;
        memcpy(&five, in + 3 * (pixels - k - 5) - 1, sizeof five);
        five = SHUFFLED(sixteen, five, 13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0);
        memcpy(out + 3 * k, &five, sizeof five);
    }
    for (; k < pixels; k++) memcpy(out + 3 * k, in + 3 * (pixels - k - 1), 3);
}

/* Copy past the cache: the values are read later, by another thread, and would displace what is needed sooner. */
INLINE void put(uint8_t *out, const uint8_t *values, int64_t bytes) {
#ifdef __x86_64__
    const int64_t left = -(uintptr_t)out & 15, head = left < bytes ? left : bytes; /* up to a multiple of 16 */
    memcpy(out, values, head);
    for (out += head, values += head, bytes -= head; bytes >= 16; out += 16, values += 16, bytes -= 16)
        _mm_stream_si128((__m128i *)out, _mm_loadu_si128((const __m128i *)values));
#endif
    memcpy(out, values, bytes);
}

/* `means` and `factors` have three values a pixel, like the others. */
INLINE void normalize(const uint8_t *restrict in, const float *restrict residual, const float *restrict means,
                      const float *restrict factors, int64_t length, float *restrict out) {
    if (residual)
        for (int64_t i = 0; i < length; i++) out[i] = ((in[i] - residual[i]) - means[i]) * factors[i];
    else
        for (int64_t i = 0; i < length; i++) out[i] = (in[i] - means[i]) * factors[i];
}

/* `residual`: (side, side, 3), or 0 for none. `mean` and `factor`: (3), or 0 for uint8. `out`: (side, side, 3). */
EACH_PROCESSOR
void finish_window(const uint8_t *window, int64_t stride, int64_t side, int64_t flip, const float *residual,
                   const float *mean, const float *factor, uint8_t *out) {
    uint8_t reflected[3 * BLOCK];
    float means[3 * BLOCK], factors[3 * BLOCK], values[3 * BLOCK];
    for (int64_t i = 0; mean && i < 3 * BLOCK && i < 3 * side; i++) {
        means[i] = mean[i % 3];
        factors[i] = factor[i % 3];
    }
    for (int64_t row = 0; row < side; row++)
        for (int64_t first = 0; first < side; first += BLOCK) {
            const int64_t pixels = side - first < BLOCK ? side - first : BLOCK, place = 3 * (row * side + first);
            const uint8_t *in = window + row * stride + 3 * (flip ? side - first - pixels : first);
            if (flip) {
                reflect(in, pixels, reflected);
                in = reflected;
            }
            if (!mean) {
                put(out + place, in, 3 * pixels);
                continue;
            }
            normalize(in, residual ? residual + place : 0, means, factors, 3 * pixels, values);
            put(out + place * sizeof *values, (const uint8_t *)values, 3 * pixels * sizeof *values);
        }
#ifdef __x86_64__
    _mm_sfence(); /* other threads see these stores before what this one does next */
#endif
}
