//! The smallest lab that shows a tunnel: two hosts, a container and a VTEP on each.

use std::time::Duration;

use crate::{
    LabError,
    lab::{Container, Lab, LabOptions},
    peer::{Segment, Vtep, VtepKind},
    traffic::{
        pace::{Amount, Pace},
        udp::{self, Received, Sent, UdpOptions},
    },
};

/// Two hosts, a container and a VTEP on each.
///
/// Fields go in this order when dropped: VTEPs before what they connect.
pub struct Rig {
    /// The VTEPs of host `a` and host `b`.
    pub vteps: [Box<dyn Vtep>; 2],
    /// The container on host `a`.
    pub left: Container,
    /// The container on host `b`.
    pub right: Container,
    /// The hosts.
    pub lab: Lab,
}

impl Rig {
    /// A rig on an underlay as `options` say, with a VTEP of each kind.
    ///
    /// # Errors
    /// Whatever could not be made or started.
    pub fn start(options: &LabOptions, [near, far]: [&VtepKind; 2]) -> Result<Self, LabError> {
        Self::on(Lab::with(&["a", "b"], options)?, [near, far])
    }

    /// A rig on hosts `a` and `b` of `lab`.
    ///
    /// # Errors
    /// Whatever could not be made or started.
    pub fn on(lab: Lab, [near, far]: [&VtepKind; 2]) -> Result<Self, LabError> {
        let network = lab.network("blue", 5000);
        let left = lab.host("a").container("c0", &network)?;
        let right = lab.host("b").container("c1", &network)?;
        let start = |kind: &VtepKind, host: &str, container: &Container| {
            kind.start(lab.host(host), &[Segment::of(&lab, host, &network, &[container])])
        };
        let vteps = [start(near, "a", &left)?, start(far, "b", &right)?];
        Ok(Self { vteps, left, right, lab })
    }

    /// One flow of UDP in frames of `frame` bytes (without FCS), from left to right as fast as
    /// the sender can, for `time`.
    ///
    /// # Errors
    /// When a socket fails; loss is a result.
    pub fn flood(&self, frame: usize, time: Duration) -> Result<(Sent, Received), LabError> {
        let payload = frame.saturating_sub(HEADERS).max(udp::HEADER);
        let options = UdpOptions { payload, pace: Pace::Flood, amount: Amount::Time(time), ..UdpOptions::default() };
        udp::exchange(&self.left, &self.right, &options)
    }

    /// What both VTEPs say about themselves.
    pub fn diagnosis(&self) -> String {
        self.vteps.each_ref().map(|vtep| vtep.diagnosis()).join("\n")
    }
}

/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;
