//! Offers a load from one container to the other, and says what arrived and what it cost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vxlane_tests::LabError;
use vxlane_tests::lab::Container;
use vxlane_tests::traffic::pace::{Amount, Pace};
use vxlane_tests::traffic::udp::{self, Received, Sent, Sink, UdpOptions};
use vxlane_tests::traffic::{packets, pin};

use crate::bed::Bed;
use crate::machine::{CpuUse, Meter};
use crate::search::Outcome;

/// A load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Length of the frames, from the Ethernet header on, without FCS.
    pub frame: usize,
    /// Number of flows, each with a source port of its own.
    pub flows: u32,
    /// Packets per second; none for as many as possible.
    pub rate: Option<f64>,
    /// For how long.
    pub time: Duration,
}

impl Load {
    /// The smallest frames, one flow, without limit.
    pub fn flood(time: Duration) -> Self {
        Self { frame: SMALLEST, flows: 1, rate: None, time }
    }

    /// The smallest frames, one flow, at `rate`.
    pub fn at(rate: f64, time: Duration) -> Self {
        Self { rate: Some(rate), ..Self::flood(time) }
    }

    /// Payload of a UDP packet in such a frame, in bytes.
    pub fn payload(&self) -> usize {
        self.frame.saturating_sub(HEADERS).max(udp::HEADER)
    }

    /// What the generator is told.
    pub fn options(&self) -> UdpOptions {
        // A rate below 2^53 packets a second.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are positive and small")]
        let pace = self.rate.map_or(Pace::Flood, |rate| Pace::Rate(rate.max(1.0) as u64));
        UdpOptions {
            payload: self.payload(),
            flows: self.flows,
            pace,
            amount: Amount::Time(self.time),
            catches_up: CATCHES_UP,
            ..UdpOptions::default()
        }
    }
}

/// What a load came to.
#[derive(Clone, Debug)]
pub struct Trial {
    /// What was sent.
    pub sent: Sent,
    /// What arrived.
    pub received: Received,
    /// What the processors did meanwhile.
    pub cpu: CpuUse,
}

impl Trial {
    /// The trial as a search sees it.
    pub fn outcome(&self) -> Outcome {
        let sent = self.sent.packets.max(1) as f64;
        Outcome {
            offered: self.sent.pps(),
            delivered: self.received.pps(),
            loss: (1.0 - self.received.distinct as f64 / sent).max(0.0),
        }
    }

    /// Processor time of the run per packet that arrived, in microseconds.
    pub fn cost(&self) -> f64 {
        self.cpu.run * 1e6 / self.received.distinct.max(1) as f64
    }

    /// The same with what everybody else on the machine did meanwhile.
    pub fn machine_cost(&self) -> f64 {
        self.cpu.machine * 1e6 / self.received.distinct.max(1) as f64
    }

    /// Packets that were sent and did not arrive.
    pub fn lost(&self) -> u64 {
        self.sent.packets.saturating_sub(self.received.distinct)
    }
}

/// What makes packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Generator {
    /// Numbered packets put on the device by AF_XDP, and all checked where they are taken off it
    #[default]
    Packets,
    /// The same from UDP socket to UDP socket, through both ends' IP stacks
    Sockets,
    /// The kernel's pktgen, for the way into tunnels on half paths; the device counts what arrives
    Pktgen,
}

/// What offers a load, and takes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tools {
    /// What makes packets.
    pub generator: Generator,
    /// Processors for generator and sink, if they are to stay on some.
    pub pins: Option<(usize, usize)>,
}

impl Tools {
    /// What takes the packets for `container`.
    ///
    /// # Errors
    /// [`LabError`] when the socket cannot be made.
    pub fn sink(&self, container: &Container) -> Result<Sink, LabError> {
        let cpu = self.pins.map(|(_, sink)| sink);
        match self.generator {
            Generator::Sockets => Sink::listen_on(container.ns(), container.ipv4(), cpu),
            Generator::Packets | Generator::Pktgen => packets::capture(container, cpu),
        }
    }

    /// Sends `load` from left to `port` on the right.
    ///
    /// # Errors
    /// [`LabError`] when a socket fails.
    pub fn send(&self, bed: &Bed, port: u16, load: &Load) -> Result<Sent, LabError> {
        self.on_its_cpu(|| match self.generator {
            Generator::Sockets => udp::send(bed.left.ns(), (bed.right.ipv4(), port).into(), &load.options()),
            Generator::Packets | Generator::Pktgen => packets::send(&bed.left, bed.target, port, &load.options()),
        })
    }

    /// Runs a generator, on its processor if it has one.
    ///
    /// # Errors
    /// Those of `generate`, and if there is no such processor.
    pub fn on_its_cpu<T: Send>(&self, generate: impl FnOnce() -> Result<T, LabError> + Send) -> Result<T, LabError> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.pins.map_or(Ok(()), |(cpu, _)| pin::to_cpu(cpu))?;
                generate()
            });
            thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        })
    }
}

/// Offers `load` from left to right.
///
/// # Errors
/// [`LabError::Unfit`] when a packet arrived changed or twice: such a run is worth nothing.
pub fn offer(bed: &Bed, load: &Load, tools: Tools) -> Result<Trial, LabError> {
    let sink = tools.sink(&bed.right)?;
    let meter = Meter::start(bed.processes())?;
    let sent = tools.send(bed, sink.address().port(), load)?;
    let received = sink.finish(sent.packets, PATIENCE)?;
    let cpu = meter.stop()?;
    if received.corrupted > 0 || received.duplicates > 0 {
        return Err(LabError::Unfit {
            what: "packets arrived changed or twice",
            text: format!(
                "{}: {} of {} changed, {} twice, under {load:?}",
                bed.peer, received.corrupted, received.packets, received.duplicates
            ),
        });
    }
    Ok(Trial { sent, received, cpu })
}

/// Does `work` while the smallest frames go from left to right at `rate`.
///
/// # Errors
/// [`LabError`] when the generator or `work` fails.
pub fn under<T>(bed: &Bed, rate: f64, tools: Tools, work: impl FnOnce() -> Result<T, LabError>) -> Result<T, LabError> {
    let sink = tools.sink(&bed.right)?;
    let (port, stop) = (sink.address().port(), AtomicBool::new(false));
    thread::scope(|scope| {
        let generator = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                tools.send(bed, port, &Load::at(rate, SLICE))?;
            }
            Ok(())
        });
        let outcome = work();
        stop.store(true, Ordering::Relaxed);
        let load: Result<(), LabError> = generator.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        load.and(outcome)
    })
}

/// The smallest frame measured, in bytes without FCS.
pub const SMALLEST: usize = 64;

/// Ethernet, IPv4 and UDP headers.
pub const HEADERS: usize = 14 + 20 + 8;

/// Packets by which the generator catches up after it waited for a processor: two of its batches. A
/// sender whose link is no faster than the offered rate makes no longer bursts.
const CATCHES_UP: u64 = 64;

/// How long packets may be under way.
const PATIENCE: Duration = Duration::from_millis(80);

/// How often a background load looks whether it should stop.
const SLICE: Duration = Duration::from_millis(100);
