//! A frame of an uplink, as the steering program sees it. Checked reads only.

use aya_ebpf::programs::XdpContext;

use crate::ours::Bytes;

/// The frame that the program was called for.
pub struct Frame<'a>(pub &'a XdpContext);

impl Bytes for Frame<'_> {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.0.data() + offset;
        if at + N > self.0.data_end() {
            return None;
        }
        // SAFETY: all `N` bytes lie between `data` and `data_end`, as the line above found; the
        // kernel keeps that range readable for this call. Bytes have no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }
}
