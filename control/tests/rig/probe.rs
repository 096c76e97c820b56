//! Numbered datagrams at a steady rate, and which of them arrived.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Home, Namespace, inside};

/// Datagrams a second.
pub(crate) const RATE: u64 = 10_000;
/// What marks a datagram as one of this stream.
const MARK: u64 = 0x7678_6c61_6e65_0000;
/// How long to wait for the last ones.
const PATIENCE: Duration = Duration::from_secs(1);
/// The buffer of the receiving socket: as many datagrams as come in some seconds.
const BUFFER: usize = 32 << 20;

/// A stream of probes, until it is finished.
pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    arrived: Arc<AtomicU64>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Vec<bool>>,
}

/// What became of the probes.
#[derive(Debug)]
pub(crate) struct Fate {
    /// Which arrived, by number.
    pub(crate) arrived: Vec<bool>,
    pub(crate) sent: u64,
}

impl Fate {
    /// How many of the probes with these numbers did not arrive.
    pub(crate) fn lost(&self, numbers: Range<u64>) -> u64 {
        let has = |number: u64| usize::try_from(number).is_ok_and(|number| self.arrived.get(number) == Some(&true));
        numbers.filter(|&number| !has(number)).count() as u64
    }
}

/// Probes of the times in which a daemon was away. As many wait for it as its ring has room for;
/// on a machine that is slow at the time more may come, and only these may be lost.
#[derive(Debug)]
pub(crate) struct Away {
    ring: u64,
    /// How many were sent, each time.
    sent: Vec<u64>,
}

impl Away {
    /// For a daemon of `home` that probes reach by `interface`.
    pub(crate) fn new(home: &Home, interface: &str) -> Self {
        let status = home.json("status");
        let is_ring = |frames: &&Value| frames["interface"] == interface && frames["half"] == "receive";
        let ring = status["frames"].as_array().unwrap().iter().find(is_ring).unwrap()["total"].as_u64().unwrap();
        Self { ring, sent: Vec::new() }
    }

    /// Waits until a daemon carries probes again. Returns those sent since `from`, when one was there last.
    pub(crate) fn since(&mut self, from: u64, probe: &Probe) -> Range<u64> {
        probe.await_arrival();
        let sent = from..probe.sent();
        self.sent.push(sent.end - sent.start);
        sent
    }

    /// Those that found no room.
    pub(crate) fn beyond(&self) -> u64 {
        self.sent.iter().map(|sent| sent.saturating_sub(self.ring)).sum()
    }
}

fn socket(namespace: &Namespace, address: SocketAddr) -> UdpSocket {
    inside(namespace, move || UdpSocket::bind(address).unwrap())
}

impl Probe {
    /// Sends from `from` to `to`, which has `address`.
    pub(crate) fn start(from: &Namespace, to: &Namespace, address: &str) -> Self {
        let target: SocketAddr = format!("{address}:7700").parse().unwrap();
        let (source, sink) = (socket(from, "0.0.0.0:0".parse().unwrap()), socket(to, target));
        nix::sys::socket::setsockopt(&sink, nix::sys::socket::sockopt::RcvBufForce, &BUFFER).unwrap();
        sink.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (stop, sent, arrived) = (Arc::default(), Arc::default(), Arc::default());
        let sender = {
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            thread::spawn(move || send(&source, target, &stop, &sent))
        };
        let receiver = {
            let (stop, sent, arrived) = (Arc::clone(&stop), Arc::clone(&sent), Arc::clone(&arrived));
            thread::spawn(move || receive(&sink, &stop, &sent, &arrived))
        };
        Self { stop, sent, arrived, sender, receiver }
    }

    /// How many were sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Waits until probes arrive that were sent after this was called.
    pub(crate) fn await_arrival(&self) {
        let (sent, deadline) = (self.sent(), Instant::now() + Duration::from_secs(10));
        while self.arrived.load(Ordering::Acquire) <= sent {
            assert!(Instant::now() < deadline, "no probe has arrived for ten seconds");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops sending, and says what arrived. Anything that is not a probe, or comes twice, is a
    /// failure.
    pub(crate) fn finish(self) -> Fate {
        self.stop.store(true, Ordering::Release);
        self.sender.join().unwrap();
        Fate { sent: self.sent.load(Ordering::Acquire), arrived: self.receiver.join().unwrap() }
    }
}

/// Probes that are sent without a pause.
const MOST_AT_ONCE: u64 = 20;

fn send(source: &UdpSocket, target: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) {
    let start = Instant::now();
    let mut number = 0;
    while !stop.load(Ordering::Acquire) {
        // What was not sent in time is sent soon, but not at once: a burst that the sender's own waiting
        // for a processor has made may be more than its veth holds, and says nothing of the daemon.
        let due = u64::try_from(start.elapsed().as_micros()).unwrap() * RATE / 1_000_000;
        let due = due.min(number + MOST_AT_ONCE);
        while number < due {
            let mut bytes = [0; 64];
            bytes[..8].copy_from_slice(&MARK.to_be_bytes());
            bytes[8..16].copy_from_slice(&u64::to_be_bytes(number));
            source.send_to(&bytes, target).unwrap();
            number += 1;
            sent.store(number, Ordering::Release);
        }
        thread::sleep(Duration::from_micros(100));
    }
}

fn receive(sink: &UdpSocket, stop: &AtomicBool, sent: &AtomicU64, last: &AtomicU64) -> Vec<bool> {
    let mut arrived: Vec<bool> = Vec::new();
    let mut bytes = [0; 2048];
    let mut heard = Instant::now();
    loop {
        match sink.recv(&mut bytes) {
            Ok(length) => {
                let number = |range: Range<usize>| u64::from_be_bytes(bytes[range].try_into().unwrap());
                assert_eq!((length, number(0..8)), (64, MARK), "not a probe");
                let index = usize::try_from(number(8..16)).unwrap();
                if arrived.len() <= index {
                    arrived.resize(index + 1, false);
                }
                assert!(!std::mem::replace(&mut arrived[index], true), "probe {index} came twice");
                last.store(number(8..16), Ordering::Release);
                heard = Instant::now();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        let all = stop.load(Ordering::Acquire) && arrived.len() as u64 == sent.load(Ordering::Acquire);
        if stop.load(Ordering::Acquire) && (all || heard.elapsed() > PATIENCE) {
            return arrived;
        }
    }
}
