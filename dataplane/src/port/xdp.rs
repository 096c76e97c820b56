//! One queue of one interface, by AF_XDP.
//!
//! Each queue has a UMEM of its own. Its frames are dealt out once: the first so many to the
//! receiving half, the others to the transmitting half, and no frame ever changes sides. So a
//! half is the only one to name its frames to the kernel, and the two may live on different
//! threads.
//!
//! A frame on the receive side is in the fill ring, inside the kernel, in the receive ring, held
//! by the worker, or waiting to go back to the fill ring; on the transmit side it is free, put,
//! in the transmit ring, inside the kernel, or in the completion ring. What the kernel has is
//! counted as it is handed over and handed back, and [`Census`] adds that to what is on our
//! side of the fence.
//!
//! A received packet longer than a frame has no place here: multi-buffer is not asked for, the
//! kernel drops such a packet and counts it in [`KernelDrops::rx_dropped`].
//!
//! A queue outlives the process that opened it where somebody [keeps](Kept) its descriptors:
//! packets gather in the rings until the next process [resumes](XdpSocket::resume).

#![expect(unsafe_code, reason = "frames are shared with the kernel, by the rules of AF_XDP")]

mod memory;
mod resume;
mod ring;
mod socket;

use super::{BURST, Census, KernelDrops, PutError, Receive, Transmit};
use crate::{
    link::{Link, LinkError},
    memlock,
};
use memory::Frames;
use resume::Limbo;
use ring::{Consumer, Descriptor, Kind, Producer};
use socket::Sizes;
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub use resume::{Kept, ResumeError};

/// Which queue to open, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// The interface, by its name in the calling thread's network namespace.
    pub interface: String,
    /// The queue, from 0.
    pub queue: u32,
    /// Frames to receive into; also the size of the fill and receive rings. A power of two.
    pub rx_frames: u32,
    /// Frames to send from; also the size of the transmit and completion rings. A power of two.
    pub tx_frames: u32,
    /// Whether the device is to read and write our frames itself.
    pub bind: BindMode,
}

impl Config {
    /// Queue `queue` of `interface`, the rest as it serves most.
    pub fn new(interface: &str, queue: u32) -> Self {
        Self { interface: interface.to_owned(), queue, rx_frames: 1024, tx_frames: 1024, bind: BindMode::Auto }
    }
}

/// Who moves bytes between the device and our frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BindMode {
    /// The device where the driver can, else the kernel.
    #[default]
    Auto,
    /// The kernel.
    Copy,
    /// The device or not at all.
    ZeroCopy,
}

