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
    bridge::{Bridge, Foresight, Origin, Realm, Sight},
    clock::Instant,
    ids::{PortId, VtepId},
    local::guard,
    port::Receive,
    tables::{Network, Role, Tables},
    vtep::{Decapped, Flow, OVERHEAD, OVERHEAD_V6, decap, entropy},
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
    vni: Vni,
    /// Bytes of the longest frame.
    longest: usize,
    /// Of the network; zero without one.
    gateway: MacAddr,
    guard: Option<guard::AtHand<'a>>,
    /// It is guarded, and the one station that may send is known to be here.
    is_steady: bool,
    sight: Sight,
}

/// An uplink, and of each family the tunnel that the last frame came through: often that of the
/// next, too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink<'a> {
    tables: &'a Tables,
    now: Instant,
    last_v4: Tunnel<Ipv4Addr>,
    last_v6: Tunnel<Ipv6Addr>,
    /// The number of a VNI, and what it is in the MAC table.
    foreseen: (u32, Realm),
}

/// What a VNI from a peer belongs to.
#[derive(Clone, Copy, Debug)]
struct Tunnel<A> {
    /// The number of the VNI; [`NONE`], which no VNI has, of no tunnel.
    vni: u32,
    source: A,
    peer: VtepId,
    sight: Sight,
}

const NONE: u32 = u32::MAX;

impl<A> Tunnel<A> {
    fn none(source: A) -> Self {
        Self { vni: NONE, source, peer: VtepId(0), sight: Sight::default() }
    }
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
    /// The entrance that `port` is at the time `now` of the burst.
    pub(crate) fn of(tables: &'a Tables, bridge: &mut Bridge, port: PortId, now: Instant) -> Self {
        let Some(entry) = tables.port(port) else { return Self::Elsewhere };
        match entry.role {
            Role::Uplink => Self::Uplink(Uplink::new(tables, now)),
            Role::Host(_) => Self::Elsewhere,
            Role::Access(id) => {
                tables.network(id).filter(|network| is_plain(network)).map_or(Self::Elsewhere, |network| {
                    let (guard, sight) = (entry.guard.as_deref(), Sight::of(id, network, now));
                    Self::Endpoint(Endpoint {
                        port,
                        vni: network.vni,
                        longest: Ethernet::LEN + usize::from(network.mtu),
                        gateway: network.gateway.map_or(MacAddr::ZERO, |gateway| gateway.mac),
                        guard: guard.map(guard::AtHand::of),
                        // Frames of this port are all that a burst has, and none of them can move it away.
                        is_steady: guard.is_some_and(|guard| bridge.is_steady(sight, guard.mac, Origin::Port(port))),
                        sight,
                    })
                })
            }
        }
    }
}

/// An entrance that frames are taken through.
pub(crate) trait Shortcut {
    /// Has what the MAC table knows of destinations fetched, for the first `count` frames of a
    /// burst. A wrong guess does no harm.
    fn foresee(&mut self, foresight: Foresight<'_>, receive: &mut impl Receive, count: usize);

    /// The way of `frame`, if it may take the short one.
    fn way(&mut self, bridge: &mut Bridge, frame: &mut [u8]) -> Option<Way>;

    /// The same for frames that are rarer, after [`way`](Self::way) knew of none.
    fn rare_way(&mut self, _: &mut Bridge, _: &mut [u8]) -> Option<Way> {
        None
    }
}

/// Where there is no short way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elsewhere;

impl Shortcut for Elsewhere {
    fn foresee(&mut self, _: Foresight<'_>, _: &mut impl Receive, _: usize) {}

    #[inline(always)]
    fn way(&mut self, _: &mut Bridge, _: &mut [u8]) -> Option<Way> {
        None
    }
}

impl Shortcut for Endpoint<'_> {
    #[inline(never)]
    fn foresee(&mut self, foresight: Foresight<'_>, receive: &mut impl Receive, count: usize) {
        let foresight = foresight.of(self.sight.realm);
        for index in 0..count {
            if let Some([destination, _]) = Ethernet::addresses(receive.frame(index)) {
                foresight.prefetch(destination);
            }
        }
    }

    #[inline(always)]
    fn way(&mut self, bridge: &mut Bridge, frame: &mut [u8]) -> Option<Way> {
        let Self { port, vni, longest, gateway, guard, is_steady, sight } = *self;
        if frame.len() > longest {
            return None;
        }
        let layers = Layers::walk_plain(frame)?;
        let [destination, source] = Ethernet::addresses(frame)?;
        let is_known = match guard {
            Some(guard) => is_steady && guard.allows(source, &layers, frame),
            None => bridge.is_steady(sight, source, Origin::Port(port)),
        };
        // A gateway that is not there has an address that no station has.
        if !is_known || destination == gateway {
            return None;
        }
        let exit = match find(bridge, sight, destination)? {
            Origin::Port(to) if to != port => Exit::Port(to),
            Origin::Port(_) | Origin::Gateway => return None,
            Origin::Vtep(vtep) => {
                let flow = Flow { source_port: entropy::source_port(frame, &layers), ecn: layers.ecn };
                Exit::Tunnel(vtep, vni, flow)
            }
        };
        layers.finish_checksum(frame);
        Some(Way { start: 0, end: frame.len(), exit })
    }
}

impl Shortcut for Uplink<'_> {
    #[inline(never)]
    fn foresee(&mut self, foresight: Foresight<'_>, receive: &mut impl Receive, count: usize) {
        // Most bursts are of one family.
        if count > 0 && is_v6(receive.frame(0)) {
            self.foresee_behind::<OVERHEAD_V6>(foresight, receive, count);
        } else {
            self.foresee_behind::<OVERHEAD>(foresight, receive, count);
        }
    }

