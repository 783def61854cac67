use std::{
    arch::x86_64::{__cpuid, _mm_clmulepi64_si128, _mm_crc32_u8, _mm_crc32_u64},
    arch::x86_64::{_mm_cvtsi64_si128, _mm_cvtsi128_si64},
    sync::atomic::{AtomicU8, Ordering},
};

/// The polynomial, lowest bit first.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Of each of the three streams that are summed at once, since one sum waits for the one before it.
const STREAM_BYTES: usize = 256;
/// Multiplied by these, sums move over what follows them: two streams, and one.
const OVER_TWO: i64 = power(16 * STREAM_BYTES - 33);
const OVER_ONE: i64 = power(8 * STREAM_BYTES - 33);

/// The remainder of x to the power of `exponent`.
const fn power(exponent: usize) -> i64 {
    let (mut power, mut count) = (1_u32 << 31, 0);
    while count < exponent {
        let carry = if power & 1 == 1 { POLYNOMIAL } else { 0 };
        (power, count) = (power >> 1 ^ carry, count + 1);
    }
    power as i64
}

/// Whether the processor has the instructions: the standard library asks a dozen questions to find
/// out, each of which costs some 5 µs in a virtual machine, and this one asks one.
fn is_supported() -> bool {
    const UNKNOWN: u8 = 0;
    const NO: u8 = 1;
    const YES: u8 = 2;
    const PCLMULQDQ_AND_SSE4_2: u32 = 1 << 1 | 1 << 20;
    static SUPPORTED: AtomicU8 = AtomicU8::new(UNKNOWN);
    match SUPPORTED.load(Ordering::Relaxed) {
        UNKNOWN => {
            #[allow(unused_unsafe, reason = "newer compilers take it for safe")]
            // SAFETY: every processor of this architecture has the instruction, and leaf 1.
            let features = unsafe { __cpuid(1) }.ecx;
            let yes = features & PCLMULQDQ_AND_SSE4_2 == PCLMULQDQ_AND_SSE4_2;
            SUPPORTED.store(if yes { YES } else { NO }, Ordering::Relaxed);
            yes
        }
        known => known == YES,
    }
}

/// `None` where the processor has no instructions for it.
#[inline]
pub(super) fn append(crc: u32, bytes: &[u8]) -> Option<u32> {
    // SAFETY: the processor has the instructions.
    is_supported().then(|| unsafe { sum(crc, bytes) })
}

#[target_feature(enable = "sse4.2,pclmulqdq")]
fn sum(crc: u32, bytes: &[u8]) -> u32 {
    let mut sum = u64::from(!crc);
    let (blocks, rest) = bytes.as_chunks::<{ 3 * STREAM_BYTES }>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        let (first, others) = words.split_at(STREAM_BYTES / 8);
        let (second, third) = others.split_at(STREAM_BYTES / 8);
        let mut sums = [sum, 0, 0];
        for ((a, b), c) in first.iter().zip(second).zip(third) {
            sums[0] = _mm_crc32_u64(sums[0], u64::from_le_bytes(*a));
            sums[1] = _mm_crc32_u64(sums[1], u64::from_le_bytes(*b));
            sums[2] = _mm_crc32_u64(sums[2], u64::from_le_bytes(*c));
        }
        let two = multiply(sums[0], OVER_TWO);
        let one = multiply(sums[1], OVER_ONE);
        sum = sums[2] ^ _mm_crc32_u64(0, two ^ one);
    }
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        sum = _mm_crc32_u64(sum, u64::from_le_bytes(*word));
    }
    #[expect(clippy::cast_possible_truncation, reason = "the upper half is 0")]
    let mut sum = sum as u32;
    for byte in rest {
        sum = _mm_crc32_u8(sum, *byte);
    }
    !sum
}

/// The lower half of the product without carries; both factors have 32 bits.
#[target_feature(enable = "sse4.2,pclmulqdq")]
fn multiply(sum: u64, power: i64) -> u64 {
    let product = _mm_clmulepi64_si128::<0>(
        _mm_cvtsi64_si128(sum.cast_signed()),
        _mm_cvtsi64_si128(power),
    );
    _mm_cvtsi128_si64(product).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_table() {
        let bytes: Vec<u8> = (0..5_000_u32)
            .map(|at| ((at * at) >> 3).to_le_bytes()[0])
            .collect();
        for len in (0..40).chain(750..800).chain([1_535, 1_536, 1_537, 4_990]) {
            for from in [0, 1, 7] {
                let text = &bytes[from..from + len];
                for crc in [0, 1, u32::MAX, 0x1234_5678] {
                    let expected = ::crc32c::crc32c_append(crc, text);
                    assert_eq!(
                        append(crc, text).unwrap_or(expected),
                        expected,
                        "{from} {len}"
                    );
                }
            }
        }
        assert_eq!(append(0, b"123456789").unwrap_or(0xe306_9283), 0xe306_9283);
    }
}
