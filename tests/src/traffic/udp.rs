//! A UDP generator that numbers every packet, for a [`Sink`] that accounts for every one.
//!
//! A payload is a mark, the flow's number, the packet's number within the flow, and a fill that
//! follows from the two numbers; the sink checks all of it.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a batch has at most SLOTS messages, a generator at most MOST_FLOWS flows"
)]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use super::batch::{self, Batch, SLOTS};
use super::pace::{Amount, Pace, Pacer};
pub use super::sink::{Received, Sink};
use crate::LabError;
use crate::lab::Container;
use crate::netns::Netns;

/// What to send.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Payload bytes per packet, at least [`HEADER`] and at most [`LARGEST`].
    pub payload: usize,
    /// Number of flows, each with a source port of its own.
    pub flows: u32,
    /// How fast.
    pub pace: Pace,
    /// How much.
    pub amount: Amount,
    /// Packets handed to the kernel in one call, at most 64.
    pub batch: usize,
    /// By how many packets a generator that fell behind its pace may [catch up](Pacer::catching_up).
    pub catches_up: u64,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            payload: 64,
            flows: 1,
            pace: Pace::Rate(10_000),
            amount: Amount::Packets(10_000),
            batch: 32,
            catches_up: u64::MAX,
        }
    }
}

/// What a generator has sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Packets taken by the kernel.
    pub packets: u64,
    /// How often the kernel refused one, which was then sent again.
    pub refusals: u64,
    /// From first to last.
    pub elapsed: Duration,
}

impl Sent {
    /// Packets per second.
    pub fn pps(&self) -> f64 {
        rate(self.packets, self.elapsed)
    }
}

/// Sends from `from` to a sink in `to` and returns both ends' accounts.
///
/// # Errors
/// [`LabError::Syscall`] when a socket fails; lost packets are a result, not an error.
pub fn exchange(from: &Container, to: &Container, options: &UdpOptions) -> Result<(Sent, Received), LabError> {
    let sink = Sink::listen(to.ns(), to.ipv4())?;
    let sent = send(from.ns(), sink.address(), options)?;
    let received = sink.finish(sent.packets, PATIENCE)?;
    Ok((sent, received))
}

/// Sends packets from inside `ns` to `target` as `options` say.
///
/// # Errors
/// [`LabError::Unfit`] for options that cannot be met, [`LabError::Syscall`] when a socket fails.
pub fn send(ns: &Netns, target: SocketAddr, options: &UdpOptions) -> Result<Sent, LabError> {
    check(options)?;
    let sockets =
        ns.run(|| open_flows(target, options.flows))?.map_err(LabError::syscall("connect", target.to_string()))?;
    let mut batch = Batch::new(options.payload);
    let send = |flow: u32, first: u64, count: usize| {
        for index in 0..count {
            write_payload(batch.fill(index, options.payload), flow, first + index as u64);
        }
        send_batch(&mut batch, &sockets[flow as usize], count)
    };
    generate(options, send).map_err(LabError::syscall("sendmmsg", target.to_string()))
}

/// Whether a generator can do what `options` ask for.
pub(super) fn check(options: &UdpOptions) -> Result<(), LabError> {
    if (HEADER..=LARGEST).contains(&options.payload) && (1..=MOST_FLOWS).contains(&options.flows) {
        return Ok(());
    }
    Err(LabError::Unfit { what: "payload or number of flows out of range", text: format!("{options:?}") })
}

/// Has `send` send what `options` ask for: so many packets of a flow, from a number on. It says how
/// many went and how often one was refused.
pub(super) fn generate(
    options: &UdpOptions,
    mut send: impl FnMut(u32, u64, usize) -> io::Result<(u64, u64)>,
) -> io::Result<Sent> {
    let mut sequences = vec![0u64; options.flows as usize];
    let most = options.batch.clamp(1, SLOTS) as u64;
    let mut pacer = Pacer::start(options.pace, options.amount).catching_up(options.catches_up);
    let mut sent = Sent { packets: 0, refusals: 0, elapsed: Duration::ZERO };
    // Flows take turns, one batch each.
    for flow in (0..options.flows).cycle() {
        let granted = pacer.grant(most);
        if granted == 0 {
            break;
        }
        let sequence = &mut sequences[flow as usize];
        let (done, refusals) = send(flow, *sequence, granted as usize)?;
        pacer.give_back(granted - done);
        *sequence += done;
        sent.packets += done;
        sent.refusals += refusals;
    }
    sent.elapsed = pacer.elapsed();
    Ok(sent)
}

