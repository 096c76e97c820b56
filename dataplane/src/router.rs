//! What the gateway of a network forwards: out of the overlay, and from outside back into it.
//!
//! ```text
//!  access port ──> leave ──> checks ──> route ──> neighbour ──> translate ──> uplink
//!  uplink ──> arrive ──> restore ──> (bridge) lookup ──> local port | tunnel
//! ```
//!
//! A packet that an endpoint sends to an outside address of ours goes through both (RFC 4787
//! REQ-9). Whatever is refused is refused before anything in it was changed, so that the error
//! that goes back quotes what was sent. IPv4 and IPv6 are routed alike; of a network whose IPv6
//! addresses the outside knows, packets are not translated.

mod ahead;
mod family;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use family::Family;
use zerocopy::IntoBytes;

use crate::{
    clock::Instant,
    ids::{NetworkId, PortId, WorkerId},
    nat::{Glimpse, Nat, Restored, Sender, Way},
    tables::{Hop, Network, NoHop, Outside, Tables, WayOut},
    verdict::{Decision, DropReason, Verdict},
    vtep::Flow,
    wire::{Address, EtherType, Ethernet, Head, Layers, MacAddr, icmp},
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
    /// The same for IPv6.
    pub nat6: Option<Box<Nat<Ipv6Addr>>>,
    /// Neighbours that packets were for and whose MAC address the host does not know; whoever
    /// runs the router has them asked for and empties this.
    pub wanted: Vec<IpAddr>,
}

/// Where an endpoint sent a packet from.
#[derive(Clone, Copy, Debug)]
struct Origin<'a> {
    port: PortId,
    id: NetworkId,
    network: &'a Network,
    mac: MacAddr,
}

/// Neighbours that can be wanted at once.
const WANTED: usize = 16;

impl Router {
    /// A router without a way out.
    pub(crate) fn new() -> Self {
        Self { nat: None, nat6: None, wanted: Vec::with_capacity(WANTED) }
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
        let (ethernet, _) = Ethernet::split(frame).ok_or(DropReason::InnerTruncated)?;
        let from = Origin { port, id, network, mac: ethernet.source };
        match ethernet.ether_type {
            EtherType::IPV4 => self.leave_by::<Ipv4Addr>(tables, now, from, frame),
            EtherType::IPV6 => self.leave_by::<Ipv6Addr>(tables, now, from, frame),
            _ => Err(DropReason::NoWayOut),
        }
    }

