//! Memory of large tables: on large pages, and brought near ahead of time.
//!
//! A lookup in a table of many megabytes misses the TLB, and in a virtual machine each such miss
//! is a walk through two sets of page tables: it costs more than the lookup.

#![expect(unsafe_code, reason = "no safe crate advises about memory that is already there, or prefetches")]

use std::mem::MaybeUninit;

/// A vector with room for `capacity` elements, on large pages where the kernel has them and the
/// vector is large enough. Memory is taken as it is touched.
pub(crate) fn vec<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    advise(vec.spare_capacity_mut());
    vec
}

/// Asks for large pages. The answer does not matter: small ones work as well, if slower.
fn advise<T>(memory: &mut [MaybeUninit<T>]) {
    const LARGE_PAGE: usize = 2 << 20;
    let bytes = memory.as_mut_ptr_range();
    let start = bytes.start.addr().next_multiple_of(PAGE);
    let length = (bytes.end.addr() & !(PAGE - 1)).saturating_sub(start);
    if length < LARGE_PAGE {
        return;
    }
    // SAFETY: the range begins and ends at page boundaries within `memory`, which is exclusively
    // ours for this call, and MADV_HUGEPAGE changes only how memory is mapped, never its contents
    // (madvise(2)).
    let _ = unsafe { libc::madvise(bytes.start.with_addr(start).cast(), length, libc::MADV_HUGEPAGE) };
}

/// The smallest page there is on the machines we know; a larger true size makes the kernel refuse.
const PAGE: usize = 4096;

/// Starts to bring the cache line at the start of `value` near, without waiting for it.
#[inline]
pub(crate) fn prefetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch neither reads nor writes as far as a program can tell and cannot
        // fault (Intel SDM, PREFETCHh); the address is that of a reference besides.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::hint::black_box(value);
}
