//! The short way: what nearly every packet needs, and nothing that only a rare one does.
//!
//! It is for an IPv4 packet in order, from a station that is known to be where it came from, to
//! one that is known to be elsewhere, where nothing needs to be written but a checksum that the
//! sender left to hardware. Of any other frame it says nothing: the [pipeline](crate::pipeline)
//! then looks at it from the start, and finds nothing changed. So the short way is never
//! different, only shorter; the test below gives frames of all kinds to both.
//!
//! Where the frames of a burst came in is looked up once for all of them ([`Entrance`]).

use std::net::Ipv4Addr;

use crate::{
    bridge::{Bridge, Origin},
    clock::Instant,
    ids::{NetworkId, PortId, VtepId},
    local::guard,
    tables::{Guard, Network, Role, Tables},
    vtep::{Flow, decap, entropy},
    wire::{Ethernet, Layers, MacAddr, Vni},
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

/// An uplink, and the tunnel that the last frame came through: often that of the next, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink<'a> {
    tables: &'a Tables,
    last: Option<Tunnel<'a>>,
    foreseen: Option<(Vni, NetworkId)>,
}

/// What a VNI from a peer belongs to.
#[derive(Clone, Copy, Debug)]
struct Tunnel<'a> {
    vni: Vni,
    source: Ipv4Addr,
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
            Role::Uplink => Self::Uplink(Uplink { tables, last: None, foreseen: None }),
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
        let Some((vni, overlay)) = decap::guess(frame) else { return };
        if self.foreseen.is_none_or(|(last, _)| last != vni) {
            self.foreseen = self.tables.network_of(vni).map(|id| (vni, id));
        }
        if let Some((_, id)) = self.foreseen {
            prepare(bridge, id, overlay);
        }
    }

    #[inline(always)]
    fn way(&mut self, bridge: &mut Bridge, now: Instant, frame: &mut [u8]) -> Option<Way> {
        let outer = decap::decap_plain(frame, self.tables.local()).filter(|outer| outer.checked.is_none())?;
        let Tunnel { peer, id, network, .. } = self.tunnel(outer.vni, outer.source)?;
        let (start, end) = (outer.inner.start, outer.inner.end);
        let overlay = frame.get_mut(start..end)?;
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
        layers.finish_checksum(overlay);
        Some(Way { start, end, exit })
    }
}

impl Uplink<'_> {
    #[inline(always)]
    fn tunnel(&mut self, vni: Vni, source: Ipv4Addr) -> Option<Tunnel<'_>> {
        if self.last.is_none_or(|last| last.vni != vni || last.source != source) {
            let (id, peer) = self.tables.tunnel(vni, source)?;
            let network = self.tables.network(id).filter(|network| is_plain(network))?;
            self.last = Some(Tunnel { vni, source, peer, id, network });
        }
        self.last
    }
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
