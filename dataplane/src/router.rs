//! What the gateway of a network forwards: out of the overlay, and from outside back into it.
//!
//! ```text
//!  access port ──> leave ──> checks ──> route ──> neighbour ──> translate ──> uplink
//!  uplink ──> arrive ──> restore ──> (bridge) lookup ──> local port | tunnel
//! ```
//!
//! A packet that an endpoint sends to an outside address of ours goes through both (RFC 4787
//! REQ-9). Whatever is refused is refused before anything in it was changed, so that the error
//! that goes back quotes what was sent.

mod ahead;

use std::net::Ipv4Addr;

use zerocopy::IntoBytes;

use crate::{
    clock::Instant,
    ids::{NetworkId, PortId, WorkerId},
    nat::{Glimpse, Nat, Restored, Sender, Way},
    tables::{Hop, Network, NoHop, Outside, Tables},
    verdict::{Decision, DropReason, Verdict},
    vtep::Flow,
    wire::{EtherType, Ethernet, Ipv4, Layers, MacAddr, checksum, icmp},
};

/// Where the router sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// To a station of a network; the frame is addressed to it.
    Inside(NetworkId, MacAddr),
    /// By this port, to a link of this MTU.
    Out(PortId, u16),
    /// Elsewhere.
    Decided(Verdict),
}

/// The routers of all networks, as one worker has them.
#[derive(Debug, Default)]
pub struct Router {
    /// The way out, once there is one.
    pub nat: Option<Box<Nat>>,
    /// Neighbours that packets were for and whose MAC address the host does not know; whoever
    /// runs the router has them asked for and empties this.
    pub wanted: Vec<Ipv4Addr>,
}

/// Neighbours that can be wanted at once.
const WANTED: usize = 16;

impl Router {
    /// A router without a way out.
    pub(crate) fn new() -> Self {
        Self { nat: None, wanted: Vec::with_capacity(WANTED) }
    }

    /// Routes a frame that an endpoint of `network` sent, at `port`, to its gateway's MAC address.
    pub(crate) fn leave(
        &mut self,
        tables: &Tables,
        now: Instant,
        port: PortId,
        id: NetworkId,
        network: &Network,
        frame: &mut [u8],
    ) -> Result<Routed, DropReason> {
        let (ethernet, packet) = Ethernet::split(frame).ok_or(DropReason::InnerTruncated)?;
        if ethernet.ether_type != EtherType::IPV4 {
            return Err(DropReason::NoWayOut);
        }
        let sender = Sender { network: id, mac: ethernet.source };
        let ip = *Ipv4::new_checked(packet).ok_or(DropReason::NatInvalid)?;
        let gateway = network.gateway.and_then(|gateway| gateway.ipv4).ok_or(DropReason::NoWayOut)?;
        if !gateway.contains(ip.source()) || ip.source() == gateway.ip() {
            return Err(DropReason::InvalidSource);
        }
        if !is_routable(ip.destination()) || gateway.contains(ip.destination()) {
            return Err(DropReason::InvalidDestination);
        }
        let refuse = |error, reason| Ok(Routed::Decided(Verdict::Refuse { error, from: gateway.ip(), reason }));
        if let Some((to, other)) = network_of(tables, network, ip.destination()) {
            return cross(frame, &ip, gateway.ip(), to, other);
        }
        let (Some(nat), Some(outside)) = (&mut self.nat, tables.outside()) else {
            return refuse(icmp::Error::Prohibited, DropReason::NoWayOut);
        };
        if !goes_out(network) {
            return refuse(icmp::Error::Prohibited, DropReason::NoWayOut);
        }
        if ip.ttl <= 1 {
            return refuse(icmp::Error::TimeExceeded, DropReason::TtlExceeded);
        }
        Layers::walk(frame).finish_checksum(frame);
        if let Some(worker) = elsewhere(nat, id, frame) {
            return Ok(Routed::Decided(Verdict::HandOver { worker, port }));
        }
        if nat.is_outside(ip.destination()) {
            return match translate(nat, now, sender, frame) {
                Ok(()) => arrive(nat, tables, now, frame, true),
                Err(reason) => refused(reason, gateway.ip()),
            };
        }
        let hop = match outside.hop(ip.destination()) {
            Ok(hop) => hop,
            Err(NoHop::Unreachable) => return refuse(icmp::Error::NetworkUnreachable, DropReason::NoRoute),
            Err(NoHop::Elsewhere) => return refuse(icmp::Error::NetworkUnreachable, DropReason::RouteElsewhere),
        };
        if ip.total_length.get() > hop.mtu && ip.dont_fragment() {
            return refuse(icmp::Error::FragmentationNeeded { mtu: hop.mtu }, DropReason::MtuExceeded);
        }
        let next = self.neighbour(outside, hop)?;
        // Asked for once more, as `neighbour` needed all of `self`.
        let nat = self.nat.as_mut().ok_or(DropReason::NoWayOut)?;
        if let Err(reason) = translate(nat, now, sender, frame) {
            return refused(reason, gateway.ip());
        }
        forward(frame, outside.mac, next);
        Ok(Routed::Out(outside.uplink, hop.mtu))
    }

