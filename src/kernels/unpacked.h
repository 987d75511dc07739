/* Unpacked types: types whose codes are slow to decode one vector at a time. Their matrix-vector
 * kernels unpack up to 2048 columns of a row and then multiply. One copy serves all these types,
 * through the functions in fm_simd128_kernels; a type has no mins, codes of 0..127, and scales of
 * 16 or 32 columns.
 *
 * FM_UNPACKED_SIMD128(name, kind, columns, max_code, bias) makes fm_<name>__simd128 from
 * unpack_<name>, which decodes one group, and
 *   integers_<name>  FM_SCALES_K: a group's integer scales, 256 / columns of them, and its d
 *   scales_<name>    FM_SCALES_F32: a group's scales */
#ifndef FM_KERNELS_UNPACKED_H
#define FM_KERNELS_UNPACKED_H

#include "kernels/coded.h"
#include "kernels/decoder.h"

/* The arguments after `type` are those of fm_gemv_fn (coded.h). */
typedef void fm_gemv_unpacked_fn(const fm_simd128_kernels *type, const uint8_t *w, size_t row_bytes,
                                 const void *x, float *y, size_t n_rows, size_t n_values,
                                 bool accumulate);

fm_gemv_unpacked_fn fm_gemv_unpacked_i16__simd128;

/* Scales of any coded type as f32: d * integer where the type has integers. */
void fm_f32_scales__simd128(const fm_simd128_kernels *type, const uint8_t *group, size_t n,
                            float *scale, float *min);
/* The scales of a K type for strips. */
void fm_k_scales__simd128(const fm_simd128_kernels *type, const uint8_t *group, size_t n,
                          bool dot32, fm_strip_k_row out);

/* Codes over 63 have one pair sum in int16; no kernel of these types packs lanes of sub-blocks. */
#define FM_UNPACKED_SIMD128(name, kind_of_scales, columns, max_code, code_bias)                    \
  static_assert((max_code) <= 127, "codes are 0..127");                                            \
  static_assert((columns) == 16 || (columns) == 32, "sub-blocks have 16 or 32 columns");           \
  static const fm_layout layout_##name = {.kind = FM_SCALES_##kind_of_scales,                      \
                                          .group_bytes =                                           \
                                              sizeof(fm_block_##name) * (256 / FM_VALUES_##name),  \
                                          .block_values = FM_VALUES_##name,                        \
                                          .sub = (columns),                                        \
                                          .n_add = (max_code) > 63 ? 1 : FM_N_ADD(max_code),       \
                                          .bias = (code_bias)};                                    \
  static void unpack_groups_##name(const uint8_t *group, size_t n, uint8_t *codes) {               \
    for (; n; n--, group += layout_##name.group_bytes, codes += FM_GROUP_COLS)                     \
      unpack_##name((const fm_block_##name *)group, codes);                                        \
  }                                                                                                \
  static void gemv_##name##_i16__simd128(const uint8_t *w, size_t row_bytes, const uint8_t *end,   \
                                         const void *x, float *y, size_t n_rows, size_t n_values,  \
                                         bool accumulate) {                                        \
    (void)end;                                                                                     \
    fm_gemv_unpacked_i16__simd128(&fm_##name##__simd128, w, row_bytes, x, y, n_rows, n_values,     \
                                  accumulate);                                                     \
  }                                                                                                \
  FM_UNPACKED_##kind_of_scales(name)
#define FM_UNPACKED_K(name)                                                                        \
  static void integers_of_##name(const uint8_t *group, size_t n, int16_t *scale, float *d) {       \
    for (; n; n--, group += layout_##name.group_bytes, scale += FM_GROUP_COLS / layout_##name.sub) \
      *d++ = integers_##name((const fm_block_##name *)group, scale);                               \
  }                                                                                                \
  const fm_simd128_kernels fm_##name##__simd128 = {.layout = &layout_##name,                       \
                                                   .unpack = unpack_groups_##name,                 \
                                                   .integers = integers_of_##name,                 \
                                                   .gemv_i16 = gemv_##name##_i16__simd128};
#define FM_UNPACKED_F32(name)                                                                      \
  static void scales_of_##name(const uint8_t *group, size_t n, float *scale, float *min) {         \
    (void)min;                                                                                     \
    for (; n; n--, group += layout_##name.group_bytes, scale += FM_GROUP_COLS / layout_##name.sub) \
      scales_##name((const fm_block_##name *)group, scale);                                        \
  }                                                                                                \
  const fm_simd128_kernels fm_##name##__simd128 = {.layout = &layout_##name,                       \
                                                   .unpack = unpack_groups_##name,                 \
                                                   .f32_scales = scales_of_##name,                 \
                                                   .gemv_i16 = gemv_##name##_i16__simd128};

#define FM_VALUES_OF(kind, TYPE, name, number, block_values) FM_VALUES_##name = (block_values),
enum {
  FM_TYPES(FM_VALUES_OF)
};

#endif
