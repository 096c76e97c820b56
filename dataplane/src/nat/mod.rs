//! Ways out: many inside endpoints behind a few outside addresses (RFC 4787, 5382, 5508, 7857).
//!
//! ```text
//!  inside ──> translate ──> mapping of the inside endpoint ──> session with the remote ──> outside
//!  inside <── restore <──── what the outside port stands for <── session with the remote <─ outside
//! ```
//!
//! A [`Nat`] belongs to one worker and is pure: bytes and the time in, a verdict out. It lends
//! outside ports from blocks that are this worker's alone, so workers share nothing; a packet for
//! another one's port says so ([`Restored::Elsewhere`]). An inside endpoint keeps one outside
//! endpoint for all its remotes as long as any session lives (endpoint-independent mapping), and
//! an inside host one address of the pool (paired pooling). IPv4 and IPv6 are translated alike,
//! each by a [`Nat`] of its own.
//!
//! Everything is bounded: sessions, ports, sessions of one host and of one network, fragments.
//! What is full refuses newcomers and says so; no living session ever makes room for another.

mod config;
mod counts;
mod fragments;
mod glimpse;
mod index;
mod mappings;
mod odd;
mod packet;
mod passage;
mod ports;
mod publish;
mod recall;
mod rewrite;
mod sessions;
#[cfg(test)]
mod tests;
mod timeouts;
mod view;

use std::net::Ipv4Addr;

pub use config::{Filtering, NatConfig};
use counts::Counts;
use fragments::{Fate, Fragments};
pub use glimpse::Glimpse;
use index::{Hash, Hasher};
use mappings::{Inside, Mappings};
use odd::datagram;
use packet::{Flow, Kind, Packet};
pub use passage::Passage;
use passage::Watch;
pub use ports::{BadPorts, BlindBoard, Board, BoardPart, Ports, Protocol, owner};
use ports::{Leases, OutsideId};
pub use publish::Publish;
use publish::Published;
use rewrite::Side;
use sessions::{Key, Sessions};
pub use sessions::{SessionId, Traffic};
use timeouts::Lifetimes;
pub use timeouts::{State, Timeouts};
pub use view::{NatReport, SessionView, Share};

use crate::{
    clock::{Instant, Ticks},
    ids::{NetworkId, WorkerId},
    verdict::DropReason,
    wire::{Address, Ipv4, MacAddr, Version, tcp},
};

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From inside.
    Out,
    /// From outside.
    In,
}

/// Who sent a packet that shall leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its network.
    pub network: NetworkId,
    /// Where replies go.
    pub mac: MacAddr,
}

/// What became of a packet from outside that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is addressed to an inside endpoint now.
    Inside {
        /// The network of the endpoint.
        network: NetworkId,
        /// Its station.
        mac: MacAddr,
    },
    /// Another worker lent the port; nothing was changed.
    Elsewhere(WorkerId),
    /// It must not be fragmented and is longer than the network takes; nothing was changed.
    TooLong {
        /// What it takes.
        mtu: u16,
    },
    /// A fragment that waits for the first of its datagram; see [`Nat::take_released`].
    Waits,
}

/// The address translation of one worker.
#[derive(Debug)]
pub struct Nat<A = Ipv4Addr> {
    config: NatConfig<A>,
    me: WorkerId,
    workers: u16,
    hasher: Hasher,
    lifetimes: Lifetimes,
    leases: Leases,
    mappings: Mappings<A>,
    sessions: Sessions<A>,
    /// Sessions by mapping and remote address, where that decides who may answer.
    called: Option<Counts<A>>,
    fragments: Fragments<A>,
    published: Published<A>,
    watch: Watch,
    /// Sessions that ever began.
    begun: u64,
    /// Sessions that could not begin, by network, in the order of [`FULL`].
    refused: Vec<[u64; FULL.len()]>,
}

/// The reasons for which a packet that might begin a session does not: somebody has too many.
pub const FULL: [DropReason; 4] =
    [DropReason::NatNoPort, DropReason::NatTableFull, DropReason::NatEndpointLimit, DropReason::NatNetworkLimit];

/// Sessions that one [`Nat::expire`] ends or puts off, at most: under a millisecond.
const EXPIRED_PER_TICK: usize = 4096;

