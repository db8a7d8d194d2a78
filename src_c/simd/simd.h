/* SPDX-License-Identifier: MIT
 * simd.h: `line`, 64 bytes of reals: the one vector type every kernel is written in. The file of the instruction set,
 * included before this one, gives the native `vec` of VEC reals and its operations; a line is VECS of them. No
 * operation is approximate, so the bits of a line do not depend on the instruction set.
 *
 * An instruction set defines, besides the operations named after what they do:
 *     vec_load_n(p, n), vec_store_n(p, a, n)  the first n <= VEC reals; the others load as zero and are not stored
 *     vec_fma(a, b, c)  a*b + c, rounded once      vec_fnma(a, b, c)  c - a*b, rounded once
 *     vec_min(a, b)  a < b ? a : b                 vec_max(a, b)  a > b ? a : b         both b where either is NaN
 *     vec_pick(a, b, x, y)  a > b ? x : y          vec_copysign(a, sign)  |a| with the sign of `sign`
 *     vec_scale_exponent(p, t)  the low bits of t added to the exponent of p
 * and may define, with TRANSPOSES_BLOCKS,
 *     transpose_block(to, ldto, from, ldfrom)  to[i*ldto + j] = from[j*ldfrom + i], i and j < TRANSPOSED, which is 8 */
#ifndef CRNN_SIMD_H
#define CRNN_SIMD_H

#if !defined(VECS)
#error "include the file of an instruction set first, like simd/generic.h"
#endif

typedef struct {
    vec v[VECS];
} line;

#if !defined(LARGE)
#define LARGE INLINE /* an operation of many instructions, where a line has many vectors */
#endif

/* EACH(e) is e(0) e(1) ... e(VECS - 1), spelled out so that a line lives in registers on every compiler. */
#define EACH1(e, i) e(i)
#define EACH2(e, i) EACH1(e, i) EACH1(e, (i) + 1)
#define EACH4(e, i) EACH2(e, i) EACH2(e, (i) + 2)
#define EACH8(e, i) EACH4(e, i) EACH4(e, (i) + 4)
#define EACH16(e, i) EACH8(e, i) EACH8(e, (i) + 8)
#define EACH_VEC(count, e) EACH##count(e, 0)
#define EACH_OF(count, e) EACH_VEC(count, e) /* VECS expanded before it is pasted */
#define EACH(e) EACH_OF(VECS, e)

#define LIFT1(name) INLINE line line_##name(line a) { line r; EACH(LIFT1_##name) return r; }
#define LIFT2(name) INLINE line line_##name(line a, line b) { line r; EACH(LIFT2_##name) return r; }
#define LIFT3(name) INLINE line line_##name(line a, line b, line c) { line r; EACH(LIFT3_##name) return r; }
#define LIFT1_sqrt(i) r.v[i] = vec_sqrt(a.v[i]);
#define LIFT1_abs(i) r.v[i] = vec_abs(a.v[i]);
#define LIFT2_add(i) r.v[i] = vec_add(a.v[i], b.v[i]);
#define LIFT2_sub(i) r.v[i] = vec_sub(a.v[i], b.v[i]);
#define LIFT2_mul(i) r.v[i] = vec_mul(a.v[i], b.v[i]);
#define LIFT2_div(i) r.v[i] = vec_div(a.v[i], b.v[i]);
#define LIFT2_min(i) r.v[i] = vec_min(a.v[i], b.v[i]);
#define LIFT2_max(i) r.v[i] = vec_max(a.v[i], b.v[i]);
#define LIFT2_copysign(i) r.v[i] = vec_copysign(a.v[i], b.v[i]);
#define LIFT2_scale_exponent(i) r.v[i] = vec_scale_exponent(a.v[i], b.v[i]);
#define LIFT3_fma(i) r.v[i] = vec_fma(a.v[i], b.v[i], c.v[i]);
#define LIFT3_fnma(i) r.v[i] = vec_fnma(a.v[i], b.v[i], c.v[i]);
LIFT1(sqrt) LIFT1(abs)
LIFT2(add) LIFT2(sub) LIFT2(mul) LIFT2(div) LIFT2(min) LIFT2(max) LIFT2(copysign) LIFT2(scale_exponent)
LIFT3(fma) LIFT3(fnma)

