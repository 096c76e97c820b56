//! The express lane as a worker has it: which decisions are repeated by the programs, and for how long.
//!
//! A worker that has decided about a frame may put the decision into a map, from which a program
//! then repeats it for every frame like it. It does so only for what the MAC table vouches for, so
//! that a policy which refuses a frame, or rewrites it, never gets there. What is in a map ends by
//! itself, at the latest when the stations that it is about would be forgotten, and at once when
//! the [epoch](Epochs) of its network does.

mod placed;
mod sessions;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use vxlane_abi::express::{
    Encap, FlowKey, KIND_PEER, KIND_SEND, KIND_TUNNEL, KIND_TUNNEL_V6, OVERHEAD, OVERHEAD_V6, Rewrite, SessionKey,
    TunnelKey, Way,
};

pub use crate::attach::express::{Epochs, Uses};
use crate::{
    bridge::{Bridge, Origin},
    clock::Instant,
    ids::{NetworkId, PortId, WorkerId},
    nat::{Nat, Passage, SessionId},
    pipeline::Pipeline,
    router::{Family, Router},
    tables::{Network, Role, Tables},
    verdict::{Decision, Verdict},
    vtep::{self, Template},
    wire::{EtherType, Ethernet, Layers, Version, Vni},
};
use placed::{Key, Placed};
use sessions::{Crossing, Sessions, Used};

/// Where a port is, to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The index of its interface.
    pub ifindex: u32,
    /// Whether a frame for it can go straight into the namespace behind it.
    pub into: bool,
}

impl Leg {
    /// How a frame gets there.
    pub fn kind(self) -> u16 {
        if self.into { KIND_PEER } else { KIND_SEND }
    }
}

/// The maps that the programs read.
pub trait Flows: Send {
    /// Has frames of an endpoint go this way.
    ///
    /// # Errors
    /// [`FlowsError`]
    fn put_flow(&mut self, key: &FlowKey, flow: &Encap) -> Result<(), FlowsError>;

    /// Has frames of another VTEP go this way.
    ///
    /// # Errors
    /// [`FlowsError`]
    fn put_tunnel(&mut self, key: &TunnelKey, way: &Way) -> Result<(), FlowsError>;

    /// Has packets of a session be translated so.
    ///
    /// # Errors
    /// [`FlowsError`]
    fn put_session(&mut self, key: &SessionKey, rewrite: &Rewrite) -> Result<(), FlowsError>;

    /// Has a worker decide again, unless another worker has put the same flow there meanwhile,
    /// which then does not expire at `expires`.
    fn remove_flow(&mut self, key: &FlowKey, expires: u64);

    /// The same for frames of another VTEP.
    fn remove_tunnel(&mut self, key: &TunnelKey, expires: u64);

    /// Has a worker decide again about a session, of which no other worker knows.
    fn remove_session(&mut self, key: &SessionKey);
}

/// The map is full, or the kernel has no memory for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another flow")]
pub struct FlowsError;

/// What a worker did with flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Put into a map, also again.
    pub placed: u64,
    /// Left to the workers, because the network or the worker had as many as it may.
    pub refused: u64,
    /// Taken out, because they had ended.
    pub removed: u64,
    /// In the maps now.
    pub current: u64,
}

/// One worker's share of the express lane.
pub struct Express {
    me: WorkerId,
    flows: Box<dyn Flows>,
    epochs: Arc<Epochs>,
    placed: Placed,
    sessions: Sessions,
    /// Epochs that had ended when the worker last looked whether it was told anything.
    ended: u64,
    counts: FlowCounts,
    clock: fn() -> u64,
    /// How far that is ahead of the workers' clock, once that is known.
    ahead: Option<u64>,
}

impl fmt::Debug for Express {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Express").field("ended", &self.ended).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Express {
    /// Puts at most `most` flows into `flows`, in the name of worker `me`, which is there from now on.
    /// What becomes of sessions is noted in `uses`, which is that worker's alone.
    pub fn new(me: WorkerId, flows: Box<dyn Flows>, epochs: Arc<Epochs>, uses: Uses, most: usize) -> Self {
        epochs.beat(kernel_time());
        let (placed, sessions, counts) = (Placed::new(most), Sessions::new(uses), FlowCounts::default());
        Self { me, flows, epochs, placed, sessions, ended: 0, counts, clock: kernel_time, ahead: None }
    }

    /// Call this before looking at what other workers have to tell: decisions made from now on
    /// know of every epoch that has ended.
    pub(crate) fn begin(&mut self) {
        self.ended = self.epochs.ended();
    }

    /// Ends the epoch of `network`, because a station of it has moved.
    pub(crate) fn end(&self, network: NetworkId) {
        self.epochs.end(network);
    }

