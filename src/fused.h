/* fused-matmul: the public C ABI.
 *
 * Legend, here and everywhere:
 *   W  [n_rows][n_cols]    quantised, in GGUF block layout, row-major, byte for byte as a file holds it
 *   X  [n_tokens][n_cols]  f32, row-major
 *   Y  [n_tokens][n_rows]  f32, row-major, Y = X * W^T
 *
 * Every function returns a status (or a value that cannot fail), never prints, never aborts, and touches no
 * memory before all arguments are checked. On any status but FM_OK the outputs are as they were.
 * Not reentrant: a module instance owns one scratch area. Pointers are offsets into the linear memory and must lie
 * in its heap, which is where fm_alloc takes from. */
#ifndef FUSED_H
#define FUSED_H

#include <stddef.h>
#include <stdint.h>

#define FM_VERSION_MAJOR 0
#define FM_VERSION_MINOR 1
#define FM_VERSION_PATCH 0

#if defined(__GNUC__) || defined(__clang__)
#define FM_DEPRECATED(message) __attribute__((deprecated(message)))
#else
#define FM_DEPRECATED(message)
#endif

typedef enum {
  FM_OK = 0,
  FM_ERR_TYPE = 1,       /* the type is none of the table's */
  FM_ERR_SHAPE = 2,      /* a zero dimension, n_cols % block_values != 0, or a product over the address space */
  FM_ERR_RANGE = 3,      /* a pointer, or the end of what it points to, outside the heap */
  FM_ERR_ALIGN = 4,      /* a pointer is not aligned: 4 for f32, fm_type_alignment for weights */
  FM_ERR_OVERLAP = 5,    /* an output overlaps an input */
  FM_ERR_ACTIVATION = 6, /* the activation mode is none of fm_activation */
  FM_ERR_ISA = 7         /* this module does not hold that instruction set or variant */
} fm_status;

/* Weight types, numbered as GGUF numbers them. */
typedef enum {
  FM_TYPE_F32 = 0,
  FM_TYPE_F16 = 1,
  FM_TYPE_Q4_0 = 2,
  FM_TYPE_Q4_1 = 3,
  FM_TYPE_Q5_0 = 6,
  FM_TYPE_Q5_1 = 7,
  FM_TYPE_Q8_0 = 8,
  FM_TYPE_Q2_K = 10,
  FM_TYPE_Q3_K = 11,
  FM_TYPE_Q4_K = 12,
  FM_TYPE_Q5_K = 13,
  FM_TYPE_Q6_K = 14,
  FM_TYPE_Q8_K = 15,
  FM_TYPE_IQ4_NL = 20,
  FM_TYPE_IQ4_XS = 23,
  FM_TYPE_BF16 = 30,
  FM_TYPE_TQ1_0 = 34,
  FM_TYPE_TQ2_0 = 35,
  FM_TYPE_MXFP4 = 39
} fm_type;

/* What activations become before they meet quantised weights. F32, F16 and BF16 weights always meet f32 activations. */
typedef enum {
  FM_ACT_F32 = 0,   /* stay f32 */
  FM_ACT_INT16 = 1, /* int16 per 256 columns, one f32 scale */
  FM_ACT_INT8 = 2   /* int8 per 256 columns, one f32 scale; where int16 is no slower, int16 serves it */
} fm_activation;

typedef enum {
  FM_ISA_SCALAR = 0,
  FM_ISA_SIMD128 = 1,
  FM_ISA_RELAXED = 2
} fm_isa_id;

/* Which relaxed instruction the int8 kernels of FM_ISA_RELAXED are built on; ignored by the other sets. */
typedef enum {
  FM_DOT_I16 = 0, /* i16x8.relaxed_dot_i8x16_i7x16_s: one instruction on x86 */
  FM_DOT_I32 = 1  /* i32x4.relaxed_dot_i8x16_i7x16_add_s: one instruction on Arm and AVX-VNNI */
} fm_dot;

/* Y = X * W^T; W stays quantised, its blocks are decoded in registers or into a strip of 4 rows in L1.
 *
 * type        fm_type of w
 * w           [n_rows][n_cols / block_values] blocks; fm_type_alignment-aligned
 * x           [n_tokens][n_cols] f32; must not overlap y
 * y           [n_tokens][n_rows] f32; must overlap neither w nor x
 * activation  fm_activation
 * Reads nothing past the last block and writes nothing past the last row; any n_tokens, n_rows >= 1.
 * Returns FM_OK, FM_ERR_TYPE, FM_ERR_ACTIVATION, FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP. */
