/* ldmatrix and mma.sync. Lane l holds elements of row g = l/4 and of columns around q = l%4 of each fragment; the
   positions are those of the PTX manual's figures, written as formulas.

   Floating-point products and C are summed in double in the order of k and rounded once to the type of D: the hardware
   keeps fewer bits and does not say in which order. Integer sums are exact, modulo 2^32 or clamped (.satfinite). */
#include "internal.h"

static u32 half_of(u32 x, u32 i) { return x >> (16 * i) & 0xffff; }

/* in[0] of lane 8i + r: the address of row r of matrix i */
static void ldmatrix(Warp *w, u32 matrices, bool transposed) {
    for (u32 i = 0; i < matrices; i++) {
        u16 rows[8][8];
        for (u32 r = 0; r < 8; r++) {
            Thread *t = &w->lanes[8 * i + r];
            const u8 *row = try_shared_load(t, t->in[0], 16, t->site);
            if (!row) return;
            memcpy(rows[r], row, 16);
        }
        for (u32 l = 0; l < LANES; l++) {
            const u32 g = l / 4, q = l % 4;
            w->lanes[l].out[i] = transposed ? rows[2 * q][g] | (u32)rows[2 * q + 1][g] << 16
                                            : rows[g][2 * q] | (u32)rows[g][2 * q + 1] << 16;
        }
    }
}

void op_ldmatrix_x1(Warp *w, u32 present) { (void)present; ldmatrix(w, 1, false); }
void op_ldmatrix_x2(Warp *w, u32 present) { (void)present; ldmatrix(w, 2, false); }
void op_ldmatrix_x4(Warp *w, u32 present) { (void)present; ldmatrix(w, 4, false); }
void op_ldmatrix_x1_trans(Warp *w, u32 present) { (void)present; ldmatrix(w, 1, true); }
void op_ldmatrix_x2_trans(Warp *w, u32 present) { (void)present; ldmatrix(w, 2, true); }
void op_ldmatrix_x4_trans(Warp *w, u32 present) { (void)present; ldmatrix(w, 4, true); }

void op_movmatrix(Warp *w, u32 present) {
    (void)present;
    for (u32 l = 0; l < LANES; l++) {
        const u32 g = l / 4, q = l % 4;
        w->lanes[l].out[0] = half_of(w->lanes[8 * q + g / 2].in[0], g % 2) |
                             half_of(w->lanes[8 * q + 4 + g / 2].in[0], g % 2) << 16;
    }
}

/* ---- floating point: A is 16 x k, B is k x 8, C and D are 16 x 8 ---- */

enum { F16, BF16, TF32 };

static f64 element(u32 bits, int type) {
    return type == F16 ? from_f16((u16)bits) : type == BF16 ? from_bf16((u16)bits) : float32(bits & 0xffffe000);
}

/* in: A in k/4 registers (k/2 of tf32), B in half as many, C in 4 (f32) or 2 (f16) */
static inline __attribute__((always_inline)) void mma(Warp *w, int type, u32 k, bool half) {
    const u32 pack = type == TF32 ? 1 : 2, step = 4 * pack, a_count = 2 * k / step, b_count = k / step;
    f64 a[16][16], b[16][8];
    for (u32 l = 0; l < LANES; l++) {
        const u32 g = l / 4, q = l % 4, *in = w->lanes[l].in;
        for (u32 r = 0; r < a_count; r++)
            for (u32 h = 0; h < pack; h++)
                a[g + 8 * (r & 1)][pack * q + h + step * (r >> 1)] =
                    element(type == TF32 ? in[r] : half_of(in[r], h), type);
        for (u32 r = 0; r < b_count; r++)
            for (u32 h = 0; h < pack; h++)
                b[pack * q + h + step * r][g] =
                    element(type == TF32 ? in[a_count + r] : half_of(in[a_count + r], h), type);
    }
    f64 sums[16][8];
    for (u32 l = 0; l < LANES; l++) {
        const u32 g = l / 4, q = l % 4, *in = w->lanes[l].in + a_count + b_count;
        for (u32 i = 0; i < 4; i++)
            sums[g + 8 * (i >> 1)][2 * q + (i & 1)] =
                half ? from_f16((u16)half_of(in[i >> 1], i & 1)) : float32(in[i]);
    }
    for (u32 row = 0; row < 16; row++)
        for (u32 i = 0; i < k; i++)
            for (u32 column = 0; column < 8; column++) sums[row][column] += a[row][i] * b[i][column];
    for (u32 l = 0; l < LANES; l++) {
        const u32 g = l / 4, q = l % 4;
        u32 *out = w->lanes[l].out;
        for (u32 i = 0; i < 4; i++) {
            const f64 sum = sums[g + 8 * (i >> 1)][2 * q + (i & 1)];
            if (!half) out[i] = bits32(nan32((f32)sum));
            else if (i & 1) out[i >> 1] |= (u32)to_f16(sum) << 16;
            else out[i >> 1] = to_f16(sum);
        }
    }
}

