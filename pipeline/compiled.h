/* What the compiled parts share (compiled.py). Plain C, for GCC and Clang on little-endian processors. */

#ifndef ALEXNET_DALI_COMPILED_H
#define ALEXNET_DALI_COMPILED_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <emmintrin.h>
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "little-endian processors only; elsewhere the Python code is used instead"
#endif

#define INLINE static inline __attribute__((always_inline))

/* A function that is compiled for several generations of processors; the one at hand is chosen when it is loaded. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 12
#define EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#elif defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && __GNUC__ >= 8
#define EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define EACH_PROCESSOR
#endif

/* Sixteen bytes, and a vector with its elements in another order, from the first on. */
typedef uint8_t sixteen __attribute__((vector_size(16)));
#ifdef __clang__
#define SHUFFLED(type, vector, ...) __builtin_shufflevector(vector, vector, __VA_ARGS__)
#else
#define SHUFFLED(type, vector, ...) __builtin_shuffle(vector, (type){__VA_ARGS__})
#endif

#endif