/// Why a queue could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The interface could not be looked at.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The configuration cannot be met by any interface.
    #[error("{what} is {value}, and must be {must}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Its value.
        value: u32,
        /// What it must be.
        must: &'static str,
    },
    /// The kernel would not lock the memory that frames are in.
    #[error(
        "XDP_UMEM_REG: cannot lock {needed} bytes of frames; RLIMIT_MEMLOCK is {} (`ulimit -l`, \
         or LimitMEMLOCK= of a systemd unit), or the machine is short of memory",
        .limit.map_or("unlimited".to_owned(), |limit| format!("{limit} bytes"))
    )]
    LockedMemory {
        /// How much this queue needs.
        needed: u64,
        /// How much this process may lock.
        limit: Option<u64>,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The frames could not be made.
    #[error("UMEM of {needed} bytes for {interface} queue {queue}")]
    Umem {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// How much memory it was to have.
        needed: u64,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The socket could not be made or bound; `EBUSY` means that another one has the queue.
    #[error("AF_XDP socket on {interface} queue {queue}")]
    Socket {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// Opens one queue, in two halves.
pub struct XdpSocket;

impl XdpSocket {
    /// Opens the queue that `config` names and gives its receive frames to the kernel. Frames
    /// arrive once [`Steer::serve`](crate::attach::Steer::serve) has the socket.
    ///
    /// A queue whose last socket was closed only just now is busy for some 50 ms: the bind is
    /// tried again for up to a second. The socket closes when both halves are dropped.
    ///
    /// # Errors
    /// [`OpenError`] says which call failed and on what.
    pub fn open(config: &Config) -> Result<(XdpReceive, XdpTransmit), OpenError> {
        let link = Link::get(&config.interface)?;
        let geometry = Geometry::of(config, link.mtu)?;
        let queue = Queue::make(config, geometry)?;
        let failed = socket_failed(config);
        let receive = Producer::map(queue.fd(), Kind::Fill, geometry.sizes.receive)
            .and_then(|fill| Ok((Consumer::map(queue.fd(), Kind::Receive, geometry.sizes.receive)?, fill)));
        let transmit = Producer::map(queue.fd(), Kind::Transmit, geometry.sizes.transmit)
            .and_then(|tx| Ok((tx, Consumer::map(queue.fd(), Kind::Completion, geometry.sizes.transmit)?)));
        let ((rx, fill), (tx, comp)) = receive.and_then(|receive| Ok((receive, transmit?))).map_err(&failed)?;
        queue.bind(config, link.index)?;
        let zero_copy = socket::zero_copy(queue.fd()).map_err(&failed)?;
        socket::set_tx_budget(queue.fd(), geometry.sizes.transmit).map_err(&failed)?;
        // Without privilege the default stays, and with it a lower bound on what is in flight.
        let _ = socket::raise_send_buffer(queue.fd());

        let queue = Arc::new(queue);
        let returning = geometry.receive_frames().collect();
        let free = geometry.transmit_frames().collect();
        let mut receive = XdpReceive::new(Arc::clone(&queue), rx, fill, returning, zero_copy);
        receive.refill();
        Ok((receive, XdpTransmit::new(queue, tx, comp, free)))
    }
}

/// How many frames a queue has, and how long they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Geometry {
    /// Of the rings, and the numbers of frames of each half.
    sizes: Sizes,
    /// Of a frame, in bytes.
    frame: u32,
}

impl Geometry {
    fn of(config: &Config, mtu: u32) -> Result<Self, OpenError> {
        let receive = ring_size("rx_frames", config.rx_frames)?;
        let transmit = ring_size("tx_frames", config.tx_frames)?;
        Ok(Self { sizes: Sizes { receive, transmit }, frame: frame_size(mtu) })
    }

    fn frames(self) -> u32 {
        self.sizes.receive + self.sizes.transmit
    }

    /// The addresses of the frames of the receiving half.
    fn receive_frames(self) -> impl Iterator<Item = u64> {
        (0..self.sizes.receive).map(move |number| u64::from(number) * u64::from(self.frame))
    }

    /// The addresses of the frames of the transmitting half.
    fn transmit_frames(self) -> impl Iterator<Item = u64> {
        (self.sizes.receive..self.frames()).map(move |number| u64::from(number) * u64::from(self.frame))
    }
}

/// What the two halves share: the socket and the frames. Neither half touches the frames of the
/// other.
#[derive(Debug)]
struct Queue {
    socket: OwnedFd,
    frames: Frames,
    geometry: Geometry,
}

impl Queue {
    /// Makes frames and a socket, which is not bound yet.
    fn make(config: &Config, geometry: Geometry) -> Result<Self, OpenError> {
        let needed = u64::from(geometry.frames()) * u64::from(geometry.frame);
        let limit = memlock::lift();
        let frames = Frames::new(geometry.frames(), geometry.frame).map_err(|source| OpenError::Umem {
            interface: config.interface.clone(),
            queue: config.queue,
            needed,
            source,
        })?;
        let socket = socket::make(&frames, geometry.sizes).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOBUFS | libc::ENOMEM) => OpenError::LockedMemory { needed, limit, source },
            _ => socket_failed(config)(source),
        })?;
        Ok(Self { socket, frames, geometry })
    }

    fn bind(&self, config: &Config, ifindex: u32) -> Result<(), OpenError> {
        let deadline = Instant::now() + BUSY_LIMIT;
        loop {
            match socket::bind(self.fd(), ifindex, config.queue, bind_flags(config.bind)) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    thread::sleep(BUSY_PAUSE);
                }
                result => return result.map_err(socket_failed(config)),
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct XdpReceive {
    /// What `take` took; the first `count` are held.
    held: [Descriptor; BURST],
    count: usize,
    /// Released, and not yet accepted by the fill ring.
    returning: Vec<u64>,
    /// Put on the fill ring and not yet taken off the receive ring.
    with_kernel: usize,
    total: usize,
    /// What among `with_kernel` may not be there.
    limbo: Limbo,
    queue: Arc<Queue>,
    rx: Consumer<Descriptor>,
    fill: Producer<u64>,
    zero_copy: bool,
}

impl XdpReceive {
    /// A half whose frames are with the kernel, all but those `returning`.
    fn new(
        queue: Arc<Queue>,
        rx: Consumer<Descriptor>,
        fill: Producer<u64>,
        returning: Vec<u64>,
        zero_copy: bool,
    ) -> Self {
        let total = queue.geometry.sizes.receive as usize;
        let with_kernel = total - returning.len();
        let (held, limbo) = ([Descriptor::default(); BURST], Limbo::default());
        Self { held, count: 0, returning, with_kernel, total, limbo, queue, rx, fill, zero_copy }
    }

    /// Whether the device reads and writes our frames itself.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The largest MTU that the interface may have with these frames.
    pub fn longest_mtu(&self) -> u32 {
        longest_mtu(self.queue.geometry.frame)
    }

    /// The socket, for [`Steer::serve`](crate::attach::Steer::serve). Valid as long as one of
    /// the halves lives.
    pub fn socket(&self) -> RawFd {
        self.queue.socket.as_raw_fd()
    }

    /// What keeps this queue alive when it is [kept](Kept) beyond this process.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn keep(&self) -> io::Result<Kept> {
        Kept::of(&self.queue)
    }

    /// Gives the kernel as many of the returning frames as the fill ring has room for.
    ///
    /// The ring has a place for each of our frames, but the kernel makes places known in
    /// batches, so it may look full for a moment; what does not fit goes with the next call.
    fn refill(&mut self) {
        // The last ones: their bytes are still in the cache.
        let keep = self.returning.len() - self.fill.room(self.returning.len());
        self.with_kernel += self.fill.offer(&self.returning[keep..]);
        self.returning.truncate(keep);
        if self.fill.needs_wakeup() {
            socket::wake_receive(self.queue.fd());
        }
    }
}

