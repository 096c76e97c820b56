//! READ FIRST: a packet's whole life, from the bytes that came in to its one [`Verdict`].
//!
//! ```text
//!  access port ──> checks ──> guard ──> learn ──> local services ──┐ Answer | Deliver (host)
//!                                                                  ├──> lookup ──> Deliver | Forward | Flood
//!  uplink ──> decap ──> peer? ──> checks ──> ECN ────────> learn ──┘
//!
//!  access port ──> (all of that) ──> to the gateway, for beyond ──> leave ──> Deliver (uplink)
//!  uplink ──> not VXLAN ──> arrive ──> lookup ──> Deliver | Forward
//! ```
//!
//! Most frames never come here: what needs nothing but learning, lookup and a tunnel takes the
//! short way (`shortcut.rs`), which is the same in fewer steps.
//!
//! The pipeline is pure: frame bytes, tables and the time go in, a [`Decision`] comes out. It
//! opens nothing, sends nothing, waits for nothing and allocates nothing; what it may change is
//! the frame itself and the MAC table of its worker. [`worker`](crate::worker) carries out what
//! is decided here.

use crate::{
    bridge::{Bridge, Learned, Origin, storm::Floods},
    clock::Instant,
    events::{Event, Events},
    ids::{NetworkId, PortId},
    local::{self, Visit, neighbours::Ears},
    neigh::Neighbours,
    router::{self, Routed, Router},
    tables::{Gateway, Guard, Network, Role, Tables},
    verdict::{Decision, DropReason, News, Verdict},
    vtep::{self, Flow, entropy},
    wire::{Ethernet, Layers, MacAddr},
};

/// Decides what becomes of packets. One per worker.
#[derive(Debug)]
pub struct Pipeline {
    /// Who is where.
    pub bridge: Bridge,
    /// What gateways forward.
    pub router: Router,
    /// Whose address is whose.
    pub neighbours: Neighbours,
    floods: Floods,
    /// What an operator should hear of; likewise.
    pub events: Events,
    /// What other workers should hear of; whoever runs the pipeline empties it.
    pub news: Vec<News>,
    /// Networks of which a station is now elsewhere; emptied with the news.
    pub(crate) moved: Vec<NetworkId>,
}

/// Bindings that a worker has room for, at most.
const MOST_BINDINGS: usize = 16_384;

impl Pipeline {
    /// A pipeline whose MAC table has room for `stations`.
    pub fn new(stations: usize) -> Self {
        Self {
            bridge: Bridge::new(stations),
            router: Router::new(),
            neighbours: Neighbours::new(stations.min(MOST_BINDINGS)),
            floods: Floods::new(),
            events: Events::new(),
            news: Vec::with_capacity(crate::port::BURST),
            moved: Vec::with_capacity(crate::port::BURST),
        }
    }

    /// Decides about one frame that came in at `port`.
    #[inline(never)]
    pub fn process(&mut self, tables: &Tables, now: Instant, port: PortId, frame: &mut [u8]) -> Decision {
        let Some(entry) = tables.port(port) else { return Decision::drop(DropReason::PortGone) };
        let decided = match entry.role {
            Role::Access(network) => self.process_access(tables, now, port, network, entry.guard.as_deref(), frame),
            Role::Host(network) => self.process_host(tables, now, port, network, frame),
            Role::Uplink => self.process_uplink(tables, now, frame),
        };
        decided.and_then(|decision| self.limit(tables, now, decision)).unwrap_or_else(|reason| {
            if reason.is_pretence() {
                self.events.note_refused(now, port, reason);
            }
            Decision::drop(reason)
        })
    }

