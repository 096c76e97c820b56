//! Sends frames with work left to the device, as a socket of the sender's own kernel would.

use std::os::fd::{AsFd, OwnedFd};

use super::batch;
use crate::{LabError, netns::Netns};

/// What is left to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Where the transport header starts and, from there, where its checksum lies; the sum of the
    /// pseudo header is there.
    pub checksum: Option<(u16, u16)>,
    /// What the frame is to be cut into.
    pub segments: Option<Segments>,
}

/// What a frame is to be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Its protocol.
    pub kind: SegmentKind,
    /// Payload bytes of each but the last.
    pub size: u16,
}

/// Protocols that the kernel cuts into segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
}

impl Work {
    /// `struct virtio_net_hdr` of linux/virtio_net.h, in the order of this machine.
    fn header(self, frame: &[u8]) -> [u8; 10] {
        let (start, offset) = self.checksum.unwrap_or_default();
        let (kind, size) = self.segments.map_or((0, 0), |segments| (segments.kind.number(), segments.size));
        let headers = match self.segments.map(|segments| segments.kind) {
            None => 0,
            Some(SegmentKind::Udp) => start + 8,
            Some(SegmentKind::Tcp4 | SegmentKind::Tcp6) => {
                start + u16::from(frame.get(usize::from(start) + 12).map_or(0, |byte| byte >> 4)) * 4
            }
        };
        let [h, s, c, o] = [headers, size, start, offset].map(u16::to_ne_bytes);
        [u8::from(self.checksum.is_some()), kind, h[0], h[1], s[0], s[1], c[0], c[1], o[0], o[1]]
    }
}

impl SegmentKind {
    /// `VIRTIO_NET_HDR_GSO_*`.
    fn number(self) -> u8 {
        match self {
            Self::Tcp4 => 1,
            Self::Tcp6 => 4,
            Self::Udp => 5,
        }
    }
}

/// Sends frames on one device, and says what is left to do.
#[derive(Debug)]
pub struct OffloadSender {
    socket: OwnedFd,
    device: String,
}

impl OffloadSender {
    /// Opens `device` of `ns` for sending.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when there is no such device.
    pub fn open(ns: &Netns, device: &str) -> Result<Self, LabError> {
        let open = || {
            let socket = batch::packet_socket(device, false)?;
            batch::set_option(socket.as_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, 1).map(|()| socket)
        };
        let socket = ns.run(open)?.map_err(LabError::syscall("packet socket", device))?;
        Ok(Self { socket, device: device.to_owned() })
    }

    /// Sends `frame`, on which `work` is left to do.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when the device does not take it.
    pub fn send(&self, frame: &[u8], work: Work) -> Result<(), LabError> {
        let message = [&work.header(frame), frame].concat();
        nix::unistd::write(&self.socket, &message).map(drop).map_err(LabError::syscall("send", self.device.clone()))
    }
}

/// `PACKET_VNET_HDR` of linux/if_packet.h.
const PACKET_VNET_HDR: i32 = 15;
