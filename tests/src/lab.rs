//! Hosts on one underlay, and containers on the hosts.
//!
//! ```text
//!   c0 eth0 ── p-c0 │ host a │ uplink ═════ uplink │ host b │ p-c1 ── eth0 c1
//! ```
//!
//! Two hosts share a veth pair; more share a bridge in a namespace of its own. Underlay wires
//! carry finished checksums and MTU-sized frames, as real wires do, unless
//! [`LabOptions::wire_offload`] lets the kernel hand its unfinished work across.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::LabError;
use crate::netns::Netns;

/// Hosts on one underlay.
#[derive(Debug)]
pub struct Lab {
    hosts: BTreeMap<String, Host>,
    // Only held: the bridge lives as long as the lab.
    _switch: Option<Netns>,
}

impl Lab {
    /// Makes one host per name, connected by an underlay with the default options.
    ///
    /// # Errors
    /// Whatever the kernel or `ip` refused.
    pub fn new(hosts: &[&str]) -> Result<Self, LabError> {
        Self::with(hosts, &LabOptions::default())
    }

    /// Makes one host per name, connected by an underlay as `options` say.
    ///
    /// # Errors
    /// Whatever the kernel or `ip` refused.
    pub fn with(hosts: &[&str], options: &LabOptions) -> Result<Self, LabError> {
        let mut made = Vec::new();
        for (name, number) in hosts.iter().zip(1u8..) {
            made.push(Host::new(name, number, options.underlay)?);
        }
        let switch = match made.as_slice() {
            [left, right] => {
                let ends = format!("netns {} type veth peer name {UPLINK} netns {}", left.ns.name(), right.ns.name());
                left.ns.ip(&format!("link add {UPLINK} {ends}"))?;
                None
            }
            _ => Some(connect_by_bridge(&made, options)?),
        };
        for host in &made {
            host.bring_uplink_up(options)?;
        }
        Ok(Self { hosts: made.into_iter().map(|host| (host.name.clone(), host)).collect(), _switch: switch })
    }

    /// A network for this underlay: its longest packet fits behind the headers of the tunnel.
    pub fn network(&self, name: &str, vni: u32) -> Network {
        let network = Network::new(name, vni);
        let is_v4 = self.hosts.values().all(|host| host.underlay == Underlay::V4);
        Network { mtu: if is_v4 { network.mtu } else { network.mtu - 20 }, ..network }
    }

    /// The host called `name`.
    ///
    /// # Panics
    /// When the lab was made without it, which is a mistake in the test.
    pub fn host(&self, name: &str) -> &Host {
        match self.hosts.get(name) {
            Some(host) => host,
            None => panic!("this lab has no host {name}"),
        }
    }

    /// All hosts, by name.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.values()
    }

    /// The underlay address of each host but the one called `name`: its first, where it has several.
    pub fn others(&self, name: &str) -> Vec<IpAddr> {
        let others = self.hosts.values().filter(|host| host.name != name);
        others.filter_map(|host| host.addresses().first().copied()).collect()
    }
}

/// What the underlay is like.
#[derive(Clone, Debug)]
pub struct LabOptions {
    /// MTU of the underlay.
    pub mtu: u16,
    /// Whether uplinks keep segmentation and checksum offload.
    ///
    /// A veth with offload delivers TCP super-frames and unfinished checksums. The kernel's own
    /// vxlan likes that, and no wire does it. Off by default.
    pub wire_offload: bool,
    /// Which addresses the hosts have on it.
    pub underlay: Underlay,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { mtu: 1500, wire_offload: false, underlay: Underlay::V4 }
    }
}

/// The addresses of an underlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Underlay {
    /// IPv4 alone.
    #[default]
    V4,
    /// IPv6 alone.
    V6,
    /// Both, IPv4 first.
    Both,
}

/// A host: a namespace with a device `uplink` on the underlay.
#[derive(Debug)]
pub struct Host {
    name: String,
    number: u8,
    ns: Netns,
    underlay: Underlay,
    containers: AtomicU8,
}

