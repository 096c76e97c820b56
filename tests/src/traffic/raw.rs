//! Sends raw frames on a device, and watches which frames pass a device.

#![expect(clippy::cast_possible_truncation, reason = "a batch has at most SLOTS messages")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::batch::{self, Batch, SLOTS, Wait};
use super::pace::{Amount, Pace, Pacer};
use crate::LabError;
use crate::netns::Netns;
use crate::process::await_value;

/// Sends frames as they are on one device.
#[derive(Debug)]
pub struct RawSender {
    socket: OwnedFd,
    device: String,
}

impl RawSender {
    /// Opens `device` of `ns` for sending.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when there is no such device.
    pub fn open(ns: &Netns, device: &str) -> Result<Self, LabError> {
        let socket = ns.run(|| batch::packet_socket(device, false))?;
        Ok(Self { socket: socket.map_err(LabError::syscall("packet socket", device))?, device: device.to_owned() })
    }

    /// Sends `frame` once.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when the device does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        nix::unistd::write(&self.socket, frame).map(drop).map_err(LabError::syscall("send", self.device.clone()))
    }

    /// Sends `frame` `count` times.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_times(&self, frame: &[u8], count: u32) -> Result<(), LabError> {
        (0..count).try_for_each(|_| self.send(frame))
    }

    /// Sends `frames` in turn, over and over, and returns how many went out.
    ///
    /// A frame that the device has no room for is sent again.
    ///
    /// # Errors
    /// [`LabError::Syscall`] on any refusal but a full queue.
    pub fn cycle(&self, frames: &[Vec<u8>], pace: Pace, amount: Amount) -> Result<u64, LabError> {
        let largest = frames.iter().map(Vec::len).max().unwrap_or(0);
        let mut batch = Batch::new(largest);
        let mut next = frames.iter().cycle().peekable();
        let mut pacer = Pacer::start(pace, amount);
        let mut total = 0;
        loop {
            let granted = pacer.grant(SLOTS as u64) as usize;
            if granted == 0 || next.peek().is_none() {
                return Ok(total);
            }
            for (index, frame) in next.by_ref().take(granted).enumerate() {
                batch.fill(index, frame.len()).copy_from_slice(frame);
            }
            let mut sent = 0;
            while sent < granted {
                match batch.send(self.socket.as_fd(), sent, granted) {
                    Ok(count) => sent += count,
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => thread::yield_now(),
                    Err(error) => {
                        return Err(LabError::syscall("sendmmsg", self.device.clone())(error));
                    }
                }
            }
            total += sent as u64;
        }
    }
}

/// Which frames of a device a [`Watch`] looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heading {
    /// Those that the device receives.
    Incoming,
    /// Those that the device sends.
    Outgoing,
    /// All.
    Any,
}

/// Counts, and keeps, the frames on a device that a filter accepts; stops when dropped.
///
/// Frames are seen as they were on the device: a VLAN tag that the kernel moved aside is put
/// back. The first [`KEPT`] accepted frames are kept.
#[derive(Debug)]
pub struct Watch {
    name: String,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    frames: Vec<Vec<u8>>,
    lost: u32,
}

impl Watch {
    /// Watches `device` of `ns` from this moment on.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when there is no such device.
    pub fn start(
        ns: &Netns,
        device: &str,
        heading: Heading,
        filter: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> Result<Self, LabError> {
        let name = format!("{device} of {}", ns.name());
        let socket =
            ns.run(|| listening_socket(device, heading))?.map_err(LabError::syscall("packet socket", name.clone()))?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            thread::spawn(move || watch(&socket, heading, &filter, &seen, &stop))
        };
        Ok(Self { name, seen, stop, thread: Some(thread) })
    }

    /// How many frames were accepted so far.
    pub fn count(&self) -> u64 {
        self.lock().count
    }

    /// The accepted frames so far, at most [`KEPT`].
    pub fn frames(&self) -> Vec<Vec<u8>> {
        self.lock().frames.clone()
    }

    /// How many frames, accepted or not, the watch itself was too slow for.
    pub fn lost(&self) -> u32 {
        self.lock().lost
    }

