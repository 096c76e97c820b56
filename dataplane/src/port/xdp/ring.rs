//! The rings between us and the kernel: arrays in shared memory with two indices that only grow.
//!
//! One side writes entries and moves the *producer* index, the other reads them and moves the
//! *consumer* index (`net/xdp/xsk_queue.h`). Each side keeps its own index and looks at the
//! other's only when it seems to have run out.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{memory::Mapping, socket};

/// An entry of a ring: plain data of the size that the kernel expects.
pub(super) trait Entry: Copy {}

/// Of the fill and completion rings: the address of a frame.
impl Entry for u64 {}

/// Of the receive and transmit rings: where in the frames a packet is (`struct xdp_desc`).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) options: u32,
}

impl Entry for Descriptor {}

/// What both ends of a ring have.
#[derive(Debug)]
struct Ring<T> {
    memory: Mapping,
    offsets: Offsets,
    size: u32,
    entries: PhantomData<T>,
}

/// Where in a ring's memory its parts are.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
}

impl<T: Entry> Ring<T> {
    /// Maps the ring of `socket` that is of `kind` and has `size` entries, a power of two.
    fn map(socket: BorrowedFd<'_>, kind: Kind, size: u32) -> io::Result<Self> {
        let all = socket::offsets(socket)?;
        let (place, page_offset) = match kind {
            Kind::Receive => (all.rx, libc::XDP_PGOFF_RX_RING),
            Kind::Transmit => (all.tx, libc::XDP_PGOFF_TX_RING),
            Kind::Fill => (all.fr, libc::XDP_UMEM_PGOFF_FILL_RING.cast_signed()),
            Kind::Completion => (all.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING.cast_signed()),
        };
        let within = |offset: u64| usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidData);
        let offsets = Offsets {
            producer: within(place.producer)?,
            consumer: within(place.consumer)?,
            flags: within(place.flags)?,
            entries: within(place.desc)?,
        };
        let length = offsets.entries + size as usize * size_of::<T>();
        let fits = |offset: usize, align: usize| offset.is_multiple_of(align) && offset + align <= length;
        let indices = [offsets.producer, offsets.consumer, offsets.flags];
        if !size.is_power_of_two()
            || !indices.iter().all(|&at| fits(at, 4))
            || !offsets.entries.is_multiple_of(align_of::<T>())
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("ring of {size} entries at {offsets:?}")));
        }
        let memory = Mapping::new(socket.as_fd(), page_offset, length)?;
        Ok(Self { memory, offsets, size, entries: PhantomData })
    }

    fn index(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `map` checked that four aligned bytes are at each of the three offsets that
        // this is called with; they stay mapped while `self` is borrowed, and both we and the
        // kernel access them as one 32-bit number.
        unsafe { AtomicU32::from_ptr(self.memory.start().as_ptr().add(offset).cast()) }
    }

    fn producer(&self) -> &AtomicU32 {
        self.index(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.index(self.offsets.consumer)
    }

    fn needs_wakeup(&self) -> bool {
        // A hint that is looked at again and again; nothing is read by it.
        self.index(self.offsets.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// Where the entry of running number `index` is.
    fn entry(&self, index: u32) -> NonNull<T> {
        let place = self.offsets.entries + (index & (self.size - 1)) as usize * size_of::<T>();
        // SAFETY: `map` mapped `size` entries from `offsets.entries` on, of which the mask picks
        // one, at an alignment that it checked.
        unsafe { self.memory.start().add(place).cast() }
    }

    /// Reads the entries of running numbers `from` to `to` without taking them.
    fn read(&self, from: u32, to: u32) -> Vec<T> {
        let count = to.wrapping_sub(from).min(self.size);
        // SAFETY: `entry` points to mapped memory. What the other side may be writing there
        // meanwhile is between `to` and `from + size`, which are not read.
        (0..count).map(|step| unsafe { self.entry(from.wrapping_add(step)).read() }).collect()
    }
}

/// Which of a socket's rings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// From the kernel: packets that came in.
    Receive,
    /// To the kernel: packets to be sent.
    Transmit,
    /// To the kernel: frames to receive into.
    Fill,
    /// From the kernel: frames that have been sent.
    Completion,
}

/// A ring that we fill and the kernel empties.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Our index.
    index: u32,
    /// The kernel's index when last looked at.
    theirs: u32,
}