impl Host {
    fn new(name: &str, number: u8, underlay: Underlay) -> Result<Self, LabError> {
        Ok(Self { name: name.to_owned(), number, ns: Netns::new(name)?, underlay, containers: AtomicU8::new(0) })
    }

    /// The name given to [`Lab::new`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's namespace.
    pub fn ns(&self) -> &Netns {
        &self.ns
    }

    /// The host's underlay address, 192.0.2.N, unless the underlay is IPv6 alone.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, self.number)
    }

    /// The host's underlay address, 2001:db8::N, where the underlay has IPv6.
    pub fn address_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.number.into())
    }

    /// The underlay addresses that the host has.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match self.underlay {
            Underlay::V4 => vec![self.address().into()],
            Underlay::V6 => vec![self.address_v6().into()],
            Underlay::Both => vec![self.address().into(), self.address_v6().into()],
        }
    }

    /// The underlay address by which `peer` knows this host.
    pub fn towards(&self, peer: IpAddr) -> IpAddr {
        if peer.is_ipv4() { self.address().into() } else { self.address_v6().into() }
    }

    /// Gives `device` the host's underlay addresses.
    ///
    /// # Errors
    /// [`LabError::Command`] when `ip` refuses.
    pub fn address_device(&self, device: &str) -> Result<(), LabError> {
        for address in self.addresses() {
            let (prefix, more) = if address.is_ipv4() { (24, "") } else { (64, " nodad") };
            self.ns.ip(&format!("address add {address}/{prefix} dev {device}{more}"))?;
            if address.is_ipv6() {
                // Asked for a neighbour before there is a packet for it, the kernel asks from a
                // link-local address (`ndisc_solicit`, `net/ipv6/ndisc.c`).
                self.ns.ip(&format!("address add fe80::{:x}/64 dev {device} nodad", self.number))?;
            }
        }
        Ok(())
    }

    /// The Ethernet address of `uplink`.
    pub fn uplink_mac(&self) -> MacAddr {
        MacAddr([0x02, 0xaa, 0, 0, 0, self.number])
    }

    /// Makes a container on `network` with an address and a MAC that no other has by default.
    ///
    /// # Errors
    /// Whatever the kernel or `ip` refused.
    pub fn container(&self, name: &str, network: &Network) -> Result<Container, LabError> {
        let count = self.containers.fetch_add(1, Ordering::Relaxed) + 1;
        self.container_as(name, network, network.station(self.number, count))
    }

    /// Makes a container on `network` with the addresses of `station`.
    ///
    /// # Errors
    /// Whatever the kernel or `ip` refused.
    pub fn container_as(&self, name: &str, network: &Network, station: Station) -> Result<Container, LabError> {
        let ns = Netns::new(&format!("{}-{name}", self.name))?;
        let port = format!("p-{name}");
        let mtu = network.mtu;
        self.ns.ip(&format!(
            "link add {port} mtu {mtu} type veth \
             peer name eth0 mtu {mtu} address {} netns {}",
            station.mac,
            ns.name()
        ))?;
        self.ns.ip(&format!("link set {port} up"))?;
        ns.ip("link set eth0 up")?;
        ns.ip(&format!("address add {}/16 dev eth0", station.ipv4))?;
        ns.ip(&format!("address add {}/64 dev eth0 nodad", station.ipv6))?;
        Ok(Container { name: name.to_owned(), ns, port, station })
    }

    fn bring_uplink_up(&self, options: &LabOptions) -> Result<(), LabError> {
        let (mac, mtu) = (self.uplink_mac(), options.mtu);
        self.ns.ip(&format!("link set {UPLINK} address {mac} mtu {mtu}"))?;
        self.ns.ip(&format!("link set {UPLINK} up"))?;
        self.address_device(UPLINK)?;
        if !options.wire_offload {
            finish_checksums(&self.ns, UPLINK)?;
        }
        Ok(())
    }
}

