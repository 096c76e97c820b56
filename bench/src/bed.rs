//! What a peer is measured on: two hosts and a container on each, or one host and a wire.

mod ways_out;

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vxlane_tests::LabError;
use vxlane_tests::lab::{Container, Host, Lab, LabOptions, Network, Station};
use vxlane_tests::peer::{Segment, VxlaneOptions, VxlaneVtep};
use vxlane_tests::traffic::ping::{PingOptions, ping};

use crate::peer::{Peer, Running};

/// A peer on two hosts, with a container on each.
///
/// Fields go in this order when dropped: VTEPs before what they connect.
pub struct Bed {
    /// Who connects the containers.
    pub peer: Peer,
    /// The VTEPs of host `a` and, on a full path, of host `b`.
    pub vteps: Vec<Running>,
    /// The container on host `a`.
    pub left: Container,
    /// The container on host `b`; it has no VTEP on a half path.
    pub right: Container,
    /// Where frames go from the left: the container on the right, with the router's MAC address if there is one.
    pub target: Station,
    /// More containers on host `a`.
    pub others: Vec<Container>,
    /// The hosts.
    pub lab: Lab,
    /// The overlay network.
    pub network: Network,
}

impl Bed {
    /// Containers on two hosts, each with a VTEP, which forwards when this returns.
    ///
    /// # Errors
    /// Whatever could not be made or started.
    pub fn full(peer: Peer) -> Result<Self, LabError> {
        let bed = Self::with_vteps(peer, &["a", "b"], 0, |host, segment| peer.start(host, segment))?;
        bed.warm_up()?;
        Ok(bed)
    }

    /// The same, connected by the vxlane at `binary`.
    ///
    /// # Errors
    /// Whatever could not be made or started.
    pub fn of_build(binary: &Path) -> Result<Self, LabError> {
        let options = VxlaneOptions { binary: Some(binary.to_owned()), express: false, ..VxlaneOptions::default() };
        let bed = Self::with_vteps(Peer::Vxlane, &["a", "b"], 0, |host, segment| {
            VxlaneVtep::start(host, std::slice::from_ref(segment), &options).map(|vtep| Some(Running::Vxlane(vtep)))
        })?;
        bed.warm_up()?;
        Ok(bed)
    }

    /// Containers on two hosts, of which only the first has a VTEP.
    ///
    /// # Errors
    /// Whatever could not be made or started.
    pub fn half(peer: Peer) -> Result<Self, LabError> {
        Self::with_vteps(peer, &["a"], 0, |host, segment| peer.start(host, segment))
    }

    /// [`CROWD`] containers on one host with a VTEP, which has a peer that never answers.
    ///
    /// # Errors
    /// Whatever could not be made or started.
    pub fn crowd(peer: Peer) -> Result<Self, LabError> {
        Self::with_vteps(peer, &["a"], CROWD - 1, |host, segment| peer.start(host, segment))
    }

    fn with_vteps(
        peer: Peer,
        hosts: &[&str],
        others: usize,
        start: impl Fn(&Host, &Segment<'_>) -> Result<Option<Running>, LabError>,
    ) -> Result<Self, LabError> {
        // The wire keeps its offloads, so that the kernel is not handicapped.
        let lab = Lab::with(&["a", "b"], &LabOptions { wire_offload: true, ..LabOptions::default() })?;
        let network = Network::new("blue", VNI);
        let left = lab.host("a").container("c0", &network)?;
        let right = lab.host("b").container("c1", &network)?;
        let others = (1..=others).map(|number| lab.host("a").container(&format!("o{number}"), &network));
        let others = others.collect::<Result<Vec<_>, _>>()?;
        if peer == Peer::Wire {
            join(&left, &right)?;
        }
        let mut vteps = Vec::new();
        for (name, container) in hosts.iter().zip([&left, &right]) {
            let crowd = others.iter().filter(|_| *name == "a");
            let containers: Vec<&Container> = std::iter::once(container).chain(crowd).collect();
            let segment = Segment::of(&lab, name, &network, &containers);
            vteps.extend(start(lab.host(name), &segment)?);
        }
        left.knows(&right)?;
        right.knows(&left)?;
        Ok(Self { peer, vteps, target: right.station(), left, right, others, lab, network })
    }

    /// Has both ends answer each other, so that every VTEP has learned where they are.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the VTEPs' own words when no answer comes.
    pub fn warm_up(&self) -> Result<(), LabError> {
        let mut last = None;
        for _ in 0..WARM_UPS {
            let report = ping(self.left.ns(), self.right.ipv4(), &PingOptions::default())?;
            if report.complete() {
                return Ok(());
            }
            last = Some(report);
        }
        Err(LabError::Unfit {
            what: "the containers do not reach each other",
            text: format!("{}: {last:?}\n{}", self.peer, self.diagnosis()),
        })
    }

    /// The processes of all its VTEPs.
    pub fn processes(&self) -> Vec<u32> {
        self.vteps.iter().flat_map(Running::processes).collect()
    }

    /// What its VTEPs say about themselves.
    pub fn diagnosis(&self) -> String {
        self.vteps.iter().map(Running::diagnosis).collect::<Vec<_>>().join("\n")
    }

    /// Stops its processes where they are, so that others are measured without them.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets its processes go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        for pid in self.processes() {
            // The VTEP has not been waited for, so the number is not another process's; one that
            // has ended will be missed by the next measurement.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // A stopped process would not heed the request to end.
        self.resume();
    }
}

/// Replaces both containers' devices by one veth pair between them.
fn join(left: &Container, right: &Container) -> Result<(), LabError> {
    for container in [left, right] {
        container.ns().ip("link del eth0")?;
    }
    let (near, far) = (left.mac(), right.mac());
    left.ns().ip(&format!(
        "link add eth0 mtu 1450 address {near} type veth peer name eth0 mtu 1450 address {far} netns {}",
        right.ns().name()
    ))?;
    for container in [left, right] {
        container.ns().ip("link set eth0 up")?;
        container.ns().ip(&format!("address add {}/16 dev eth0", container.ipv4()))?;
        container.ns().ip(&format!("address add {}/64 dev eth0 nodad", container.station().ipv6))?;
    }
    Ok(())
}

/// Containers of a crowd.
pub const CROWD: usize = 64;

/// The network's identifier.
pub const VNI: u32 = 5000;

/// Pings, each of a few packets, after which a path is called broken.
const WARM_UPS: u32 = 5;
