/* The kernels of coded types: types whose blocks hold codes, scales and, some of them, minimums.
 *
 * A type brings a scalar decoder, for the generic scalar kernels, and for the SIMD kernels a
 * decoder (decoder.h) or functions that unpack a group (unpacked.h). Kernel names:
 * <op>_<type>_<activation>__<isa>. */
#ifndef FM_KERNELS_CODED_H
#define FM_KERNELS_CODED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/codes.h"
#include "formats/traits.h"
#include "fused.h"
#include "kernels/strip.h"

/* Decodes one block. */
typedef void fm_decode_fn(const void *block, fm_codes *out);

#define FM_CACHE_LINE_BYTES 64 /* the size on nearly all processors */

typedef enum {
  FM_SCALES_K,
  FM_SCALES_F32
} fm_scale_kind;

/* The facts of a coded type that strips and dequantisation need; see decoder.h. A group is 256
 * columns of one row. */
typedef struct {
  fm_scale_kind kind;
  size_t group_bytes;
  size_t block_values; /* 32, 64, 128 or 256 */
  size_t sub;          /* columns that share a scale: 16 or 32 */
  int32_t bias;        /* subtracted from every code; 0 where the type has mins */
  bool has_min;
  bool wide;    /* codes are int8, not 0..127: see wide_dot.h */
  size_t n_add; /* pair sums of codes and int8 activations that int16 holds: FM_N_ADD of the largest
                   code; 0 where wide */
} fm_layout;

/* The integer matrix-vector product: y[r] = (or += where accumulate) sum over the row's blocks.
 *
 * w    first block of row 0; row r starts r * row_bytes later, and the last one ends at `end`
 * x    fm_act_i8 blocks for a kernel of int8, fm_act_i16 blocks as fm_deal_i16 leaves them for one
 *      of int16; they cover n_values columns, padded with zeros to a multiple of 256
 * n_values  columns, a multiple of block_values */
typedef void fm_gemv_fn(const uint8_t *w, size_t row_bytes, const uint8_t *end, const void *x,
                        float *y, size_t n_rows, size_t n_values, bool accumulate);

/* The products of fm_gemv_fn for up to FM_MANY_TOKENS tokens, whose blocks follow one another, with
 * the same bits: y[t * y_stride + r]. */
#define FM_MANY_TOKENS 16
typedef void fm_gemv_many_fn(const uint8_t *w, size_t row_bytes, const uint8_t *end, const void *x,
                             float *y, size_t n_rows, size_t n_values, size_t n_tokens,
                             size_t y_stride, bool accumulate);

/* The integer matrix-matrix product of a strip: y[t * y_stride + r] = (or += where accumulate)
 * X * strip^T, t = 0..n_tokens-1, r = 0..n_rows-1, n_rows <= FM_STRIP_ROWS. x: fm_act_tile_i8 or
 * fm_act_tile_i16, by the kernel; tokens 4i .. 4i + 3 start at x + i * n_blocks. */
typedef void fm_gemm_fn(const fm_layout *layout, const fm_strip *strip, const void *x, float *y,
                        size_t n_blocks, size_t n_tokens, size_t y_stride, size_t n_rows,
                        bool accumulate);

/* The scalar integer products, generic over the types through their decoder: y[t * y_stride + r] as
 * above. x: fm_act_i8 or fm_act_i16 blocks, token by token, by the kernel. */
typedef void fm_rows_fn(const fm_traits *traits, fm_decode_fn *decode, const uint8_t *w,
                        size_t row_bytes, const void *x, float *y, size_t n_rows, size_t n_values,
                        size_t n_tokens, size_t y_stride, bool accumulate);

/* The SIMD128 kernels of a coded type, made in a file of its own, where the functions are static.
 * unpack and the functions of scales take n groups, one after the other, of which each has 256
 * codes and 256 / sub scales and mins. */
typedef struct {
  const fm_layout *layout;
  void (*unpack)(const uint8_t *group, size_t n, uint8_t *codes);
  /* The integer scales of a K type without mins, and one d a group; where it is not NULL, it stands
   * for the next two (unpacked.h). */
  void (*integers)(const uint8_t *group, size_t n, int16_t *scale, float *d);
  void (*f32_scales)(const uint8_t *group, size_t n, float *scale, float *min);
  void (*k_scales)(const uint8_t *group, size_t n, bool dot32,
                   fm_strip_k_row out); /* NULL for FM_SCALES_F32 */
  fm_gemv_fn *gemv_i16;
} fm_simd128_kernels;

typedef struct {
  fm_gemv_fn *gemv_i8[2];           /* indexed by fm_dot */
  fm_gemm_fn *gemm_i8[2];           /* indexed by fm_dot */
  fm_gemv_many_fn *gemv_many_i8[2]; /* indexed by fm_dot; NULL where the type has none */
} fm_relaxed_kernels;

/* Decodes n_values (<= FM_STRIP_COLS) columns of FM_STRIP_ROWS rows into the strip; columns up to
 * the next multiple of 256 become zero weights. row[i]: first block of row i; rows may be the
 * same. */
typedef void fm_strip_fn(const fm_simd128_kernels *type, const uint8_t *const row[FM_STRIP_ROWS],
                         size_t n_values, fm_strip *strip);

/* y[0 .. n_values) = values of the blocks from w on. */
typedef void fm_dequantize_codes_fn(const fm_simd128_kernels *type, const uint8_t *w, float *y,
                                    size_t n_values);

fm_rows_fn fm_rows_i8__scalar, fm_rows_i16__scalar;
fm_strip_fn fm_strip_i16__simd128, fm_strip_i8_dot16__simd128, fm_strip_i8_dot32__simd128;
fm_dequantize_codes_fn fm_dequantize_codes__simd128;
fm_gemm_fn fm_gemm_i16__simd128;
fm_gemm_fn fm_gemm_i8_k_dot16__relaxed, fm_gemm_i8_k_dot32__relaxed, fm_gemm_i8_f32_dot16__relaxed,
    fm_gemm_i8_f32_dot32__relaxed;

/* fm_decode_<name>__scalar, fm_<name>__simd128 and fm_<name>__relaxed of every coded type. */
#define FM_DECLARE_FLOAT32(name)
#define FM_DECLARE_FLOAT16(name)
#define FM_DECLARE_CODED(name)                                                                     \
  fm_decode_fn fm_decode_##name##__scalar;                                                         \
  extern const fm_simd128_kernels fm_##name##__simd128;                                            \
  extern const fm_relaxed_kernels fm_##name##__relaxed;
#define FM_DECLARE_GRID(name) FM_DECLARE_CODED(name)
#define FM_DECLARE(kind, TYPE, name, number, block_values) FM_DECLARE_##kind(name)
FM_TYPES(FM_DECLARE)

#endif
