//! Sinks: they account for every packet that a generator sends to them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::batch::{self, Batch, Wait};
use super::{pin, udp};
use crate::LabError;
use crate::netns::Netns;
use crate::process::await_value;

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
        udp::rate(self.distinct, self.elapsed)
    }

    /// Whether exactly `count` packets came, each once and sound.
    pub fn exactly(&self, count: u64) -> bool {
        self.packets == count && self.distinct == count && self.corrupted == 0
    }
}

/// Accounts for every packet that a generator sends to it.
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
        let address = socket.local_addr().map_err(LabError::syscall("getsockname", wanted.to_string()))?;
        Self::start(
            address,
            Source { socket: socket.into(), payload_of: |message, _| Some(message), looks_every: None },
            cpu,
        )
    }

    /// Takes what is for `address` out of messages of `source`.
    pub(super) fn start(address: SocketAddr, source: Source, cpu: Option<usize>) -> Result<Self, LabError> {
        batch::prepare_receiver(source.socket.as_fd()).map_err(LabError::syscall("setsockopt", address.to_string()))?;
        let packets = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (result, account) = mpsc::channel();
        let thread = {
            let (packets, stop) = (Arc::clone(&packets), Arc::clone(&stop));
            thread::spawn(move || {
                // A sink on the wrong CPU still counts right.
                let _ = cpu.map(pin::to_cpu);
                // Nobody waits for the account of a sink that was dropped.
                drop(result.send(receive_all(&source, address.port(), &packets, &stop)));
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

/// Messages with packets in them.
pub(super) struct Source {
    /// Where they come from.
    pub(super) socket: OwnedFd,
    /// What a generator sent, out of a message for this port; none if the message is of no concern.
    pub(super) payload_of: fn(&[u8], u16) -> Option<&[u8]>,
    /// After what time to look again when there was none; otherwise the kernel wakes the sink, at the
    /// cost of whoever brings the packet.
    pub(super) looks_every: Option<Duration>,
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

fn receive_all(source: &Source, port: u16, packets: &AtomicU64, stop: &AtomicBool) -> Received {
    let socket = source.socket.as_fd();
    let mut account = Received::default();
    let mut flows: Vec<Flow> = Vec::new();
    let mut batch = Batch::new(LARGEST_MESSAGE);
    let mut times: Option<(Instant, Instant)> = None;
    let wait = if source.looks_every.is_some() { Wait::Never } else { Wait::ForOne };
    while !stop.load(Ordering::Relaxed) {
        let count = match batch.receive(socket, wait) {
            Ok(count) => count,
            Err(error) if batch::nothing_came(&error) => {
                if let Some(look) = source.looks_every {
                    thread::sleep(look);
                }
                continue;
            }
            Err(_) => break,
        };
        let before = account.packets;
        for payload in (0..count).filter_map(|index| (source.payload_of)(batch.message(index), port)) {
            take(&mut account, &mut flows, payload);
        }
        if account.packets > before {
            let now = Instant::now();
            times = Some((times.map_or(now, |(first, _)| first), now));
            packets.fetch_add(account.packets - before, Ordering::Relaxed);
        }
    }
    account.socket_drops = batch::drops(socket).unwrap_or(0).into();
    account.flows = flows.iter().map(|flow| flow.distinct).collect();
    account.elapsed = times.map_or(Duration::ZERO, |(first, last)| last - first);
    account
}

/// Enters one payload into the account.
fn take(account: &mut Received, flows: &mut Vec<Flow>, payload: &[u8]) {
    account.packets += 1;
    let Some((number, sequence)) = udp::read_payload(payload) else {
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

/// The largest payload with all headers before it.
const LARGEST_MESSAGE: usize = udp::LARGEST + 64;

/// How long a sink waits for packets that are still under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long nothing more may arrive before an account is closed.
const SETTLE: Duration = Duration::from_millis(60);