    /// Starts again from zero.
    pub fn reset(&self) {
        *self.lock() = Seen::default();
    }

    /// Waits until at least `expected` frames were accepted.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the number there was after `limit`.
    pub fn await_count(&self, expected: u64, limit: Duration) -> Result<(), LabError> {
        let what = format!("{expected} frames on {}", self.name);
        await_value(&what, limit, || (self.count() >= expected).then_some(()), || self.count().to_string())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        // The watching thread only adds; what a panicking filter left is still a count.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the filter was printed by its thread; the count tells the rest.
            let _ = thread.join();
        }
    }
}

/// Waits until every watch has its expected count, then a little longer, and compares exactly.
///
/// # Errors
/// [`LabError::Timeout`] listing what each watch has, when some count is not as expected.
pub fn expect_counts(expected: &[(&Watch, u64)], limit: Duration) -> Result<(), LabError> {
    let total = |watches: &[(&Watch, u64)]| watches.iter().map(|(watch, _)| watch.count()).sum::<u64>();
    let arrived = |(watch, count): &(&Watch, u64)| watch.count() >= *count;
    // When some never arrive, the comparison below says so better than this wait could.
    let _ = await_value("counts", limit, || expected.iter().all(arrived).then_some(()), String::new);
    let mut before = total(expected);
    loop {
        thread::sleep(SETTLE);
        let now = total(expected);
        if now == before {
            break;
        }
        before = now;
    }
    let wrong = expected.iter().any(|(watch, count)| watch.count() != *count || watch.lost() > 0);
    if !wrong {
        return Ok(());
    }
    let found = expected.iter().map(|(watch, count)| {
        let (have, lost) = (watch.count(), watch.lost());
        format!("{}: {have} of {count}, {lost} missed by the watch", watch.name)
    });
    Err(LabError::Timeout {
        what: "exact counts".to_owned(),
        waited: limit,
        found: found.collect::<Vec<_>>().join("; "),
    })
}

fn listening_socket(device: &str, heading: Heading) -> io::Result<OwnedFd> {
    let socket = batch::packet_socket(device, true)?;
    batch::prepare_receiver(socket.as_fd())?;
    batch::set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    if heading == Heading::Incoming {
        batch::ignore_outgoing(socket.as_fd())?;
    }
    Ok(socket)
}

fn watch(socket: &OwnedFd, heading: Heading, filter: &dyn Fn(&[u8]) -> bool, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let mut batch = Batch::new(LARGEST_FRAME);
    while !stop.load(Ordering::Relaxed) {
        let count = match batch.receive(socket.as_fd(), Wait::ForOne) {
            Ok(count) => count,
            Err(error) if batch::nothing_came(&error) => continue,
            // The device was taken down or away; it may come back up.
            Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => continue,
            Err(_) => return,
        };
        let accepted: Vec<Vec<u8>> = (0..count)
            .filter(|&index| heading != Heading::Outgoing || batch.outgoing(index))
            .map(|index| with_tag(batch.message(index), batch.vlan(index)))
            .filter(|frame| filter(frame))
            .collect();
        let lost = batch::drops(socket.as_fd()).unwrap_or(0);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.count += accepted.len() as u64;
        seen.lost = lost;
        let room = KEPT.saturating_sub(seen.frames.len());
        seen.frames.extend(accepted.into_iter().take(room));
    }
}

/// The frame with the VLAN tag that the kernel had moved aside put back behind the addresses.
fn with_tag(frame: &[u8], tag: Option<(u16, u16)>) -> Vec<u8> {
    match (tag, frame.split_at_checked(12)) {
        (Some((protocol, control)), Some((addresses, rest))) => {
            let tag = [protocol.to_be_bytes(), control.to_be_bytes()].concat();
            [addresses, &tag, rest].concat()
        }
        _ => frame.to_vec(),
    }
}

/// How many frames a watch keeps.
pub const KEPT: usize = 4096;

/// A super-frame of a veth with offload.
const LARGEST_FRAME: usize = 66_000;

/// How long nothing more may arrive before a count is taken for final.
const SETTLE: Duration = Duration::from_millis(60);
