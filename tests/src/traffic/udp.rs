//! A UDP generator that numbers every packet, and a sink that accounts for every one.
//!
//! A payload is a mark, the flow's number, the packet's number within the flow, and a fill that
//! follows from the two numbers; the sink checks all of it.

#![expect(
    clippy::cast_possible_truncation,
    reason = "a batch has at most SLOTS messages, a generator at most MOST_FLOWS flows"
)]

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::batch::{self, Batch, SLOTS};
use super::pace::{Amount, Pace, Pacer};
use super::pin;
use crate::LabError;
use crate::lab::Container;
use crate::netns::Netns;
use crate::process::await_value;

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
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { payload: 64, flows: 1, pace: Pace::Rate(10_000), amount: Amount::Packets(10_000), batch: 32 }
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

/// What a sink has received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Packets, of any kind.
    pub packets: u64,
    /// Payload bytes of sound packets.
    pub bytes: u64,
    /// Packets that came for the first time.
    pub distinct: u64,
    /// Packets that had come before.
    pub duplicates: u64,
    /// Packets that came after one of the same flow with a higher number.
    pub reordered: u64,
    /// Packets that are not what a generator sent.
    pub corrupted: u64,
    /// Packets that reached the sink's socket and found its buffer full.
    pub socket_drops: u64,
    /// Distinct packets by flow number.
    pub flows: Vec<u64>,
    /// From the first to the last arrival.
    pub elapsed: Duration,
}

impl Received {
    /// Delivered packets per second: distinct packets over the time between first and last.
    pub fn pps(&self) -> f64 {
        rate(self.distinct, self.elapsed)
    }

    /// Whether exactly `count` packets came, each once and sound.
    pub fn exactly(&self, count: u64) -> bool {
        self.packets == count && self.distinct == count && self.corrupted == 0
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
    if !(HEADER..=LARGEST).contains(&options.payload) || !(1..=MOST_FLOWS).contains(&options.flows) {
        return Err(LabError::Unfit { what: "payload or number of flows out of range", text: format!("{options:?}") });
    }
    let sockets =
        ns.run(|| open_flows(target, options.flows))?.map_err(LabError::syscall("connect", target.to_string()))?;
    let mut sequences = vec![0u64; sockets.len()];
    let mut batch = Batch::new(options.payload);
    let most = options.batch.clamp(1, SLOTS) as u64;
    let mut pacer = Pacer::start(options.pace, options.amount);
    let mut sent = Sent { packets: 0, refusals: 0, elapsed: Duration::ZERO };
    // Flows take turns, one batch each.
    for flow in (0..sockets.len()).cycle() {
        let granted = pacer.grant(most);
        if granted == 0 {
            break;
        }
        let sequence = &mut sequences[flow];
        for index in 0..granted {
            write_payload(batch.fill(index as usize, options.payload), flow as u32, *sequence + index);
        }
        let (done, refusals) = send_batch(&mut batch, &sockets[flow], granted as usize)
            .map_err(LabError::syscall("sendmmsg", target.to_string()))?;
        pacer.give_back(granted - done);
        *sequence += done;
        sent.packets += done;
        sent.refusals += refusals;
    }
    sent.elapsed = pacer.elapsed();
    Ok(sent)
}

/// A socket that accounts for every packet that a generator sends to it.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    packets: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    account: mpsc::Receiver<Received>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on some port of `address` inside `ns`.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when the socket cannot be made.
    pub fn listen(ns: &Netns, address: impl Into<IpAddr>) -> Result<Self, LabError> {
        Self::listen_on(ns, address, None)
    }

    /// As [`listen`](Self::listen), with the receiving thread on one CPU only.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when the socket cannot be made. A CPU that does not exist is passed
    /// over: the thread then runs anywhere.
    pub fn listen_on(ns: &Netns, address: impl Into<IpAddr>, cpu: Option<usize>) -> Result<Self, LabError> {
        let wanted = SocketAddr::new(address.into(), 0);
        let socket = ns.run(|| UdpSocket::bind(wanted))?.map_err(LabError::syscall("bind", wanted.to_string()))?;
        let address = socket
            .local_addr()
            .and_then(|address| batch::prepare_receiver(socket.as_fd()).map(|()| address))
            .map_err(LabError::syscall("setsockopt", wanted.to_string()))?;
        let packets = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (result, account) = mpsc::channel();
        let thread = {
            let (packets, stop) = (Arc::clone(&packets), Arc::clone(&stop));
            thread::spawn(move || {
                // A sink on the wrong CPU still counts right.
                let _ = cpu.map(pin::to_cpu);
                // Nobody waits for the account of a sink that was dropped.
                drop(result.send(receive_all(&socket, &packets, &stop)));
            })
        };
        Ok(Self { address, packets, stop, account, thread: Some(thread) })
    }

