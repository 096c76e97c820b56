//! Going on with a queue that another process has opened, wherever it stopped.
//!
//! Nothing is handed over but two descriptors. Where each frame is can be read off the rings;
//! only of those in none of them it is not certain whether the last owner held them or whether
//! they are on their way through the kernel. They are *in limbo* until that is clear.

use std::{
    collections::HashSet,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{
    Geometry, Queue, XdpReceive, XdpSocket, XdpTransmit, frame_size,
    memory::Frames,
    ring::{Consumer, Kind, Producer},
    socket::{self, Sizes},
};
use crate::link::{Link, LinkError};

/// What a queue lives on when the process that opened it has ended: its socket, its frames, and
/// what has to be known of them. Packets go on gathering in the receive ring while there is
/// room, and nothing is sent.
#[derive(Debug)]
pub struct Kept {
    /// The AF_XDP socket.
    pub socket: OwnedFd,
    /// The file that the frames are in.
    pub frames: OwnedFd,
    geometry: Geometry,
}

impl Kept {
    pub(super) fn of(queue: &Queue) -> io::Result<Self> {
        Ok(Self {
            socket: queue.socket.try_clone()?,
            frames: queue.frames.file().try_clone_to_owned()?,
            geometry: queue.geometry,
        })
    }

    /// How many frames there are to receive into.
    pub fn rx_frames(&self) -> u32 {
        self.geometry.sizes.receive
    }

    /// What has to be known, in digits and dots.
    pub fn label(&self) -> String {
        let Geometry { sizes: Sizes { receive, transmit }, frame } = self.geometry;
        format!("{receive}.{transmit}.{frame}")
    }

    /// The opposite of [`label`](Self::label); none if it is not one.
    pub fn from_label(label: &str, socket: OwnedFd, frames: OwnedFd) -> Option<Self> {
        let numbers: Vec<u32> = label.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let &[receive, transmit, frame] = numbers.as_slice() else { return None };
        Some(Self { socket, frames, geometry: Geometry { sizes: Sizes { receive, transmit }, frame } })
    }
}

/// Why a queue cannot be gone on with. It can be opened anew once what was kept is dropped.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The interface could not be looked at.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The interface's MTU has grown beyond the frames.
    #[error("its frames are {was} bytes long, and have to be {needed}")]
    TooShort {
        /// As kept, in bytes.
        was: u32,
        /// What the MTU wants.
        needed: u32,
    },
    /// The device has frames that are in no ring.
    #[error("it is in zero-copy mode")]
    ZeroCopy,
    /// Rings or frames cannot be mapped; rings of a bound socket cannot before Linux 6.4.
    #[error("mapping its rings and frames")]
    Map(#[from] io::Error),
}

impl XdpSocket {
    /// Goes on with a queue. Whoever had it must have ended. What waits in its receive ring
    /// comes first.
    ///
    /// # Errors
    /// [`ResumeError`]; the queue is closed, and its name in the kernel free some 50 ms later.
    pub fn resume(kept: Kept, interface: &str) -> Result<(XdpReceive, XdpTransmit), ResumeError> {
        let link = Link::get(interface)?;
        let (geometry, needed) = (kept.geometry, frame_size(link.mtu));
        if geometry.frame < needed {
            return Err(ResumeError::TooShort { was: geometry.frame, needed });
        }
        if socket::zero_copy(kept.socket.as_fd())? {
            return Err(ResumeError::ZeroCopy);
        }
        let frames = Frames::map(kept.frames, geometry.frames(), geometry.frame)?;
        let queue = Arc::new(Queue { socket: kept.socket, frames, geometry });
        Ok((receive(&queue)?, transmit(queue)?))
    }
}

/// In copy mode the kernel takes a frame off the fill ring, fills it and puts it on the receive
/// ring within one poll of the device; only for so long can it be in neither.
fn receive(queue: &Arc<Queue>) -> io::Result<XdpReceive> {
    let size = queue.geometry.sizes.receive;
    let mut fill = Producer::<u64>::map(queue.fd(), Kind::Fill, size)?;
    let mut rx = Consumer::map(queue.fd(), Kind::Receive, size)?;
    let mut seen: HashSet<u64> = fill.contents().into_iter().map(|address| queue.frames.base(address)).collect();
    seen.extend(rx.contents().iter().map(|packet: &super::Descriptor| queue.frames.base(packet.address)));
    let mut half = XdpReceive::new(Arc::clone(queue), rx, fill, Vec::new(), false);
    half.returning.reserve(half.total);
    half.limbo = Limbo::of(queue.geometry.receive_frames().filter(|address| !seen.contains(address)));
    Ok(half)
}

/// What the kernel still sends comes back by the completion ring, before the socket says that
/// nothing is being sent; and nothing new is sent before we say so.
fn transmit(queue: Arc<Queue>) -> io::Result<XdpTransmit> {
    let size = queue.geometry.sizes.transmit;
    let deadline = Instant::now() + SENDING;
    let mut sending = socket::is_sending(queue.fd())?;
    while sending && Instant::now() < deadline {
        thread::sleep(LOOK);
        sending = socket::is_sending(queue.fd())?;
    }
    let mut tx = Producer::map(queue.fd(), Kind::Transmit, size)?;
    let mut comp = Consumer::<u64>::map(queue.fd(), Kind::Completion, size)?;
    let mut seen: HashSet<u64> = comp.contents().into_iter().collect();
    seen.extend(tx.contents().iter().map(|packet: &super::Descriptor| packet.address));
    let rest = queue.geometry.transmit_frames().filter(|address| !seen.contains(address));
    let (free, limbo) = if sending { (Vec::new(), Limbo::of(rest)) } else { (rest.collect(), Limbo::default()) };
    let mut half = XdpTransmit::new(queue, tx, comp, free);
    half.free.reserve(half.total);
    half.limbo = limbo;
    Ok(half)
}

/// Frames of which it is not certain who has them; they count as being with the kernel.
#[derive(Debug, Default)]
pub(super) struct Limbo {
    frames: Vec<u64>,
    until: Option<Instant>,
}

impl Limbo {
    fn of(frames: impl Iterator<Item = u64>) -> Self {
        Self { frames: frames.collect(), until: Some(Instant::now() + LIMBO) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// These have turned up.
    pub(super) fn found(&mut self, addresses: impl Iterator<Item = u64>) {
        for address in addresses {
            if let Some(place) = self.frames.iter().position(|&frame| frame == address) {
                self.frames.swap_remove(place);
            }
        }
    }

    /// Those that can no longer turn up, and are ours: all that are left after a while, if
    /// `certain` agrees.
    pub(super) fn settle(&mut self, certain: impl Fn() -> bool) -> Vec<u64> {
        match self.until {
            Some(until) if Instant::now() >= until && certain() => {
                self.until = None;
                std::mem::take(&mut self.frames)
            }
            _ => Vec::new(),
        }
    }
}

/// How long to wait for packets on their way out.
const SENDING: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_micros(200);
/// How long a frame may take through the kernel: far more than it does, even on a machine that
/// stands still now and then.
const LIMBO: Duration = Duration::from_secs(1);
