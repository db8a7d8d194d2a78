/* SPDX-License-Identifier: MIT
 * compat.h: what differs between compilers, and the floating-point mode. Nothing else in src_c asks which compiler. */
#ifndef CRNN_COMPAT_H
#define CRNN_COMPAT_H

#include <stdint.h>

#if defined(_MSC_VER) && !defined(__clang__)
#define INLINE static __forceinline
#define NOINLINE __declspec(noinline)
#define NOCLONE
#define UNROLL
#define RESTRICT __restrict
#define ALIGNED(bytes) __declspec(align(bytes))
#else
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define NOCLONE NOINLINE
#else
#define NOCLONE __attribute__((noinline, noclone)) /* one copy, whatever constants it is called with */
#endif
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

/* A cache line that will be read, or written, in some thousand cycles. PREFETCH_L2: later, in the second-level cache. */
#if defined(_MSC_VER) && !defined(__clang__) && defined(_M_X64)
#include <xmmintrin.h>
#define PREFETCH(p) _mm_prefetch((const char *)(p), _MM_HINT_T0)
#define PREFETCH_WRITE(p) PREFETCH(p)
#define PREFETCH_L2(p) _mm_prefetch((const char *)(p), _MM_HINT_T1)
#elif defined(_MSC_VER) && !defined(__clang__)
#define PREFETCH(p) ((void)(p))
#define PREFETCH_WRITE(p) ((void)(p))
#define PREFETCH_L2(p) ((void)(p))
#else
#define PREFETCH(p) __builtin_prefetch(p, 0)
#define PREFETCH_WRITE(p) __builtin_prefetch(p, 1)
#define PREFETCH_L2(p) __builtin_prefetch(p, 0, 2)
#endif

/* A static variable of which every thread has its own. */
#if defined(_MSC_VER) && !defined(__clang__)
#define PER_THREAD __declspec(thread)
#else
#define PER_THREAD _Thread_local
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

/* The floating-point mode belongs to the host, another library of which may have set any. Results do not depend on it:
 * arithmetic is done in one of two modes, and the host's is restored. Both round to nearest and trap nothing.
 *     kernel_floats   all kernels: flush to zero, denormals are zero. Denormals cost a hundred cycles each on some CPUs,
 *                     and fading gradients are full of them
 *     ieee_floats     what must agree with NumPy, such as scaling
 * Setting a mode takes some cycles too: where it is set already it is left alone. */
typedef uint64_t float_mode;

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
enum { KERNEL_FLOATS = 0x9fc0, IEEE_FLOATS = 0x1f80, FLOAT_CONTROL = 0xffc0 }; /* the rest says what has happened */
INLINE float_mode float_mode_get(void) { return _mm_getcsr(); }
INLINE void float_mode_set(float_mode mode) { _mm_setcsr((unsigned)mode); }
#elif defined(__aarch64__) && !defined(_MSC_VER)
enum { KERNEL_FLOATS = 1 << 24, IEEE_FLOATS = 0, FLOAT_CONTROL = -1 };
INLINE float_mode float_mode_get(void)
{
    uint64_t mode;
    __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
INLINE void float_mode_set(float_mode mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#elif defined(_M_ARM64)
#include <intrin.h>
#ifndef ARM64_FPCR /* some SDKs keep it in another header */
#define ARM64_FPCR 0x5A20
#endif
enum { KERNEL_FLOATS = 1 << 24, IEEE_FLOATS = 0, FLOAT_CONTROL = -1 };
INLINE float_mode float_mode_get(void) { return (uint64_t)_ReadStatusReg(ARM64_FPCR); }
INLINE void float_mode_set(float_mode mode) { _WriteStatusReg(ARM64_FPCR, (int64_t)mode); }
#else /* no portable way to stop what traps */
#include <fenv.h>
#define NO_FLUSH_TO_ZERO /* in hardware; see generic.h */
enum { KERNEL_FLOATS = FE_TONEAREST, IEEE_FLOATS = FE_TONEAREST, FLOAT_CONTROL = -1 };
INLINE float_mode float_mode_get(void) { return (float_mode)(unsigned)fegetround(); }
INLINE void float_mode_set(float_mode mode) { fesetround((int)mode); }
#endif

INLINE int is_float_mode(float_mode mode, int expected) { return (int)(mode & (float_mode)FLOAT_CONTROL) == expected; }

INLINE float_mode kernel_floats(void)
{
    const float_mode mode = float_mode_get();
    if (!is_float_mode(mode, KERNEL_FLOATS))
        float_mode_set(KERNEL_FLOATS);
    return mode;
}
/* The end of what kernel_floats began. */
INLINE void float_mode_restore(float_mode mode)
{
    if (!is_float_mode(mode, KERNEL_FLOATS))
        float_mode_set(mode);
}
INLINE float_mode ieee_floats(void)
{
    const float_mode mode = float_mode_get();
    if (!is_float_mode(mode, IEEE_FLOATS))
        float_mode_set(IEEE_FLOATS);
    return mode;
}
/* The end of what ieee_floats began. */
INLINE void ieee_floats_end(float_mode mode)
{
    if (!is_float_mode(mode, IEEE_FLOATS))
        float_mode_set(mode);
}

#endif
