//! Where frames enter and leave a worker.
//!
//! A port's queue comes in two halves that share no frame: the receiving half owns the
//! frames that the kernel fills, the transmitting half owns those that it empties. A frame
//! is therefore always in exactly one place, goes round in its own half and cannot leak into
//! another; what a worker forwards is *written* from a received frame into a transmit frame.
//! That one copy is the price (see `docs/frames.md` for what it costs and what it buys).

pub mod memory;
pub mod xdp;

use std::os::fd::RawFd;

/// How many frames a worker takes from one queue before it looks at the next.
pub const BURST: usize = 64;

/// The receiving half of one queue of a port.
pub trait Receive: Send {
    /// Takes up to [`BURST`] frames off the ring and holds them; says how many.
    ///
    /// Called only while none are held.
    fn take(&mut self) -> usize;

    /// The bytes of held frame `index`, from the Ethernet header on, without FCS.
    ///
    /// # Panics
    /// If `index` is not below what the last [`take`](Self::take) returned.
    fn frame(&mut self, index: usize) -> &mut [u8];

    /// Gives every held frame back, to be filled again.
    fn release(&mut self);

    /// The descriptor whose readability says that frames wait, where there is one.
    fn fd(&self) -> Option<RawFd>;

    /// The slow work, off the packet path; called some ten times a second.
    fn tick(&mut self) {}

    /// What the kernel says it dropped before we saw it. Reads it anew: not for the packet path.
    fn kernel_drops(&self) -> KernelDrops;

    /// Where the frames of this half are.
    fn census(&mut self) -> Census;
}

/// The transmitting half of one queue of a port.
pub trait Transmit: Send {
    /// Queues one frame of `length` bytes and lends these to be written, every one of them. It
    /// leaves with the next [`submit`](Self::submit).
    ///
    /// # Errors
    /// [`PutError`] says why there is no place for it; nothing was queued.
    fn lend(&mut self, length: usize) -> Result<&mut [u8], PutError>;

    /// Queues a copy of `head` and `body`, as one frame. See [`lend`](Self::lend).
    ///
    /// # Errors
    /// [`PutError`] says why there is no place for it; nothing was queued.
    fn put(&mut self, head: &[u8], body: &[u8]) -> Result<(), PutError> {
        let frame = self.lend(head.len() + body.len())?;
        let (for_head, for_body) = frame.split_at_mut(head.len());
        for_head.copy_from_slice(head);
        for_body.copy_from_slice(body);
        Ok(())
    }

    /// Sends what was put, and returns how many frames the kernel has yet to take.
    ///
    /// Returns at once when there is nothing to send. Does not wait: frames that the kernel
    /// cannot take now stay queued for the next call.
    fn submit(&mut self) -> usize;

    /// The slow work, off the packet path; called some ten times a second.
    fn tick(&mut self) {}

    /// Where the frames of this half are.
    fn census(&mut self) -> Census;
}

/// Why a frame could not be queued for transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutError {
    /// Every transmit frame is with the kernel.
    Full,
    /// It does not fit one frame.
    TooLong,
}

/// Frames that the kernel lost before a worker saw them (`struct xdp_statistics`,
/// `include/uapi/linux/if_xdp.h`). Totals since the queue was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelDrops {
    /// Too long for one frame of ours, or otherwise not to be delivered.
    pub rx_dropped: u64,
    /// The receive ring was full: the worker did not keep up.
    pub rx_ring_full: u64,
    /// No frame to receive into: the fill ring had run dry.
    pub rx_fill_ring_empty: u64,
    /// Transmit descriptors the kernel refused; always 0 unless we have a bug.
    pub tx_invalid: u64,
}

/// Where the frames of one half are at this instant; the parts always sum to `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Frames this half was made with.
    pub total: usize,
    /// In a ring shared with the kernel, or inside the kernel.
    pub kernel: usize,
    /// Held by the worker, or free for its next frame.
    pub ours: usize,
}