    #[inline(always)]
    fn way(&mut self, bridge: &mut Bridge, frame: &mut [u8]) -> Option<Way> {
        let Self { tables, now, last_v4, .. } = self;
        let outer = decap::plain_v4(frame, tables.local())?;
        // Over IPv4 a checksum is rare: the whole way looks at it.
        if outer.checked.is_some() {
            return None;
        }
        let tunnel = find_tunnel(last_v4, tables, *now, &outer)?;
        way_out_of(tunnel, &outer, bridge, frame)
    }

    /// The way of what is over IPv6.
    #[inline(never)]
    fn rare_way(&mut self, bridge: &mut Bridge, frame: &mut [u8]) -> Option<Way> {
        let Self { tables, now, last_v6, .. } = self;
        let outer = decap::plain_v6(frame, tables.local())?;
        let tunnel = find_tunnel(last_v6, tables, *now, &outer)?;
        way_out_of(tunnel, &outer, bridge, frame)
    }
}

impl<'a> Uplink<'a> {
    fn new(tables: &'a Tables, now: Instant) -> Self {
        let (last_v4, last_v6) = (Tunnel::none(Ipv4Addr::UNSPECIFIED), Tunnel::none(Ipv6Addr::UNSPECIFIED));
        Self { tables, now, last_v4, last_v6, foreseen: (NONE, Realm::default()) }
    }

    /// [Foresees](Shortcut::foresee) frames with so many bytes of outer headers.
    #[inline(always)]
    fn foresee_behind<const HEADERS: usize>(
        &mut self,
        foresight: Foresight<'_>,
        receive: &mut impl Receive,
        count: usize,
    ) {
        let (mut last, mut realm) = self.foreseen;
        let mut of_last = foresight.of(realm);
        for index in 0..count {
            let Some((vni, destination)) = decap::guess::<HEADERS>(receive.frame(index)) else { continue };
            if last != vni.get() {
                let Some(id) = self.tables.network_of(vni) else { continue };
                (last, realm) = (vni.get(), Realm::of(id));
                of_last = foresight.of(realm);
            }
            of_last.prefetch(destination);
        }
        self.foreseen = (last, realm);
    }
}

/// The tunnel that `outer` is of, if it is not the `last` one looked up.
#[inline(always)]
fn find_tunnel<A: Copy + PartialEq + Into<IpAddr>>(
    last: &mut Tunnel<A>,
    tables: &Tables,
    now: Instant,
    outer: &Decapped<A>,
) -> Option<Tunnel<A>> {
    let Decapped { vni, source, .. } = *outer;
    if last.vni != vni.get() || last.source != source {
        let (id, peer) = tables.tunnel(vni, source)?;
        let network = tables.network(id).filter(|network| is_plain(network))?;
        *last = Tunnel { vni: vni.get(), source, peer, sight: Sight::of(id, network, now) };
    }
    Some(*last)
}

/// The way of the overlay frame that came through `tunnel`.
#[inline(always)]
fn way_out_of<A: Copy + Into<IpAddr>>(
    tunnel: Tunnel<A>,
    outer: &Decapped<A>,
    bridge: &mut Bridge,
    frame: &mut [u8],
) -> Option<Way> {
    let Tunnel { peer, sight, .. } = tunnel;
    let (start, end) = (outer.inner.start, outer.inner.end);
    let overlay = frame.get_mut(start..end)?;
    let layers = Layers::walk_plain(overlay)?;
    let [destination, source] = Ethernet::addresses(overlay)?;
    // RFC 6040: the inner mark stays as it is.
    let is_kept = outer.ecn == layers.ecn || layers.ecn.decap(outer.ecn) == Some(layers.ecn);
    if !is_kept || !bridge.is_steady(sight, source, Origin::Vtep(peer)) {
        return None;
    }
    let exit = match find(bridge, sight, destination)? {
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
        layers.finish_checksum(overlay);
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
        way_out6: _,
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

/// Where one station is.
#[inline(always)]
fn find(bridge: &Bridge, sight: Sight, mac: MacAddr) -> Option<Origin> {
    bridge.find(sight, mac).filter(|_| !mac.is_group())
}

#[cfg(test)]
mod tests;