/// A container: a namespace whose `eth0` is connected to the device [`port`](Self::port) of its host.
#[derive(Debug)]
pub struct Container {
    name: String,
    ns: Netns,
    port: String,
    station: Station,
}

impl Container {
    /// The name given when it was made.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The container's namespace.
    pub fn ns(&self) -> &Netns {
        &self.ns
    }

    /// The host's end of the container's veth pair.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// The container's addresses.
    pub fn station(&self) -> Station {
        self.station
    }

    /// Shorthand for the station's Ethernet address.
    pub fn mac(&self) -> MacAddr {
        self.station.mac
    }

    /// Shorthand for the station's IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        self.station.ipv4
    }

    /// Tells this container where `other` is, so that no ARP is needed to reach it.
    ///
    /// # Errors
    /// [`LabError::Command`] when `ip` refuses.
    pub fn knows(&self, other: &Self) -> Result<(), LabError> {
        let Station { mac, ipv4, ipv6 } = other.station;
        for address in [ipv4.to_string(), ipv6.to_string()] {
            self.ns.ip(&format!("neighbour replace {address} lladdr {mac} dev eth0"))?;
        }
        Ok(())
    }

    /// Makes the container's kernel finish checksums and segmentation itself.
    ///
    /// # Errors
    /// [`LabError::Command`] when `ethtool` refuses.
    pub fn without_offload(&self) -> Result<(), LabError> {
        finish_checksums(&self.ns, "eth0")
    }
}

/// An overlay network, as all VTEP kinds need to know it.
#[derive(Clone, Debug)]
pub struct Network {
    /// Its name, at most 8 letters: devices are named after it.
    pub name: String,
    /// Its VXLAN network identifier.
    pub vni: u32,
    /// Second octet of its subnet, 10.x.0.0/16.
    pub subnet: u8,
    /// MTU of its containers.
    pub mtu: u16,
}

impl Network {
    /// A network with the usual MTU of 1450, for an underlay of IPv4, on 10.0.0.0/16.
    pub fn new(name: &str, vni: u32) -> Self {
        Self { name: name.to_owned(), vni, subnet: 0, mtu: 1450 }
    }

    /// The addresses of the container that is number `count` on host number `host`.
    pub fn station(&self, host: u8, count: u8) -> Station {
        let subnet = self.subnet;
        Station {
            mac: MacAddr([0x02, 0xcc, subnet, 0, host, count]),
            ipv4: Ipv4Addr::new(10, subnet, host, count),
            ipv6: Ipv6Addr::new(0xfd00, 0, 0, subnet.into(), 0, 0, host.into(), count.into()),
        }
    }
}

/// The addresses of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Station {
    /// Ethernet address.
    pub mac: MacAddr,
    /// IPv4 address, in a /16.
    pub ipv4: Ipv4Addr,
    /// IPv6 address, in a /64.
    pub ipv6: Ipv6Addr,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The address of everybody.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl FromStr for MacAddr {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let octets: Option<Vec<u8>> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
        octets
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or_else(|| LabError::Unfit { what: "not a MAC address", text: text.to_owned() })
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Makes `device` send finished checksums and single segments only.
fn finish_checksums(ns: &Netns, device: &str) -> Result<(), LabError> {
    ns.ethtool(&format!("-K {device} tx off")).map(drop)
}

fn connect_by_bridge(hosts: &[Host], options: &LabOptions) -> Result<Netns, LabError> {
    let switch = Netns::new("switch")?;
    switch.ip("link add underlay type bridge stp_state 0 mcast_snooping 0")?;
    for host in hosts {
        let (port, host_ns) = (format!("to-{}", host.name), host.ns.name());
        let mtu = options.mtu;
        switch.ip(&format!("link add {port} mtu {mtu} type veth peer name {UPLINK} netns {host_ns}"))?;
        switch.ip(&format!("link set {port} master underlay up"))?;
    }
    switch.ip("link set underlay up")?;
    Ok(switch)
}

/// The name of every host's device on the underlay.
pub const UPLINK: &str = "uplink";
