/* SPDX-License-Identifier: MIT
 * tiles.body.h: what a tile of a product works on: its rows and panels, its accumulators' way from memory and back, and
 * the lines that it prefetches. The products themselves are in gemm.body.h. */

/* An instruction set says how large its tiles are (simd/avx2.h, for one):
 *     TILE_ROWS, TILE_PANELS    the largest m and nl
 *     PANELS_FOR(m)             the largest nl for m rows. Few rows take more panels, so that enough independent chains
 *                               hide the latency of an fma
 *     FOR_EACH_TILE(T)          T(m, nl) for every m = 1 .. TILE_ROWS, nl = 1 .. PANELS_FOR(m)
 * Tiles of TALL_TILE_ROWS or more have more rows than there are registers for pointers to them. They are compiled once
 * more for rows of x at a uniform stride. */
enum { TALL_TILE_ROWS = 7 };

/* A single row whose weights, more than NEAR_BYTES, are not in the first-level cache takes PANELS_FAR panels at a time:
 * the hardware prefetcher follows that many streams better. 2 to 5 % of a step. */
enum { NEAR_BYTES = 48 * 1024 };

/* Weights of more than REUSED_BYTES, up to twice as many, are taken in groups of PANELS_FAR panels, so that of those which
 * the step before has left in the first-level cache some are reused before they give way to others: a step of 100 to 128
 * units of a plain cell takes 10 % less time. */
enum { REUSED_BYTES = 40 * 1024 };

/* Rows of x at a multiple of this stride share a set of the first-level cache, which holds fewer than a tall tile has:
 * such tiles have at most ROWS_ALIASED rows. 98 instead of 113 GFLOP/s otherwise. */
enum { ALIASED_BYTES = 4096 };

/* Weights of more than WEIGHTS_L2_BYTES come from the third-level cache at every step, of which a core of a server gets
 * 8 bytes a cycle, after some hundred cycles: more than a tile or the hardware prefetches ahead. So the tiles of some
 * columns fetch the weights of the next ones into the second-level cache, a panel each; not those of fewer rows than
 * WEIGHTS_L2_ROWS, which have no load to spare. A step of an LSTM of 512 or 1024 units takes 5 to 14 % less time on a
 * Sapphire Rapids. */
enum { WEIGHTS_L2_BYTES = 512 * 1024, WEIGHTS_L2_ROWS = 5 };

/* The m rows that a tile works on. */
typedef struct tile_rows {
    real *y[TILE_ROWS];          /* out: row of y */
    const real *init[TILE_ROWS]; /* what the chain starts from; all NULL: zero */
    const real *x[TILE_ROWS];    /* row of x */
    crnn_dim t[TILE_ROWS], b[TILE_ROWS]; /* which rows they are */
    int m;
    crnn_dim x_stride;           /* from one row of x to the next; 0: not uniform */
} tile_rows;

/* Its nl panels: the offsets of their columns in a row of y. The first `full` are a line wide; the others hold `cols`
 * columns of each of `gates` gates, `apart` columns from one gate's to the next's, see layout.h. */
typedef struct tile_panels {
    crnn_dim offset[TILE_PANELS], cols, apart;
    int full, gates[TILE_PANELS];
} tile_panels;

/* Panels that are not full go through memory where a tile has several rows, or they several gates: one copy of that code
 * for all tiles, which otherwise was two thirds of their code. A whole line is stored for each gate, and read: the buffer
 * has one line more than the tile. */
enum { PARTIAL_BUFFER = (TILE_ROWS * TILE_PANELS + 1) * LINE };

INLINE int shares_panels(const tile_panels *panels) { return panels->gates[panels->full] > 1; }

NOCLONE static void load_partial(real *buffer, int m, int nl, const real *const *init, const tile_panels *panels)
{
    const int shared = shares_panels(panels);
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < nl; ++j, buffer += LINE) {
            const real *from = init[i] + panels->offset[j];
            line_store(buffer, line_get(from, j < panels->full ? LINE : panels->cols));
            if (shared && j >= panels->full)
                for (int gate = 1; gate < panels->gates[j]; ++gate)
                    line_store(buffer + gate * panels->cols, line_load_n(from + gate * panels->apart, panels->cols));
        }
}

NOCLONE static void store_partial(real *const *y, int m, int nl, const real *buffer, const tile_panels *panels)
{
    const int shared = shares_panels(panels);
    for (int i = 0; i < m; ++i)
        for (int j = 0; j < nl; ++j, buffer += LINE) {
            real *to = y[i] + panels->offset[j];
            line_put(to, line_load(buffer), j < panels->full ? LINE : panels->cols);
            if (shared && j >= panels->full)
                for (int gate = 1; gate < panels->gates[j]; ++gate)
                    line_store_n(to + gate * panels->apart, line_load(buffer + gate * panels->cols), panels->cols);
        }
}

/* acc[i][j] = panel j of init[i]; init[0] NULL: all zero. */
INLINE void tile_start(line acc[TILE_ROWS][TILE_PANELS], const int m, const int nl, const real *const *init,
                       const tile_panels *panels)
{
    if (!init[0]) {
        UNROLL
        for (int i = 0; i < m; ++i)
            UNROLL
            for (int j = 0; j < nl; ++j)
                acc[i][j] = line_set1(0);
    } else if (panels->full == nl) {
        UNROLL
        for (int i = 0; i < m; ++i)
            UNROLL
            for (int j = 0; j < nl; ++j)
                acc[i][j] = line_load(init[i] + panels->offset[j]);
    } else if (m == 1 && !shares_panels(panels)) {
        UNROLL
        for (int j = 0; j < nl; ++j)
            acc[0][j] = line_get(init[0] + panels->offset[j], j < panels->full ? LINE : panels->cols);
    } else {
        real buffer[PARTIAL_BUFFER];
        load_partial(buffer, m, nl, init, panels);
        UNROLL
        for (int i = 0; i < m; ++i)
            UNROLL
            for (int j = 0; j < nl; ++j)
                acc[i][j] = line_load(buffer + (i * nl + j) * LINE);
    }
}

INLINE void tile_finish(line acc[TILE_ROWS][TILE_PANELS], const int m, const int nl, real *const *y,
                        const tile_panels *panels)
{
    if (panels->full == nl) {
        UNROLL
        for (int i = 0; i < m; ++i)
            UNROLL
            for (int j = 0; j < nl; ++j)
                line_store(y[i] + panels->offset[j], acc[i][j]);
    } else if (m == 1 && !shares_panels(panels)) {
        UNROLL
        for (int j = 0; j < nl; ++j)
            line_put(y[0] + panels->offset[j], acc[0][j], j < panels->full ? LINE : panels->cols);
    } else {
        real buffer[PARTIAL_BUFFER];
        UNROLL
        for (int i = 0; i < m; ++i)
            UNROLL
            for (int j = 0; j < nl; ++j)
                line_store(buffer + (i * nl + j) * LINE, acc[i][j]);
        store_partial(y, m, nl, buffer, panels);
    }
}

/* Cache lines that will soon be read or written. A tile issues one prefetch per k: all at once would exceed the
 * processor's outstanding loads. */
enum { PREFETCH_LINES = 20 * TILE_ROWS };
typedef struct prefetch_list {
    crnn_dim next; /* from a tile's weights to the panel that it fetches, in bytes; 0: none */
    int count;
    const void *line[PREFETCH_LINES];
} prefetch_list;

INLINE void prefetch_add(prefetch_list *list, const void *line)
{
    if (list->count < PREFETCH_LINES)
        list->line[list->count++] = line;
}
