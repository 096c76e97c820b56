//! A program on an uplink, and which frames from outside it takes for the ring.

use std::sync::atomic::Ordering;

use vxlane_dataplane::{
    attach::{AttachMode, Role, Steer, ours::Ours},
    nat::{Board, Protocol},
    port::{
        Receive,
        xdp::{BindMode, Config, XdpReceive, XdpSocket, XdpTransmit},
    },
};

use super::{
    FAR_MAC, NEAR_MAC, NEAR_VTEP, Rig, VETH, eventually,
    lane::{Lane, tagged},
};

/// One of the two programs that can be on an uplink, and its ring.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
pub(crate) enum Program {
    Steer { steer: Steer, rx: XdpReceive, _tx: XdpTransmit },
    Express(Lane),
}

/// A host with one of them.
pub(crate) struct Steered {
    rig: Rig,
    pub(crate) program: Program,
}

impl Steered {
    /// The XDP program.
    pub(crate) fn by_steer() -> Self {
        let rig = Rig::new();
        let program = rig.near.inside(|| {
            let mut steer = Steer::load().expect("load");
            steer.ours().set_vtep(&NEAR_VTEP, None).expect("vtep");
            let attached = steer.attach(VETH, Role::Uplink, AttachMode::Auto, 1).expect("attach");
            let (rx, tx) = XdpSocket::open(&Config { bind: BindMode::Copy, ..Config::new(VETH, 0) }).expect("open");
            steer.serve(attached.ifindex, 0, rx.socket()).expect("serve");
            Program::Steer { steer, rx, _tx: tx }
        });
        Self { rig, program }
    }

    fn by_express() -> Self {
        let rig = Rig::new();
        let mut lane = Lane::new(&rig);
        lane.attach(&rig, Role::Uplink, 0);
        Self { rig, program: Program::Express(lane) }
    }

    /// Both, one after the other: they take the same.
    pub(crate) fn each() -> impl Iterator<Item = Self> {
        [Self::by_steer, Self::by_express].into_iter().map(|new| new())
    }

    /// What the program is told.
    pub(crate) fn ours(&mut self) -> &mut Ours {
        match &mut self.program {
            Program::Steer { steer, .. } => steer.ours(),
            Program::Express(lane) => lane.express.ours(),
        }
    }

    /// Posts that a port is lent at the IPv4 address.
    pub(crate) fn lend(&mut self, protocol: Protocol, port: u16) {
        post(&self.ours().boards().v4, protocol, port, true);
    }

    /// Frames that the program has sent to the ring, and those that it has passed to the host.
    fn counts(&self) -> (u64, u64) {
        match &self.program {
            Program::Steer { steer, .. } => {
                let counters = steer.counters().unwrap();
                (counters.redirected, counters.passed())
            }
            Program::Express(lane) => {
                let counters = lane.express.counters().unwrap();
                (counters.misses, counters.passed)
            }
        }
    }

    /// Sends IPv4 packets from outside and says which of them came to the ring. The program has
    /// seen every one of them when this returns.
    pub(crate) fn taken_v4(&mut self, packets: &[Vec<u8>]) -> Vec<bool> {
        self.taken([8, 0], packets)
    }

    /// The same of IPv6 packets.
    pub(crate) fn taken_v6(&mut self, packets: &[Vec<u8>]) -> Vec<bool> {
        self.taken([0x86, 0xdd], packets)
    }

    fn taken(&mut self, ether_type: [u8; 2], packets: &[Vec<u8>]) -> Vec<bool> {
        let mut far = self.rig.far.packets(VETH);
        packets
            .iter()
            .map(|packet| {
                let before = self.counts();
                let frame = [&NEAR_MAC[..], &FAR_MAC, &ether_type, packet].concat();
                far.send(&frame);
                eventually("the program sees the packet", || self.counts() != before);
                let redirected = self.counts().0 > before.0;
                if redirected {
                    self.expect(&frame);
                }
                redirected
            })
            .collect()
    }

    /// Wants `frame` on the ring, byte for byte.
    fn expect(&mut self, frame: &[u8]) {
        match &mut self.program {
            Program::Steer { rx, .. } => {
                eventually("the packet is on the ring", || rx.take() > 0);
                assert_eq!(rx.frame(0), frame);
                rx.release();
            }
            Program::Express(lane) => assert_eq!(lane.next(), Some(tagged(frame, 0))),
        }
    }
}

/// Posts on `board` that a port is lent, or not.
pub(crate) fn post(board: &Board, protocol: Protocol, port: u16, lent: bool) {
    let word = &(**board).as_ref()[protocol as usize * 1024 + usize::from(port / 64)];
    match lent {
        true => word.fetch_or(1 << (port % 64), Ordering::Relaxed),
        false => word.fetch_and(!(1 << (port % 64)), Ordering::Relaxed),
    };
}