impl Receive for XdpReceive {
    fn take(&mut self) -> usize {
        debug_assert_eq!(self.count, 0, "take while frames are held");
        if !self.returning.is_empty() {
            self.refill();
        }
        self.count = self.rx.take(&mut self.held);
        self.with_kernel -= self.count;
        if !self.limbo.is_empty() {
            self.limbo.found(self.held[..self.count].iter().map(|held| self.queue.frames.base(held.address)));
        }
        self.count
    }

    fn frame(&mut self, index: usize) -> &mut [u8] {
        assert!(index < self.count, "frame {index} of {} held", self.count);
        let Descriptor { address, length, .. } = self.held[index];
        // SAFETY: the descriptor came off the receive ring of this queue in `take`, and is among
        // the `count` that `release` has not given back, so the kernel does not touch its frame;
        // no other descriptor is of the same frame. The borrow of `self` that bounds the result
        // keeps `release`, and any other access through us, away; the other half knows
        // addresses of its own frames only.
        unsafe { self.queue.frames.bytes(address, length as usize) }
    }

    fn release(&mut self) {
        let held = self.held[..self.count].iter();
        self.returning.extend(held.map(|held| self.queue.frames.base(held.address)));
        self.count = 0;
        if !self.returning.is_empty() {
            self.refill();
        }
    }

    fn fd(&self) -> Option<RawFd> {
        Some(self.socket())
    }

    fn kernel_drops(&self) -> KernelDrops {
        // The call cannot fail on an open AF_XDP socket, which this is while `self` lives.
        socket::statistics(self.queue.fd()).unwrap_or_default()
    }

    fn tick(&mut self) {
        let lost = self.limbo.settle(|| true);
        self.with_kernel -= lost.len();
        self.returning.extend(lost);
    }

    fn census(&mut self) -> Census {
        Census { total: self.total, kernel: self.with_kernel, ours: self.count + self.returning.len() }
    }
}

/// The transmitting half.
#[derive(Debug)]
pub struct XdpTransmit {
    /// To be written next is the one used last: its bytes are still in the cache.
    free: Vec<u64>,
    /// Written, and not yet accepted by the transmit ring. In order.
    put: Vec<Descriptor>,
    /// Put on the transmit ring and not yet taken off the completion ring.
    with_kernel: usize,
    total: usize,
    /// What among `with_kernel` may not be there.
    limbo: Limbo,
    queue: Arc<Queue>,
    tx: Producer<Descriptor>,
    comp: Consumer<u64>,
}

impl XdpTransmit {
    /// A half whose frames are with the kernel, all but those `free`.
    fn new(queue: Arc<Queue>, tx: Producer<Descriptor>, comp: Consumer<u64>, free: Vec<u64>) -> Self {
        let total = queue.geometry.sizes.transmit as usize;
        let with_kernel = total - free.len();
        let put = Vec::with_capacity(total);
        Self { free, put, with_kernel, total, limbo: Limbo::default(), queue, tx, comp }
    }

    /// Takes back what the kernel has sent.
    fn reclaim(&mut self) {
        let mut sent = [0; BURST];
        loop {
            let count = self.comp.take(&mut sent);
            self.with_kernel -= count;
            self.free.extend_from_slice(&sent[..count]);
            if !self.limbo.is_empty() {
                self.limbo.found(sent[..count].iter().copied());
            }
            if count < BURST {
                return;
            }
        }
    }

    /// Moves what was put to the transmit ring, as far as it has room.
    fn produce(&mut self) {
        let taken = self.tx.offer(&self.put);
        self.put.drain(..taken);
        self.with_kernel += taken;
    }
}

