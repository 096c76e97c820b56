//! UDP by packet sockets: frames put on the sender's device, and taken off the receiver's.
//!
//! Neither end's IP stack sees them, which costs a packet more than most VTEPs do. Frames are as
//! the sender's kernel hands them to its device: their UDP checksum is left to that.

#![expect(clippy::cast_possible_truncation, reason = "a folded sum has 16 bits")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::batch::{self, Batch};
use super::sink::{Sink, Source};
use super::udp::{self, Sent, UdpOptions};
use crate::LabError;
use crate::frames::Talk;
use crate::lab::{Container, Station};
use crate::process;

/// A sink for packets to some port of `container`, its thread on one CPU if one is given. The
/// container's stack does not get them.
///
/// # Errors
/// [`LabError::Syscall`] when the socket cannot be made, [`LabError::Command`] when `nft` fails.
pub fn capture(container: &Container, cpu: Option<usize>) -> Result<Sink, LabError> {
    // A port of its own for each: what is late for one is not taken for the next one's.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let port = FIRST_PORT + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
    // What is seen here was seen by packet sockets before.
    let rules = format!(
        "add table netdev captured; \
         add chain netdev captured frames {{ type filter hook ingress device {DEVICE} priority 0; }}; \
         flush chain netdev captured frames; \
         add rule netdev captured frames udp dport {FIRST_PORT}-{} drop",
        FIRST_PORT + PORTS - 1
    );
    process::stdout(container.ns().command("nft").arg(rules))?;
    let address = SocketAddr::from((container.ipv4(), port));
    let open = || {
        let socket = batch::packet_socket(DEVICE, true)?;
        batch::set_option(socket.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1).map(|()| socket)
    };
    let socket = container.ns().run(open)?.map_err(LabError::syscall("packet socket", address.to_string()))?;
    Sink::start(address, Source { socket, payload_of, looks_every: Some(LOOK) }, cpu)
}

/// Sends packets from a container to `port` of `to`, or to the router whose MAC address that has, as `options` say. What the device has no
/// room for is lost, as are packets of sockets.
///
/// # Errors
/// [`LabError::Unfit`] for options that cannot be met, [`LabError::Syscall`] when a socket fails.
pub fn send(from: &Container, to: Station, port: u16, options: &UdpOptions) -> Result<Sent, LabError> {
    udp::check(options)?;
    let heads: Vec<Head> = (FIRST_SOURCE..)
        .take(options.flows as usize)
        .map(|source| head(from.station(), to, (source, port), options.payload))
        .collect();
    let open = || {
        let socket = batch::packet_socket(DEVICE, false)?;
        for option in [PACKET_VNET_HDR, PACKET_QDISC_BYPASS] {
            batch::set_option(socket.as_fd(), libc::SOL_PACKET, option, 1)?;
        }
        Ok::<_, io::Error>(socket)
    };
    let socket: OwnedFd = from.ns().run(open)?.map_err(LabError::syscall("packet socket", from.name()))?;
    udp::generate(&heads, options, |batch, _, count| send_batch(batch, &socket, count))
        .map_err(LabError::syscall("sendmmsg", from.name()))
}

/// Sends the first `count` messages of `batch`. The kernel stops at a frame that is dropped.
fn send_batch(batch: &mut Batch, socket: &OwnedFd, count: usize) -> io::Result<(u64, u64)> {
    let mut sent = 0;
    while sent < count {
        match batch.send(socket.as_fd(), sent, count) {
            Ok(done) if sent + done == count => break,
            Ok(done) => sent += done + 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => sent += 1,
            Err(error) => return Err(error),
        }
    }
    Ok((count as u64, 0))
}

/// `struct virtio_net_hdr` of linux/virtio_net.h, Ethernet, IPv4 and UDP headers.
type Head = [u8; VNET + HEADERS];

/// What every packet of a flow has before its payload.
fn head(from: Station, to: Station, (source, destination): (u16, u16), payload: usize) -> Head {
    let frame = Talk::new(from, to).udp4(source, destination, &vec![0; payload]);
    let mut head: Head = [0; VNET + HEADERS];
    // VIRTIO_NET_HDR_F_NEEDS_CSUM, where the sum starts, and where in that it is put.
    head[0] = 1;
    head[6..8].copy_from_slice(&UDP.to_ne_bytes());
    head[8..10].copy_from_slice(&6u16.to_ne_bytes());
    head[VNET..].copy_from_slice(&frame[..HEADERS]);
    head[VNET + HEADERS - 2..].copy_from_slice(&pseudo_header(&frame).to_be_bytes());
    head
}

/// The sum over the pseudo header of a UDP frame over IPv4 (RFC 768).
fn pseudo_header(frame: &[u8]) -> u16 {
    let summed = [&frame[26..34], &frame[38..40], &[0, 17]].concat();
    let words = summed.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum = words.sum::<u32>();
    // Six words give one carry, and that none more.
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The payload of a frame with UDP over IPv4 for `port`.
fn payload_of(frame: &[u8], port: u16) -> Option<&[u8]> {
    let (head, payload) = frame.split_at_checked(HEADERS)?;
    let is_ours = head[12..15] == [8, 0, 0x45] && head[23] == 17 && head[36..38] == port.to_be_bytes();
    is_ours.then_some(payload)
}

/// A millisecond of packets, of which a sink's buffer holds many, costs one look and no wake-up.
const LOOK: Duration = Duration::from_millis(1);
/// A container's only device.
const DEVICE: &str = "eth0";
/// Bytes of a virtio header.
const VNET: usize = 10;
/// Bytes of the headers of a frame.
const HEADERS: usize = 14 + 20 + 8;
/// Where the UDP header starts.
const UDP: u16 = 14 + 20;
/// Ports of sinks: nobody else has them in a container.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;
/// Port of the first flow.
const FIRST_SOURCE: u16 = 40_000;

/// Options of linux/if_packet.h.
const PACKET_VNET_HDR: i32 = 15;
const PACKET_QDISC_BYPASS: i32 = 20;
const PACKET_IGNORE_OUTGOING: i32 = 23;