    /// An overlay frame, from an endpoint of this host.
    #[inline]
    fn process_access(
        &mut self,
        tables: &Tables,
        now: Instant,
        port: PortId,
        id: NetworkId,
        guard: Option<&Guard>,
        frame: &mut [u8],
    ) -> Result<Decision, DropReason> {
        let network = tables.network(id).ok_or(DropReason::PortGone)?;
        let ethernet = admit(frame)?;
        let layers = Layers::walk(frame);
        if let Some(guard) = guard {
            local::guard::check(guard, network, &ethernet, &layers, frame)?;
        }
        let flow = Flow { source_port: entropy::source_port(frame, &layers), ecn: layers.ecn };
        let end = frame.len();
        let decide = |verdict| Decision { verdict, network: id, start: 0, end, flow, cut_to: None };

        if end > Ethernet::LEN + usize::from(network.mtu) {
            return Ok(decide(Verdict::Reply { mtu: network.mtu }));
        }
        let origin = Origin::Port(port);
        self.learn(id, network, &ethernet, origin, now)?;
        layers.finish_checksum(frame);
        let to_gateway = network.gateway.filter(|gateway| gateway.mac == ethernet.destination);
        let visit = Visit { network, id, port, is_host: false, ethernet, layers: &layers, now };
        if let Some(verdict) = self.serve(tables, &visit, to_gateway.as_ref(), frame)? {
            return Ok(decide(verdict));
        }
        if to_gateway.is_some() {
            let routed = self.router.leave(tables, now, port, id, network, frame)?;
            return self.routed(tables, now, routed, id, frame);
        }
        Ok(decide(self.lookup(id, network, &ethernet, origin, now)?))
    }

    /// An overlay frame of this host itself, which speaks as the gateway to its own endpoints.
    fn process_host(
        &mut self,
        tables: &Tables,
        now: Instant,
        port: PortId,
        id: NetworkId,
        frame: &mut [u8],
    ) -> Result<Decision, DropReason> {
        let network = tables.network(id).ok_or(DropReason::PortGone)?;
        let ethernet = admit(frame)?;
        let layers = Layers::walk(frame);
        local::guard::check_host(network, &ethernet, &layers, frame)?;
        layers.finish_checksum(frame);
        let decide = |verdict| router::decided(verdict, id, frame, Flow::default());
        if frame.len() > Ethernet::LEN + usize::from(network.mtu) {
            return Ok(decide(Verdict::Reply { mtu: network.mtu }));
        }
        let visit = Visit { network, id, port, is_host: true, ethernet, layers: &layers, now };
        if let Some(verdict) = self.serve(tables, &visit, None, frame)? {
            return Ok(decide(verdict));
        }
        if ethernet.destination.is_group() {
            return Ok(decide(Verdict::Flood));
        }
        match self.bridge.lookup(id, network, ethernet.destination, now) {
            Some(Origin::Port(port)) => Ok(decide(Verdict::Deliver(port))),
            Some(Origin::Vtep(_)) => Err(DropReason::HostOnlyHere),
            Some(Origin::Gateway) => Err(DropReason::SamePort),
            None => Ok(decide(Verdict::Flood)),
        }
    }

    /// What is answered or delivered here and now, of the frames that no lookup decides about.
    fn serve(
        &mut self,
        tables: &Tables,
        visit: &Visit<'_>,
        to_gateway: Option<&Gateway>,
        frame: &[u8],
    ) -> Result<Option<Verdict>, DropReason> {
        let Self { neighbours, events, news, .. } = self;
        let served = local::neighbours::serve(visit, frame, &mut Ears { neighbours, events, news })?;
        match to_gateway {
            Some(gateway) if served.is_none() => local::gateway::serve(visit, gateway, tables.local().port, frame),
            _ => Ok(served),
        }
    }

