//! Sessions of address translation in the express lane: where their use is noted, and what of them
//! is in the map.

use std::{collections::HashMap, time::Duration};

use foldhash::fast::RandomState;
use vxlane_abi::express::{KIND_SEND, Rewrite, SessionKey, Use};

use super::{BLANK, Flow, Key, Uses, Vouched, local, mapped, way};
use crate::{
    bridge::{Bridge, Origin},
    clock::Instant,
    ids::PortId,
    nat::{Passage, Protocol, SessionId, Way},
    router::Family,
    tables::{Role, Tables},
    verdict::{Decision, Verdict},
    wire::{Version, protocol},
};

/// A session, which either internet protocol numbers for itself.
type Whose = (Version, SessionId);

/// The sessions that a worker has put into the map, one or both ways.
#[derive(Debug)]
pub(super) struct Sessions {
    uses: Uses,
    held: Vec<Option<Held>>,
    /// Places in `held` that are free.
    free: Vec<u32>,
    /// Where each is in `held`.
    index: HashMap<Whose, u32, RandomState>,
    /// Where the next [`tell_some`](Self::tell_some) starts.
    hand: usize,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    session: Whose,
    tracks: [Track; 2],
}

/// One way of a session.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    key: Option<SessionKey>,
    /// What has been told of.
    told: Use,
}

/// What a session has been used for in this lane since that was last told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) session: Whose,
    pub(super) way: Way,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// When last, on the clock of the programs.
    pub(super) last: u64,
}

const WAYS: [Way; 2] = [Way::Out, Way::In];

impl Sessions {
    /// No sessions yet, of which there is room for as many as have two places each in `uses`.
    pub(super) fn new(uses: Uses) -> Self {
        let most = uses.count() / 2;
        Self {
            uses,
            held: vec![None; most as usize],
            free: (0..most).rev().collect(),
            index: HashMap::with_capacity_and_hasher(most as usize, RandomState::default()),
            hand: 0,
        }
    }

    /// Remembers that `session` is in the map with `key`, one way. Returns the place where its use
    /// is noted, and the key that it had instead; `None` if there is no room.
    pub(super) fn hold(&mut self, session: Whose, way: Way, key: SessionKey) -> Option<(u32, Option<SessionKey>)> {
        let place = match self.index.get(&session) {
            Some(&place) => place,
            None => self.begin(session)?,
        };
        let held = self.held[place as usize].as_mut()?;
        let before = held.tracks[way as usize].key.replace(key).filter(|&before| before != key);
        Some((self.uses.number(place * 2 + way as u32), before))
    }

    fn begin(&mut self, session: Whose) -> Option<u32> {
        let place = self.free.pop()?;
        WAYS.iter().for_each(|&way| self.uses.clear(place * 2 + way as u32));
        self.held[place as usize] = Some(Held { session, tracks: [Track::default(); 2] });
        self.index.insert(session, place);
        Some(place)
    }

    /// Forgets `session`, and tells of its last use and of its keys.
    pub(super) fn forget(&mut self, session: Whose, tell: impl FnMut(Used), gone: impl FnMut(SessionKey)) {
        let Some(place) = self.index.remove(&session) else { return };
        self.tell(place as usize, tell);
        let held = self.held[place as usize].take();
        held.iter().flat_map(|held| held.tracks).filter_map(|track| track.key).for_each(gone);
        self.free.push(place);
    }

    /// Tells of the use of a part of the sessions: of all within seven seconds, ten times a second.
    pub(super) fn tell_some(&mut self, mut tell: impl FnMut(Used)) {
        for _ in 0..self.held.len().div_ceil(64) {
            self.hand = (self.hand + 1) % self.held.len().max(1);
            self.tell(self.hand, &mut tell);
        }
    }

    /// Tells of the use of every session.
    pub(super) fn tell_all(&mut self, mut tell: impl FnMut(Used)) {
        (0..self.held.len()).for_each(|place| self.tell(place, &mut tell));
    }

