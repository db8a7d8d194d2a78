/* SPDX-License-Identifier: MIT
 * compat.h: what differs between compilers, and the floating-point mode. Nothing else in src_c asks which compiler. */
#ifndef CRNN_COMPAT_H
#define CRNN_COMPAT_H

#include <stdint.h>

#if defined(_MSC_VER) && !defined(__clang__)
#define INLINE static __forceinline
#define NOINLINE __declspec(noinline)
#define UNROLL
#define RESTRICT __restrict
#define ALIGNED(bytes) __declspec(align(bytes))
#else
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#define RESTRICT restrict
#define ALIGNED(bytes) __attribute__((aligned(bytes)))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#endif

/* Hides from the compiler what it knows of a pointer. */
#if defined(_MSC_VER) && !defined(__clang__)
#define OPAQUE(p) ((void)(p))
#else
#define OPAQUE(p) __asm__("" : "+r"(p))
#endif

/* A cache line that will be read, or written, in some thousand cycles. */
#if defined(_MSC_VER) && !defined(__clang__) && defined(_M_X64)
#include <xmmintrin.h>
#define PREFETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define PREFETCH_WRITE(p) PREFETCH(p)
#elif defined(_MSC_VER) && !defined(__clang__)
#define PREFETCH(p) ((void)(p))
#define PREFETCH_WRITE(p) ((void)(p))
#else
#define PREFETCH(p) __builtin_prefetch(p, 0)
#define PREFETCH_WRITE(p) __builtin_prefetch(p, 1)
#endif

/* A flag that one thread at a time can take. flag_take: whether it was free. */
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
INLINE int flag_take(int *flag) { return !_InterlockedExchange((volatile long *)flag, 1); }
INLINE void flag_give(int *flag) { _InterlockedExchange((volatile long *)flag, 0); }
#else
INLINE int flag_take(int *flag) { return !__atomic_exchange_n(flag, 1, __ATOMIC_ACQUIRE); }
INLINE void flag_give(int *flag) { __atomic_store_n(flag, 0, __ATOMIC_RELEASE); }
#endif

/* Denormals cost a hundred cycles each on some CPUs, and fading gradients are full of them. Setting the mode takes some
 * cycles too: where it is set already it is left alone. */
typedef uint64_t float_mode;

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
enum { DENORMALS_OFF = 0x8040 }; /* flush to zero, denormals are zero */
INLINE float_mode denormals_off(void)
{
    unsigned mode = _mm_getcsr();
    if ((mode & DENORMALS_OFF) != DENORMALS_OFF)
        _mm_setcsr(mode | DENORMALS_OFF);
    return mode;
}
INLINE void float_mode_restore(float_mode mode)
{
    if ((mode & DENORMALS_OFF) != DENORMALS_OFF)
        _mm_setcsr((unsigned)mode);
}
#elif defined(__aarch64__) && !defined(_MSC_VER)
INLINE float_mode denormals_off(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    __asm__ volatile("msr fpcr, %0" : : "r"(mode | (1u << 24))); /* FZ */
    return mode;
}
INLINE void float_mode_restore(float_mode mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#elif defined(_M_ARM64)
#include <intrin.h>
#ifndef ARM64_FPCR /* some SDKs keep it in a header of their own */
#define ARM64_FPCR 0x5A20
#endif
INLINE float_mode denormals_off(void)
{
    uint64_t mode = (uint64_t)_ReadStatusReg(ARM64_FPCR);
    _WriteStatusReg(ARM64_FPCR, (int64_t)(mode | (1u << 24)));
    return mode;
}
INLINE void float_mode_restore(float_mode mode) { _WriteStatusReg(ARM64_FPCR, (int64_t)mode); }
#else
#define NO_FLUSH_TO_ZERO /* in hardware; see generic.h */
INLINE float_mode denormals_off(void) { return 0; }
INLINE void float_mode_restore(float_mode mode) { (void)mode; }
#endif

#endif