    /// Where to send to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Packets received so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Waits for `expected` packets or until none has come for `patience`, then a moment for
    /// any beyond them, and returns the account.
    ///
    /// # Errors
    /// [`LabError::Timeout`] when the sink's thread does not answer.
    pub fn finish(mut self, expected: u64, patience: Duration) -> Result<Received, LabError> {
        let (mut last, mut since) = (self.packets(), Instant::now());
        loop {
            thread::sleep(Duration::from_millis(2));
            let now = self.packets();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let quiet = if now < expected { patience } else { SETTLE };
            if since.elapsed() >= quiet {
                break;
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        let account = await_value(
            "account of the sink",
            PATIENCE,
            || self.account.try_recv().ok(),
            || "its thread is gone".to_owned(),
        )?;
        self.thread.take().map(JoinHandle::join);
        Ok(account)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// What a sink knows of one flow.
#[derive(Default)]
struct Flow {
    next: u64,
    seen: Vec<u64>,
    distinct: u64,
}

impl Flow {
    /// Marks `sequence` as received and says whether it is new.
    fn mark(&mut self, sequence: u64) -> bool {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        let new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        self.distinct += u64::from(new);
        new
    }
}

fn receive_all(socket: &UdpSocket, packets: &AtomicU64, stop: &AtomicBool) -> Received {
    let mut account = Received::default();
    let mut flows: Vec<Flow> = Vec::new();
    let mut batch = Batch::new(LARGEST);
    let mut times: Option<(Instant, Instant)> = None;
    while !stop.load(Ordering::Relaxed) {
        let count = match batch.receive(socket.as_fd()) {
            Ok(count) => count,
            Err(error) if batch::nothing_came(&error) => continue,
            Err(_) => break,
        };
        let now = Instant::now();
        times = Some((times.map_or(now, |(first, _)| first), now));
        for index in 0..count {
            take(&mut account, &mut flows, batch.message(index));
        }
        packets.fetch_add(count as u64, Ordering::Relaxed);
    }
    account.socket_drops = batch::drops(socket.as_fd()).unwrap_or(0).into();
    account.flows = flows.iter().map(|flow| flow.distinct).collect();
    account.elapsed = times.map_or(Duration::ZERO, |(first, last)| last - first);
    account
}

/// Enters one payload into the account.
fn take(account: &mut Received, flows: &mut Vec<Flow>, payload: &[u8]) {
    account.packets += 1;
    let Some((number, sequence)) = read_payload(payload) else {
        account.corrupted += 1;
        return;
    };
    let number = number as usize;
    if number >= flows.len() {
        flows.resize_with(number + 1, Flow::default);
    }
    let flow = &mut flows[number];
    account.bytes += payload.len() as u64;
    if !flow.mark(sequence) {
        account.duplicates += 1;
        return;
    }
    account.distinct += 1;
    if sequence < flow.next {
        account.reordered += 1;
    } else {
        flow.next = sequence + 1;
    }
}

/// The payload that a generator would send as packet number `sequence` of flow number `flow`, in
/// `length` bytes, at least [`HEADER`]: for frames that are built by hand and end in a [`Sink`].
pub fn payload(flow: u32, sequence: u64, length: usize) -> Vec<u8> {
    let mut payload = vec![0; length.max(HEADER)];
    write_payload(&mut payload, flow, sequence);
    payload
}

/// Fills `payload` for packet number `sequence` of flow number `flow`.
fn write_payload(payload: &mut [u8], flow: u32, sequence: u64) {
    let (header, body) = payload.split_at_mut(HEADER);
    header[..4].copy_from_slice(&MARK);
    header[4..8].copy_from_slice(&flow.to_be_bytes());
    header[8..].copy_from_slice(&sequence.to_be_bytes());
    for (word, value) in body.chunks_mut(8).zip(fill(flow, sequence)) {
        word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
    }
}

/// The flow and the number of a payload that is as [`write_payload`] made it.
fn read_payload(payload: &[u8]) -> Option<(u32, u64)> {
    let (header, body) = payload.split_at_checked(HEADER)?;
    let flow = u32::from_be_bytes(header[4..8].try_into().ok()?);
    let sequence = u64::from_be_bytes(header[8..].try_into().ok()?);
    let sound = header[..4] == MARK
        && flow < MOST_FLOWS
        && sequence < MOST_PACKETS
        && body.chunks(8).zip(fill(flow, sequence)).all(|(word, value)| word == &value.to_le_bytes()[..word.len()]);
    sound.then_some((flow, sequence))
}

/// The words that follow a payload's header: cheap to make, different in every packet and place.
fn fill(flow: u32, sequence: u64) -> impl Iterator<Item = u64> {
    let first = (sequence ^ (u64::from(flow) << 40)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (0u64..).map(move |index| first.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
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

fn rate(packets: u64, elapsed: Duration) -> f64 {
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

/// How long a sink waits for packets that are still under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long nothing more may arrive before an account is closed.
const SETTLE: Duration = Duration::from_millis(60);
