//! One host with vxlane whose other VTEPs, and all stations, are the test itself.
//!
//! Containers have no addresses and say nothing by themselves, and nobody answers on the other
//! hosts: what is sent, and what arrives, is what a test has sent.

use std::{
    net::{SocketAddr, UdpSocket},
    ops::Range,
};

use crate::{
    LabError,
    frames::{Checksum, Vxlan},
    lab::{Container, Host, Lab, LabOptions, Network, Station, UPLINK, Underlay},
    peer::{Segment, VXLAN_PORT, VxlaneOptions, VxlaneVtep},
    traffic::raw::RawSender,
};

/// A host with vxlane, its containers, and other hosts with nothing.
///
/// Fields go in this order when dropped: the daemon before what it connects.
#[derive(Debug)]
pub struct Alone {
    /// The daemon on host `a`.
    pub vtep: VxlaneVtep,
    /// The containers of host `a`.
    pub containers: Vec<Container>,
    /// Their network.
    pub network: Network,
    /// Host `a`, and the others.
    pub lab: Lab,
    // Only held: without them the other hosts would answer that nobody is there.
    _sockets: Vec<UdpSocket>,
}

/// What there is on the host.
#[derive(Clone, Debug)]
pub struct AloneOptions {
    /// The other hosts.
    pub others: Vec<&'static str>,
    /// How many containers there are.
    pub containers: usize,
    /// Those of them that are endpoints from the start.
    pub endpoints: Range<usize>,
    /// Whether the network is in the configuration file; otherwise the test makes it.
    pub network: bool,
    /// Whether the other hosts are its peers from the start.
    pub peers: bool,
    /// MTU of the containers' devices; that of the network is what the underlay leaves.
    pub mtu: u16,
    /// Which addresses the hosts have.
    pub underlay: Underlay,
    /// How vxlane is set up.
    pub vxlane: VxlaneOptions,
}

impl Alone {
    /// Makes hosts and containers and starts the daemon.
    ///
    /// # Errors
    /// Whatever could not be made or started.
    pub fn start(options: &AloneOptions) -> Result<Self, LabError> {
        let hosts: Vec<&str> = ["a"].into_iter().chain(options.others.iter().copied()).collect();
        let lab = Lab::with(&hosts, &LabOptions { underlay: options.underlay, ..LabOptions::default() })?;
        let (host, network) = (lab.host("a"), lab.network("blue", 5000));
        let containers = (0..options.containers).map(|number| host.container(&format!("c{number}"), &network));
        let containers: Vec<Container> = containers.collect::<Result<_, _>>()?;
        for container in &containers {
            container.ns().ip("address flush dev eth0")?;
            container.ns().sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")?;
            container.ns().ip(&format!("link set eth0 mtu {}", options.mtu))?;
            host.ns().ip(&format!("link set {} mtu {}", container.port(), options.mtu))?;
        }
        let sockets = options.others.iter().map(|name| silent(lab.host(name))).collect::<Result<_, _>>()?;
        let endpoints: Vec<&Container> = containers[options.endpoints.clone()].iter().collect();
        let mut segment = Segment::of(&lab, "a", &network, &endpoints);
        if !options.peers {
            segment.remotes.clear();
        }
        let segments: &[Segment<'_>] = if options.network { &[segment] } else { &[] };
        let vtep = VxlaneVtep::start(host, segments, &options.vxlane)?;
        Ok(Self { vtep, containers, network, lab, _sockets: sockets })
    }

    /// What is around frames from `other` to host `a`; its UDP checksum is zero.
    pub fn tunnel(&self, other: &str) -> Vxlan {
        let [from, to] =
            [other, "a"].map(|name| self.lab.host(name)).map(|host| (host.uplink_mac(), host.addresses()[0]));
        let mut tunnel = Vxlan::new(from, to, self.network.vni);
        tunnel.outer.checksum = Checksum::Zero;
        tunnel
    }

    /// A station behind `other`.
    pub fn station(&self, other: &str) -> Station {
        let [.., number] = self.lab.host(other).address().octets();
        self.network.station(number, 1)
    }

    /// Sends frames as they are on the wire of host `other`.
    ///
    /// # Errors
    /// As [`RawSender::open`].
    pub fn wire(&self, other: &str) -> Result<RawSender, LabError> {
        RawSender::open(self.lab.host(other).ns(), UPLINK)
    }

    /// Runs a subcommand, which must succeed, and returns what it prints.
    ///
    /// # Errors
    /// As [`VxlaneVtep::ask`].
    pub fn ask(&self, command: &str) -> Result<String, LabError> {
        self.vtep.ask(&command.split_whitespace().collect::<Vec<_>>())
    }

    /// Frames that the programs of the express lane have sent to workers.
    ///
    /// # Errors
    /// [`LabError::Unfit`] where there is no such lane.
    pub fn asked(&self) -> Result<u64, LabError> {
        let punt = self.lab.host("a").ns().punt()?;
        let count = punt.and_then(|link| link["stats64"]["tx"]["packets"].as_u64());
        count.ok_or_else(|| LabError::Unfit { what: "no express lane", text: "host a".to_owned() })
    }
}

/// Takes what is sent to the VTEP of `host`, and says nothing.
fn silent(host: &Host) -> Result<UdpSocket, LabError> {
    let address = SocketAddr::from((host.addresses()[0], VXLAN_PORT));
    host.ns().run(|| UdpSocket::bind(address))?.map_err(LabError::syscall("bind", format!("{address:?}")))
}
