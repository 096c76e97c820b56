//! UDP past the stacks: put on the sender's device by AF_XDP, and taken off the receiver's by a
//! packet socket.
//!
//! Neither end's IP stack sees them, which costs a packet more than most VTEPs do.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use vxlane_dataplane::port::xdp::{BindMode, Config, XdpSocket};
use vxlane_dataplane::port::{PutError, Transmit};
use vxlane_dataplane::wire::checksum;

use super::batch;
use super::sink::{Sink, Source};
use super::udp::{self, Sent, UdpOptions};
use crate::LabError;
use crate::frames::Talk;
use crate::lab::{Container, Station};
use crate::process::{self, await_value};

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
        batch::ignore_outgoing(socket.as_fd()).map(|()| socket)
    };
    let socket = container.ns().run(open)?.map_err(LabError::syscall("packet socket", address.to_string()))?;
    Sink::start(address, Source { socket, payload_of, looks_every: Some(LOOK) }, cpu)
}

/// Sends packets from a container to `port` of `to`, or to the router whose MAC address that has, as
/// `options` say. What the device has no room for is lost, as are packets of sockets.
///
/// # Errors
/// [`LabError::Unfit`] for options that cannot be met, [`LabError::Syscall`] when a socket fails.
pub fn send(from: &Container, to: Station, port: u16, options: &UdpOptions) -> Result<Sent, LabError> {
    udp::check(options)?;
    let flows = (FIRST_SOURCE..).take(options.flows as usize);
    let heads: Vec<Head> = flows.map(|source| head(from.station(), to, (source, port), options.payload)).collect();
    let length = HEADERS + options.payload;
    let config = Config { bind: BindMode::Copy, tx_frames: FRAMES, ..Config::new(DEVICE, 0) };
    let unfit = |what, text: String| LabError::Unfit { what, text };
    let opened = from.ns().run(|| XdpSocket::open(&config))?;
    let (_, mut socket) = opened.map_err(|error| unfit("no AF_XDP socket in the container", format!("{error:?}")))?;
    if socket.lend(length) == Err(PutError::TooLong) {
        return Err(unfit("payload out of range", format!("{options:?}")));
    }
    let send = |flow: u32, first: u64, count: usize| {
        let mut sent = 0;
        while sent < count as u64 {
            let Ok(frame) = socket.lend(length) else { break };
            write(frame, &heads[flow as usize], flow, first + sent);
            sent += 1;
        }
        socket.submit();
        Ok((sent, u64::from(sent < count as u64)))
    };
    let sent = udp::generate(options, send).map_err(LabError::syscall("sendto", from.name()))?;
    await_value("frames to have left", PATIENCE, || (socket.submit() == 0).then_some(()), || from.name().to_owned())?;
    Ok(sent)
}

/// Everything before the payload, and the sum of the pseudo header.
struct Head([u8; HEADERS], u64);

/// What every packet of a flow has before its payload.
fn head(from: Station, to: Station, (source, destination): (u16, u16), payload: usize) -> Head {
    let frame = Talk::new(from, to).udp4(source, destination, &vec![0; payload]);
    let mut headers = [0; HEADERS];
    headers.copy_from_slice(&frame[..HEADERS]);
    let pseudo = checksum::pseudo_v4(from.ipv4, to.ipv4, PROTOCOL, frame.len() - UDP);
    // As a stack leaves it to a device.
    headers[UDP + CHECKSUM..].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    Head(headers, pseudo)
}

/// Writes packet number `sequence` of a flow.
fn write(frame: &mut [u8], head: &Head, flow: u32, sequence: u64) {
    let (headers, payload) = frame.split_at_mut(HEADERS);
    headers.copy_from_slice(&head.0);
    udp::write_payload(payload, flow, sequence);
    checksum::finish(&mut frame[UDP..], CHECKSUM, head.1, true);
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
/// Bytes of the headers of a frame.
const HEADERS: usize = 14 + 20 + 8;
/// Where the UDP header starts, and in it the checksum; the protocol's number.
const UDP: usize = 14 + 20;
const CHECKSUM: usize = 6;
const PROTOCOL: u8 = 17;
/// Frames of a generator.
const FRAMES: u32 = 512;
/// How long they may be on their way.
const PATIENCE: Duration = Duration::from_secs(2);
/// Ports of sinks: nobody else has them in a container.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;
/// Port of the first flow.
const FIRST_SOURCE: u16 = 40_000;
