/* SPDX-License-Identifier: MIT
 * sampling.body.h: drawing an id from logits, after temperature, top-k and top-p. Only a few numbers around a cut are
 * sorted: bisection finds them.
 *
 * The result is defined by sums in a fixed order: for top-p of the weights from the largest to the smallest, for the draw
 * of those that are left by rising id. Where bisection cannot tell what the first of these sums is, all are sorted.
 *
 * x (n) are logits minus the largest of them, so all are <= 0. |x| is their distance, which for an excluded id is
 * infinite. They are compared and subtracted as IEEE numbers, with denormals. */

enum { SIGN_SHIFT = 8 * sizeof(real) - 1, FEW = 16, BLOCK = 8 * LINE, MANY = 64 * LINE };

INLINE real_bits bits_of(real x)
{
    real_bits bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE real from_bits(real_bits bits)
{
    real x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

INLINE real_bits without_sign(real_bits bits) { return (real_bits)((real_word)bits << 1 >> 1); }
INLINE real distance_of(real x) { return from_bits(without_sign(bits_of(x))); }

/* An integer that rises with x; those of NaN are beyond those of the infinities. Its own inverse. */
INLINE real_bits rank_of(real_bits bits) { return bits ^ without_sign(bits >> SIGN_SHIFT); }

static void widen(double *y, const real *x, crnn_dim n)
{
    float_mode mode = ieee_floats();
    for (crnn_dim i = 0; i < n; ++i)
        y[i] = (double)x[i];
    ieee_floats_end(mode);
}

/* The first of the largest numbers, or the first NaN. */
static crnn_dim first_maximum(const real *x, crnn_dim n)
{
    real_bits high = rank_of(bits_of(x[0])), low = high;
    for (crnn_dim i = 1; i < n; ++i) { /* of integers, which compilers turn into vector code */
        const real_bits rank = rank_of(bits_of(x[i]));
        high = rank > high ? rank : high;
        low = rank < low ? rank : low;
    }
    const real_bits infinite = rank_of(bits_of((real)INFINITY)), minus_infinite = rank_of(bits_of(-(real)INFINITY));
    const real largest = from_bits(rank_of(high));
    crnn_dim first = 0;
    if (high > infinite || low < minus_infinite)
        while (x[first] == x[first])
            ++first;
    else
        while (x[first] < largest) /* not !=: zeros of both signs are equal */
            ++first;
    return first;
}

/* The order of n additions changes a sum of positive numbers by less than n epsilon. If a share of the sum and a partial
 * sum differ by more than this, any order of either tells which is larger. */
INLINE real margin_of(crnn_dim n, real sum)
{
    const real epsilon = sizeof(real) == 4 ? (real)FLT_EPSILON : (real)DBL_EPSILON;
    return 4 * epsilon * (real)(n + 2) * sum;
}

/* ---- where to cut ------------------------------------------------------------------------------------------------ */

/* Kept are the numbers above `smallest`, and the first `equals` of those equal to it, which may be all. */
typedef struct {
    real smallest;
    crnn_dim equals;
    int all_equals;
} cut;

typedef struct {
    const real *x, *weights; /* (n); weights NULL: each weighs 1 */
    real *sorted, *spare;    /* (n) each, scratch */
    crnn_dim n;
} numbers;

/* The numbers up to a distance: how many they are, and what they weigh, summed in any order. */
typedef struct {
    real distance, weight;
    crnn_dim count;
} part;

static crnn_dim count_within(const real *x, crnn_dim n, real distance)
{
    const real limit = -distance;
    real_bits count = 0;
    for (crnn_dim i = 0; i < n; ++i)
        count += x[i] >= limit;
    return (crnn_dim)count;
}

static real weight_within(const real *x, const real *weights, crnn_dim n, real distance)
{
    const line limit = line_set1(-distance), zero = line_set1(0);
    line sum = zero;
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE)
        sum = line_add(sum, line_pick(limit, line_get(x + i, remaining), zero, line_get(weights + i, remaining)));
    real lanes[LINE];
    line_store(lanes, sum);
    return fold_sum(lanes);
}

/* weights NULL: each weighs 1. */
INLINE part within(const real *x, const real *weights, crnn_dim n, real distance)
{
    part result = {distance, 0, count_within(x, n, distance)};
    result.weight = weights ? weight_within(x, weights, n, distance) : (real)result.count;
    return result;
}

static real largest_finite_distance(const real *x, crnn_dim n)
{
    const real_bits infinite = bits_of((real)INFINITY);
    real_bits largest = 0;
    for (crnn_dim i = 0; i < n; ++i) {
        const real_bits distance = without_sign(bits_of(x[i])), finite = distance < infinite ? distance : 0;
        largest = finite > largest ? finite : largest;
    }
    return from_bits(largest);
}

/* Between two distances: in the middle if they are small, of equal ratio to both if they are large, so that 64 steps end
 * any bisection. A multiple of epsilon / 2: never a denormal, which `line_get` may read as zero. */
INLINE real between(real a, real b)
{
    const real_bits low = bits_of(1 + a), high = bits_of(1 + b);
    return from_bits(low + (high - low) / 2) - 1;
}

/* Rising, by digits of 8 bits of numbers that have no sign. */
static void sort(real *x, real *spare, crnn_dim n)
{
    if (n <= FEW) {
        for (crnn_dim i = 0; i < n; ++i) { /* no branch depends on the numbers: to guess wrong costs more */
            crnn_dim smaller = 0;
            for (crnn_dim j = 0; j < i; ++j)
                smaller += x[j] <= x[i];
            for (crnn_dim j = i + 1; j < n; ++j)
                smaller += x[j] < x[i];
            spare[smaller] = x[i];
        }
        memcpy(x, spare, (size_t)n * sizeof *x);
        return;
    }
    real *from = x, *to = spare;
    for (int shift = 0; shift < SIGN_SHIFT; shift += 8) {
        crnn_dim starts[257] = {0};
        for (crnn_dim i = 0; i < n; ++i)
            ++starts[1 + (bits_of(from[i]) >> shift & 0xff)];
        if (starts[1 + (bits_of(from[0]) >> shift & 0xff)] == n)
            continue; /* the digit of all */
        for (int digit = 1; digit < 256; ++digit)
            starts[digit] += starts[digit - 1];
        for (crnn_dim i = 0; i < n; ++i)
            to[starts[bits_of(from[i]) >> shift & 0xff]++] = from[i];
        real *swapped = from;
        from = to, to = swapped;
    }
    if (from != x)
        memcpy(x, from, (size_t)n * sizeof *x);
}

/* Moves the numbers beyond `low` and up to `high`, and their weights, if there are some. Returns how many they are. */
static crnn_dim move_between(real *to, real *to_weights, const real *x, const real *weights, crnn_dim n, part low,
                             part high)
{
    crnn_dim count = 0;
    for (crnn_dim i = 0; i < n; i += BLOCK) {
        const crnn_dim end = i + BLOCK < n ? i + BLOCK : n;
        if (count_within(x + i, end - i, high.distance) == 0)
            continue;
        for (crnn_dim j = i; j < end; ++j) {
            const real distance = distance_of(x[j]);
            to[count] = x[j];
            if (weights)
                to_weights[count] = weights[j];
            count += (distance > low.distance) & (distance <= high.distance);
        }
    }
    return count;
}

/* Sorts the distances of the few numbers among which `weight` is reached, or of more that are equal or almost. Returns
 * how many they are; *before: those that are nearer. `whole` weighs at least `weight`. */
static crnn_dim sort_around(const numbers *all, real weight, part whole, part *before)
{
    const real *x = all->x, *weights = all->weights;
    crnn_dim n = all->n;
    part low = {-1, 0, 0}, high = whole, left = {0, 0, 0};
    while (high.count - low.count > FEW) {
        const real distance = between(low.distance < 0 ? 0 : low.distance, high.distance);
        if (!(distance > low.distance && distance > 0 && distance < high.distance))
            break;
        if (n > MANY && 8 * (high.count - low.count) < n) { /* read only these from now on */
            n = move_between(all->sorted, all->spare, x, weights, n, low, high);
            x = all->sorted, weights = weights ? all->spare : NULL, left = low;
        }
        part next = within(x, weights, n, distance);
        next.count += left.count, next.weight += left.weight;
        if (next.weight < weight)
            low = next;
        else
            high = next;
    }
    const crnn_dim count = move_between(all->sorted, NULL, x, NULL, n, low, high);
    for (crnn_dim i = 0; i < count; ++i)
        all->sorted[i] = distance_of(all->sorted[i]);
    sort(all->sorted, all->spare, count);
    *before = low;
    return count;
}

/* The cut behind the last of these sorted distances that is kept. Those equal to it are all among them. */
static cut cut_behind(const real *sorted, crnn_dim count, crnn_dim last)
{
    cut result = {-sorted[last], 1, last + 1 == count || sorted[last + 1] != sorted[last]};
    while (result.equals <= last && sorted[last - result.equals] == sorted[last])
        ++result.equals;
    return result;
}

/* Behind the first k numbers. There are more that are finite. */
static cut cut_by_count(const numbers *all, crnn_dim k, part finite)
{
    part before;
    const crnn_dim count = sort_around(all, (real)k, finite, &before);
    return cut_behind(all->sorted, count, k - before.count - 1);
}

/* The weights of sorted distances, in `spare`. */
static const real *sorted_weights(const numbers *all, crnn_dim count)
{
    for (crnn_dim i = 0; i < count; ++i)
        all->spare[i] = -all->sorted[i];
    exp_array(all->spare, all->spare, count);
    return all->spare;
}

/* Behind the first numbers whose weights, summed from the largest, are at least p * (the sum of all). By definition. */
static cut cut_by_sorting(const numbers *all, real p)
{
    for (crnn_dim i = 0; i < all->n; ++i)
        all->sorted[i] = distance_of(all->x[i]);
    sort(all->sorted, all->spare, all->n);
    const real *weights = sorted_weights(all, all->n);
    real total = 0, sum = weights[0];
    for (crnn_dim i = 0; i < all->n; ++i)
        total += weights[i];
    crnn_dim last = 0;
    while (sum < p * total)
        sum += weights[++last];
    return cut_behind(all->sorted, all->n, last);
}

/* The same, from sums in any order where that is as good. */
static cut cut_by_weight(const numbers *all, real p)
{
    const real farthest = largest_finite_distance(all->x, all->n), limit = -EXP_MIN; /* of what weighs something */
    const part whole = within(all->x, all->weights, all->n, farthest < limit ? farthest : limit);
    const real wanted = p * whole.weight, margin = margin_of(all->n, whole.weight);
    part before;
    const crnn_dim count = sort_around(all, wanted, whole, &before);
    const real *weights = sorted_weights(all, count);
    real sum = before.weight;
    if (sum < wanted - margin)
        for (crnn_dim last = 0; last < count; ++last) {
            sum += weights[last];
            if (sum > wanted + margin)
                return cut_behind(all->sorted, count, last);
            if (sum >= wanted - margin)
                break;
        }
    return cut_by_sorting(all, p);
}

/* Moves what is kept of ids and values (n) to their beginning. Returns how many they are. values may be x. */
static crnn_dim keep(int32_t *ids, real *values, const real *x, crnn_dim n, cut c)
{
    crnn_dim kept = 0;
    for (crnn_dim i = 0; i < n; i += BLOCK) {
        const crnn_dim end = i + BLOCK < n ? i + BLOCK : n;
        if (count_within(x + i, end - i, -c.smallest) == 0)
            continue;
        if (c.all_equals) { /* the usual case: one comparison decides */
            for (crnn_dim j = i; j < end; ++j) {
                const int not_below = x[j] >= c.smallest;
                ids[kept] = ids[j], values[kept] = values[j];
                kept += not_below;
            }
            continue;
        }
        for (crnn_dim j = i; j < end; ++j) {
            const int equal = (x[j] == c.smallest) & (c.equals > 0), above = x[j] > c.smallest;
            ids[kept] = ids[j], values[kept] = values[j];
            kept += equal | above;
            c.equals -= equal;
        }
    }
    return kept;
}

/* ---- the kernels ------------------------------------------------------------------------------------------------- */

static crnn_dim sampling_candidates(int32_t *ids, real *weights, real *x, real *scratch, real temperature,
                                    crnn_dim top_k, real top_p, crnn_dim V)
{
    float_mode mode = ieee_floats();
    numbers all = {x, NULL, scratch, scratch + V, V};
    const crnn_dim best = first_maximum(x, V);
    const real largest = x[best];
    crnn_dim count = 1;
    if (!(distance_of(largest) < (real)INFINITY)) {
        count = -1 - best;
    } else if (temperature == 0) {
        ids[0] = (int32_t)best;
        weights[0] = 1;
    } else {
        for (crnn_dim i = 0; i < V; ++i)
            x[i] -= largest; /* -infinity on overflow */
        for (crnn_dim i = 0; i < V; ++i)
            ids[i] = (int32_t)i;
        /* Top-k comes first: the temperature keeps the order, but a huge one would make all values equal. */
        if (top_k < V) {
            const part finite = within(x, NULL, V, largest_finite_distance(x, V));
            if (top_k < finite.count)
                all.n = keep(ids, x, x, V, cut_by_count(&all, top_k, finite));
        }
        if (temperature != 1)
            for (crnn_dim i = 0; i < all.n; ++i)
                x[i] /= temperature;
        exp_array(weights, x, all.n);
        count = all.n;
        if (top_p < 1) {
            all.weights = weights;
            count = keep(ids, weights, x, count, cut_by_weight(&all, top_p));
        }
    }
    ieee_floats_end(mode);
    return count;
}

static real sum_in_lines(const real *x, crnn_dim n)
{
    line sum = line_set1(0);
    for (crnn_dim i = 0, remaining = n; remaining > 0; i += LINE, remaining -= LINE)
        sum = line_add(sum, line_get(x + i, remaining));
    real lanes[LINE];
    line_store(lanes, sum);
    return fold_sum(lanes);
}

/* sampling_draw from sums in any order; -1 where that is not as good. */
static crnn_dim draw_by_blocks(const real *weights, real uniform, crnn_dim n)
{
    const real total = sum_in_lines(weights, n), point = uniform * total, margin = margin_of(n, total);
    real sum = 0;
    crnn_dim start = 0;
    for (; start + BLOCK < n; start += BLOCK) {
        const real next = sum + sum_in_lines(weights + start, BLOCK);
        if (next >= point - margin)
            break;
        sum = next;
    }
    for (crnn_dim i = start; i < n; ++i) {
        sum += weights[i];
        if (sum > point + margin)
            return i;
        if (sum >= point - margin)
            return -1;
    }
    return -1;
}

static crnn_dim sampling_draw(real *weights, real uniform, crnn_dim n)
{
    float_mode mode = ieee_floats();
    crnn_dim first = n > MANY ? draw_by_blocks(weights, uniform, n) : -1;
    if (first < 0) {
        for (crnn_dim i = 1; i < n; ++i)
            weights[i] += weights[i - 1];
        const real point = uniform * weights[n - 1];
        first = 0;
        for (crnn_dim length = n - 1; length > 0;) { /* the first sum above `point` is in first .. first + length */
            const crnn_dim half = length / 2;
            const int beyond = weights[first + half] <= point;
            first = beyond ? first + half + 1 : first;
            length = beyond ? length - half - 1 : half;
        }
    }
    ieee_floats_end(mode);
    return first;
}