    /// What it did.
    pub fn counts(&self) -> FlowCounts {
        FlowCounts { current: self.placed.len() as u64, ..self.counts }
    }

    /// Has `decision`, which was made about `frame` from the port `from`, be repeated, if that is
    /// one for this lane.
    #[inline(never)]
    pub(crate) fn repeat(
        &mut self,
        tables: &Tables,
        pipeline: &mut Pipeline,
        now: Instant,
        from: PortId,
        decision: &Decision,
        frame: &[u8],
    ) {
        let Pipeline { bridge, router, .. } = pipeline;
        self.drop_left(router);
        let passages = (take_passage::<Ipv4Addr>(router), take_passage::<Ipv6Addr>(router));
        let flow = match passages {
            (Some(passage), _) => Flow::of_session(tables, bridge, now, from, decision, &passage, frame),
            (None, Some(passage)) => Flow::of_session(tables, bridge, now, from, decision, &passage, frame),
            (None, None) => Flow::of(tables, bridge, now, from, decision, frame),
        };
        if let Some(flow) = flow {
            self.place(&flow);
        }
    }

    /// Takes sessions out of the map that have ended, or of which workers have to see every packet.
    pub(crate) fn drop_left(&mut self, router: &mut Router) {
        self.drop_left_of::<Ipv4Addr>(router);
        self.drop_left_of::<Ipv6Addr>(router);
    }

    fn drop_left_of<A: Family>(&mut self, router: &mut Router) {
        while let Some((session, lives)) = A::nat(router).and_then(Nat::take_left) {
            let Self { flows, placed, sessions, counts, ahead, .. } = self;
            let told = |used| {
                if lives {
                    note(router, used, *ahead)
                }
            };
            sessions.forget((A::VERSION, session), told, |key| {
                counts.removed += 1;
                placed.remove(&Key::Session(key));
                flows.remove_session(&key);
            });
        }
    }

    /// Tells `router` of everything that its sessions have been used for.
    pub(crate) fn tell_all(&mut self, router: &mut Router) {
        let ahead = self.ahead;
        self.sessions.tell_all(|used| note(router, used, ahead));
    }

    fn place(&mut self, flow: &Flow) {
        let (time, epoch) = ((self.clock)(), epoch_of(&self.epochs, &flow.key, flow.network));
        // An epoch may have ended after this was decided: let the next frame do it.
        if self.epochs.ended() != self.ended || self.placed.is_fresh(&flow.key, epoch, time) {
            return;
        }
        let life = flow.vouched.life();
        let nanos = |part: Duration| time.saturating_add(u64::try_from(part.as_nanos()).unwrap_or(u64::MAX));
        let (expires, confirm, ages) = (nanos(life), nanos(life / 2), nanos(flow.vouched.unheard()));
        let way = Way { epoch, expires, confirm, ages, worker: self.me.0, ..flow.way };
        if !self.placed.put(flow.key, flow.network, &way, time) {
            self.counts.refused += 1;
            return;
        }
        let result = match flow.key {
            Key::Flow(key) => self.flows.put_flow(&key, &Encap { way, ..flow.encap }),
            Key::Tunnel(key) => self.flows.put_tunnel(&key, &way),
            Key::Session(key) => self.put_session(&key, way, flow),
        };
        match result {
            Ok(()) => self.counts.placed += 1,
            Err(FlowsError) => {
                self.placed.remove(&flow.key);
                self.counts.refused += 1;
            }
        }
    }

    fn put_session(&mut self, key: &SessionKey, way: Way, flow: &Flow) -> Result<(), FlowsError> {
        let crossing = flow.crossing.as_ref().ok_or(FlowsError)?;
        let (place, before) = self.sessions.hold(crossing.session, crossing.way, *key).ok_or(FlowsError)?;
        if let Some(before) = before {
            self.placed.remove(&Key::Session(before));
            self.flows.remove_session(&before);
        }
        self.flows.put_session(key, &Rewrite { way, place, ..crossing.rewrite })
    }

    /// Takes some of the flows that have ended out of the maps, and tells `router` of some of the use
    /// that its sessions had. Ten times a second, and every one
    /// is looked at within seven seconds.
    pub(crate) fn tick(&mut self, now: Instant, router: &mut Router) {
        let time = (self.clock)();
        self.epochs.beat(time);
        self.ahead = Some(time.saturating_sub(now.0));
        let ahead = self.ahead;
        self.sessions.tell_some(|used| note(router, used, ahead));
        let Self { flows, epochs, placed, counts, .. } = self;
        placed.sweep(
            time,
            |key, network| epoch_of(epochs, key, network),
            |key, expires| {
                counts.removed += 1;
                match key {
                    Key::Flow(key) => flows.remove_flow(key, expires),
                    Key::Tunnel(key) => flows.remove_tunnel(key, expires),
                    Key::Session(key) => flows.remove_session(key),
                }
            },
        );
    }
}