    #[inline]
    fn leave_by<A: Family>(
        &mut self,
        tables: &Tables,
        now: Instant,
        from: Origin<'_>,
        frame: &mut [u8],
    ) -> Result<Routed, DropReason> {
        let head = frame.get(Ethernet::LEN..).and_then(A::head).ok_or(DropReason::NatInvalid)?;
        let gateway = from.network.gateway.ok_or(DropReason::NoWayOut)?;
        let own = A::own(&gateway).ok_or(DropReason::NoWayOut)?;
        if !A::is_near(&gateway, head.source) || head.source == own {
            return Err(DropReason::InvalidSource);
        }
        if !head.destination.is_routable() || A::is_near(&gateway, head.destination) {
            return Err(DropReason::InvalidDestination);
        }
        let refuse = |error, reason| Ok(refusal(own, error, reason));
        if let Some((to, other)) = network_of(tables, from.network, head.destination) {
            return deliver(frame, &head, own, to, other);
        }
        let way_out = way_out::<A>(from.network);
        let Some(outside) = tables.outside().filter(|_| way_out != WayOut::None) else {
            return refuse(icmp::Error::Prohibited, DropReason::NoWayOut);
        };
        if way_out == WayOut::Masquerade && A::nat(self).is_none() {
            return refuse(icmp::Error::Prohibited, DropReason::NoWayOut);
        }
        if head.hops <= 1 {
            return refuse(icmp::Error::TimeExceeded, DropReason::TtlExceeded);
        }
        Layers::walk(frame).finish_checksum(frame);
        let sender = Sender { network: from.id, mac: from.mac };
        if let Some(nat) = A::nat(self).filter(|_| way_out == WayOut::Masquerade) {
            if let Some(worker) = elsewhere(nat, from.id, frame) {
                return Ok(Routed::Decided(Verdict::HandOver { worker, port: from.port }));
            }
            if nat.is_outside(head.destination) {
                return match translate(nat, now, sender, frame) {
                    Ok(()) => arrive(nat, tables, now, frame, true),
                    Err(reason) => refused(reason, own),
                };
            }
        }
        let hop = match A::ways(outside).hop(head.destination) {
            Ok(hop) => hop,
            Err(NoHop::Unreachable) => return refuse(icmp::Error::NetworkUnreachable, DropReason::NoRoute),
            Err(NoHop::Elsewhere) => return refuse(icmp::Error::NetworkUnreachable, DropReason::RouteElsewhere),
        };
        if let Some(refused) = too_long(&head, hop.mtu, own) {
            return Ok(refused);
        }
        let next = self.neighbour(outside, hop)?;
        // Asked for once more, as `neighbour` needed all of `self`.
        if let Some(nat) = A::nat(self).filter(|_| way_out == WayOut::Masquerade)
            && let Err(reason) = translate(nat, now, sender, frame)
        {
            return refused(reason, own);
        }
        forward::<A>(frame, outside.mac, next);
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
        let (ethernet, _) = Ethernet::split(frame).ok_or(DropReason::OuterTruncated)?;
        match ethernet.ether_type {
            EtherType::IPV4 => self.arrive_by::<Ipv4Addr>(tables, now, frame, may_wait),
            EtherType::IPV6 => self.arrive_by::<Ipv6Addr>(tables, now, frame, may_wait),
            _ => Err(DropReason::OuterNotOurs),
        }
    }

    #[inline]
    fn arrive_by<A: Family>(
        &mut self,
        tables: &Tables,
        now: Instant,
        frame: &mut [u8],
        may_wait: bool,
    ) -> Result<Routed, DropReason> {
        let head = frame.get(Ethernet::LEN..).and_then(A::head).ok_or(DropReason::OuterBadIpHeader)?;
        let to = head.destination;
        let Some(nat) = A::nat(self).filter(|nat| nat.is_outside(to)) else {
            let id = A::routed_to(tables, to).ok_or(DropReason::OuterNotOurs)?;
            return enter(tables, &head, id, frame);
        };
        if head.hops <= 1 {
            return Ok(refusal(to, icmp::Error::TimeExceeded, DropReason::TtlExceeded));
        }
        // On a veth, or from a host of the same machine, the checksum may be left to hardware.
        Layers::walk(frame).finish_checksum(frame);
        arrive(nat, tables, now, frame, may_wait)
    }

    /// The next frame that was put by and waits no longer.
    pub(crate) fn take_released(&mut self) -> Option<Vec<u8>> {
        let v4 = self.nat.as_mut().and_then(|nat| nat.take_released());
        v4.or_else(|| self.nat6.as_mut()?.take_released())
    }

    /// Takes the memory of a released frame back.
    pub(crate) fn give_back(&mut self, frame: Vec<u8>) {
        let ether_type = Ethernet::split(&frame).map(|(ethernet, _)| ethernet.ether_type);
        match (&mut self.nat, &mut self.nat6) {
            (_, Some(nat)) if ether_type == Some(EtherType::IPV6) => nat.give_back(frame),
            (Some(nat), _) => nat.give_back(frame),
            (None, _) => {}
        }
    }

    /// Ends what has been over since `now`.
    pub(crate) fn expire(&mut self, now: Instant) {
        if let Some(nat) = &mut self.nat {
            nat.expire(now);
        }
        if let Some(nat) = &mut self.nat6 {
            nat.expire(now);
        }
    }

