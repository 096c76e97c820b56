//! One direction of one VTEP alone: frames into the tunnel, and frames out of it.

use std::fs;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use vxlane_tests::LabError;
use vxlane_tests::frames::{Talk, Vxlan};
use vxlane_tests::lab::{Host, UPLINK};
use vxlane_tests::netns::Netns;
use vxlane_tests::peer::VXLAN_PORT;
use vxlane_tests::traffic::pace::{Amount, Pace};
use vxlane_tests::traffic::raw::RawSender;
use vxlane_tests::traffic::udp;

use super::{LARGEST, Turn};
use crate::bed::VNI;
use crate::drops;
use crate::load::{Generator, Load, SMALLEST};
use crate::machine::Meter;
use crate::peer::Peer;
use crate::pktgen::{self, Flood};
use crate::results::{Metric, Section};

/// One direction at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HalfCase {
    /// Into the tunnel.
    Encap(usize),
    /// Out of it.
    Decap(usize),
}

impl HalfCase {
    /// All of a run.
    pub(super) const ALL: [Self; 4] =
        [Self::Encap(SMALLEST), Self::Decap(SMALLEST), Self::Encap(LARGEST), Self::Decap(LARGEST)];
}

impl Turn<'_> {
    pub(super) fn half(&mut self, case: HalfCase) -> Result<(), LabError> {
        match case {
            HalfCase::Encap(frame) => self.encap(frame),
            HalfCase::Decap(frame) => self.decap(frame),
        }
    }

    /// From the container to the other host's end of the underlay, where its device counts.
    fn encap(&mut self, frame: usize) -> Result<(), LabError> {
        let case = format!("encap, {}", size(frame));
        let far = self.bed.lab.host("b").ns();
        // Somebody who takes the datagrams and never looks: a closed port would answer with ICMP.
        let _hole = far
            .run(|| UdpSocket::bind(("0.0.0.0", VXLAN_PORT)))?
            .map_err(LabError::syscall("bind", "the VXLAN port"))?;
        let load = Load { frame, flows: 1, rate: None, time: self.plan.flood };
        self.teach()?;
        self.await_passage(far, || {
            let few = Load { rate: Some(1_000.0), time: WARM_UP, ..load };
            self.plan.tools.send(self.bed, DISCARD, &few).map(drop)
        })?;
        let causes = drops::read(self.bed);
        let (arrived, meter, start) = (arrivals(far)?, Meter::start(self.bed.processes())?, Instant::now());
        let sent = match self.plan.tools.generator {
            Generator::Pktgen => self.pktgen(&load)?,
            Generator::Packets | Generator::Sockets => self.plan.tools.send(self.bed, DISCARD, &load)?.packets,
        };
        let elapsed = start.elapsed().as_secs_f64();
        thread::sleep(SETTLE);
        let cpu = meter.stop()?;
        let arrived = arrivals(far)?.saturating_sub(arrived);
        let mut causes = drops::grown(&causes, &drops::read(self.bed));
        // What the hole swallowed has arrived.
        causes.retain(|(cause, _)| !cause.starts_with("b/UDP"));
        self.note_drops(Section::Half, &case, (sent, sent.saturating_sub(arrived)), causes);
        let arrived = arrived as f64;
        self.record(Section::Half, &case, Metric::Flood, arrived / elapsed, cpu.stolen);
        self.record(Section::Half, &case, Metric::CpuGross, cpu.run * 1e6 / arrived.max(1.0), cpu.stolen);
        Ok(())
    }

    /// Has the VTEP hear of the other container, so that frames to it are not flooded.
    fn teach(&self) -> Result<(), LabError> {
        let sender = RawSender::open(self.bed.lab.host("b").ns(), UPLINK)?;
        let frames = self.tunnel_frames(SMALLEST, DISCARD);
        sender.cycle(&frames, Pace::Rate(1_000), Amount::Packets(ENOUGH)).map(drop)
    }

    fn pktgen(&self, load: &Load) -> Result<u64, LabError> {
        let (left, right) = (&self.bed.left, &self.bed.right);
        let to = (right.mac(), right.ipv4());
        let flood = Flood { frame: load.frame, flows: 1, to, from: left.ipv4(), time: load.time };
        pktgen::flood(left.ns(), "eth0", &flood)
    }

    /// From the other host's end of the underlay, as finished tunnel frames, to the container.
    fn decap(&mut self, frame: usize) -> Result<(), LabError> {
        let case = format!("decap, {}", size(frame));
        let sink = self.plan.tools.sink(&self.bed.left)?;
        let frames = self.tunnel_frames(frame, sink.address().port());
        let sender = RawSender::open(self.bed.lab.host("b").ns(), UPLINK)?;
        let causes = drops::read(self.bed);
        let meter = Meter::start(self.bed.processes())?;
        let flood = || sender.cycle(&frames, Pace::Flood, Amount::Time(self.plan.flood));
        let sent = self.plan.tools.on_its_cpu(flood)?;
        let received = sink.finish(sent, Duration::from_millis(150))?;
        let cpu = meter.stop()?;
        if received.corrupted > 0 || received.packets == 0 {
            return Err(LabError::Unfit {
                what: "what was sent through the tunnel did not arrive sound",
                text: format!("{}: {received:?}\n{}", self.peer(), self.bed.diagnosis()),
            });
        }
        let causes = drops::grown(&causes, &drops::read(self.bed));
        self.note_drops(Section::Half, &case, (sent, sent.saturating_sub(received.packets)), causes);
        let rate = received.packets as f64 / received.elapsed.as_secs_f64().max(f64::EPSILON);
        self.record(Section::Half, &case, Metric::Flood, rate, cpu.stolen);
        let cost = cpu.run * 1e6 / received.packets as f64;
        self.record(Section::Half, &case, Metric::CpuGross, cost, cpu.stolen);
        Ok(())
    }

    /// Frames for the container's sink on `port`, in the tunnel of this peer.
    fn tunnel_frames(&self, frame: usize, port: u16) -> Vec<Vec<u8>> {
        let host = |name: &str| -> &Host { self.bed.lab.host(name) };
        let end = |name: &str| (host(name).uplink_mac(), host(name).address());
        let tunnel = Vxlan::new(end("b"), end("a"), VNI);
        let talk = Talk::new(self.bed.right.station(), self.bed.left.station());
        let length = Load { frame, ..Load::flood(self.plan.flood) }.payload();
        let frames = (0..DISTINCT_FRAMES).map(|number| {
            let inner = talk.udp4(SOURCE_PORT, port, &udp::payload(0, number, length));
            // The forwarder that parses nothing knows no tunnel.
            if self.peer() == Peer::Null { inner } else { tunnel.wrap(&inner) }
        });
        frames.collect()
    }

    /// Sends with `send` until something gets through to `far`.
    fn await_passage(&self, far: &Netns, send: impl Fn() -> Result<(), LabError>) -> Result<(), LabError> {
        let before = arrivals(far)?;
        for _ in 0..WARM_UPS {
            send()?;
            // Neighbour discovery makes a few frames, too.
            if arrivals(far)? > before + ENOUGH {
                return Ok(());
            }
            thread::sleep(SETTLE);
        }
        let text = format!("{}\n{}", self.peer(), self.bed.diagnosis());
        Err(LabError::Unfit { what: "nothing comes out of the tunnel", text })
    }
}

/// Frames that the uplink of the namespace has received.
fn arrivals(ns: &Netns) -> Result<u64, LabError> {
    let path = format!("/sys/class/net/{UPLINK}/statistics/rx_packets");
    let text = ns.run(|| fs::read_to_string(&path))?.map_err(LabError::syscall("read", path.clone()))?;
    text.trim().parse().map_err(|_| LabError::Unfit { what: "a number was expected in rx_packets", text })
}

fn size(frame: usize) -> String {
    if frame == LARGEST { "1450 B IP".to_owned() } else { format!("{frame} B") }
}

/// The discard service: nobody listens, for the container is behind no VTEP.
const DISCARD: u16 = 9;
const SOURCE_PORT: u16 = 40_000;
const DISTINCT_FRAMES: u64 = 256;
const SETTLE: Duration = Duration::from_millis(100);
const WARM_UP: Duration = Duration::from_millis(50);
const WARM_UPS: u32 = 30;
const ENOUGH: u64 = 20;
