//! Whose address is whose: bindings snooped from what endpoints of this host say (RFC 9161).
//!
//! A binding is a claim until somebody contradicts it. Then the former owner is asked, and until
//! it has had its time to object nobody is told where the address is. Contradictions that go on
//! mean that two stations use the address: it is held back, and an operator hears of it.
//!
//! The table is bounded and so is each network's part of it. A claim that finds no room is not
//! remembered, and questions about its address are flooded, as without this table.

use std::{collections::HashMap, net::IpAddr};

use foldhash::fast::RandomState;

use crate::{
    clock::{Instant, Ticks},
    ids::{NetworkId, PortId},
    tables::{MoveLimit, Network, Tables},
    wire::MacAddr,
};

/// The bindings that one worker knows.
#[derive(Debug)]
pub struct Neighbours {
    /// Never longer than its capacity, so that it never grows.
    places: Vec<Option<(Key, Binding)>>,
    /// Places that were taken once and are not now.
    free: Vec<usize>,
    capacity: usize,
    index: HashMap<Key, usize, RandomState>,
    /// Bindings by network.
    counts: Vec<u32>,
    /// Where the next [`tick`](Self::tick) goes on.
    hand: usize,
    /// What is to be asked; whoever runs the table sends and empties it.
    pub questions: Vec<Question>,
}

type Key = (NetworkId, IpAddr);

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Who has it.
    pub mac: MacAddr,
    /// Behind which port of this host.
    pub port: PortId,
    /// It calls itself an IPv6 router.
    pub router: bool,
    /// When it was last heard.
    pub seen: Ticks,
    /// Whether it can be told to others.
    pub state: State,
    /// Heard by this worker itself, which then asks after it.
    own: bool,
    /// How often it was asked after since it was heard.
    asked: u32,
    /// Contradictions, and when the first of them was.
    moves: u32,
    moving_since: Ticks,
}

/// Whether a binding can be told to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It can.
    Known,
    /// Another station claims the address, and its owner has been asked.
    Contested {
        /// The other station.
        rival: MacAddr,
        /// Its port.
        port: PortId,
        /// When it was first heard.
        since: Ticks,
    },
    /// Two stations use it (RFC 9161 section 3.7).
    Duplicate {
        /// When that was found.
        since: Ticks,
    },
}

/// A claim to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The network it is made in.
    pub network: NetworkId,
    /// The address.
    pub address: IpAddr,
    /// Who claims it.
    pub mac: MacAddr,
    /// Behind which port.
    pub port: PortId,
    /// As an IPv6 router.
    pub router: bool,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing that others need to know.
    Known,
    /// Something that other workers should hear as well.
    News,
    /// One contradiction too many: the stations that both use the address.
    Duplicate([MacAddr; 2]),
}

/// A question of ours, to one station: does it still have this address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The network.
    pub network: NetworkId,
    /// The port behind which the station is.
    pub port: PortId,
    /// The station.
    pub mac: MacAddr,
    /// The address.
    pub address: IpAddr,
}

/// Questions that wait at most; one that finds no room is asked when its time comes again.
const QUESTIONS: usize = 64;

impl Neighbours {
    /// A table for `capacity` bindings.
    pub fn new(capacity: usize) -> Self {
        Self {
            places: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            capacity,
            index: HashMap::with_capacity_and_hasher(capacity, RandomState::default()),
            counts: vec![0; usize::from(u16::MAX) + 1],
            hand: 0,
            questions: Vec::with_capacity(QUESTIONS),
        }
    }

    /// Who has `address`, if that is beyond doubt.
    pub fn lookup(&self, id: NetworkId, network: &Network, address: IpAddr, now: Instant) -> Option<&Binding> {
        let place = *self.index.get(&(id, address))?;
        let (_, binding) = self.places.get(place)?.as_ref()?;
        (binding.state == State::Known && !binding.is_expired(network, now.ticks())).then_some(binding)
    }

    /// Takes note of a claim, heard by this worker itself (`own`) or by another one.
    pub fn learn(&mut self, network: &Network, claim: Claim, own: bool, now: Instant) -> Heard {
        let now = now.ticks();
        let key = (claim.network, claim.address);
        let Some(&place) = self.index.get(&key) else { return self.insert(network, claim, own, now) };
        let Some((_, binding)) = self.places.get_mut(place).and_then(Option::as_mut) else {
            return Heard::Known;
        };
        if binding.is_over(network, now) {
            self.remove(place);
            return self.insert(network, claim, own, now);
        }
        let owner = (binding.mac, binding.port);
        let heard = binding.hear(network.moves, claim, own, now);
        let asks = own && matches!(binding.state, State::Contested { since, .. } if since == now);
        if asks && binding.mac != claim.mac {
            self.ask(Question { network: claim.network, port: owner.1, mac: owner.0, address: claim.address });
        }
        heard
    }

    /// Looks at the next `places` bindings: asks after those that have not been heard for a third
    /// of their time, believes a rival to whom nobody objected, and forgets the silent.
    ///
    /// RFC 9161 section 3.5 has a binding asked after at a third of its time, of its owner alone.
    pub fn tick(&mut self, tables: &Tables, now: Instant, places: usize) {
        let now = now.ticks();
        for _ in 0..places.min(self.places.len()) {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.places.len();
            let Some(((id, address), binding)) = &mut self.places[place] else { continue };
            let (id, address) = (*id, *address);
            let Some(network) = tables.network(id).filter(|network| !binding.is_over(network, now)) else {
                self.remove(place);
                continue;
            };
            binding.settle(network.moves, now);
            if binding.is_to_be_asked(network, now) {
                let question = Question { network: id, port: binding.port, mac: binding.mac, address };
                self.ask(question);
            }
        }
    }