/// The payload that a generator would send as packet number `sequence` of flow number `flow`, in
/// `length` bytes, at least [`HEADER`]: for frames that are built by hand and end in a [`Sink`].
pub fn payload(flow: u32, sequence: u64, length: usize) -> Vec<u8> {
    let mut payload = vec![0; length.max(HEADER)];
    write_payload(&mut payload, flow, sequence);
    payload
}

/// Fills `payload` for packet number `sequence` of flow number `flow`.
pub(super) fn write_payload(payload: &mut [u8], flow: u32, sequence: u64) {
    let (header, body) = payload.split_at_mut(HEADER);
    header[..4].copy_from_slice(&MARK);
    header[4..8].copy_from_slice(&flow.to_be_bytes());
    header[8..].copy_from_slice(&sequence.to_be_bytes());
    let mut values = fill(flow, sequence);
    let (words, rest) = body.as_chunks_mut();
    words.iter_mut().zip(&mut values).for_each(|(word, value)| *word = value);
    rest.copy_from_slice(&values.next().unwrap_or_default()[..rest.len()]);
}

/// The flow and the number of a payload that is as [`write_payload`] made it.
pub(super) fn read_payload(payload: &[u8]) -> Option<(u32, u64)> {
    let (header, body) = payload.split_at_checked(HEADER)?;
    let flow = u32::from_be_bytes(header[4..8].try_into().ok()?);
    let sequence = u64::from_be_bytes(header[8..].try_into().ok()?);
    let mut values = fill(flow, sequence);
    let (words, rest) = body.as_chunks();
    let sound = header[..4] == MARK
        && flow < MOST_FLOWS
        && sequence < MOST_PACKETS
        && words.iter().zip(&mut values).all(|(word, value)| *word == value)
        && values.next().is_some_and(|value| *rest == value[..rest.len()]);
    sound.then_some((flow, sequence))
}

/// The words that follow a payload's header: cheap to make, different in every packet and place.
fn fill(flow: u32, sequence: u64) -> impl Iterator<Item = [u8; 8]> {
    let first = (sequence ^ (u64::from(flow) << 40)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (0u64..).map(move |index| first.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes())
}

/// Sends the first `count` messages of `batch`; returns how many went and how often one was refused.
fn send_batch(batch: &mut Batch, socket: &UdpSocket, count: usize) -> io::Result<(u64, u64)> {
    let (mut sent, mut refusals) = (0, 0);
    while sent < count && refusals < MOST_REFUSALS {
        match batch.send(socket.as_fd(), sent, count) {
            Ok(done) => sent += done,
            // An ICMP error of an earlier packet, a full queue, or a route being changed.
            Err(error) if TRANSIENT.contains(&error.raw_os_error().unwrap_or(0)) => {
                refusals += 1;
                thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
    Ok((sent as u64, refusals))
}

fn open_flows(target: SocketAddr, flows: u32) -> io::Result<Vec<UdpSocket>> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = u64::from(flows) + 1024;
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))?;
    }
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0u8; 4], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let open = |_| {
        let socket = UdpSocket::bind(any)?;
        // No segmentation offload: one message is one packet.
        batch::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0)?;
        socket.connect(target)?;
        Ok(socket)
    };
    (0..flows).map(open).collect()
}

pub(super) fn rate(packets: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    packets as f64 / elapsed.as_secs_f64()
}

/// Bytes of mark and numbers at the start of a payload.
pub const HEADER: usize = 16;

/// Most payload bytes.
pub const LARGEST: usize = 9_200;

/// Most flows of one generator: each holds a socket.
pub const MOST_FLOWS: u32 = 16_384;

/// Most packets of one flow; bounds what a corrupted number can make a sink allocate.
const MOST_PACKETS: u64 = 1 << 32;

const MARK: [u8; 4] = *b"vxlT";

const TRANSIENT: [i32; 5] = [libc::ECONNREFUSED, libc::ENOBUFS, libc::EAGAIN, libc::EHOSTUNREACH, libc::ENETUNREACH];

/// Refusals in one batch after which the generator looks at its clock again.
const MOST_REFUSALS: u64 = 1_000;

/// How long packets of an [`exchange`] may be under way.
const PATIENCE: Duration = Duration::from_secs(1);