    /// An underlay frame, from another VTEP.
    #[inline]
    fn process_uplink(&mut self, tables: &Tables, now: Instant, frame: &mut [u8]) -> Result<Decision, DropReason> {
        let outer = match vtep::decap(frame, tables.local()) {
            Ok(outer) => outer,
            Err(DropReason::OuterNotOurs | DropReason::OuterFragment) => return self.arrive(tables, now, frame, true),
            Err(reason) => return Err(reason),
        };
        let Some((id, peer)) = tables.tunnel(outer.vni, outer.source) else {
            let known = tables.network_of(outer.vni).is_some();
            return Err(if known { DropReason::PeerNotAllowed } else { DropReason::VxlanVniNotFound });
        };
        let network = tables.network(id).ok_or(DropReason::PortGone)?;
        let inner = &mut frame[outer.inner.clone()];
        let ethernet = admit(inner)?;
        let mut layers = Layers::walk(inner);
        layers.finish_checksum(inner);
        if !outer.checksum_holds(frame) {
            return Err(DropReason::OuterBadUdpChecksum);
        }
        if layers.is_ip() {
            let merged = layers.ecn.decap(outer.ecn).ok_or(DropReason::TunnelEcn)?;
            if merged != layers.ecn {
                layers.set_ecn(&mut frame[outer.inner.clone()], merged);
            }
        }
        local::neighbours::check_remote(network, &ethernet, &layers, &frame[outer.inner.clone()])?;
        let origin = Origin::Vtep(peer);
        self.learn(id, network, &ethernet, origin, now)?;
        let verdict = self.lookup(id, network, &ethernet, origin, now)?;
        let (start, end) = (outer.inner.start, outer.inner.end);
        Ok(Decision { verdict, network: id, start, end, flow: Flow::default(), cut_to: None })
    }

    /// An underlay frame that is not VXLAN: from outside the overlay, for an endpoint.
    #[inline]
    fn arrive(
        &mut self,
        tables: &Tables,
        now: Instant,
        frame: &mut [u8],
        may_wait: bool,
    ) -> Result<Decision, DropReason> {
        let routed = self.router.arrive(tables, now, frame, may_wait)?;
        self.routed(tables, now, routed, NetworkId(0), frame)
    }

    /// Decides about a frame that [was put by](Verdict::Hold) and is [released](Router::take_released).
    pub(crate) fn process_released(&mut self, tables: &Tables, now: Instant, frame: &mut [u8]) -> Decision {
        let decided = self.arrive(tables, now, frame, false);
        decided.and_then(|decision| self.limit(tables, now, decision)).unwrap_or_else(Decision::drop)
    }

    /// Stops a flood that is one too many for its network.
    #[inline]
    fn limit(&mut self, tables: &Tables, now: Instant, decision: Decision) -> Result<Decision, DropReason> {
        if decision.verdict != Verdict::Flood {
            return Ok(decision);
        }
        let network = tables.network(decision.network).ok_or(DropReason::PortGone)?;
        let admitted = self.floods.admit(decision.network, network, now);
        if admitted { Ok(decision) } else { Err(DropReason::FloodLimit) }
    }

    /// Finds the station to which a router sends a packet. What is longer than its next link takes
    /// may be fragmented there: routers refuse everything else.
    fn routed(
        &mut self,
        tables: &Tables,
        now: Instant,
        routed: Routed,
        from: NetworkId,
        frame: &[u8],
    ) -> Result<Decision, DropReason> {
        let (id, mac) = match routed {
            Routed::Decided(verdict) => return Ok(router::decided(verdict, from, frame, Flow::default())),
            Routed::Out(port, mtu) => {
                let decision = router::decided(Verdict::Deliver(port), from, frame, Flow::default());
                return Ok(decision.cut_to(mtu));
            }
            Routed::Inside(id, mac) => (id, mac),
        };
        let network = tables.network(id).ok_or(DropReason::PortGone)?;
        let layers = Layers::walk(frame);
        let flow = Flow { source_port: entropy::source_port(frame, &layers), ecn: layers.ecn };
        let verdict = match self.bridge.lookup(id, network, mac, now) {
            Some(Origin::Port(port)) => Verdict::Deliver(port),
            Some(Origin::Vtep(vtep)) => Verdict::Forward(vtep),
            Some(Origin::Gateway) => return Err(DropReason::GatewayUnused),
            None => Verdict::Flood,
        };
        Ok(router::decided(verdict, id, frame, flow).cut_to(network.mtu))
    }