/// A decision that can be repeated.
struct Flow {
    key: Key,
    network: NetworkId,
    /// All but its times and its epoch.
    way: Way,
    /// Its headers, where it has any.
    encap: Encap,
    /// For how long the MAC table vouches for it.
    vouched: Vouched,
    /// What becomes of its packets, where they belong to a session.
    crossing: Option<Crossing>,
}

/// For how long the MAC table vouches for the stations of a flow.
#[derive(Clone, Copy, Debug)]
struct Vouched {
    /// Until one of them is forgotten, unless it is heard of again.
    left: Duration,
    ageing: Duration,
}

impl Vouched {
    /// For how long a worker need not be asked. A frame that is to confirm a station comes after
    /// half of it, or three quarters at the latest.
    fn life(self) -> Duration {
        self.left.min(self.ageing / 8).min(LIFE)
    }

    /// For how long it may go on when nobody hears of the stations: the MAC table may remember
    /// them for an eighth longer than they age, for want of a finer clock.
    fn unheard(self) -> Duration {
        self.left.saturating_sub(self.ageing / 8)
    }
}

impl Flow {
    fn of(
        tables: &Tables,
        bridge: &Bridge,
        now: Instant,
        from: PortId,
        decision: &Decision,
        frame: &[u8],
    ) -> Option<Self> {
        if decision.cut_to.is_some() || !matches!(decision.verdict, Verdict::Deliver(_) | Verdict::Forward(_)) {
            return None;
        }
        let network = tables.network(decision.network).filter(|network| network.express)?;
        let port = tables.port(from)?;
        let leg = port.express?;
        match port.role {
            Role::Access(id) if id == decision.network && decision.start == 0 => {
                let frame = &frame[..decision.end];
                let (ethernet, vouched) = vouched(bridge, id, network, now, Origin::Port(from), decision, frame)?;
                Self::access(tables, network, decision, leg, from, &ethernet, frame, vouched)
            }
            Role::Uplink if matches!(decision.start, OVERHEAD | OVERHEAD_V6) => {
                Self::uplink(tables, bridge, now, network, decision, from, frame)
            }
            Role::Uplink | Role::Access(_) | Role::Host(_) => None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a flow is made of")]
    fn access(
        tables: &Tables,
        network: &Network,
        decision: &Decision,
        leg: Leg,
        from: PortId,
        ethernet: &Ethernet,
        frame: &[u8],
        vouched: Vouched,
    ) -> Option<Self> {
        let mut encap = BLANK;
        if let Verdict::Deliver(to) = decision.verdict {
            encap.way = local(tables, decision.network, from, to)?;
        } else if let Verdict::Forward(vtep) = decision.verdict {
            let vtep = tables.vtep(vtep)?;
            let kind = match vtep.template.as_ref()? {
                Template::V4(headers) => {
                    let bytes;
                    (bytes, encap.ip_sum) = headers.parts(network.vni);
                    encap.headers[..OVERHEAD].copy_from_slice(&bytes);
                    KIND_TUNNEL
                }
                Template::V6(headers) => {
                    encap.headers = headers.parts(network.vni)?;
                    KIND_TUNNEL_V6
                }
            };
            let uplink = tables.port(vtep.uplink)?.express?;
            encap.way = way(decision.network, from, vtep.uplink, uplink.ifindex, kind);
        }
        encap.way.longest = u32::from(network.mtu) + 14;
        let mut address = [0; 16];
        let addresses = Layers::walk(frame).addresses(frame);
        let source = &addresses[..addresses.len() / 2];
        address.get_mut(..source.len())?.copy_from_slice(source);
        let key =
            FlowKey { ifindex: leg.ifindex, destination: ethernet.destination.0, source: ethernet.source.0, address };
        Some(Self { key: Key::Flow(key), network: decision.network, way: encap.way, encap, vouched, crossing: None })
    }

    fn uplink(
        tables: &Tables,
        bridge: &Bridge,
        now: Instant,
        network: &Network,
        decision: &Decision,
        from: PortId,
        frame: &[u8],
    ) -> Option<Self> {
        let Verdict::Deliver(to) = decision.verdict else { return None };
        let own = tables.local();
        let outer = vtep::decap(frame, own).ok()?;
        // Programs cannot check a sum over all of a frame; those that have none they take over IPv6
        // only where that was asked for.
        if outer.source.is_ipv6() && !own.zero_checksums.receive {
            return None;
        }
        let (id, peer) = tables.tunnel(outer.vni, outer.source)?;
        if id != decision.network {
            return None;
        }
        let inner = frame.get(decision.start..decision.end)?;
        let (ethernet, vouched) = vouched(bridge, id, network, now, Origin::Vtep(peer), decision, inner)?;
        let key = TunnelKey {
            vni: wire_vni(outer.vni),
            vtep: mapped(outer.source),
            destination: ethernet.destination.0,
            source: ethernet.source.0,
        };
        let way = local(tables, id, from, to)?;
        Some(Self { key: Key::Tunnel(key), network: id, way, encap: BLANK, vouched, crossing: None })
    }
}

/// The header of an overlay frame from `origin`, if it is of IP and the MAC table says the same
/// of its two stations as `decision` does; and for how long it will.
fn vouched(
    bridge: &Bridge,
    id: NetworkId,
    network: &Network,
    now: Instant,
    origin: Origin,
    decision: &Decision,
    frame: &[u8],
) -> Option<(Ethernet, Vouched)> {
    let (ethernet, _) = Ethernet::split(frame)?;
    if !matches!(ethernet.ether_type, EtherType::IPV4 | EtherType::IPV6) {
        return None;
    }
    let (heard, left_here) = bridge.whereabouts(id, network, ethernet.source, now)?;
    let (found, left_there) = bridge.whereabouts(id, network, ethernet.destination, now)?;
    let agrees = heard == origin
        && match (found, decision.verdict) {
            (Origin::Port(found), Verdict::Deliver(to)) => found == to,
            (Origin::Vtep(found), Verdict::Forward(to)) => found == to,
            _ => false,
        };
    let vouched = Vouched { left: left_here.min(left_there), ageing: Duration::from_secs(network.ageing.into()) };
    agrees.then_some((*ethernet, vouched))
}

/// The way to a port of this host.
fn local(tables: &Tables, network: NetworkId, from: PortId, to: PortId) -> Option<Way> {
    let port = tables.port(to).filter(|port| port.role == Role::Access(network))?;
    let leg = port.express?;
    Some(way(network, from, to, leg.ifindex, leg.kind()))
}

fn way(network: NetworkId, from: PortId, to: PortId, ifindex: u32, kind: u16) -> Way {
    Way { network: network.0.into(), from: from.0, to: to.0, ifindex, kind, ..BLANK.way }
}

/// The epoch that flows of `network` with such a key are of.
fn epoch_of(epochs: &Epochs, key: &Key, network: NetworkId) -> u32 {
    match key {
        Key::Flow(_) | Key::Tunnel(_) => epochs.of(network),
        Key::Session(_) => epochs.of_sessions(network),
    }
}

/// The session of the packet that was just routed, if it went through the translation of `A`.
fn take_passage<A: Family>(router: &mut Router) -> Option<Passage<A>> {
    A::nat(router).and_then(Nat::take_passage)
}

/// Tells `router` what a session was `used` for, with the programs' clock that much `ahead` of ours;
/// before that is known there are no sessions.
fn note(router: &mut Router, used: Used, ahead: Option<u64>) {
    let (version, session) = used.session;
    match version {
        Version::V4 => note_in::<Ipv4Addr>(router, session, used, ahead),
        Version::V6 => note_in::<Ipv6Addr>(router, session, used, ahead),
    }
}

fn note_in<A: Family>(router: &mut Router, session: SessionId, used: Used, ahead: Option<u64>) {
    let (Some(nat), Some(ahead)) = (A::nat(router), ahead) else { return };
    let last = Instant(used.last.saturating_sub(ahead)).ticks();
    nat.note_use(session, used.way, used.packets, used.bytes, last);
}

/// An address as 16 bytes, that of IPv4 as IPv6 has it mapped (RFC 4291 section 2.5.5.2).
fn mapped(address: impl Into<IpAddr>) -> [u8; 16] {
    match address.into() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn wire_vni(vni: Vni) -> [u8; 4] {
    let [_, high, middle, low] = vni.get().to_be_bytes();
    [high, middle, low, 0]
}

/// What the programs measure time with, in nanoseconds.
pub fn kernel_time() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    Duration::from(time).as_nanos().try_into().unwrap_or(u64::MAX)
}

const BLANK: Encap = Encap {
    way: Way {
        expires: 0,
        confirm: 0,
        ages: 0,
        epoch: 0,
        network: 0,
        ifindex: 0,
        longest: u32::MAX,
        kind: 0,
        worker: 0,
        from: 0,
        to: 0,
    },
    ip_sum: 0,
    headers: [0; OVERHEAD_V6],
    reserved: [0; 6],
};

/// The longest that a decision is repeated without asking, while there is somebody to ask.
const LIFE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
