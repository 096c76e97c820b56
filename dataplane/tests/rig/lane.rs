//! The programs of the express lane on one end of the veth, with the test as their worker.

use std::time::Duration;

use super::{NEAR_VTEP, Rig, VETH};
use vxlane_dataplane::{
    attach::{AttachMode, Role, Steer, express::Express},
    ids::PortId,
    port::{
        Receive, Transmit,
        xdp::{BindMode, Config, XdpReceive, XdpSocket, XdpTransmit},
    },
};

/// The lane in `near`, with the test as its worker.
pub(crate) struct Lane {
    pub(crate) express: Express,
    halves: Option<(XdpReceive, XdpTransmit)>,
    pub(crate) steer: Steer,
}

impl Lane {
    pub(crate) fn new(rig: &Rig) -> Self {
        rig.near.ip("link add punt type veth peer name ring");
        for end in ["punt", "ring"] {
            rig.near.ip(&format!("link set {end} arp off up"));
        }
        rig.near.inside(|| {
            let mut express = Express::load().expect("load");
            express.ours().set_vtep(&NEAR_VTEP, None).expect("vtep");
            express.set_up("punt", None).expect("set up");
            let mut steer = Steer::load().expect("load");
            let attached = steer.attach("ring", Role::Lane, AttachMode::Native, 1).expect("attach");
            let config = Config { bind: BindMode::Copy, ..Config::new("ring", 0) };
            let (rx, tx) = XdpSocket::open(&config).expect("open");
            steer.serve(attached.ifindex, 0, rx.socket()).expect("serve");
            Self { express, halves: Some((rx, tx)), steer }
        })
    }

    /// The rings, for a worker that is to have them in the test's stead.
    pub(crate) fn take_halves(&mut self) -> (XdpReceive, XdpTransmit) {
        self.halves.take().expect("taken once")
    }

    pub(crate) fn attach(&mut self, rig: &Rig, role: Role, port: u16) {
        rig.near.inside(|| self.express.attach(VETH, role, PortId(port))).expect("attach");
    }

    /// The next frame for a worker, or `None` after a second of none.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let (rx, _) = self.halves.as_mut().expect("not taken");
        for _ in 0..200 {
            if rx.take() > 0 {
                let frame = rx.frame(0).to_vec();
                rx.release();
                return Some(frame);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        let (_, tx) = self.halves.as_mut().expect("not taken");
        tx.put(&[], frame).expect("put");
        tx.submit();
    }
}

/// `frame` with a tag that names `port`.
pub(crate) fn tagged(frame: &[u8], port: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &port.to_be_bytes(), &frame[12..]].concat()
}
