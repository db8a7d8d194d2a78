/* SPDX-License-Identifier: MIT
 * dispatch.c: which instruction sets are built, which this machine runs, and their kernel tables. The list of the sets is
 * isa/sets.def. Asks the CPU and the operating system itself: __builtin_cpu_supports answers 0 under zig cc. */
#include <string.h>

#include "crnn.h"

static int cpu_has_generic(void) { return 1; }

/* FOR_<machine>(built, absent): which of the two an instruction set of that machine is in this binary. */
#define FOR_any(built, absent) built
#if defined(__x86_64__) || defined(_M_X64)
#define FOR_x86(built, absent) built
#define FOR_arm(built, absent) absent

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
static void cpuid(unsigned leaf, unsigned part, unsigned out[4]) { __cpuidex((int *)out, (int)leaf, (int)part); }
static uint64_t saved_by_system(void) { return _xgetbv(0); }
#else
#include <cpuid.h>
static void cpuid(unsigned leaf, unsigned part, unsigned out[4])
{
    if (!__get_cpuid_count(leaf, part, out, out + 1, out + 2, out + 3))
        out[0] = out[1] = out[2] = out[3] = 0;
}
static uint64_t saved_by_system(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}
#endif

enum { EAX = 0, EBX = 1, ECX = 2 };
static int has(unsigned value, unsigned bits) { return (value & bits) == bits; }

/* Registers that the system does not save on a task switch are as good as absent. */
static int cpu_has_avx2(void)
{
    const unsigned OSXSAVE = 1u << 27, AVX = 1u << 28, FMA = 1u << 12, AVX2 = 1u << 5;
    unsigned leaf1[4], leaf7[4];
    cpuid(1, 0, leaf1);
    if (!has(leaf1[ECX], OSXSAVE | AVX | FMA) || (saved_by_system() & 0x6) != 0x6)
        return 0;
    cpuid(7, 0, leaf7);
    return has(leaf7[EBX], AVX2);
}

static int cpu_has_avx512(void)
{
    const unsigned F = 1u << 16, DQ = 1u << 17, BW = 1u << 30, VL = 1u << 31;
    unsigned leaf7[4];
    if (!cpu_has_avx2() || (saved_by_system() & 0xe6) != 0xe6)
        return 0;
    cpuid(7, 0, leaf7);
    return has(leaf7[EBX], F | DQ | BW | VL);
}

extern int crnn_avx512_vnni_is_compiled(void);

static int cpu_has_avx512_vnni(void)
{
    const unsigned VNNI = 1u << 11;
    unsigned leaf7[4];
    cpuid(7, 0, leaf7);
    return cpu_has_avx512() && has(leaf7[ECX], VNNI) && crnn_avx512_vnni_is_compiled();
}

extern int crnn_avx512_bf16_keeps_order(void);

static int cpu_has_avx512_bf16(void)
{
    const unsigned BF16 = 1u << 5;
    unsigned leaf7[4];
    if (!cpu_has_avx512_vnni())
        return 0;
    cpuid(7, 1, leaf7);
    return has(leaf7[EAX], BF16) && crnn_avx512_bf16_keeps_order();
}

/* Intel's CPUs start a VDPBF16PS every other cycle, and two fma a cycle (measured on Sapphire Rapids; a Zen 4 starts one of
 * either). Batches in bf16 take 1.3 to 1.7 times as long by it as by two fma; single steps take 0 to 10 % less. */
static int cpu_is_slower_with_avx512_bf16(void)
{
    unsigned leaf0[4];
    cpuid(0, 0, leaf0);
    return leaf0[EBX] == 0x756e6547; /* "Genu" of GenuineIntel */
}

#elif defined(__aarch64__) || defined(_M_ARM64)
#define FOR_x86(built, absent) absent
#define FOR_arm(built, absent) built

static int cpu_has_neon(void) { return 1; } /* every 64-bit ARM has it */
static int cpu_is_slower_with_avx512_bf16(void) { return 0; }

#else
#define FOR_x86(built, absent) absent
#define FOR_arm(built, absent) absent
static int cpu_is_slower_with_avx512_bf16(void) { return 0; }
#endif

#define CRNN_FLAGS(gcc, msvc)
#define CRNN_SET(name, machine, gcc, msvc)                                                                             \
    extern const crnn_kernels_f32 crnn_f32_##name;                                                                     \
    extern const crnn_kernels_f64 crnn_f64_##name;
#define CRNN_EXTENSION(name, of, machine, gcc, msvc) extern const crnn_kernels_f32 crnn_f32_##name;
#include "isa/sets.def"
#undef CRNN_SET
#undef CRNN_EXTENSION

static const struct {
    const char *name;
    const crnn_kernels_f32 *f32;
    const crnn_kernels_f64 *f64;
    int (*supported)(void);
} sets[] = {
#define ENTRY(...) {__VA_ARGS__},
#define CRNN_SET(name, machine, gcc, msvc) CRNN_EXTENSION(name, name, machine, gcc, msvc)
#define CRNN_EXTENSION(name, of, machine, gcc, msvc)                                                                   \
    FOR_##machine(ENTRY(#name, &crnn_f32_##name, &crnn_f64_##of, cpu_has_##name), ENTRY(#name, NULL, NULL, NULL))
#include "isa/sets.def"
};
enum { SETS = sizeof sets / sizeof sets[0] };

int crnn_isa_count(void) { return SETS; }
const char *crnn_isa_name(int isa) { return sets[isa].name; }
int crnn_isa_built(int isa) { return sets[isa].f32 != NULL; }
int crnn_isa_supported(int isa) { return crnn_isa_built(isa) && sets[isa].supported(); }
const crnn_kernels_f32 *crnn_f32(int isa) { return sets[isa].f32; }
const crnn_kernels_f64 *crnn_f64(int isa) { return sets[isa].f64; }

int crnn_isa_best(void)
{
    int best = 0;
    for (int isa = 1; isa < SETS; ++isa)
        if (crnn_isa_supported(isa) &&
            (strcmp(sets[isa].name, "avx512_bf16") != 0 || !cpu_is_slower_with_avx512_bf16()))
            best = isa;
    return best;
}

int crnn_cell_count(void)
{
    int count = 0;
    while (crnn_f32_generic.cells[count])
        ++count;
    return count;
}

const crnn_cell *crnn_cell_info(int cell)
{
    return 0 <= cell && cell < crnn_cell_count() ? crnn_f32_generic.cells[cell] : NULL;
}

int crnn_cell_find(const char *name)
{
    for (int cell = 0; cell < crnn_cell_count(); ++cell)
        if (strcmp(crnn_f32_generic.cells[cell]->name, name) == 0)
            return cell;
    return -1;
}