impl Transmit for XdpTransmit {
    #[inline]
    fn lend(&mut self, length: usize) -> Result<&mut [u8], PutError> {
        if self.free.len() < BURST {
            self.reclaim();
        }
        let fits = u32::try_from(length).ok().filter(|&length| length <= self.queue.geometry.frame);
        let fits = fits.ok_or(PutError::TooLong)?;
        let address = self.free.pop().ok_or(PutError::Full)?;
        self.put.push(Descriptor { address, length: fits, options: 0 });
        // SAFETY: the frame was in `free`, hence is of this half, in no ring and lent to nobody;
        // the other half knows addresses of its own frames only. The borrow of `self` that
        // bounds the result keeps `submit`, which gives the frame to the kernel, away.
        Ok(unsafe { self.queue.frames.bytes(address, length) })
    }

    fn submit(&mut self) -> usize {
        if !self.put.is_empty() {
            self.produce();
        } else if self.with_kernel == 0 {
            return 0;
        }
        if self.tx.pending() == 0 {
            return self.put.len();
        }
        if self.tx.needs_wakeup() {
            socket::wake_transmit(self.queue.fd());
        }
        self.put.len() + self.tx.pending() as usize
    }

    fn tick(&mut self) {
        let fd = self.queue.fd();
        let lost = self.limbo.settle(|| socket::is_sending(fd).is_ok_and(|sending| !sending));
        self.with_kernel -= lost.len();
        self.free.extend(lost);
    }

    fn census(&mut self) -> Census {
        self.reclaim();
        Census { total: self.total, kernel: self.with_kernel, ours: self.free.len() + self.put.len() }
    }
}

/// The frame size for an interface of this MTU: half a page where that is enough.
fn frame_size(mtu: u32) -> u32 {
    let longest = mtu.saturating_add(ETHERNET_HEADER + TUNNEL_HEADERS + SLACK);
    if XDP_HEADROOM.saturating_add(longest) <= HALF_PAGE { HALF_PAGE } else { PAGE }
}

/// The largest MTU for which frames of this size are long enough, or as long as frames can be.
fn longest_mtu(frame: u32) -> u32 {
    if frame >= PAGE { u32::MAX } else { frame - XDP_HEADROOM - ETHERNET_HEADER - TUNNEL_HEADERS - SLACK }
}

fn ring_size(what: &'static str, frames: u32) -> Result<u32, OpenError> {
    // The kernel wants at least 32 for the transmit budget, and a burst has to fit.
    let smallest = u32::try_from(BURST).unwrap_or(u32::MAX);
    if (smallest..=LARGEST_RING).contains(&frames) && frames.is_power_of_two() {
        return Ok(frames);
    }
    Err(OpenError::Config { what, value: frames, must: "a power of two, at least one burst" })
}

/// The flags of `struct sockaddr_xdp`.
fn bind_flags(mode: BindMode) -> u16 {
    // With neither flag the kernel tries zero-copy and falls back to copying by itself
    // (`xp_assign_dev` in `net/xdp/xsk_buff_pool.c`).
    libc::XDP_USE_NEED_WAKEUP
        | match mode {
            BindMode::Auto => 0,
            BindMode::Copy => libc::XDP_COPY,
            BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
        }
}

fn socket_failed(config: &Config) -> impl Fn(io::Error) -> OpenError {
    let (interface, queue) = (config.interface.clone(), config.queue);
    move |source| OpenError::Socket { interface: interface.clone(), queue, source }
}

/// What the kernel keeps free before a received packet (`XDP_PACKET_HEADROOM`).
const XDP_HEADROOM: u32 = 256;
const ETHERNET_HEADER: u32 = 14;
/// Outer Ethernet, IPv4, UDP and VXLAN headers: what is sent may be longer by these.
const TUNNEL_HEADERS: u32 = 50;
/// Two VLAN tags, and some.
const SLACK: u32 = 64;
const HALF_PAGE: u32 = 2048;
/// The largest frame of an aligned UMEM without huge pages.
const PAGE: u32 = 4096;
/// Rings are counted in `u32`, frames in `usize`; this is far from the limits of either.
const LARGEST_RING: u32 = 1 << 20;
/// How long a queue may be busy with the socket that was closed before.
const BUSY_LIMIT: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_page_does_for_an_ordinary_mtu_and_a_page_for_a_larger_one() {
        assert_eq!(frame_size(1500), HALF_PAGE);
        assert_eq!(frame_size(1664), HALF_PAGE);
        assert_eq!(frame_size(1665), PAGE);
        assert_eq!(frame_size(u32::MAX), PAGE);
        assert_eq!((longest_mtu(HALF_PAGE), longest_mtu(PAGE)), (1664, u32::MAX));
    }

    #[test]
    fn a_ring_is_a_power_of_two_and_holds_a_burst() {
        assert!(ring_size("rx_frames", 64).is_ok());
        for bad in [0, 32, 63, 100, 1 << 21] {
            assert!(ring_size("rx_frames", bad).is_err(), "{bad}");
        }
    }
}