    /// Routes an underlay frame that is not VXLAN, if it is for an endpoint. With `may_wait`, a
    /// fragment that comes too early is kept.
    ///
    /// # Errors
    /// The reason why it goes nowhere; [`DropReason::OuterNotOurs`] if it has nothing to do with us.
    pub(crate) fn arrive(
        &mut self,
        tables: &Tables,
        now: Instant,
        frame: &mut [u8],
        may_wait: bool,
    ) -> Result<Routed, DropReason> {
        let nat = self.nat.as_mut().ok_or(DropReason::OuterNotOurs)?;
        let (ethernet, packet) = Ethernet::split(frame).ok_or(DropReason::OuterTruncated)?;
        let ip = Ipv4::new_checked(packet).ok_or(DropReason::OuterBadIpHeader)?;
        let to = ip.destination();
        if ethernet.ether_type != EtherType::IPV4 || !nat.is_outside(to) {
            return Err(DropReason::OuterNotOurs);
        }
        if ip.ttl <= 1 {
            let (error, reason) = (icmp::Error::TimeExceeded, DropReason::TtlExceeded);
            return Ok(Routed::Decided(Verdict::Refuse { error, from: to, reason }));
        }
        // On a veth, or from a host of the same machine, the checksum may be left to hardware.
        Layers::walk(frame).finish_checksum(frame);
        arrive(nat, tables, now, frame, may_wait)
    }

    /// The next frame that was put by and waits no longer.
    pub(crate) fn take_released(&mut self) -> Option<Vec<u8>> {
        self.nat.as_mut()?.take_released()
    }

    /// Takes the memory of a released frame back.
    pub(crate) fn give_back(&mut self, frame: Vec<u8>) {
        if let Some(nat) = &mut self.nat {
            nat.give_back(frame);
        }
    }

    /// Ends the sessions of networks that have no way out any more.
    pub(crate) fn adopt(&mut self, before: &Tables, after: &Tables) {
        let Some(nat) = &mut self.nat else { return };
        let still = |id| after.network(id).is_some_and(goes_out);
        let ended = |(id, _): (NetworkId, &Network)| nat.sessions_of(id) > 0 && !still(id);
        if before.networks().any(ended) {
            nat.retain(|session| still(session.network));
        }
        self.publish(after);
    }

    /// Publishes what `tables` say; also to be called when there is a new translation.
    pub fn publish(&mut self, tables: &Tables) {
        let Some(nat) = &mut self.nat else { return };
        for publish in nat.publish(tables.publishes()) {
            tracing::error!(port = publish.port, "there is no room to publish it");
        }
    }

    /// The MAC address of the next hop; notes that it is wanted if it is not known.
    fn neighbour(&mut self, outside: &Outside, hop: Hop) -> Result<MacAddr, DropReason> {
        let known = outside.neighbour(hop.neighbour);
        if known.is_none() && self.wanted.len() < WANTED && !self.wanted.contains(&hop.neighbour) {
            self.wanted.push(hop.neighbour);
        }
        known.ok_or(DropReason::NextHopUnresolved)
    }
}

/// The worker that has to translate the packet in `frame`, if it is another one.
fn elsewhere(nat: &Nat, network: NetworkId, frame: &[u8]) -> Option<WorkerId> {
    let packet = frame.get(Ethernet::LEN..)?;
    nat.published_elsewhere(&Glimpse::at(Way::Out, network, packet)?)
}

/// Gives the packet in `frame` an outside source.
#[inline]
fn translate(nat: &mut Nat, now: Instant, sender: Sender, frame: &mut [u8]) -> Result<(), DropReason> {
    let packet = frame.get_mut(Ethernet::LEN..).ok_or(DropReason::NatInvalid)?;
    nat.translate(now, sender, packet)
}

