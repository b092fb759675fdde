//! Memory that is needed soon, asked for ahead, so that several places are waited for at once. A hint: nothing is
//! read that anybody sees, and elsewhere than on x86-64 nothing is done.
#![expect(unsafe_code, reason = "the instruction takes a raw address")]

/// The cache line of the byte at `at`, if there is one.
#[inline]
pub fn prefetch(bytes: &[u8], at: usize) {
    #[cfg(target_arch = "x86_64")]
    if let Some(byte) = bytes.get(at) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: any address may be prefetched; this one is even readable.
        unsafe { _mm_prefetch::<_MM_HINT_T0>((&raw const *byte).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, at);
}