    /// Ends the sessions of networks that have no way out any more.
    pub(crate) fn adopt(&mut self, before: &Tables, after: &Tables) {
        end_sessions::<Ipv4Addr>(self, before, after);
        end_sessions::<Ipv6Addr>(self, before, after);
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
    fn neighbour<A: Family>(&mut self, outside: &Outside, hop: Hop<A>) -> Result<MacAddr, DropReason> {
        let known = A::ways(outside).neighbour(hop.neighbour);
        if known.is_none() {
            let wanted = hop.neighbour.into();
            if self.wanted.len() < WANTED && !self.wanted.contains(&wanted) {
                self.wanted.push(wanted);
            }
        }
        known.ok_or(DropReason::NextHopUnresolved)
    }
}

/// What goes back to the sender of a packet that `from` refuses.
fn refusal(from: impl Into<IpAddr>, error: icmp::Error, reason: DropReason) -> Routed {
    Routed::Decided(Verdict::Refuse { error, from: from.into(), reason })
}

/// The refusal of a packet that is longer than `mtu` and must not be fragmented.
#[inline]
fn too_long<A: Address>(head: &Head<A>, mtu: u16, from: A) -> Option<Routed> {
    let is_too_long = head.length > usize::from(mtu) && head.dont_fragment;
    is_too_long.then(|| refusal(from, icmp::Error::FragmentationNeeded { mtu }, DropReason::MtuExceeded))
}

/// Ends the sessions of networks that have no way out any more.
fn end_sessions<A: Family>(router: &mut Router, before: &Tables, after: &Tables) {
    let Some(nat) = A::nat(router) else { return };
    let still = |id| after.network(id).is_some_and(|network| way_out::<A>(network) == WayOut::Masquerade);
    let ended = |(id, _): (NetworkId, &Network)| nat.sessions_of(id) > 0 && !still(id);
    if before.networks().any(ended) {
        nat.retain(|session| still(session.network));
    }
}

/// The worker that has to translate the packet in `frame`, if it is another one.
fn elsewhere<A: Address>(nat: &Nat<A>, network: NetworkId, frame: &[u8]) -> Option<WorkerId> {
    let packet = frame.get(Ethernet::LEN..)?;
    nat.published_elsewhere(&Glimpse::at(Way::Out, network, packet)?)
}

/// Gives the packet in `frame` an outside source.
#[inline]
fn translate<A: Address>(nat: &mut Nat<A>, now: Instant, sender: Sender, frame: &mut [u8]) -> Result<(), DropReason> {
    let packet = frame.get_mut(Ethernet::LEN..).ok_or(DropReason::NatInvalid)?;
    nat.translate(now, sender, packet)
}

/// Gives the packet in `frame` its inside destination, and the frame the station's address.
fn arrive<A: Family>(
    nat: &mut Nat<A>,
    tables: &Tables,
    now: Instant,
    frame: &mut [u8],
    may_wait: bool,
) -> Result<Routed, DropReason> {
    let goes_out = |network: &&Network| way_out::<A>(network) == WayOut::Masquerade;
    let mtu_of = |id| tables.network(id).filter(goes_out).map(|network| network.mtu);
    match nat.restore(now, frame, Ethernet::LEN, may_wait, mtu_of)? {
        Restored::Inside { network: id, mac } => {
            let gateway = tables.network(id).and_then(|network| network.gateway).ok_or(DropReason::NoWayOut)?;
            forward::<A>(frame, gateway.mac, mac);
            Ok(Routed::Inside(id, mac))
        }
        Restored::Elsewhere(worker) => {
            let port = tables.outside().map(|outside| outside.uplink).ok_or(DropReason::NoWayOut)?;
            Ok(Routed::Decided(Verdict::HandOver { worker, port }))
        }
        Restored::Waits => Ok(Routed::Decided(Verdict::Hold)),
        Restored::TooLong { mtu } => {
            let from = A::head(&frame[Ethernet::LEN..]).map_or(A::UNSPECIFIED, |head| head.destination);
            Ok(refusal(from, icmp::Error::FragmentationNeeded { mtu }, DropReason::MtuExceeded))
        }
    }
}

/// Lets a packet from outside into network `id`, to whose subnet it is addressed. Nobody out there
/// has an address of that subnet.
fn enter<A: Family>(tables: &Tables, head: &Head<A>, id: NetworkId, frame: &mut [u8]) -> Result<Routed, DropReason> {
    let network = tables.network(id).ok_or(DropReason::OuterNotOurs)?;
    let gateway = network.gateway.ok_or(DropReason::OuterNotOurs)?;
    let own = A::own(&gateway).ok_or(DropReason::OuterNotOurs)?;
    if !head.source.is_routable() || A::is_near(&gateway, head.source) {
        return Err(DropReason::InvalidSource);
    }
    if head.destination == own {
        return Err(DropReason::InvalidDestination);
    }
    deliver(frame, head, own, id, network)
}

/// The network that `network` has a route to and `address` belongs to.
fn network_of<'a, A: Family>(tables: &'a Tables, network: &Network, address: A) -> Option<(NetworkId, &'a Network)> {
    let mut others = network.routes.iter().filter_map(|&id| Some((id, tables.network(id)?)));
    others.find(|&(_, other)| other.gateway.is_some_and(|of| A::is_near(&of, address)))
}