/// Gives the packet in `frame` its inside destination, and the frame the station's address.
fn arrive(
    nat: &mut Nat,
    tables: &Tables,
    now: Instant,
    frame: &mut [u8],
    may_wait: bool,
) -> Result<Routed, DropReason> {
    let mtu_of = |id| tables.network(id).filter(|network| goes_out(network)).map(|network| network.mtu);
    match nat.restore(now, frame, Ethernet::LEN, may_wait, mtu_of)? {
        Restored::Inside { network: id, mac } => {
            let gateway = tables.network(id).and_then(|network| network.gateway).ok_or(DropReason::NoWayOut)?;
            forward(frame, gateway.mac, mac);
            Ok(Routed::Inside(id, mac))
        }
        Restored::Elsewhere(worker) => {
            let port = tables.outside().map(|outside| outside.uplink).ok_or(DropReason::NoWayOut)?;
            Ok(Routed::Decided(Verdict::HandOver { worker, port }))
        }
        Restored::Waits => Ok(Routed::Decided(Verdict::Hold)),
        Restored::TooLong { mtu } => {
            let from = Ipv4::new_checked(&frame[Ethernet::LEN..]).map_or(Ipv4Addr::UNSPECIFIED, Ipv4::destination);
            let error = icmp::Error::FragmentationNeeded { mtu };
            Ok(Routed::Decided(Verdict::Refuse { error, from, reason: DropReason::MtuExceeded }))
        }
    }
}

/// The network that `network` has a route to and `address` belongs to.
fn network_of<'a>(tables: &'a Tables, network: &Network, address: Ipv4Addr) -> Option<(NetworkId, &'a Network)> {
    let mut others = network.routes.iter().filter_map(|&id| Some((id, tables.network(id)?)));
    let is_it = |other: &Network| other.gateway.and_then(|of| of.ipv4).is_some_and(|of| of.contains(address));
    others.find(|&(_, other)| is_it(other))
}

/// Forwards a packet as it is into another network.
fn cross(frame: &mut [u8], ip: &Ipv4, from: Ipv4Addr, to: NetworkId, other: &Network) -> Result<Routed, DropReason> {
    let refuse = |error, reason| Ok(Routed::Decided(Verdict::Refuse { error, from, reason }));
    if ip.ttl <= 1 {
        return refuse(icmp::Error::TimeExceeded, DropReason::TtlExceeded);
    }
    if ip.total_length.get() > other.mtu && ip.dont_fragment() {
        return refuse(icmp::Error::FragmentationNeeded { mtu: other.mtu }, DropReason::MtuExceeded);
    }
    let gateway = other.gateway.ok_or(DropReason::NoWayOut)?;
    let Some(&mac) = other.neighbours.get(&ip.destination().into()) else {
        return refuse(icmp::Error::HostUnreachable, DropReason::NextHopUnresolved);
    };
    Layers::walk(frame).finish_checksum(frame);
    forward(frame, gateway.mac, mac);
    Ok(Routed::Inside(to, mac))
}

/// What becomes of a packet that could not be translated: where a table or a limit is full its
/// sender is told (RFC 5508 REQ-8).
fn refused(reason: DropReason, from: Ipv4Addr) -> Result<Routed, DropReason> {
    use DropReason::{NatEndpointLimit, NatNetworkLimit, NatNoPort, NatTableFull};
    if matches!(reason, NatNoPort | NatTableFull | NatEndpointLimit | NatNetworkLimit) {
        return Ok(Routed::Decided(Verdict::Refuse { error: icmp::Error::Prohibited, from, reason }));
    }
    Err(reason)
}

/// Whether packets of `network` may leave the overlay.
fn goes_out(network: &Network) -> bool {
    network.masquerade && !network.internal
}

/// Whether a router may forward to `address` (RFC 1812 section 5.3.7, RFC 3927 section 2.7).
fn is_routable(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    !(first == 0 || first >= 224 || address.is_loopback() || address.is_link_local())
}

/// Takes one hop off the packet's life and addresses the frame to the next station.
#[inline]
fn forward(frame: &mut [u8], source: MacAddr, destination: MacAddr) {
    if let Some(ip) = frame.get_mut(Ethernet::LEN..).and_then(Ipv4::first_mut) {
        let [before, protocol] = [ip.ttl, ip.protocol];
        ip.ttl = before.saturating_sub(1);
        let word = |ttl| u16::from_be_bytes([ttl, protocol]);
        ip.checksum.set(checksum::update(ip.checksum.get(), word(before), word(ip.ttl)));
    }
    // The frame has an Ethernet header: `split` saw it.
    let _ = Ethernet { destination, source, ether_type: EtherType::IPV4 }.write_to_prefix(frame);
}

/// The decision that `verdict` about all of `frame` comes to.
pub(crate) fn decided(verdict: Verdict, network: NetworkId, frame: &[u8], flow: Flow) -> Decision {
    Decision { verdict, network, start: 0, end: frame.len(), flow, cut_to: None }
}
