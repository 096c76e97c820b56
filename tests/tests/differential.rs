//! The same frames through both lanes: what comes out is the same, byte for byte.
//!
//! Two hosts that differ in nothing but whether the express lane is open get the same frames, of
//! all kinds, and everything they send to a wire or to a container is compared. Frames that the
//! kernel segments behind the lane have an outer identification each; nothing else may differ.
//!
//! Needs root.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that cannot go on has failed")]

mod shapes;

use std::{cell::Cell, time::Duration};

use etherparse::EtherType;
use proptest::{prelude::*, test_runner::TestRunner};
use shapes::{Shape, Tunnel, Unfinished};
use vxlane_tests::{
    alone::{Alone, AloneOptions},
    frames::{Talk, ethernet},
    lab::{Station, UPLINK, Underlay},
    peer::{Vtep, VxlaneOptions},
    process::await_value,
    soak,
    traffic::{
        offload::{OffloadSender, Work},
        raw::{Heading, RawSender, Watch},
    },
};

const LIMIT: Duration = Duration::from_secs(10);
/// IEEE 802 "local experimental": what workers forward and no program does.
const FENCE: EtherType = EtherType(0x88b5);

/// A host with two containers and a wire, on which everything is seen.
///
/// Fields go in this order when dropped: what watches before what it watches.
struct Host {
    /// What comes out: of the wire, into the container that sends, into the other.
    watches: [Watch; 3],
    endpoint: OffloadSender,
    wire: RawSender,
    alone: Alone,
}

/// Where a frame goes in, and where that which is to be the last comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Out,
    In,
    Local,
}

impl Host {
    fn new(express: bool, underlay: Underlay) -> Self {
        let zero_checksums = underlay == Underlay::V6;
        let vxlane = VxlaneOptions { express, switched: None, zero_checksums, ..VxlaneOptions::default() };
        // Frames may be longer than the network allows.
        let others = vec!["b"];
        let options = AloneOptions {
            others,
            containers: 2,
            endpoints: 0..2,
            network: true,
            peers: true,
            mtu: 1600,
            underlay,
            vxlane,
        };
        let alone = Alone::start(&options).unwrap();
        let is_vxlan = move |frame: &[u8]| match underlay {
            Underlay::V6 => frame.len() > 62 && frame[12..14] == [0x86, 0xdd] && frame[20] == 17,
            Underlay::V4 | Underlay::Both => frame.len() > 42 && frame[12..14] == [8, 0] && frame[23] == 17,
        };
        let out = Watch::start(alone.lab.host("b").ns(), UPLINK, Heading::Incoming, is_vxlan).unwrap();
        let inside =
            |number: usize| Watch::start(alone.containers[number].ns(), "eth0", Heading::Incoming, |_| true).unwrap();
        let watches = [out, inside(0), inside(1)];
        let endpoint = OffloadSender::open(alone.containers[0].ns(), "eth0").unwrap();
        let wire = alone.wire("b").unwrap();
        Self { watches, endpoint, wire, alone }
    }

    fn ends(&self, path: Path) -> [Station; 2] {
        let [left, right] = [0, 1].map(|number| self.alone.containers[number].station());
        let far = self.alone.station("b");
        match path {
            Path::Out => [left, far],
            Path::In => [far, left],
            Path::Local => [left, right],
        }
    }

    fn send(&self, path: Path, frame: &[u8], work: Work) {
        match path {
            Path::Out | Path::Local => self.endpoint.send(frame, work).unwrap(),
            Path::In => self.wire.send(frame).unwrap(),
        }
    }