#define MMA(name, type, k, half) \
    void op_mma_##name(Warp *w, u32 present) { (void)present; mma(w, type, k, half); }
MMA(m16n8k16_f32_f16, F16, 16, false)
MMA(m16n8k16_f32_bf16, BF16, 16, false)
MMA(m16n8k16_f16_f16, F16, 16, true)
MMA(m16n8k8_f32_f16, F16, 8, false)
MMA(m16n8k8_f32_bf16, BF16, 8, false)
MMA(m16n8k8_f16_f16, F16, 8, true)
MMA(m16n8k8_f32_tf32, TF32, 8, false)
MMA(m16n8k4_f32_tf32, TF32, 4, false)

/* ---- bytes: A is m x k, B is k x 8, C and D are m x 8 words ---- */

enum { A_SIGNED = 1, B_SIGNED = 2, CLAMPED = 4 };  /* in the word after C */

static s32 byte_of(u32 x, u32 i, bool is_signed) {
    const u8 byte = (u8)(x >> (8 * i));
    return is_signed ? (s8)byte : byte;
}

static inline __attribute__((always_inline)) void mma_bytes(Warp *w, u32 m, u32 k) {
    const u32 halves = m / 8, a_count = halves * k / 16, b_count = k / 16, c_count = 2 * halves;
    const u32 flags = w->lanes->in[a_count + b_count + c_count];
    s32 a[16][32], b[32][8];
    for (u32 l = 0; l < LANES; l++) {
        const u32 g = l / 4, q = l % 4, *in = w->lanes[l].in;
        for (u32 i = 0; i < 4; i++) {
            for (u32 r = 0; r < a_count; r++)
                a[g + 8 * (r % halves)][4 * q + i + 16 * (r / halves)] = byte_of(in[r], i, flags & A_SIGNED);
            for (u32 r = 0; r < b_count; r++)
                b[4 * q + i + 16 * r][g] = byte_of(in[a_count + r], i, flags & B_SIGNED);
        }
    }
    for (u32 l = 0; l < LANES; l++) {
        const u32 g = l / 4, q = l % 4;
        Thread *t = &w->lanes[l];
        for (u32 i = 0; i < c_count; i++) {
            const u32 row = g + 8 * (i >> 1), column = 2 * q + (i & 1);
            s64 sum = (s32)t->in[a_count + b_count + i];
            for (u32 j = 0; j < k; j++) sum += a[row][j] * b[j][column];
            if (flags & CLAMPED) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
            t->out[i] = (u32)sum;
        }
    }
}

void op_mma_m16n8k16_s32(Warp *w, u32 present) { (void)present; mma_bytes(w, 16, 16); }
void op_mma_m16n8k32_s32(Warp *w, u32 present) { (void)present; mma_bytes(w, 16, 32); }
void op_mma_m8n8k16_s32(Warp *w, u32 present) { (void)present; mma_bytes(w, 8, 16); }
