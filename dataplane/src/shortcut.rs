//! The short way: what nearly every packet needs, and nothing that only a rare one does.
//!
//! It is for an IPv4 packet in order, over IPv4 or IPv6, from a station that is known to be where it came from, to
//! one that is known to be elsewhere, where nothing needs to be written but a checksum that the
//! sender left to hardware. Of any other frame it says nothing: the [pipeline](crate::pipeline)
//! then looks at it from the start, and finds nothing changed. So the short way is never
//! different, only shorter; the test below gives frames of all kinds to both.
//!
//! Where the frames of a burst came in is looked up once for all of them ([`Entrance`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    bridge::{Bridge, Origin},
    clock::Instant,
    ids::{NetworkId, PortId, VtepId},
    local::guard,
    tables::{Guard, Network, Role, Tables},
    vtep::{Decapped, Flow, decap, entropy},
    wire::{EtherType, Ethernet, Layers, MacAddr, Vni},
};

/// Where a burst came in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entrance<'a> {
    /// At the port of an endpoint.
    Endpoint(Endpoint<'a>),
    /// At an uplink.
    Uplink(Uplink<'a>),
    /// Where there is no short way.
    Elsewhere,
}

/// The port of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint<'a> {
    port: PortId,
    id: NetworkId,
    network: &'a Network,
    guard: Option<&'a Guard>,
}

/// An uplink, and of each family the tunnel that the last frame came through: often that of the
/// next, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink<'a> {
    tables: &'a Tables,
    last_v4: Option<Tunnel<'a, Ipv4Addr>>,
    last_v6: Option<Tunnel<'a, Ipv6Addr>>,
    foreseen: Option<(Vni, NetworkId)>,
}

/// What a VNI from a peer belongs to.
#[derive(Clone, Copy, Debug)]
struct Tunnel<'a, A> {
    vni: Vni,
    source: A,
    peer: VtepId,
    id: NetworkId,
    network: &'a Network,
}

/// Where a packet goes: `frame[start..end]`, by `exit`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) exit: Exit,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Exit {
    Port(PortId),
    Tunnel(VtepId, Vni, Flow),
}

impl<'a> Entrance<'a> {
    /// The entrance that `port` is.
    pub(crate) fn of(tables: &'a Tables, port: PortId) -> Self {
        let Some(entry) = tables.port(port) else { return Self::Elsewhere };
        match entry.role {
            Role::Uplink => Self::Uplink(Uplink { tables, last_v4: None, last_v6: None, foreseen: None }),
            Role::Host(_) => Self::Elsewhere,
            Role::Access(id) => {
                tables.network(id).filter(|network| is_plain(network)).map_or(Self::Elsewhere, |network| {
                    Self::Endpoint(Endpoint { port, id, network, guard: entry.guard.as_deref() })
                })
            }
        }
    }
}

/// An entrance that frames are taken through.
pub(crate) trait Shortcut {
    /// Has what the MAC table knows of the destination of `frame` fetched. A wrong guess does no harm.
    fn foresee(&mut self, bridge: &Bridge, frame: &[u8]);

    /// The way of `frame`, if it may take the short one.
    fn way(&mut self, bridge: &mut Bridge, now: Instant, frame: &mut [u8]) -> Option<Way>;
}

/// Where there is no short way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elsewhere;

impl Shortcut for Elsewhere {
    fn foresee(&mut self, _: &Bridge, _: &[u8]) {}

    #[inline(always)]
    fn way(&mut self, _: &mut Bridge, _: Instant, _: &mut [u8]) -> Option<Way> {
        None
    }
}

impl Shortcut for Endpoint<'_> {
    #[inline(always)]
    fn foresee(&mut self, bridge: &Bridge, frame: &[u8]) {
        prepare(bridge, self.id, frame);
    }

    #[inline(always)]
    fn way(&mut self, bridge: &mut Bridge, now: Instant, frame: &mut [u8]) -> Option<Way> {
        let Self { port, id, network, guard } = *self;
        if frame.len() > Ethernet::LEN + usize::from(network.mtu) {
            return None;
        }
        let layers = Layers::walk_plain(frame)?;
        let [destination, source] = Ethernet::addresses(frame)?;
        if guard.is_some_and(|guard| !may_send(guard, network, frame)) {
            return None;
        }
        let to_gateway = network.gateway.is_some_and(|gateway| gateway.mac == destination);
        if to_gateway || !bridge.is_steady(id, network, source, Origin::Port(port), now) {
            return None;
        }
        let exit = match find(bridge, id, network, destination, now)? {
            Origin::Port(to) if to != port => Exit::Port(to),
            Origin::Port(_) | Origin::Gateway => return None,
            Origin::Vtep(vtep) => {
                let flow = Flow { source_port: entropy::source_port(frame, &layers), ecn: layers.ecn };
                Exit::Tunnel(vtep, network.vni, flow)
            }
        };
        layers.finish_checksum(frame);
        Some(Way { start: 0, end: frame.len(), exit })
    }
}

