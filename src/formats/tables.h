/* The values of 4-bit codes that are not linear. Source: ggml's published tables; MXFP4: OCP
 * Microscaling, e2m1. */
#ifndef FM_FORMATS_TABLES_H
#define FM_FORMATS_TABLES_H

#include <stdint.h>

/* IQ4_NL and IQ4_XS */
static const int8_t fm_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

/* MXFP4: twice the e2m1 value. Code 8, minus zero, is plain zero. */
static const int8_t fm_mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

#endif
