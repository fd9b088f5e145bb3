/* What the compiled parts of the nets share: float32 and bfloat16 in memory, torch's threads. */

#ifndef ALEXNET_DALI_KERNELS_H
#define ALEXNET_DALI_KERNELS_H

#include "../../pipeline/compiled.h"

INLINE float load(const void *p, int64_t i, int bf16) {
    if (!bf16) return ((const float *)p)[i];
    const uint32_t bits = (uint32_t)((const uint16_t *)p)[i] << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* The nearest bfloat16, halves to even, as torch rounds; NaN stays NaN. */
INLINE float rounded(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    const uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    bits = (bits & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : nearest;
    memcpy(&f, &bits, sizeof f);
    return f;
}

INLINE void store(void *p, int64_t i, float f, int bf16) {
    if (!bf16) {
        ((float *)p)[i] = f;
        return;
    }
    const float nearest = rounded(f);
    uint32_t bits;
    memcpy(&bits, &nearest, sizeof bits);
    ((uint16_t *)p)[i] = bits >> 16;
}

/* Call `work` in each of some threads, of the OpenMP library that torch has loaded; without that, in this one. */
extern void GOMP_parallel(void (*)(void *), void *, unsigned, unsigned) __attribute__((weak));

INLINE void in_threads(int threads, void (*work)(void *), void *argument) {
    if (GOMP_parallel && threads > 1)
        GOMP_parallel(work, argument, threads, 0);
    else
        work(argument);
}

/* The next number of a counter that threads share. */
INLINE int64_t take(int64_t *counter) { return __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED); }

#endif