/// Forwards a packet as it is to a station of network `to`; `from` says what is wrong with it.
fn deliver<A: Family>(
    frame: &mut [u8],
    head: &Head<A>,
    from: A,
    to: NetworkId,
    other: &Network,
) -> Result<Routed, DropReason> {
    if head.hops <= 1 {
        return Ok(refusal(from, icmp::Error::TimeExceeded, DropReason::TtlExceeded));
    }
    if let Some(refused) = too_long(head, other.mtu, from) {
        return Ok(refused);
    }
    let gateway = other.gateway.ok_or(DropReason::NoWayOut)?;
    let Some(&mac) = other.neighbours.get(&head.destination.into()) else {
        return Ok(refusal(from, icmp::Error::HostUnreachable, DropReason::NextHopUnresolved));
    };
    Layers::walk(frame).finish_checksum(frame);
    forward::<A>(frame, gateway.mac, mac);
    Ok(Routed::Inside(to, mac))
}

/// What becomes of a packet that could not be translated: where a table or a limit is full its
/// sender is told (RFC 5508 REQ-8).
fn refused(reason: DropReason, from: impl Into<IpAddr>) -> Result<Routed, DropReason> {
    use DropReason::{NatEndpointLimit, NatNetworkLimit, NatNoPort, NatTableFull};
    if matches!(reason, NatNoPort | NatTableFull | NatEndpointLimit | NatNetworkLimit) {
        return Ok(refusal(from, icmp::Error::Prohibited, reason));
    }
    Err(reason)
}

/// How packets of `network` leave the overlay.
fn way_out<A: Family>(network: &Network) -> WayOut {
    if network.internal { WayOut::None } else { A::way_out(network) }
}

/// Takes one hop off the packet's life and addresses the frame to the next station.
#[inline]
fn forward<A: Address>(frame: &mut [u8], source: MacAddr, destination: MacAddr) {
    if let Some(packet) = frame.get_mut(Ethernet::LEN..) {
        A::take_hop(packet);
    }
    // The frame has an Ethernet header: `split` saw it.
    let _ = Ethernet { destination, source, ether_type: A::VERSION.ether_type() }.write_to_prefix(frame);
}

/// The decision that `verdict` about all of `frame` comes to.
pub(crate) fn decided(verdict: Verdict, network: NetworkId, frame: &[u8], flow: Flow) -> Decision {
    Decision { verdict, network, start: 0, end: frame.len(), flow, cut_to: None }
}