impl Shortcut for Uplink<'_> {
    #[inline(always)]
    fn foresee(&mut self, bridge: &Bridge, frame: &[u8]) {
        let guess = if is_v6(frame) { decap::guess_v6(frame) } else { decap::guess_v4(frame) };
        let Some((vni, overlay)) = guess else { return };
        if self.foreseen.is_none_or(|(last, _)| last != vni) {
            self.foreseen = self.tables.network_of(vni).map(|id| (vni, id));
        }
        if let Some((_, id)) = self.foreseen {
            prepare(bridge, id, overlay);
        }
    }

    #[inline(always)]
    fn way(&mut self, bridge: &mut Bridge, now: Instant, frame: &mut [u8]) -> Option<Way> {
        let Some(outer) = decap::plain_v4(frame, self.tables.local()) else {
            return self.way_v6(bridge, now, frame);
        };
        let tunnel = find_tunnel(&mut self.last_v4, self.tables, &outer)?;
        way_out_of(tunnel, &outer, bridge, now, frame)
    }
}

impl Uplink<'_> {
    /// The way of what is over IPv6, out of the way of IPv4.
    #[inline(never)]
    fn way_v6(&mut self, bridge: &mut Bridge, now: Instant, frame: &mut [u8]) -> Option<Way> {
        let outer = decap::plain_v6(frame, self.tables.local())?;
        let tunnel = find_tunnel(&mut self.last_v6, self.tables, &outer)?;
        way_out_of(tunnel, &outer, bridge, now, frame)
    }
}

/// The tunnel that `outer` is of, if it is not the `last` one looked up.
#[inline(always)]
fn find_tunnel<'a, A: Copy + PartialEq + Into<IpAddr>>(
    last: &mut Option<Tunnel<'a, A>>,
    tables: &'a Tables,
    outer: &Decapped<A>,
) -> Option<Tunnel<'a, A>> {
    let Decapped { vni, source, .. } = *outer;
    if last.is_none_or(|last| last.vni != vni || last.source != source) {
        let (id, peer) = tables.tunnel(vni, source)?;
        let network = tables.network(id).filter(|network| is_plain(network))?;
        *last = Some(Tunnel { vni, source, peer, id, network });
    }
    *last
}

/// The way of the overlay frame that came through `tunnel`.
#[inline(always)]
fn way_out_of<A: Copy + Into<IpAddr>>(
    tunnel: Tunnel<'_, A>,
    outer: &Decapped<A>,
    bridge: &mut Bridge,
    now: Instant,
    frame: &mut [u8],
) -> Option<Way> {
    let Tunnel { peer, id, network, .. } = tunnel;
    let (start, end) = (outer.inner.start, outer.inner.end);
    let overlay = frame.get(start..end)?;
    let layers = Layers::walk_plain(overlay)?;
    let [destination, source] = Ethernet::addresses(overlay)?;
    // RFC 6040: the inner mark stays as it is.
    if layers.ecn.decap(outer.ecn) != Some(layers.ecn)
        || !bridge.is_steady(id, network, source, Origin::Vtep(peer), now)
    {
        return None;
    }
    let exit = match find(bridge, id, network, destination, now)? {
        Origin::Port(port) => Exit::Port(port),
        Origin::Vtep(_) | Origin::Gateway => return None,
    };
    if outer.checked.is_some() {
        // The outer checksum may be right only with the inner one finished, and what turns out
        // to be wrong is to stay as it came.
        if layers.is_unfinished(overlay) || !outer.checksum_holds(frame) {
            return None;
        }
    } else {
        layers.finish_checksum(frame.get_mut(start..end)?);
    }
    Some(Way { start, end, exit })
}

#[inline(always)]
fn is_v6(frame: &[u8]) -> bool {
    Ethernet::split(frame).is_some_and(|(ethernet, _)| ethernet.ether_type == EtherType::IPV6)
}

/// Whether the network has nothing that the short way leaves out: a new option is to be judged
/// here before anything compiles.
#[inline(always)]
fn is_plain(network: &Network) -> bool {
    // Seen to: MTU, ageing, gateway. Of no concern to known stations: all others.
    let Network {
        vni: _,
        mtu: _,
        ageing: _,
        mac_limit: _,
        flood_limit: _,
        ports: _,
        peers: _,
        gateway: _,
        host: _,
        internal: _,
        masquerade: _,
        routes: _,
        isolation,
        suppression: _,
        routers: _,
        stations: _,
        neighbours: _,
        express: _,
        moves: _,
    } = network;
    !isolation
}

/// Whether the endpoint may send this. Walks the headers itself, so that what is known of them
/// can stay in registers.
#[inline(never)]
fn may_send(guard: &Guard, network: &Network, frame: &[u8]) -> bool {
    Ethernet::split(frame)
        .is_some_and(|(ethernet, _)| guard::check(guard, network, ethernet, &Layers::walk(frame), frame).is_ok())
}

/// Where one station is.
#[inline(always)]
fn find(bridge: &Bridge, id: NetworkId, network: &Network, mac: MacAddr, now: Instant) -> Option<Origin> {
    bridge.lookup(id, network, mac, now).filter(|_| !mac.is_group())
}

#[inline(always)]
fn prepare(bridge: &Bridge, id: NetworkId, overlay: &[u8]) {
    if let Some([destination, _]) = Ethernet::addresses(overlay) {
        bridge.prepare(id, destination);
    }
}

#[cfg(test)]
mod tests;
