//! One queue of one interface, by AF_XDP.
//!
//! Each queue has a UMEM of its own. Its frames are dealt out once: some to the receiving half,
//! some to the transmitting half, and no frame ever changes sides. So a half is the only one to
//! name its frames to the kernel, and the two may live on different threads.
//!
//! A frame on the receive side is in the fill ring, inside the kernel, in the receive ring, held
//! by the worker, or waiting to go back to the fill ring; on the transmit side it is free, put,
//! in the transmit ring, inside the kernel, or in the completion ring. What the kernel has is
//! counted as it is handed over and handed back, and [`Census`] adds that to what is on our
//! side of the fence.
//!
//! A received packet longer than a frame has no place here: multi-buffer is not asked for, the
//! kernel drops such a packet and counts it in [`KernelDrops::rx_dropped`].

#![expect(
    unsafe_code,
    reason = "frames are shared with the kernel, by the rules of AF_XDP"
)]

mod options;

use super::{BURST, Census, KernelDrops, PutError, Receive, Transmit};
use crate::{
    link::{Link, LinkError},
    memlock,
};
use std::{
    error::Error,
    io::{self, Write},
    num::NonZeroU32,
    os::fd::{AsRawFd, RawFd},
    slice, thread,
    time::{Duration, Instant},
};
use xsk_rs::{
    CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem,
    config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig},
};

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
        Self {
            interface: interface.to_owned(),
            queue,
            rx_frames: 1024,
            tx_frames: 1024,
            bind: BindMode::Auto,
        }
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
        /// What libxdp answered.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The socket could not be made or bound; `EBUSY` means that another one has the queue.
    #[error("AF_XDP socket on {interface} queue {queue}")]
    Socket {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What libxdp answered.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The socket would not be asked or told something.
    #[error("{option} on {interface} queue {queue}")]
    Option {
        /// The socket option.
        option: &'static str,
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
        let rx_size = ring_size("rx_frames", config.rx_frames)?;
        let tx_size = ring_size("tx_frames", config.tx_frames)?;
        let (umem, mut rx_frames) = make_umem(config, frame_size(link.mtu), rx_size, tx_size)?;
        let tx_frames = rx_frames.split_off(config.rx_frames as usize);

        let socket_config = SocketConfig::builder()
            .rx_queue_size(rx_size)
            .tx_queue_size(tx_size)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(bind_flags(config.bind))
            .build();
        let (tx, rx, fill, comp) = bind(config, socket_config, &umem)?;
        let fd = rx.fd().as_raw_fd();
        let zero_copy = options::zero_copy(fd)
            .and_then(|zero_copy| {
                options::set_tx_budget(fd, config.tx_frames)?;
                Ok(zero_copy)
            })
            .map_err(|source| OpenError::Option {
                option: "XDP_OPTIONS or XDP_MAX_TX_SKB_BUDGET",
                interface: config.interface.clone(),
                queue: config.queue,
                source,
            })?;
        // Without privilege the default stays, and with it a lower bound on what is in flight.
        let _ = options::raise_send_buffer(fd);

        let mut receive = XdpReceive {
            held: [FrameDesc::default(); BURST],
            count: 0,
            total: rx_frames.len(),
            with_kernel: 0,
            returning: rx_frames,
            umem: umem.clone(),
            rx,
            fill,
            zero_copy,
        };
        receive.refill();
        let total = tx_frames.len();
        let put = Vec::with_capacity(total);
        let transmit = XdpTransmit {
            free: tx_frames,
            put,
            total,
            with_kernel: 0,
            umem,
            tx,
            comp,
        };
        Ok((receive, transmit))
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct XdpReceive {
    /// What `take` took; the first `count` are held.
    held: [FrameDesc; BURST],
    count: usize,
    /// Released, and not yet accepted by the fill ring.
    returning: Vec<FrameDesc>,
    /// Put on the fill ring and not yet taken off the receive ring.
    with_kernel: usize,
    total: usize,
    umem: Umem,
    rx: RxQueue,
    fill: FillQueue,
    zero_copy: bool,
}

impl XdpReceive {
    /// Whether the device reads and writes our frames itself.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// The socket, for [`Steer::serve`](crate::attach::Steer::serve). Valid as long as one of
    /// the halves lives.
    pub fn socket(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }

    /// Gives the kernel as many of the returning frames as the fill ring has room for.
    ///
    /// The ring has a place for each of our frames, but the kernel makes places known in
    /// batches, so it may look full for a moment; what does not fit goes with the next call.
    fn refill(&mut self) {
        let want = u32::try_from(self.returning.len()).unwrap_or(u32::MAX);
        let room = self.fill.nb_free(want) as usize;
        let keep = self.returning.len().saturating_sub(room);
        // SAFETY: the frames are of this UMEM's receive half: `open` dealt them out, or `take`
        // got them from this socket's receive ring. They are in `returning`, hence neither
        // held nor in any ring, and the lines below take them out of it if the ring took them.
        let taken = unsafe { self.fill.produce(&self.returning[keep..]) };
        if taken > 0 {
            self.returning.truncate(keep);
            self.with_kernel += taken;
        }
        if self.fill.needs_wakeup() {
            // Fails only for a device that is down or gone, and then nothing arrives anyway.
            let _ = self.fill.wakeup(self.rx.fd_mut(), 0);
        }
    }
}

impl Receive for XdpReceive {
    fn take(&mut self) -> usize {
        debug_assert_eq!(self.count, 0, "take while frames are held");
        if !self.returning.is_empty() {
            self.refill();
        }
        // SAFETY: the ring is of the socket that `open` bound to `self.umem`.
        self.count = unsafe { self.rx.consume(&mut self.held) };
        self.with_kernel -= self.count;
        self.count
    }

    fn frame(&mut self, index: usize) -> &mut [u8] {
        assert!(index < self.count, "frame {index} of {} held", self.count);
        // SAFETY: the descriptor came off the receive ring of this UMEM in `take`, and is among
        // the `count` that `release` has not given back, so neither the kernel nor anything
        // else here touches its frame.
        let mut data = unsafe { self.umem.data_mut(&mut self.held[index]) };
        let bytes = data.contents_mut();
        let (start, length) = (bytes.as_mut_ptr(), bytes.len());
        // SAFETY: these are the very bytes borrowed above, from memory that `self.umem` keeps
        // mapped. The guard they were borrowed through ends with this function; the borrow of
        // `self` that bounds the returned slice keeps `release`, and any other access, away.
        unsafe { slice::from_raw_parts_mut(start, length) }
    }

    fn release(&mut self) {
        self.returning.extend_from_slice(&self.held[..self.count]);
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
        self.rx.fd().xdp_statistics().map_or_else(
            |_| KernelDrops::default(),
            |totals| KernelDrops {
                rx_dropped: totals.rx_dropped(),
                rx_ring_full: totals.rx_ring_full(),
                rx_fill_ring_empty: totals.rx_fill_ring_empty_descs(),
                tx_invalid: totals.tx_invalid_descs(),
            },
        )
    }

    fn census(&mut self) -> Census {
        Census {
            total: self.total,
            kernel: self.with_kernel,
            ours: self.count + self.returning.len(),
        }
    }
}

/// The transmitting half.
#[derive(Debug)]
pub struct XdpTransmit {
    /// To be written next is the one used last: its bytes are still in the cache.
    free: Vec<FrameDesc>,
    /// Written, and not yet accepted by the transmit ring. In order.
    put: Vec<FrameDesc>,
    /// Put on the transmit ring and not yet taken off the completion ring.
    with_kernel: usize,
    total: usize,
    umem: Umem,
    tx: TxQueue,
    comp: CompQueue,
}

impl XdpTransmit {
    /// Takes back what the kernel has sent.
    fn reclaim(&mut self) {
        let mut sent = [FrameDesc::default(); BURST];
        loop {
            // SAFETY: the ring is of the socket that `open` bound to `self.umem`.
            let count = unsafe { self.comp.consume(&mut sent) };
            self.with_kernel -= count;
            self.free.extend_from_slice(&sent[..count]);
            if count < BURST {
                return;
            }
        }
    }

    /// Moves what was put to the transmit ring, as far as it has room.
    fn produce(&mut self) {
        let want = u32::try_from(self.put.len()).unwrap_or(u32::MAX);
        let fits = (self.tx.nb_free(want) as usize).min(self.put.len());
        // SAFETY: the frames are of this UMEM's transmit half: `open` dealt them out, or
        // `reclaim` got them back. `put` took them out of `free`, so they are in no ring, and
        // the lines below forget them once the ring has them.
        let taken = unsafe { self.tx.produce(&self.put[..fits]) };
        self.put.drain(..taken);
        self.with_kernel += taken;
    }
}

impl Transmit for XdpTransmit {
    fn put(&mut self, head: &[u8], body: &[u8]) -> Result<(), PutError> {
        if self.free.len() < BURST {
            self.reclaim();
        }
        let mut frame = self.free.pop().ok_or(PutError::Full)?;
        // SAFETY: the frame was in `free`, hence is of this UMEM, in no ring and lent to nobody.
        let mut data = unsafe { self.umem.data_mut(&mut frame) };
        let mut cursor = data.cursor();
        cursor.set_pos(0);
        if cursor.buf_len() < head.len() + body.len() {
            self.free.push(frame);
            return Err(PutError::TooLong);
        }
        // The room was checked above, and a cursor fails for no other reason.
        let _ = cursor.write_all(head).and_then(|()| cursor.write_all(body));
        self.put.push(frame);
        Ok(())
    }

    fn submit(&mut self) -> usize {
        if !self.put.is_empty() {
            self.produce();
        } else if self.with_kernel == 0 {
            return 0;
        }
        let size = self.total;
        if self.tx.nb_free_exact() as usize == size {
            return self.put.len();
        }
        if self.tx.needs_wakeup() {
            // Fails only for a device that is down or gone; the frames then stay, and are
            // counted by what we return.
            let _ = self.tx.wakeup();
        }
        self.put.len() + size.saturating_sub(self.tx.nb_free_exact() as usize)
    }

    fn census(&mut self) -> Census {
        self.reclaim();
        Census {
            total: self.total,
            kernel: self.with_kernel,
            ours: self.free.len() + self.put.len(),
        }
    }
}

/// The frame size for an interface of this MTU: half a page where that is enough.
fn frame_size(mtu: u32) -> u32 {
    let longest = mtu.saturating_add(ETHERNET_HEADER + TUNNEL_HEADERS + SLACK);
    if XDP_HEADROOM.saturating_add(longest) <= HALF_PAGE {
        HALF_PAGE
    } else {
        PAGE
    }
}

fn ring_size(what: &'static str, frames: u32) -> Result<QueueSize, OpenError> {
    // The kernel wants at least 32 for the transmit budget, and a burst has to fit.
    let smallest = u32::try_from(BURST).unwrap_or(u32::MAX);
    let error = || OpenError::Config {
        what,
        value: frames,
        must: "a power of two, at least one burst",
    };
    if frames < smallest || frames > LARGEST_RING {
        return Err(error());
    }
    QueueSize::new(frames).map_err(|_| error())
}

fn make_umem(
    config: &Config,
    frame_size: u32,
    fill: QueueSize,
    comp: QueueSize,
) -> Result<(Umem, Vec<FrameDesc>), OpenError> {
    let frames = config.rx_frames + config.tx_frames;
    let needed = u64::from(frames) * u64::from(frame_size);
    let failed = |source: Box<dyn Error + Send + Sync>| OpenError::Umem {
        interface: config.interface.clone(),
        queue: config.queue,
        needed,
        source,
    };
    let size = FrameSize::new(frame_size).map_err(|e| failed(Box::new(e)))?;
    let umem_config = UmemConfig::builder()
        .frame_size(size)
        .fill_queue_size(fill)
        .comp_queue_size(comp)
        .build()
        .map_err(|e| failed(Box::new(e)))?;
    let count = NonZeroU32::new(frames).ok_or_else(|| failed("no frames".into()))?;
    let limit = memlock::lift();
    Umem::new(umem_config, count, false).map_err(|error| match errno(&error) {
        Some(code @ (libc::ENOBUFS | libc::ENOMEM)) => OpenError::LockedMemory {
            needed,
            limit,
            source: io::Error::from_raw_os_error(code),
        },
        _ => failed(Box::new(error)),
    })
}

fn bind_flags(mode: BindMode) -> BindFlags {
    // With neither flag the kernel tries zero-copy and falls back to copying by itself
    // (`xp_assign_dev` in `net/xdp/xsk_buff_pool.c`).
    BindFlags::XDP_USE_NEED_WAKEUP
        | match mode {
            BindMode::Auto => BindFlags::empty(),
            BindMode::Copy => BindFlags::XDP_COPY,
            BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        }
}

fn bind(
    config: &Config,
    socket_config: SocketConfig,
    umem: &Umem,
) -> Result<(TxQueue, RxQueue, FillQueue, CompQueue), OpenError> {
    let failed = |source: Box<dyn Error + Send + Sync>| OpenError::Socket {
        interface: config.interface.clone(),
        queue: config.queue,
        source,
    };
    let interface: Interface = config
        .interface
        .parse()
        .map_err(|e: std::ffi::NulError| failed(Box::new(e)))?;
    let deadline = Instant::now() + BUSY_LIMIT;
    loop {
        // SAFETY: the one precondition is about binding a pair twice from one UMEM; this UMEM
        // is new (`open` made it) and `INHIBIT_PROG_LOAD` is set there besides.
        match unsafe { xsk_rs::Socket::new(socket_config, umem, &interface, config.queue) } {
            Ok((tx, rx, Some((fill, comp)))) => return Ok((tx, rx, fill, comp)),
            Ok((_, _, None)) => return Err(failed("libxdp gave no fill ring".into())),
            Err(error) if errno(&error) == Some(libc::EBUSY) && Instant::now() < deadline => {
                thread::sleep(BUSY_PAUSE);
            }
            Err(error) => return Err(failed(Box::new(error))),
        }
    }
}

/// The error number below what xsk-rs reports.
fn errno(error: &dyn Error) -> Option<i32> {
    error.source()?.downcast_ref::<io::Error>()?.raw_os_error()
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
const BUSY_PAUSE: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_page_does_for_an_ordinary_mtu_and_a_page_for_a_larger_one() {
        assert_eq!(frame_size(1500), HALF_PAGE);
        assert_eq!(frame_size(1664), HALF_PAGE);
        assert_eq!(frame_size(1665), PAGE);
        assert_eq!(frame_size(u32::MAX), PAGE);
    }

    #[test]
    fn a_ring_is_a_power_of_two_and_holds_a_burst() {
        assert!(ring_size("rx_frames", 64).is_ok());
        for bad in [0, 32, 63, 100, 1 << 21] {
            assert!(ring_size("rx_frames", bad).is_err(), "{bad}");
        }
    }
}
