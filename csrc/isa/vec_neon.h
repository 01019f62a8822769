// aarch64 NEON: 4 floats or 2 doubles, truth values as lanes of all ones. Included by vec.h alone.
#include <arm_neon.h>

#define V_HAS_FMA
#define V_HAS_ROUND
#if TW_BITS == 32
#define I(op) op##_f32
#else
#define I(op) op##_f64
#endif
typedef ivec mask;

INLINE vec v_select(mask m, vec a, vec b) { return v_from_bits((m & v_bits(a)) | (~m & v_bits(b))); }

INLINE vec v_set1(real a) { return I(vdupq_n)(a); }
INLINE mask v_lanes(ptrdiff_t n) {
    mask m;
    for (int i = 0; i < LANES; i++) m[i] = -(i < n);
    return m;
}
INLINE vec v_load_n(const real *p, ptrdiff_t n) {
    vec v = {0};
    for (int i = 0; i < LANES; i++)
        if (i < n) v[i] = p[i];
    return v;
}
INLINE void v_store_n(real *p, vec a, ptrdiff_t n) {
    for (int i = 0; i < LANES; i++)
        if (i < n) p[i] = a[i];
}
INLINE void v_stream(real *p, vec a) { *(vec *)p = a; }
INLINE void v_fence(void) {}

INLINE vec v_fma(vec a, vec b, vec c) { return I(vfmaq)(c, a, b); }
INLINE vec v_fnma(vec a, vec b, vec c) { return I(vfmsq)(c, a, b); }
INLINE vec v_min(vec a, vec b) { return v_select(a < b, a, b); } // vminq and vmaxq order -0 below 0; x86 does not
INLINE vec v_max(vec a, vec b) { return v_select(a > b, a, b); }
INLINE vec v_sqrt(vec a) { return I(vsqrtq)(a); }
INLINE vec v_round(vec a) { return I(vrndnq)(a); }

INLINE mask v_lt(vec a, vec b) { return a < b; }
INLINE mask v_le(vec a, vec b) { return a <= b; }
INLINE mask v_unord(vec a, vec b) { return ~((a == a) & (b == b)); }

INLINE vec v_lookup(const real *table, ivec i, int n) {
    vec v;
    for (int lane = 0; lane < LANES; lane++) v[lane] = table[i[lane] & (n - 1)];
    return v;
}

#if TW_BITS == 32
INLINE ivec v_to_int(vec a) { return vcvtnq_s32_f32(a); }
INLINE ivec v_larger(ivec a, ivec b) { return vmaxq_s32(a, b); }
INLINE ivec v_larger_unsigned(ivec a, ivec b) { return (ivec)vmaxq_u32((uint32x4_t)a, (uint32x4_t)b); }
INLINE ivec v_load_s16(const int16_t *p) { return vmovl_s16(vld1_s16(p)); }
INLINE ivec v_load_u16(const uint16_t *p) { return (ivec)vmovl_u16(vld1_u16(p)); }
INLINE ivec v_load_s8(const int8_t *p) {
    uint32_t four;
    memcpy(&four, p, 4);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}
INLINE ivec v_load_u8(const uint8_t *p) {
    uint32_t four;
    memcpy(&four, p, 4);
    return (ivec)vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
INLINE ivec v_load_s32_n(const int32_t *p, ptrdiff_t n) {
    ivec v = {0};
    for (int i = 0; i < LANES; i++)
        if (i < n) v[i] = p[i];
    return v;
}
INLINE void v_store_8(uint8_t *p, ivec a) {
    const int16x4_t low = vmovn_s32(a);
    const uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(low, low))), 0);
    memcpy(p, &four, 4);
}
INLINE void v_store_bytes(uint8_t *p, ivec a, ivec b, ivec c, ivec d) {
    const int16x8_t ab = vcombine_s16(vqmovn_s32(a), vqmovn_s32(b)), cd = vcombine_s16(vqmovn_s32(c), vqmovn_s32(d));
    vst1q_u8(p, vcombine_u8(vqmovun_s16(ab), vqmovun_s16(cd)));
}
INLINE void v_store_16(uint16_t *p, ivec a) { vst1_u16(p, vreinterpret_u16_s16(vmovn_s32(a))); }
#endif
#undef I
