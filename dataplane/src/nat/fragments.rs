//! Fragments: what the first one of a datagram tells about the rest.
//!
//! Only the first has ports, so what became of it is kept for those that follow. From outside
//! one that comes before the first waits for it. Both memories are small and fixed: a flood of
//! fragments costs other fragments, never a whole packet.

use std::collections::VecDeque;

use super::{index::Hasher, ports::OutsideId};
use crate::{
    clock::Ticks,
    ids::{NetworkId, WorkerId},
    wire::Address,
};

/// A datagram in fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram<A> {
    /// The network that it came from; `None` from outside.
    pub(super) network: Option<NetworkId>,
    pub(super) source: A,
    pub(super) destination: A,
    /// Zero for IPv6, where it does not tell datagrams apart (RFC 8200 section 4.5).
    pub(super) protocol: u8,
    /// 16 bits for IPv4.
    pub(super) identification: u32,
}

/// What happens to the fragments of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate<A> {
    /// They leave with this address and identification.
    Out { address: A, identification: u32 },
    /// They go to the endpoint behind this.
    In(OutsideId),
    /// Another worker knows.
    Elsewhere(WorkerId),
}

/// What is known of datagrams in fragments.
#[derive(Debug)]
pub(super) struct Fragments<A> {
    known: Box<[[Option<Known<A>>; WAYS]; SETS]>,
    held: Vec<Held<A>>,
    /// Held fragments whose first has come, to be looked at again.
    released: VecDeque<Vec<u8>>,
    blanks: Vec<Vec<u8>>,
    identification: u32,
}

#[derive(Clone, Copy, Debug)]
struct Known<A> {
    datagram: Datagram<A>,
    fate: Fate<A>,
    until: Ticks,
}

#[derive(Debug)]
struct Held<A> {
    datagram: Datagram<A>,
    frame: Vec<u8>,
    until: Ticks,
}

const SETS: usize = 128;
const WAYS: usize = 4;
/// Fragments that may wait for their first.
const HELD: usize = 64;
/// Bytes of the longest frame that may wait.
const FRAME: usize = 4096;
/// How long a datagram is known: what Linux gives its reassembly (`IP_FRAG_TIME`).
const KNOWN_FOR: Ticks = Ticks::from_secs(30);
/// How long a fragment waits.
const HELD_FOR: Ticks = Ticks::from_secs(2);

impl<A: Address> Fragments<A> {
    pub(super) fn new(seed: u32) -> Self {
        Self {
            known: Box::new([[None; WAYS]; SETS]),
            held: Vec::with_capacity(HELD),
            released: VecDeque::with_capacity(HELD),
            blanks: (0..HELD).map(|_| Vec::with_capacity(FRAME)).collect(),
            identification: seed,
        }
    }

    /// What happens to the fragments of `datagram`.
    pub(super) fn fate(&self, datagram: &Datagram<A>, now: Ticks, hasher: &Hasher) -> Option<Fate<A>> {
        let known = self.known[set_of(datagram, hasher)].iter().flatten();
        known.into_iter().find(|known| known.datagram == *datagram && known.until > now).map(|known| known.fate)
    }

    /// Remembers it, in place of what was known for longest if need be.
    pub(super) fn remember(&mut self, datagram: Datagram<A>, fate: Fate<A>, now: Ticks, hasher: &Hasher) {
        let set = &mut self.known[set_of(&datagram, hasher)];
        let same = set.iter().position(|known| known.is_some_and(|known| known.datagram == datagram));
        let eldest = || set.iter().enumerate().min_by_key(|(_, known)| known.map_or(Ticks(0), |known| known.until));
        let place = same.or_else(|| eldest().map(|(place, _)| place)).unwrap_or(0);
        set[place] = Some(Known { datagram, fate, until: Ticks(now.0 + KNOWN_FOR.0) });
        self.release(|held| held.datagram == datagram);
    }

    /// An identification that leaves with no other datagram for a long time (RFC 6864 section 4.2).
    pub(super) fn identification(&mut self) -> u32 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }

    /// Keeps `frame` until the first fragment of `datagram` comes; `false` if there is no room.
    #[must_use]
    pub(super) fn hold(&mut self, datagram: Datagram<A>, frame: &[u8], now: Ticks) -> bool {
        if frame.len() > FRAME {
            return false;
        }
        let Some(mut copy) = self.blanks.pop() else { return false };
        copy.clear();
        copy.extend_from_slice(frame);
        self.held.push(Held { datagram, frame: copy, until: Ticks(now.0 + HELD_FOR.0) });
        true
    }

    /// Gives up waiting for what does not come. Those fragments are released as well: looked at
    /// again they find no fate, and then [`hold`](Self::hold) must not take them once more.
    pub(super) fn expire(&mut self, now: Ticks) {
        self.release(|held| held.until <= now);
    }

    fn release(&mut self, due: impl Fn(&Held<A>) -> bool) {
        let mut place = 0;
        while let Some(held) = self.held.get(place) {
            if due(held) {
                self.released.push_back(self.held.remove(place).frame);
            } else {
                place += 1;
            }
        }
    }

    /// The next fragment whose wait is over.
    pub(super) fn take_released(&mut self) -> Option<Vec<u8>> {
        self.released.pop_front()
    }

    /// Takes the memory of a released fragment back.
    pub(super) fn give_back(&mut self, frame: Vec<u8>) {
        self.blanks.push(frame);
    }

    /// Fragments that wait.
    pub(super) fn waiting(&self) -> usize {
        self.held.len() + self.released.len()
    }

    /// Bytes it takes.
    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.known) + HELD * (FRAME + size_of::<Held<A>>())
    }
}

fn set_of<A: Address>(datagram: &Datagram<A>, hasher: &Hasher) -> usize {
    let network = datagram.network.map_or(1 << 16, |network| u64::from(network.0));
    let rest = network << 40 | u64::from(datagram.protocol) << 32 | u64::from(datagram.identification);
    hasher.hash(hasher.hash(rest, datagram.source).word(), datagram.destination).below(SETS)
}
