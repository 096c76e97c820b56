//! One network as control wants it: its members, its gateway and its rules.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use ipnetwork::{Ipv4Network, Ipv6Network};

use crate::{
    bridge::Origin,
    ids::{NetworkId, PortId, VtepId},
    wire::{MacAddr, Vni},
};

/// An overlay Ethernet segment.
///
/// Make one with [`Network::new`] and change what differs from the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its identifier on the wire.
    pub vni: Vni,
    /// Longest packet, in bytes of network layer (without the Ethernet header).
    pub mtu: u16,
    /// Seconds after which a silent station is forgotten.
    pub ageing: u32,
    /// How many stations may be learned. Static ones do not count.
    pub mac_limit: u32,
    /// How many frames each worker floods in a second; those beyond are dropped. `None` is no limit.
    pub flood_limit: Option<u32>,
    /// Access ports on this host.
    pub ports: Vec<PortId>,
    /// VTEPs that take part: flooded to, and learned from.
    pub peers: Vec<VtepId>,
    /// Its router, which every host plays for its own endpoints.
    pub gateway: Option<Gateway>,
    /// The port that leads to this host's own network stack; not one of [`ports`](Self::ports).
    pub host: Option<PortId>,
    /// Nothing is routed out of it or into it.
    pub internal: bool,
    /// Its packets leave the overlay through address translation. Not of one that is internal.
    pub masquerade: bool,
    /// How its IPv6 packets leave the overlay. Not of one that is internal.
    pub way_out6: WayOut,
    /// Networks that its packets reach through its gateway, and that reach it so.
    pub routes: Vec<NetworkId>,
    /// Endpoints reach the gateway and nobody else.
    pub isolation: bool,
    /// ARP and ND questions are answered here when the answer is known (RFC 9161).
    pub suppression: bool,
    /// Endpoints may advertise themselves as IPv6 routers.
    pub routers: bool,
    /// Stations that control knows: these beat what is learned and never move.
    pub stations: Arc<HashMap<MacAddr, Origin>>,
    /// Whose address is whose, as control knows it: these beat what is snooped.
    pub neighbours: Arc<HashMap<IpAddr, MacAddr>>,
    /// What is decided about its frames may be repeated in the express lane.
    pub express: bool,
    /// When a station or an address moves too often.
    pub moves: MoveLimit,
}

impl Network {
    /// A network that nobody is in, with the defaults of everything else.
    pub fn new(vni: Vni) -> Self {
        Self {
            vni,
            mtu: 1450,
            ageing: 300,
            mac_limit: 8192,
            flood_limit: None,
            ports: Vec::new(),
            peers: Vec::new(),
            gateway: None,
            host: None,
            internal: false,
            masquerade: false,
            way_out6: WayOut::None,
            routes: Vec::new(),
            isolation: false,
            suppression: true,
            routers: false,
            stations: Arc::default(),
            neighbours: Arc::default(),
            express: true,
            moves: MoveLimit::default(),
        }
    }

    /// Whether `origin` is a place of this network.
    pub fn has(&self, origin: Origin) -> bool {
        match origin {
            Origin::Port(port) => self.ports.contains(&port),
            Origin::Vtep(vtep) => self.peers.contains(&vtep),
            Origin::Gateway => self.gateway.is_some(),
        }
    }

    /// The prefix of IPv6 under which the outside knows its endpoints, if it does.
    pub fn routed_prefix(&self) -> Option<Ipv6Network> {
        let gateway = self.gateway.filter(|_| self.way_out6 == WayOut::Routed && !self.internal)?;
        gateway.ipv6
    }

    /// Whether control says where `mac` is.
    pub fn knows(&self, mac: MacAddr) -> bool {
        self.stations.contains_key(&mac) || self.gateway.is_some_and(|gateway| gateway.mac == mac)
    }
}

/// How packets leave the overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WayOut {
    /// They do not.
    #[default]
    None,
    /// With an address of the host, through address translation.
    Masquerade,
    /// As they are; whoever is outside must know the way back.
    Routed,
}

/// The router of a network. It has the same addresses on every host, so an endpoint can move
/// and keeps it; each host answers for it, and no tunnel ever carries a frame to it or from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its IPv4 address, with the subnet.
    pub ipv4: Option<Ipv4Network>,
    /// Its IPv6 address, with the subnet.
    pub ipv6: Option<Ipv6Network>,
}

impl Gateway {
    /// The gateway of the network `vni`.
    pub fn new(vni: Vni, ipv4: Option<Ipv4Network>, ipv6: Option<Ipv6Network>) -> Self {
        Self { mac: Self::mac_of(vni), ipv4, ipv6 }
    }

    /// The MAC address of the gateway of `vni`: 02:76:78 (locally administered, "vx"), then the
    /// VNI. Every host comes to the same without asking any other.
    pub fn mac_of(vni: Vni) -> MacAddr {
        let [_, high, middle, low] = vni.get().to_be_bytes();
        MacAddr([0x02, b'v', b'x', high, middle, low])
    }

    /// Its IPv6 link-local address, formed from the MAC address (RFC 4291 appendix A).
    pub fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.mac.0;
        let [high, rest @ ..] = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[0xfe, 0x80]);
        octets[8] = high;
        octets[9..].copy_from_slice(&rest);
        octets.into()
    }

    /// Whether `address` is one of its own.
    pub fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.is_some_and(|network| network.ip() == address),
            IpAddr::V6(address) => {
                self.ipv6.is_some_and(|network| network.ip() == address || address == self.link_local())
            }
        }
    }
}

/// What an endpoint may send as. Frames from anybody else are dropped at its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its IP addresses; empty if these are not known, and any may be used. The unspecified and
    /// IPv6 link-local addresses, without which no address can be got, are free to use.
    pub addresses: Vec<IpAddr>,
}

/// When a MAC address (RFC 7432 section 15.1) or an IP address (RFC 9161 section 3.7) moves so
/// often that two stations must be using it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveLimit {
    /// So many moves, at least 1, ...
    pub moves: u32,
    /// ... in so many seconds are too many: the address is then held where it was before them.
    pub within: u32,
    /// Seconds for which it is held.
    pub hold: u32,
    /// Seconds that the former owner of an IP address has to object to a new one.
    pub confirm: u32,
}

impl Default for MoveLimit {
    /// The figures of both RFCs.
    fn default() -> Self {
        Self { moves: 5, within: 180, hold: 540, confirm: 30 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_gives_the_gateway_of_a_network_the_same_addresses() {
        let gateway = Gateway::new(Vni::new(0x12_3456).unwrap(), None, Some("fd00::1/64".parse().unwrap()));
        assert_eq!(gateway.mac.to_string(), "02:76:78:12:34:56");
        assert_eq!(gateway.link_local().to_string(), "fe80::76:78ff:fe12:3456");
        assert!(gateway.has("fd00::1".parse().unwrap()) && gateway.has(gateway.link_local().into()));
        assert!(!gateway.has("fd00::2".parse().unwrap()) && !gateway.has("10.0.0.1".parse().unwrap()));
    }
}