#define LIFT_load(i) r.v[i] = vec_load(p + (i) * VEC);
#define LIFT_store(i) vec_store(p + (i) * VEC, a.v[i]);
#define LIFT_set1(i) r.v[i] = vec_set1(x);
#define LIFT_pick(i) r.v[i] = vec_pick(a.v[i], b.v[i], x.v[i], y.v[i]);
INLINE line line_load(const real *p) { line r; EACH(LIFT_load) return r; }
INLINE void line_store(real *p, line a) { EACH(LIFT_store) }
INLINE line line_set1(real x) { line r; EACH(LIFT_set1) return r; }
INLINE line line_pick(line a, line b, line x, line y) { line r; EACH(LIFT_pick) return r; }

/* Half a line, where an instruction set computes it in half the time: HAS_HALF_LINES, half_load, half_store, half_set1 and
 * half_fma. In float32 only: each precision's tiles of them are 7 KB of code. */
#if defined(HAS_HALF_LINES)
enum { HALF_LINE = LINE / 2 };
#else
enum { HALF_LINE = 0 };
#endif

/* The first n < LINE reals of a line; the others load as zero and are not stored. */
INLINE crnn_dim lanes_from(crnn_dim n, crnn_dim start)
{
    return n <= start ? 0 : n - start < VEC ? n - start : VEC;
}
#define LIFT_load_n(i) r.v[i] = vec_load_n(p + (lanes_from(n, (i) * VEC) ? (i) * VEC : 0), lanes_from(n, (i) * VEC));
#define LIFT_store_n(i) if (lanes_from(n, (i) * VEC)) vec_store_n(p + (i) * VEC, a.v[i], lanes_from(n, (i) * VEC));
LARGE line line_load_n(const real *p, crnn_dim n) { line r; EACH(LIFT_load_n) return r; }
LARGE void line_store_n(real *p, line a, crnn_dim n) { EACH(LIFT_store_n) }

/* The same for an array of which `remaining` reals lie ahead, LINE or more: loops over arrays count it down. */
LARGE line line_get(const real *p, crnn_dim remaining)
{
    return remaining >= LINE ? line_load(p) : line_load_n(p, remaining);
}
LARGE void line_put(real *p, line a, crnn_dim remaining)
{
    if (remaining >= LINE)
        line_store(p, a);
    else
        line_store_n(p, a, remaining);
}

/* The first `remaining` lanes of a; zero in the others. */
INLINE line line_first(line a, crnn_dim remaining)
{
    real lanes[LINE] = {0};
    if (remaining >= LINE)
        return a;
    line_store_n(lanes, a, remaining);
    return line_load(lanes);
}

/* A scalar result, 0 if it is denormal. */
#if !defined(FLUSHED)
#define FLUSHED(a) (a)
#endif

/* LINE partial results to one, in halves: the fixed order of every sum. */
INLINE real fold_sum(real lanes[LINE])
{
    UNROLL
    for (int half = LINE / 2; half > 0; half /= 2)
        UNROLL
        for (int i = 0; i < half; ++i)
            lanes[i] = FLUSHED(lanes[i] + lanes[i + half]);
    return lanes[0];
}

INLINE real fold_line(line a)
{
    real lanes[LINE];
    line_store(lanes, a);
    return fold_sum(lanes);
}

INLINE real fold_max(real lanes[LINE])
{
    UNROLL
    for (int half = LINE / 2; half > 0; half /= 2)
        UNROLL
        for (int i = 0; i < half; ++i)
            lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    return lanes[0];
}

enum { TRANSPOSED = 8 };
#if !defined(TRANSPOSES_BLOCKS)
INLINE void transpose_block(real *to, crnn_dim ldto, const real *from, crnn_dim ldfrom)
{
    for (int j = 0; j < TRANSPOSED; ++j)
        for (int i = 0; i < TRANSPOSED; ++i)
            to[i * ldto + j] = from[j * ldfrom + i];
}
#endif

#endif