impl<A: Address> Nat<A> {
    /// The translation of worker `me` out of `workers`, which posts its leases on `board`.
    pub fn new(config: NatConfig<A>, me: WorkerId, workers: u16, board: Board) -> Self {
        let addresses = config.addresses.len().min(NatConfig::<A>::MOST_ADDRESSES);
        let leases = Leases::new(&config.ports, addresses, me, workers, board);
        let ports = Protocol::ALL.iter().map(|&protocol| leases.free(protocol)).sum::<usize>();
        let mapped = ports.min(config.sessions);
        let called = (config.filtering == Filtering::AddressDependent).then(|| Counts::new(config.sessions));
        Self {
            lifetimes: Lifetimes::new(&config.timeouts),
            mappings: Mappings::new(addresses, mapped),
            sessions: Sessions::new(config.sessions),
            hasher: Hasher::new(),
            // Workers start far apart, so that the identifications they give do not meet.
            fragments: Fragments::new(u32::from(me.0).wrapping_mul(u32::MAX / u32::from(workers.max(1)))),
            published: Published::default(),
            watch: Watch::default(),
            begun: 0,
            refused: vec![[0; FULL.len()]; usize::from(u16::MAX) + 1],
            config,
            me,
            workers,
            leases,
            called,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &NatConfig<A> {
        &self.config
    }

    /// Gives a packet that leaves its network an outside source. `packet` starts with its IP
    /// header; its checksums must be finished and its TTL is left alone.
    ///
    /// # Errors
    /// The reason why it may not leave; it is unchanged then.
    #[inline]
    pub fn translate(&mut self, now: Instant, from: Sender, packet: &mut [u8]) -> Result<(), DropReason> {
        let now = now.ticks();
        self.watch.begin();
        let parsed = Packet::parse(packet)?;
        // A "land" packet, which some stacks answer for ever.
        if parsed.source == parsed.destination {
            return Err(DropReason::NatInvalid);
        }
        match parsed.kind {
            Kind::Whole(flow) => {
                let id = self.mapped(now, from, &parsed, &flow)?;
                self.leave(packet, parsed.at, &flow, id);
                self.identify(&parsed, packet);
                Ok(())
            }
            Kind::First(flow) => {
                let id = self.mapped(now, from, &parsed, &flow)?;
                self.leave(packet, parsed.at, &flow, id);
                self.fragment_leaves(now, from, &parsed, packet);
                Ok(())
            }
            Kind::Later => {
                self.fragment_leaves(now, from, &parsed, packet);
                Ok(())
            }
            Kind::Error(quote) => self.error_leaves(from, &parsed, &quote, packet),
        }
    }

    /// Gives a packet from outside back to the inside endpoint that its destination stands for.
    /// `frame` has the packet's IP header at `start`; `mtu_of` says how long a packet a network
    /// takes, if there is such a network still. With `may_wait`, a fragment that comes too early
    /// is kept.
    ///
    /// # Errors
    /// The reason why it goes nowhere; it is unchanged then.
    #[inline]
    pub fn restore(
        &mut self,
        now: Instant,
        frame: &mut [u8],
        start: usize,
        may_wait: bool,
        mtu_of: impl Fn(NetworkId) -> Option<u16>,
    ) -> Result<Restored, DropReason> {
        let now = now.ticks();
        self.watch.begin();
        let packet = frame.get_mut(start..).ok_or(DropReason::NatInvalid)?;
        let parsed = Packet::parse(packet)?;
        let address = self.pool_index(parsed.destination).ok_or(DropReason::NatNoSession)?;
        match parsed.kind {
            Kind::Whole(flow) => self.arrive(now, address, &parsed, &flow, packet, mtu_of),
            Kind::First(flow) => {
                let arrived = self.arrive(now, address, &parsed, &flow, packet, mtu_of)?;
                let id = OutsideId::new(address, flow.protocol, flow.destination);
                let fate = match arrived {
                    Restored::Elsewhere(worker) => Fate::Elsewhere(worker),
                    Restored::Inside { .. } | Restored::TooLong { .. } | Restored::Waits => Fate::In(id),
                };
                self.fragments.remember(datagram(None, &parsed, packet), fate, now, &self.hasher);
                Ok(arrived)
            }
            Kind::Later => {
                let datagram = datagram(None, &parsed, packet);
                match self.fragments.fate(&datagram, now, &self.hasher) {
                    Some(Fate::In(id)) => self.fragment_arrives(id, packet, parsed.length, mtu_of),
                    Some(Fate::Elsewhere(worker)) => Ok(Restored::Elsewhere(worker)),
                    Some(Fate::Out { .. }) => Err(DropReason::NatFragment),
                    None if may_wait && self.fragments.hold(datagram, frame, now) => Ok(Restored::Waits),
                    None => Err(DropReason::NatFragment),
                }
            }
            Kind::Error(quote) => self.error_arrives(address, &parsed, &quote, packet, mtu_of),
        }
    }

    /// Whether `address` is one of the pool.
    #[inline]
    pub fn is_outside(&self, address: A) -> bool {
        self.config.addresses.contains(&address)
    }

    /// Lends none of `ports` from now on, which sockets of the host have; what is lent stays so.
    pub fn avoid(&mut self, ports: impl Iterator<Item = (Protocol, u16)>) {
        self.leases.avoid(ports);
    }

    /// Posts on `board` from now on what is lent, and on the one before no more.
    pub fn post_on(&mut self, board: Board) {
        self.leases.post_on(board);
    }

    /// Ends sessions whose time is up. Call it ten times a second; a session that has outlived
    /// its time is dead already, this gives its place and port back.
    pub fn expire(&mut self, now: Instant) {
        let now = now.ticks();
        let mut budget = EXPIRED_PER_TICK;
        while let Some(id) = self.sessions.expired(now, &mut budget) {
            self.end(id);
        }
        self.fragments.expire(now);
    }

    /// Ends every session that `keep` does not vouch for.
    pub fn retain(&mut self, mut keep: impl FnMut(&SessionView<A>) -> bool) -> usize {
        let before = self.sessions.len();
        for place in 0..self.sessions.places() {
            let found = self.sessions.iter_from(place).next().map(|(id, _)| id);
            if let Some(id) = found.filter(|id| id.0 as usize == place)
                && self.view(id).is_none_or(|view| !keep(&view))
            {
                self.end(id);
            }
        }
        before - self.sessions.len()
    }

    /// The next frame that waited for the first fragment of its datagram and waits no longer:
    /// restore it again, now without leave to wait, then [give it back](Self::give_back).
    pub fn take_released(&mut self) -> Option<Vec<u8>> {
        self.fragments.take_released()
    }

    /// Takes the memory of a released frame back.
    pub fn give_back(&mut self, frame: Vec<u8>) {
        self.fragments.give_back(frame);
    }

    /// The outside endpoint for a packet from inside, with its session up to date.
    #[inline]
    fn mapped(&mut self, now: Ticks, from: Sender, packet: &Packet<A>, flow: &Flow) -> Result<OutsideId, DropReason> {
        if flow.is_reply {
            return Err(DropReason::NatNoSession);
        }
        let inside = Inside { network: from.network, address: packet.source, port: flow.source };
        let hash = inside.hash(flow.protocol, &self.hasher);
        let Some(id) = self.mappings.find(hash, inside, flow.protocol) else {
            return self.open(now, from, inside, hash, packet, flow);
        };
        let id = match self.mappings.is_published(id) {
            true => {
                let remote = (packet.destination, flow.destination);
                self.published_for(inside, flow.protocol, remote).unwrap_or(id)
            }
            false => id,
        };
        let key = Key { outside: id, remote: packet.destination, port: flow.destination };
        match self.sessions.find(key.hash(&self.hasher), key) {
            Some(session) if self.sessions.get(session).deadline > now => {
                self.refresh(session, Way::Out, now, flow, packet.length);
                self.watch.pass(session, Way::Out);
                self.mappings.set_mac(id, from.mac);
                Ok(id)
            }
            Some(expired) => {
                self.end(expired);
                self.open(now, from, inside, hash, packet, flow)
            }
            None => self.open(now, from, inside, hash, packet, flow),
        }
    }

    #[inline]
    fn refresh(&mut self, id: SessionId, way: Way, now: Ticks, flow: &Flow, length: usize) {
        let inbound_refreshes = self.config.inbound_refresh;
        let session = self.sessions.get_mut(id);
        match way {
            Way::Out => session.out.count(length),
            Way::In => session.back.count(length),
        }
        if flow.protocol == Protocol::Tcp {
            let next = session.state.after(flow.flags, way);
            if next != session.state {
                session.state = next;
                session.deadline = self.lifetimes.deadline(next, now);
                self.sessions.reschedule(id);
                if !next.is_settled() {
                    self.watch.leave(id, true);
                }
                return;
            }
            // A reset that comes again must not keep the session from ending.
            if matches!(next, State::Closed | State::Reset) {
                return;
            }
        } else if way == Way::In && !inbound_refreshes {
            return;
        }
        session.deadline = self.lifetimes.deadline(session.state, now);
    }

    /// Counts what is refused because something is full.
    fn note_refused(&mut self, network: NetworkId, reason: DropReason) {
        if let Some(place) = FULL.iter().position(|&full| full == reason) {
            self.refused[network.index()][place] += 1;
        }
    }

    /// Begins a session from inside.
    #[cold]
    fn open(
        &mut self,
        now: Ticks,
        from: Sender,
        inside: Inside<A>,
        hash: Hash,
        packet: &Packet<A>,
        flow: &Flow,
    ) -> Result<OutsideId, DropReason> {
        self.try_open(now, from, inside, hash, packet, flow)
            .inspect_err(|&reason| self.note_refused(from.network, reason))
    }

    fn try_open(
        &mut self,
        now: Ticks,
        from: Sender,
        inside: Inside<A>,
        hash: Hash,
        packet: &Packet<A>,
        flow: &Flow,
    ) -> Result<OutsideId, DropReason> {
        let state = match flow.protocol {
            Protocol::Tcp if flow.flags & (tcp::SYN | tcp::ACK) == tcp::SYN => State::OpeningOut,
            Protocol::Tcp => return Err(DropReason::NatNoSession),
            Protocol::Udp => State::Udp,
            Protocol::Icmp => State::Icmp,
        };
        self.admit(inside)?;
        let id = match self.mappings.find(hash, inside, flow.protocol) {
            Some(id) => id,
            None => {
                let address = ports::paired(inside.network.0, inside.address, self.config.addresses.len());
                let id = self.leases.lease(address, flow.protocol, inside.port).ok_or(DropReason::NatNoPort)?;
                if !self.mappings.insert(hash, id, inside, from.mac) {
                    self.leases.give_back(id);
                    return Err(DropReason::NatTableFull);
                }
                id
            }
        };
        self.mappings.set_mac(id, from.mac);
        let key = Key { outside: id, remote: packet.destination, port: flow.destination };
        let session = self.begin(now, key, state)?;
        self.sessions.get_mut(session).out.count(packet.length);
        Ok(id)
    }

    /// Whether the host at `inside` may have another session.
    fn admit(&self, inside: Inside<A>) -> Result<(), DropReason> {
        let (host, network) = self.mappings.load(inside, &self.hasher);
        match () {
            () if host >= self.config.endpoint_limit => Err(DropReason::NatEndpointLimit),
            () if network >= self.config.network_limit => Err(DropReason::NatNetworkLimit),
            () => Ok(()),
        }
    }

    /// Puts a session into all tables, or into none.
    fn begin(&mut self, now: Ticks, key: Key<A>, state: State) -> Result<SessionId, DropReason> {
        let full = DropReason::NatTableFull;
        let counted = self.mappings.add_session(key.outside, &self.hasher);
        let called = counted && self.called.as_mut().is_none_or(|called| called.add(caller(key), &self.hasher));
        let deadline = self.lifetimes.deadline(state, now);
        let hash = key.hash(&self.hasher);
        if let Some(session) = called.then(|| self.sessions.insert(hash, key, state, now, deadline)).flatten() {
            self.begun += 1;
            return Ok(session);
        }
        if called && let Some(counts) = &mut self.called {
            counts.sub(caller(key), &self.hasher);
        }
        if counted {
            self.mappings.remove_session(key.outside, &self.hasher);
        }
        self.drop_if_unused(key.outside);
        Err(full)
    }

    /// Ends a session, and its mapping if it was the last.
    fn end(&mut self, id: SessionId) {
        let key = self.sessions.get(id).key;
        self.watch.leave(id, false);
        self.sessions.remove(id, &self.hasher);
        if let Some(called) = &mut self.called {
            called.sub(caller(key), &self.hasher);
        }
        self.mappings.remove_session(key.outside, &self.hasher);
        self.drop_if_unused(key.outside);
    }

    fn drop_if_unused(&mut self, id: OutsideId) {
        if self.mappings.remove_if_unused(id, &self.hasher) {
            self.leases.give_back(id);
        }
    }

    #[inline]
    fn leave(&self, packet: &mut [u8], at: usize, flow: &Flow, id: OutsideId) {
        rewrite::endpoint(packet, at, flow, Side::Source, self.address_of(id), id.port());
        if let Some(most) = self.config.clamp_mss {
            rewrite::clamp(packet, at, flow, most);
        }
    }

    /// A packet from outside to the outside endpoint that its destination is.
    #[inline]
    fn arrive(
        &mut self,
        now: Ticks,
        address: u8,
        packet: &Packet<A>,
        flow: &Flow,
        bytes: &mut [u8],
        mtu_of: impl Fn(NetworkId) -> Option<u16>,
    ) -> Result<Restored, DropReason> {
        if flow.protocol == Protocol::Icmp && !flow.is_reply {
            return Err(DropReason::NatNoSession);
        }
        let id = OutsideId::new(address, flow.protocol, flow.destination);
        if let Some(worker) = self.elsewhere(id) {
            return Ok(Restored::Elsewhere(worker));
        }
        let mapping = *self.mappings.get(id).ok_or(DropReason::NatNoSession)?;
        let inside = mapping.inside();
        let mtu = mtu_of(inside.network).ok_or(DropReason::NatNoSession)?;
        let key = Key { outside: id, remote: packet.source, port: flow.source };
        match self.sessions.find(key.hash(&self.hasher), key) {
            Some(session) if self.sessions.get(session).deadline > now => {
                self.refresh(session, Way::In, now, flow, packet.length);
                self.watch.pass(session, Way::In);
            }
            expired => self.answer(now, expired, inside, key, packet, flow)?,
        }
        if let Some(too_long) = too_long::<A>(bytes, packet.length, mtu) {
            return Ok(too_long);
        }
        rewrite::endpoint(bytes, packet.at, flow, Side::Destination, inside.address, inside.port);
        if let Some(most) = self.config.clamp_mss {
            rewrite::clamp(bytes, packet.at, flow, most);
        }
        Ok(Restored::Inside { network: inside.network, mac: mapping.mac() })
    }

    /// Begins a session from outside, where the mapping lets anybody in that it may.
    #[cold]
    fn answer(
        &mut self,
        now: Ticks,
        expired: Option<SessionId>,
        inside: Inside<A>,
        key: Key<A>,
        packet: &Packet<A>,
        flow: &Flow,
    ) -> Result<(), DropReason> {
        if let Some(expired) = expired {
            self.end(expired);
        }
        let state = match flow.protocol {
            Protocol::Tcp if flow.flags & (tcp::SYN | tcp::ACK) == tcp::SYN => State::OpeningIn,
            Protocol::Udp => State::Udp,
            Protocol::Tcp | Protocol::Icmp => return Err(DropReason::NatNoSession),
        };
        if self.mappings.get(key.outside).is_none() {
            return Err(DropReason::NatNoSession);
        }
        let asked = |called: &Counts<A>| called.get(caller(key), &self.hasher) > 0;
        if !self.mappings.is_published(key.outside) && !self.called.as_ref().is_none_or(asked) {
            return Err(DropReason::NatFiltered);
        }
        let begun = self.admit(inside).and_then(|()| self.begin(now, key, state));
        let session = begun.inspect_err(|&reason| self.note_refused(inside.network, reason))?;
        self.sessions.get_mut(session).back.count(packet.length);
        Ok(())
    }

    #[inline]
    fn elsewhere(&self, id: OutsideId) -> Option<WorkerId> {
        let owner = owner(id.port(), self.workers);
        (owner != self.me).then_some(owner)
    }

    #[inline]
    fn address_of(&self, id: OutsideId) -> A {
        self.config.addresses.get(id.address()).copied().unwrap_or(A::UNSPECIFIED)
    }

    /// The place of `address` in the pool.
    #[inline]
    fn pool_index(&self, address: A) -> Option<u8> {
        let place = self.config.addresses.iter().position(|&ours| ours == address)?;
        u8::try_from(place).ok()
    }
}

/// What is called by a session, for address-dependent filtering.
fn caller<A: Address>(key: Key<A>) -> counts::CountKey<A> {
    (u64::from(key.outside.0), key.remote)
}

/// Whether a packet that must not be fragmented has too many bytes for its network.
#[inline]
fn too_long<A: Address>(bytes: &[u8], length: usize, mtu: u16) -> Option<Restored> {
    // Nobody but its sender fragments a packet of IPv6 (RFC 8200 section 5).
    let dont_fragment = || A::VERSION == Version::V6 || Ipv4::new_checked(bytes).is_some_and(Ipv4::dont_fragment);
    let refused = length > usize::from(mtu) && dont_fragment();
    refused.then_some(Restored::TooLong { mtu })
}