int32_t fused_matmul(int32_t type, const void *w, const float *x, float *y, uint32_t n_tokens, uint32_t n_rows,
                     uint32_t n_cols, int32_t activation);

/* y[r][c] = the value of w[r][c] as f32, by the formula of the type in f32 arithmetic, bit for bit what ggml computes.
 *
 * w  [n_rows][n_cols / block_values] blocks     y  [n_rows][n_cols] f32; must not overlap w
 * Returns FM_OK, FM_ERR_TYPE, FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP. */
int32_t fm_dequantize_rows(int32_t type, const void *w, float *y, uint32_t n_rows, uint32_t n_cols);

/* w[r] = the blocks of a type that x[r] becomes.
 *
 * type  Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: the bytes every GGUF producer makes; Q4_K, Q5_K, Q6_K: a search for the least
 *       squared error
 * x     [n_rows][n_cols] f32; must not overlap w
 * w     [n_rows][n_cols / block_values] blocks; fm_type_alignment-aligned
 * A NaN counts as 0, and so does a magnitude below 2^-40. Inf, and whatever lies beyond what finite scales reach, counts
 * as the largest magnitude that they do, with its sign: 65504 (the largest f16) for Q4_1 and Q5_1, times 8 for Q4_0, 16
 * for Q5_0, 63 for Q4_K and Q5_K, 127 for Q8_0, 127 * 31 for Q6_K. Scales are therefore always finite.
 * Returns FM_OK, FM_ERR_TYPE (also for the types that cannot be quantised to), FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE
 * or FM_ERR_OVERLAP. */
int32_t fm_quantize_rows(int32_t type, const float *x, void *w, uint32_t n_rows, uint32_t n_cols);

/* Y = X * W^T for the flat 4-bit layout from before Q4_K; value = scale * (code - 8), in plain f32.
 *
 * w       [n_rows][n_cols / 256] blocks of 140 bytes: 12 that are skipped, then 128 of which byte k holds the codes of
 *         values 2k (low nibble) and 2k + 1 (high nibble); any alignment
 * scales  [n_rows][n_cols / 256] f32, one a block
 * x       [n_tokens][n_cols] f32     y  [n_tokens][n_rows] f32; must overlap no input
 * Returns FM_OK, FM_ERR_SHAPE, FM_ERR_ALIGN, FM_ERR_RANGE or FM_ERR_OVERLAP.
 * Deprecated: quantise to Q4_K and use fused_matmul. */
int32_t fused_dequant_matmul_q4k_legacy(const uint8_t *w, const float *scales, const float *x, float *y,
                                        uint32_t n_tokens, uint32_t n_rows, uint32_t n_cols)
    FM_DEPRECATED("use fused_matmul with FM_TYPE_Q4_K");

/* Facts of a type; 0 where the type is unknown. Source: GGUF specification. */
uint32_t fm_type_block_values(int32_t type); /* values a block holds */
uint32_t fm_type_block_bytes(int32_t type);  /* bytes a block takes */
uint32_t fm_type_alignment(int32_t type);    /* bytes a weight pointer must be a multiple of */

/* bytes of heap, 64-byte aligned; NULL when bytes is 0 or the memory cannot grow. Contents are undefined. */
void *fm_alloc(size_t bytes);

/* Gives back what fm_alloc returned; NULL is allowed. */
void fm_free(void *p);

/* FM_VERSION_MAJOR << 16 | FM_VERSION_MINOR << 8 | FM_VERSION_PATCH */
uint32_t fm_version(void);

/* The instruction set in use, an fm_isa_id: at first the best the module holds. */
int32_t fm_isa(void);

/* Uses another instruction set (and fm_dot) of those in this module. Returns FM_OK or FM_ERR_ISA. */
int32_t fm_select(int32_t isa, int32_t dot);

/* How (type, activation) is served now: fm_isa_id of the kernels | fm_activation they get << 8; -1 where the type or
 * the activation is unknown. */
int32_t fm_served_by(int32_t type, int32_t activation);

#endif