    /// Waits until everything that was sent this way so far has come out, as far as it does.
    fn fence(&self, path: Path) {
        let [from, to] = self.ends(path);
        let inner = ethernet(to.mac, from.mac, FENCE, &[0xfe; 46]);
        let (frame, watch) = match path {
            Path::Out => (inner.clone(), 0),
            Path::In => (self.alone.tunnel("b").wrap(&inner), 1),
            Path::Local => (inner.clone(), 2),
        };
        let end = move |seen: &[u8]| seen.ends_with(&inner);
        let watch = &self.watches[watch];
        self.send(path, &frame, Work::default());
        let came = || watch.frames().iter().any(|seen| end(seen)).then_some(());
        await_value("the last frame", LIMIT, came, || self.alone.vtep.diagnosis()).unwrap();
        // What took the express lane may still be on its way through another processor.
        let total = || self.watches.iter().map(Watch::count).sum::<u64>();
        let mut before = total();
        loop {
            std::thread::sleep(Duration::from_millis(15));
            let now = total();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Everything that came out since the last time, in an order that does not depend on lanes.
    fn came_out(&self) -> [Vec<Vec<u8>>; 3] {
        self.watches.each_ref().map(|watch| {
            assert_eq!(watch.lost(), 0, "the watch was too slow");
            let mut frames = watch.frames();
            assert_eq!(frames.len() as u64, watch.count(), "more than a watch keeps");
            watch.reset();
            frames.sort();
            frames
        })
    }

    /// Has both stations of every path be known, and their flows.
    fn prime(&self) {
        let [left, right] = [0, 1].map(|number| self.alone.containers[number].station());
        let here = |from: Station| Talk::new(from, left).udp4(1, 2, b"here");
        RawSender::open(self.alone.containers[1].ns(), "eth0").unwrap().send(&here(right)).unwrap();
        let far = self.alone.station("b");
        self.send(Path::In, &self.alone.tunnel("b").wrap(&here(far)), Work::default());
        for path in [Path::In, Path::Out, Path::Local, Path::In, Path::Out, Path::Local] {
            self.fence(path);
        }
    }
}

/// Both lanes: off, then on.
struct Lanes([Host; 2]);

impl Lanes {
    fn new(underlay: Underlay) -> Self {
        let this = Self([false, true].map(|express| Host::new(express, underlay)));
        this.0.iter().for_each(Host::prime);
        this.0.iter().for_each(|host| drop(host.came_out()));
        this
    }

    /// Sends the same to both, and compares what comes out.
    fn compare(&self, path: Path, frames: &[(Vec<u8>, Work)]) -> Result<(), TestCaseError> {
        for host in &self.0 {
            frames.iter().for_each(|(frame, work)| host.send(path, frame, *work));
        }
        self.0.iter().for_each(|host| host.fence(path));
        let [mut off, mut on] = self.0.each_ref().map(Host::came_out);
        for answers in [&mut off[1], &mut on[1]] {
            answers.retain(|frame| !says_too_long(frame));
        }
        if frames.iter().any(|(_, work)| work.segments.is_some()) {
            for frame in off[0].iter_mut().chain(&mut on[0]) {
                without_identification(frame)?;
            }
            off[0].sort();
            on[0].sort();
        }
        for (where_to, (off, on)) in ["on the wire", "back", "to the neighbour"].iter().zip(off.iter().zip(&on)) {
            let only = |these: &[Vec<u8>], those: &[Vec<u8>]| {
                let only: Vec<String> =
                    these.iter().filter(|one| !those.contains(one)).map(|frame| hex(frame)).take(3).collect();
                only.join("\n  ")
            };
            let (without, with) = (only(off, on), only(on, off));
            let counts = (off.len(), on.len());
            prop_assert!(off == on, "{path:?}, {where_to}, {counts:?}:\n off {without}\n on  {with}");
        }
        Ok(())
    }

    /// Runs `cases` batches of `frames`, and wants so many of a hundred frames in the express lane.
    fn check<S>(&self, path: Path, strategy: S, make: impl Fn(&S::Value) -> Vec<(Vec<u8>, Work)>, percent: u64)
    where
        S: Strategy,
        S::Value: std::fmt::Debug,
    {
        let cases = soak::choose(20, 500);
        let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 300, ..Default::default() };
        let (before, sent) = (self.0[1].alone.asked().unwrap(), Cell::new(0));
        let mut runner = TestRunner::new(config);
        let outcome = runner.run(&strategy, |value| {
            let frames = make(&value);
            sent.set(sent.get() + frames.len() as u64);
            self.compare(path, &frames)
        });
        outcome.unwrap_or_else(|error| panic!("{error}"));
        let (sent, asked) = (sent.get(), self.0[1].alone.asked().unwrap() - before);
        println!("{path:?}: {sent} frames, of which workers saw {asked}");
        assert!(asked * 100 <= sent * (100 - percent), "{asked} of {sent} went to workers");
    }
}

/// Whether this says that a frame was too long for the network: there are only so many answers a
/// second, so that it depends on the time which frames get one.
fn says_too_long(frame: &[u8]) -> bool {
    let is_v4 = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&1) && frame.get(34..36) == Some(&[3, 4]);
    let is_v6 = frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&58) && frame.get(54) == Some(&2);
    is_v4 || is_v6
}

/// Checks the outer header's checksum, and has the frame have no identification. IPv6 has neither.
fn without_identification(frame: &mut [u8]) -> Result<(), TestCaseError> {
    if frame[12..14] != [8, 0] {
        return Ok(());
    }
    let sum: u32 = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    prop_assert_eq!((sum >> 16) + (sum & 0xffff), 0xffff, "the checksum of the outer header");
    frame[18..20].fill(0);
    frame[24..26].fill(0);
    Ok(())
}

fn hex(frame: &[u8]) -> String {
    frame.iter().take(140).map(|byte| format!("{byte:02x}")).collect::<String>() + &format!(" {}", frame.len())
}

fn plain(frames: impl Iterator<Item = Vec<u8>>) -> Vec<(Vec<u8>, Work)> {
    frames.map(|frame| (frame, Work::default())).collect()
}

#[test]
fn both_lanes_do_the_same_to_every_frame() {
    check_all(Underlay::V4);
}

#[test]
fn both_lanes_do_the_same_to_every_frame_over_ipv6() {
    check_all(Underlay::V6);
}

fn check_all(underlay: Underlay) {
    let lanes = Lanes::new(underlay);
    let ends = |path| lanes.0[0].ends(path);
    for (path, percent) in [(Path::Out, 40), (Path::Local, 40)] {
        let [from, to] = ends(path);
        let make = |shapes: &Vec<Shape>| plain(shapes.iter().map(|shape| shape.frame(from, to)));
        lanes.check(path, shapes::batch(shapes::shapes()), make, percent);
    }
    let ([from, to], around) = (ends(Path::In), lanes.0[0].alone.tunnel("b"));
    let make = |shapes: &Vec<(Shape, Tunnel)>| {
        let all = shapes.iter().map(|(shape, tunnel)| tunnel.wrap(&around, &shape.frame(from, to)));
        // The others do not fit onto the wire.
        plain(all.filter(|frame| frame.len() <= 1514))
    };
    lanes.check(Path::In, shapes::batch((shapes::shapes(), shapes::tunnels())), make, 10);
    let [from, to] = ends(Path::Out);
    let make = |shapes: &Vec<Unfinished>| shapes.iter().map(|shape| shape.frame(from, to)).collect();
    lanes.check(Path::Out, shapes::batch(shapes::unfinished()), make, 80);
    for host in &lanes.0 {
        assert_eq!(host.alone.vtep.account().unwrap().stats["imbalance"], 0);
    }
}
