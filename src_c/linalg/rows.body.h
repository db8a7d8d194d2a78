/* SPDX-License-Identifier: MIT
 * rows.body.h: which rows of time-major arrays a call works on, and what lies before and after a step in a layer's
 * direction. Everything about sequences of different lengths is said here; see crnn_rows in crnn.h. */

INLINE crnn_dim row_at(const crnn_rows *r, crnn_dim i) { return r->order ? r->order[i] : i; }
INLINE crnn_dim steps_of(const crnn_rows *r, crnn_dim b) { return r->lengths ? r->lengths[b] : r->T; }

/* Where arrays hold row (t, b). */
INLINE crnn_dim row_of(const crnn_rows *r, crnn_dim t, crnn_dim b)
{
    return r->starts ? r->starts[t] + r->places[b] : t * r->B + b;
}

/* Position after the last one of the slice that has more than t steps. */
INLINE crnn_dim end_of_rows(const crnn_rows *r, crnn_dim t, crnn_dim end)
{
    if (t >= r->T)
        return r->b0;
    if (r->lengths)
        while (end > r->b0 && steps_of(r, row_at(r, end - 1)) <= t)
            --end;
    return end;
}

/* Position after the last one of the slice for which arrays hold a row of step t: packed arrays have no padding. */
INLINE crnn_dim end_of_held_rows(const crnn_rows *r, crnn_dim t, crnn_dim end)
{
    return r->starts ? end_of_rows(r, t, end) : r->b1;
}

/* Batch rows outside of *first .. *end have no step t - 1: narrows them to a range outside of which none has a step t. */
INLINE void narrow_to_step(const crnn_rows *r, crnn_dim t, crnn_dim *first, crnn_dim *end)
{
    while (*first < *end && steps_of(r, *first) <= t)
        ++*first;
    while (*first < *end && steps_of(r, *end - 1) <= t)
        --*end;
}

/* A walk over the rows (t, b), t rising, within the slice. `extra`: only rows that have `extra` more steps after t. */
typedef struct {
    const crnn_rows *rows;
    crnn_dim t, i, end, extra;
} row_walk;

INLINE row_walk walk_from(const crnn_rows *r, crnn_dim t, crnn_dim extra)
{
    return (row_walk){r, t, r->b0, end_of_rows(r, t + extra, r->b1), extra};
}

INLINE void walk_next(row_walk *w)
{
    if (++w->i >= w->end) {
        w->i = w->rows->b0;
        w->end = end_of_rows(w->rows, ++w->t + w->extra, w->end);
    }
}

/* How many rows the steps t0 .. t1 of a walk have. */
static crnn_dim count_rows(const crnn_rows *r, crnn_dim t0, crnn_dim t1, crnn_dim extra)
{
    crnn_dim count = 0, end = r->b1;
    for (crnn_dim t = t0; t < t1; ++t) {
        end = end_of_rows(r, t + extra, end);
        count += end - r->b0;
    }
    return count;
}

/* The step at which a layer meets row b first. */
INLINE crnn_dim first_step(const crnn_rows *r, crnn_dim b, int reverse) { return reverse ? steps_of(r, b) - 1 : 0; }

/* Where row (t, b) of a product finds its x: at its own step, one step before or after in the layer's direction
 * (before the first step lies `start`, (B, stride)), or at the row's first step. */
typedef enum { AT, BEFORE, AFTER, FIRST } x_step;
typedef struct {
    const real *x;
    crnn_dim stride;
    x_step step;
    int reverse;
    const real *start;
} x_source;

INLINE const real *x_row(const x_source *s, const crnn_rows *r, crnn_dim t, crnn_dim b)
{
    switch (s->step) {
    case BEFORE:
        if (t == first_step(r, b, s->reverse))
            return s->start + b * s->stride;
        t += s->reverse ? 1 : -1;
        break;
    case AFTER: t += s->reverse ? -1 : 1; break;
    case FIRST: t = first_step(r, b, s->reverse); break;
    default: break;
    }
    return s->x + row_of(r, t, b) * s->stride;
}