impl<T: Entry> Producer<T> {
    /// Maps the ring, and goes on where whoever had it before has left off.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub(super) fn map(socket: BorrowedFd<'_>, kind: Kind, size: u32) -> io::Result<Self> {
        let ring = Ring::map(socket, kind, size)?;
        // Ours: written by nobody else. Theirs: pairs with the kernel's release in
        // `__xskq_cons_release`.
        let (index, theirs) = (ring.producer().load(Ordering::Relaxed), ring.consumer().load(Ordering::Acquire));
        Ok(Self { ring, index, theirs })
    }

    /// How many of `want` entries there is room for.
    pub(super) fn room(&mut self, want: usize) -> usize {
        let mut room = self.ring.size - self.index.wrapping_sub(self.theirs);
        if (room as usize) < want {
            room = self.ring.size - self.pending();
        }
        want.min(room as usize)
    }

    /// Puts as many of `entries` into the ring as fit, from the first on; says how many.
    pub(super) fn offer(&mut self, entries: &[T]) -> usize {
        let fits = self.room(entries.len());
        let mut index = self.index;
        for entry in &entries[..fits] {
            // SAFETY: `index` is one of those that `room` found beyond what the kernel has yet
            // to read, so only we touch it; `entry` points to mapped memory.
            unsafe { self.ring.entry(index).write(*entry) };
            index = index.wrapping_add(1);
        }
        if fits > 0 {
            self.index = index;
            // Pairs with the kernel's acquire in `__xskq_cons_peek`: it sees the entries.
            self.ring.producer().store(index, Ordering::Release);
        }
        fits
    }

    /// How many entries the kernel has yet to take. Looks anew.
    pub(super) fn pending(&mut self) -> u32 {
        // Pairs with the kernel's release in `__xskq_cons_release`: it has read the entries.
        self.theirs = self.ring.consumer().load(Ordering::Acquire);
        self.index.wrapping_sub(self.theirs)
    }

    /// Whether the kernel wants a system call before it looks at the ring.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    /// The entries that the kernel has yet to take.
    pub(super) fn contents(&mut self) -> Vec<T> {
        let pending = self.pending();
        self.ring.read(self.index.wrapping_sub(pending), self.index)
    }
}

/// A ring that the kernel fills and we empty.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// Our index.
    index: u32,
    /// The kernel's index when last looked at.
    theirs: u32,
}

impl<T: Entry> Consumer<T> {
    /// Maps the ring, and goes on where whoever had it before has left off.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub(super) fn map(socket: BorrowedFd<'_>, kind: Kind, size: u32) -> io::Result<Self> {
        let ring = Ring::map(socket, kind, size)?;
        // Ours: written by nobody else.
        let index = ring.consumer().load(Ordering::Relaxed);
        Ok(Self { ring, index, theirs: index })
    }

    /// Takes entries until `into` is full or there are no more; says how many.
    pub(super) fn take(&mut self, into: &mut [T]) -> usize {
        if self.theirs == self.index {
            self.look();
        }
        let count = into.len().min(self.theirs.wrapping_sub(self.index) as usize);
        let mut index = self.index;
        for place in &mut into[..count] {
            // SAFETY: `index` is before `theirs`, so the kernel has written the entry, and will
            // not again before we move the consumer index past it; `entry` points to mapped
            // memory.
            *place = unsafe { self.ring.entry(index).read() };
            index = index.wrapping_add(1);
        }
        if count > 0 {
            self.index = index;
            // Pairs with the kernel's acquire in `xskq_prod_nb_free`: we have read the entries.
            self.ring.consumer().store(index, Ordering::Release);
        }
        count
    }

    fn look(&mut self) {
        // Pairs with the kernel's release in `xskq_prod_submit`: we see the entries.
        self.theirs = self.ring.producer().load(Ordering::Acquire);
    }

    /// The entries that wait for us.
    pub(super) fn contents(&mut self) -> Vec<T> {
        self.look();
        self.ring.read(self.index, self.theirs)
    }
}