    /// Remembers the sender, and notes for the other workers what they cannot see themselves.
    #[inline]
    fn learn(
        &mut self,
        id: NetworkId,
        network: &Network,
        ethernet: &Ethernet,
        origin: Origin,
        now: Instant,
    ) -> Result<(), DropReason> {
        let learned = self.bridge.learn(id, network, ethernet.source, origin, now);
        if learned == Learned::Known { Ok(()) } else { self.spread(id, ethernet.source, origin, learned, now) }
    }

    /// Tells whom it concerns what was `learned` about a station heard from `origin`.
    #[inline(never)]
    fn spread(
        &mut self,
        id: NetworkId,
        mac: MacAddr,
        origin: Origin,
        learned: Learned,
        now: Instant,
    ) -> Result<(), DropReason> {
        let origin = match learned {
            Learned::Known | Learned::Refused | Learned::Held => return Ok(()),
            Learned::Pinned => return Err(DropReason::StationElsewhere),
            Learned::New | Learned::Moved(_) | Learned::Confirmed => origin,
            Learned::Flapping(held) => {
                self.events.note(now, Event::StationFlaps { network: id, mac, held });
                held
            }
        };
        self.note_move(id, learned);
        self.news.push(News::Station { network: id, mac, origin });
        Ok(())
    }

    fn note_move(&mut self, id: NetworkId, learned: Learned) {
        if matches!(learned, Learned::Moved(_) | Learned::Flapping(_)) && self.moved.last() != Some(&id) {
            self.moved.push(id);
        }
    }

    /// Takes note of what another worker heard, as far as it is still of any use: its sender may
    /// have had older tables.
    pub(crate) fn hear(&mut self, tables: &Tables, now: Instant, news: News) {
        match news {
            News::Station { network: id, mac, origin } => {
                if let Some(network) = tables.network(id).filter(|network| network.has(origin)) {
                    let learned = self.bridge.learn(id, network, mac, origin, now);
                    self.note_move(id, learned);
                }
            }
            News::Neighbour(claim) => {
                if let Some(network) = tables.network(claim.network) {
                    local::neighbours::hear_told(network, claim, &mut self.neighbours, now);
                }
            }
        }
    }

    /// Finds the way to the destination. What came out of a tunnel never enters another
    /// (split horizon: with every VTEP replicating to all others, it has been there already).
    #[inline]
    fn lookup(
        &self,
        id: NetworkId,
        network: &Network,
        ethernet: &Ethernet,
        from: Origin,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let found = if ethernet.destination.is_group() {
            None
        } else {
            self.bridge.lookup(id, network, ethernet.destination, now)
        };
        match (found, from) {
            (Some(Origin::Gateway), Origin::Vtep(_)) => Err(DropReason::GatewayElsewhere),
            _ if network.isolation => Err(DropReason::Isolated),
            (None, _) => Ok(Verdict::Flood),
            (Some(Origin::Gateway), _) => Err(DropReason::GatewayUnused),
            (Some(to), from) if to == from => Err(DropReason::SamePort),
            (Some(Origin::Port(port)), _) => Ok(Verdict::Deliver(port)),
            (Some(Origin::Vtep(vtep)), Origin::Port(_) | Origin::Gateway) => Ok(Verdict::Forward(vtep)),
            (Some(Origin::Vtep(_)), Origin::Vtep(_)) => Err(DropReason::SplitHorizon),
        }
    }
}

/// What every overlay frame must be before anything is learned from it.
#[inline]
fn admit(frame: &[u8]) -> Result<Ethernet, DropReason> {
    let (ethernet, _) = Ethernet::split(frame).ok_or(DropReason::InnerTruncated)?;
    if !ethernet.source.is_station() {
        return Err(DropReason::MacInvalidSource);
    }
    if ethernet.ether_type.is_vlan() {
        return Err(DropReason::InnerVlan);
    }
    if ethernet.destination.is_group() && ethernet.destination.is_link_local_control() {
        return Err(DropReason::LinkLocalControl);
    }
    Ok(*ethernet)
}