    fn tell(&mut self, place: usize, mut tell: impl FnMut(Used)) {
        let Some(held) = &mut self.held[place] else { return };
        for (number, (track, way)) in (0..).zip(held.tracks.iter_mut().zip(WAYS)) {
            #[expect(clippy::cast_possible_truncation, reason = "there are fewer places than a `u32` counts")]
            let noted = self.uses.get(place as u32 * 2 + number);
            let told = std::mem::replace(&mut track.told, noted);
            if noted != told {
                let (packets, bytes) = (noted.packets.wrapping_sub(told.packets), noted.bytes.wrapping_sub(told.bytes));
                tell(Used { session: held.session, way, packets, bytes, last: noted.last });
            }
        }
    }
}

/// A packet of an established session, and what translation made of it.
pub(super) struct Crossing {
    pub(super) session: Whose,
    pub(super) way: Way,
    /// All but its way and its place.
    pub(super) rewrite: Rewrite,
}

impl Flow {
    /// The flow of a packet that was translated on its way out or in, if it is one for this lane.
    pub(super) fn of_session<A: Family>(
        tables: &Tables,
        bridge: &Bridge,
        now: Instant,
        from: PortId,
        decision: &Decision,
        passage: &Passage<A>,
        frame: &[u8],
    ) -> Option<Self> {
        let Verdict::Deliver(to) = decision.verdict else { return None };
        if decision.start != 0 {
            return None;
        }
        let view = &passage.view;
        let network = tables.network(view.network).filter(|network| network.express)?;
        let (inlet, outside) = (tables.port(from)?, tables.outside()?);
        let leg = inlet.express?;
        let [inside, ours, remote] = [view.inside, view.outside, view.remote];
        let (heard, left) = bridge.whereabouts(view.network, network, view.mac, now)?;
        let mut key = SessionKey {
            ifindex: leg.ifindex,
            destination: [0; 6],
            source: [0; 6],
            addresses: [[0; 16]; 2],
            ports: [[0; 2]; 2],
            protocol: match view.protocol {
                Protocol::Tcp => protocol::TCP.into(),
                Protocol::Udp => protocol::UDP.into(),
                Protocol::Icmp => return None,
            },
        };
        let mut longest = u32::from(network.mtu);
        let (ends, became, mut way, at) = match (passage.way, inlet.role) {
            (Way::Out, Role::Access(id)) if id == view.network && to == outside.uplink => {
                (key.destination, key.source) = (network.gateway?.mac.0, view.mac.0);
                longest = longest.min(A::ways(outside).hop(view.remote.0).ok()?.mtu.into());
                let way = way(id, from, to, tables.port(to)?.express?.ifindex, KIND_SEND);
                ([inside, remote], ours, way, from)
            }
            (Way::In, Role::Uplink) if from == outside.uplink => {
                ([remote, ours], inside, local(tables, view.network, from, to)?, to)
            }
            _ => return None,
        };
        if heard != Origin::Port(at) {
            return None;
        }
        (key.addresses, key.ports) =
            (ends.map(|(address, _)| mapped(address)), ends.map(|(_, port)| port.to_be_bytes()));
        let (ethernet, address, port) = (*frame.first_chunk()?, mapped(became.0), became.1.to_be_bytes());
        let rewrite = Rewrite { ethernet, address, port, ..BLANK_REWRITE };
        let crossing = Crossing { session: (A::VERSION, passage.session), way: passage.way, rewrite };
        way.longest = longest + 14;
        let ageing = Duration::from_secs(network.ageing.into());
        let vouched = Vouched { left: left.min(view.deadline.since(now.ticks()).to_duration()), ageing };
        let crossing = Some(crossing);
        Some(Self { key: Key::Session(key), network: view.network, way, encap: BLANK, vouched, crossing })
    }
}

const BLANK_REWRITE: Rewrite =
    Rewrite { way: BLANK.way, place: 0, ethernet: [0; 12], address: [0; 16], port: [0; 2], reserved: [0; 6] };