    /// Forgets bindings whose network or port is gone, and those that control now knows better.
    pub fn adopt(&mut self, tables: &Tables) {
        for place in 0..self.places.len() {
            let Some(((id, address), binding)) = &self.places[place] else { continue };
            let stays = tables.network(*id).is_some_and(|network| {
                network.ports.contains(&binding.port) && !network.neighbours.contains_key(address)
            });
            if !stays {
                self.remove(place);
            }
        }
    }

    /// Forgets what other workers told, who may have told more than was heard.
    pub fn flush_told(&mut self) {
        for place in 0..self.places.len() {
            if self.places[place].as_ref().is_some_and(|(_, binding)| !binding.own) {
                self.remove(place);
            }
        }
    }

    /// Up to `most` bindings from place `from` on, and the place to go on from.
    pub fn bindings(&self, from: usize, most: usize) -> (Vec<(NetworkId, IpAddr, Binding)>, Option<usize>) {
        let mut found = Vec::new();
        for (place, entry) in self.places.iter().enumerate().skip(from) {
            if found.len() >= most.max(1) {
                return (found, Some(place));
            }
            found.extend(entry.iter().map(|&((network, address), binding)| (network, address, binding)));
        }
        (found, None)
    }

    /// How many bindings there are, over all networks.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no binding.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many bindings there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn insert(&mut self, network: &Network, claim: Claim, own: bool, now: Ticks) -> Heard {
        let key = (claim.network, claim.address);
        let entry = Some((key, Binding::new(claim, own, now)));
        if self.index.len() >= self.capacity || self.counts[claim.network.index()] >= network.mac_limit {
            return Heard::Known;
        }
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place] = entry;
                place
            }
            None => {
                self.places.push(entry);
                self.places.len() - 1
            }
        };
        self.index.insert(key, place);
        self.counts[claim.network.index()] += 1;
        Heard::News
    }

    fn remove(&mut self, place: usize) {
        if let Some((key, _)) = self.places.get_mut(place).and_then(Option::take) {
            self.index.remove(&key);
            self.free.push(place);
            self.counts[key.0.index()] -= 1;
        }
    }

    fn ask(&mut self, question: Question) {
        if self.questions.len() < QUESTIONS {
            self.questions.push(question);
        }
    }
}

impl Binding {
    fn new(claim: Claim, own: bool, now: Ticks) -> Self {
        let Claim { mac, port, router, .. } = claim;
        let state = State::Known;
        Self { mac, port, router, seen: now, state, own, asked: 0, moves: 0, moving_since: now }
    }

    /// Takes note of another claim to the same address.
    fn hear(&mut self, limit: MoveLimit, claim: Claim, own: bool, now: Ticks) -> Heard {
        match self.state {
            State::Duplicate { .. } => Heard::Known,
            State::Known if claim.mac == self.mac => {
                let is_news = claim.port != self.port || now.since(self.seen).0 > Ticks::PER_SECOND;
                *self = Self { moves: self.moves, moving_since: self.moving_since, ..Self::new(claim, own, now) };
                if is_news { Heard::News } else { Heard::Known }
            }
            State::Contested { rival, .. } if claim.mac == rival => Heard::Known,
            // The owner objects, or somebody new claims it.
            State::Known | State::Contested { .. } => self.contradict(limit, claim, now),
        }
    }

    fn contradict(&mut self, limit: MoveLimit, claim: Claim, now: Ticks) -> Heard {
        if now.since(self.moving_since) > Ticks::from_secs(limit.within) {
            self.moves = 0;
        }
        if self.moves == 0 {
            self.moving_since = now;
        }
        self.moves += 1;
        let other = if let State::Contested { rival, .. } = self.state { rival } else { claim.mac };
        if self.moves >= limit.moves.max(1) {
            self.state = State::Duplicate { since: now };
            return Heard::Duplicate([self.mac, other]);
        }
        if claim.mac == self.mac {
            (self.state, self.seen, self.asked) = (State::Known, now, 0);
        } else {
            self.state = State::Contested { rival: claim.mac, port: claim.port, since: now };
        }
        Heard::News
    }

    /// Believes a rival to whom the owner did not object in time.
    fn settle(&mut self, limit: MoveLimit, now: Ticks) {
        if let State::Contested { rival, port, since } = self.state
            && now.since(since) > Ticks::from_secs(limit.confirm)
        {
            (self.mac, self.port, self.state) = (rival, port, State::Known);
            (self.seen, self.asked) = (since, 0);
        }
    }

    fn is_to_be_asked(&mut self, network: &Network, now: Ticks) -> bool {
        let third = Ticks::from_secs(network.ageing).0 / 3;
        let due = now.since(self.seen).0 >= third.saturating_mul(self.asked + 1);
        let asks = self.own && self.state == State::Known && self.asked < 2 && due;
        self.asked += u32::from(asks);
        asks
    }

    /// Silent for an eighth more than the ageing time, as for stations.
    fn is_expired(&self, network: &Network, now: Ticks) -> bool {
        let ageing = Ticks::from_secs(network.ageing).0;
        now.since(self.seen).0 > ageing.saturating_add(ageing / 8)
    }

    /// Whether nothing is known any more: it fell silent, or its hold is over.
    pub fn is_over(&self, network: &Network, now: Ticks) -> bool {
        match self.state {
            State::Duplicate { since } => now.since(since) > Ticks::from_secs(network.moves.hold),
            State::Known | State::Contested { .. } => self.is_expired(network, now),
        }
    }
}
