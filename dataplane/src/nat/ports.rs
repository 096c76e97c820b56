//! Outside ports: which of them this worker may lend, and which has been unused for longest.
//!
//! Ports go to workers in blocks of 64, so that everybody can tell from a port whose it is. A
//! lease is random among the longest-unused eighth: hard to guess (RFC 6056), and as far as can
//! be from the port's last conversation.

use std::{
    collections::HashSet,
    fmt,
    hash::{BuildHasher, RandomState},
    ops::{Range, RangeInclusive},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    ids::WorkerId,
    wire::{Address, Version, protocol},
};

/// What is mapped by ports, or by the identifier that ICMP queries have in their stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// Echo of ICMP, or of ICMPv6.
    Icmp = 2,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Icmp];

    /// That with this number in headers of `version`.
    #[inline]
    pub fn from_number(version: Version, number: u8) -> Option<Self> {
        match number {
            protocol::TCP => Some(Self::Tcp),
            protocol::UDP => Some(Self::Udp),
            icmp if icmp == version.icmp() => Some(Self::Icmp),
            _ => None,
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

/// An outside endpoint: address (as its place in the pool), protocol and port in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct OutsideId(pub(super) u32);

impl OutsideId {
    #[inline]
    pub(super) fn new(address: u8, protocol: Protocol, port: u16) -> Self {
        Self((u32::from(address) * 3 + protocol as u32) << 16 | u32::from(port))
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        self.0 as usize
    }

    /// Its port.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower 16 bits are the port")]
    pub(super) fn port(self) -> u16 {
        self.0 as u16
    }

    /// The place of its address in the pool.
    #[inline]
    pub(super) fn address(self) -> usize {
        (self.0 >> 16) as usize / 3
    }

    pub(super) fn protocol(self) -> Protocol {
        Protocol::ALL[(self.0 >> 16) as usize % 3]
    }
}

/// Some of the 65,536 ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// The ports of `ranges`.
    pub fn new(ranges: impl IntoIterator<Item = RangeInclusive<u16>>) -> Self {
        let mut taken: Vec<u16> = ranges.into_iter().flatten().collect();
        taken.sort_unstable();
        taken.dedup();
        taken.into_iter().collect()
    }

    /// Every port, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().cloned().flatten()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Without the ports that `unwanted` says so of.
    #[must_use]
    pub fn without(&self, mut unwanted: impl FnMut(u16) -> bool) -> Self {
        self.iter().filter(|&port| !unwanted(port)).collect()
    }
}

/// Of ports in rising order.
impl FromIterator<u16> for Ports {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        for port in ports {
            match ranges.last_mut() {
                Some(last) if last.end().checked_add(1) == Some(port) => *last = *last.start()..=port,
                _ => ranges.push(port..=port),
            }
        }
        Self(ranges)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match (range.start(), range.end()) {
                (start, end) if start == end => write!(out, "{comma}{start}")?,
                (start, end) => write!(out, "{comma}{start}-{end}")?,
            }
        }
        Ok(())
    }
}

/// The text names no ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of ports such as 20000-29999,61000")]
pub struct BadPorts(String);

impl FromStr for Ports {
    type Err = BadPorts;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = |part: &str| {
            let (start, end) = part.split_once('-').unwrap_or((part, part));
            let (start, end) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
            (0 < start && start <= end).then_some(start..=end)
        };
        let ranges = text.split(',').map(range).collect::<Option<Vec<_>>>();
        ranges.map(Self::new).ok_or_else(|| BadPorts(text.to_owned()))
    }
}

/// Where leases are posted for the steering program to see, one bit each: TCP ports, UDP ports and
/// ICMP identifiers of the first address, 64 in a word. What the board has no room for is not posted.
pub type Board = Arc<dyn AsRef<[AtomicU64]> + Send + Sync>;

/// A board that nobody looks at.
#[derive(Debug)]
pub struct BlindBoard;

impl AsRef<[AtomicU64]> for BlindBoard {
    fn as_ref(&self) -> &[AtomicU64] {
        &[]
    }
}

/// A part of a board, which is a board to whoever has it.
pub struct BoardPart {
    whole: Board,
    words: Range<usize>,
}

impl BoardPart {
    /// These words of `whole`.
    pub fn new(whole: &Board, words: Range<usize>) -> Self {
        Self { whole: Arc::clone(whole), words }
    }
}

impl AsRef<[AtomicU64]> for BoardPart {
    fn as_ref(&self) -> &[AtomicU64] {
        (*self.whole).as_ref().get(self.words.clone()).unwrap_or_default()
    }
}

impl fmt::Debug for BoardPart {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("BoardPart").field("words", &self.words).finish_non_exhaustive()
    }
}

/// The worker that lends `port`, of `workers` in all.
#[inline]
pub fn owner(port: u16, workers: u16) -> WorkerId {
    WorkerId(port / BLOCK % workers.max(1))
}

/// Ports that go to a worker together: the bits of one word of the board, so that no two
/// workers write the same word.
const BLOCK: u16 = 64;
/// Ports that are tried before a shelf counts as empty.
const TRIES: usize = 64;
/// Blocks of each protocol.
const BLOCKS: u16 = 1024;

/// The ports of one worker, lent or to be lent.
pub(super) struct Leases {
    /// By address, protocol and parity.
    shelves: Vec<Shelf>,
    /// Bits like those of the board: ports that somebody else has.
    avoided: Vec<u64>,
    board: Board,
    me: WorkerId,
    workers: u16,
    random: RandomState,
    draws: u64,
}

/// Ports of one kind that are free, the longest-unused first.
#[derive(Debug, Default)]
struct Shelf {
    ports: std::collections::VecDeque<u16>,
}

impl Leases {
    /// The ports of worker `me`: its blocks of `ports`, at each of `addresses` addresses.
    pub(super) fn new(ports: &Ports, addresses: usize, me: WorkerId, workers: u16, board: Board) -> Self {
        let (shelves, avoided) = (Vec::new(), vec![0; Protocol::ALL.len() * usize::from(BLOCKS)]);
        let mut leases = Self { shelves, avoided, board, me, workers, random: RandomState::new(), draws: 0 };
        for _ in 0..addresses * Protocol::ALL.len() {
            for parity in 0..2 {
                let ours = ports.iter().filter(|&port| owner(port, workers) == me && port % 2 == parity);
                let mut ports: Vec<u16> = ours.collect();
                for place in (1..ports.len()).rev() {
                    ports.swap(place, leases.draw(place + 1));
                }
                leases.shelves.push(Shelf { ports: ports.into() });
            }
        }
        leases
    }

    /// Lends a port at `address`, of the parity of `like` if one is left (RFC 4787 REQ-4).
    pub(super) fn lease(&mut self, address: u8, protocol: Protocol, like: u16) -> Option<OutsideId> {
        let first = usize::from(address) * 6 + protocol as usize * 2;
        let parity = usize::from(like & 1);
        let port = [first + parity, first + 1 - parity].into_iter().find_map(|shelf| self.take(shelf, protocol))?;
        let id = OutsideId::new(address, protocol, port);
        self.post(id, true);
        Some(id)
    }

    /// Takes a port off a shelf. One that is to be avoided goes to the back; after a few of these
    /// the shelf counts as empty, so that a packet never waits for a long search.
    fn take(&mut self, shelf: usize, protocol: Protocol) -> Option<u16> {
        for _ in 0..TRIES {
            let eldest = self.shelves[shelf].ports.len().div_ceil(8);
            let choice = if eldest == 0 { return None } else { self.draw(eldest) };
            let ports = &mut self.shelves[shelf].ports;
            ports.swap(0, choice);
            let port = ports.pop_front()?;
            let (word, bit) = place(OutsideId::new(0, protocol, port));
            if self.avoided[word] & bit == 0 {
                return Some(port);
            }
            ports.push_back(port);
        }
        None
    }

    /// Lends none of `ports` from now on, and those that were avoided before again.
    pub(super) fn avoid(&mut self, ports: impl Iterator<Item = (Protocol, u16)>) {
        self.avoided.fill(0);
        for (protocol, port) in ports {
            let (word, bit) = place(OutsideId::new(0, protocol, port));
            self.avoided[word] |= bit;
        }
    }

    /// Takes a port back.
    pub(super) fn give_back(&mut self, id: OutsideId) {
        self.shelf(id).ports.push_back(id.port());
        self.post(id, false);
    }

    /// Lends exactly `wanted`, as far as they are free, and returns those.
    pub(super) fn claim(&mut self, wanted: &HashSet<OutsideId>) -> HashSet<OutsideId> {
        let mut claimed = HashSet::new();
        for (number, shelf) in self.shelves.iter_mut().enumerate() {
            // The number of the shelf is that of `lease`: address, protocol and parity.
            let kind = OutsideId(u32::try_from(number / 2).unwrap_or(u32::MAX) << 16);
            shelf.ports.retain(|&port| {
                let id = OutsideId(kind.0 | u32::from(port));
                let is_wanted = wanted.contains(&id);
                if is_wanted {
                    claimed.insert(id);
                }
                !is_wanted
            });
        }
        claimed.iter().for_each(|&id| self.post(id, true));
        claimed
    }

    /// Takes one port off its shelf, for good; says whether it was there.
    pub(super) fn withdraw(&mut self, id: OutsideId) -> bool {
        let ports = &mut self.shelf(id).ports;
        let place = ports.iter().position(|&port| port == id.port());
        if let Some(place) = place {
            ports.remove(place);
        }
        self.post(id, true);
        place.is_some()
    }

    /// Posts that a port which was never on a shelf is lent no longer.
    pub(super) fn take_down(&self, id: OutsideId) {
        self.post(id, false);
    }

    fn shelf(&mut self, id: OutsideId) -> &mut Shelf {
        &mut self.shelves[id.address() * 6 + id.protocol() as usize * 2 + usize::from(id.port() & 1)]
    }

    /// Ports that are free, over all addresses.
    pub(super) fn free(&self, protocol: Protocol) -> usize {
        let shelves = self.shelves.chunks(2).skip(protocol as usize).step_by(3);
        shelves.flatten().map(|shelf| shelf.ports.len()).sum()
    }

    /// Bytes it takes.
    pub(super) fn memory(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.ports.capacity() * size_of::<u16>()).sum()
    }

    /// Posts on `board` from now on what is lent, and on the one before no more.
    pub(super) fn post_on(&mut self, board: Board) {
        let after = (*board).as_ref();
        for (place, word) in self.words() {
            let lent = word.swap(0, Ordering::Relaxed);
            if let Some(word) = after.get(place) {
                word.store(lent, Ordering::Relaxed);
            }
        }
        self.board = board;
    }

    /// The words of the board that are this worker's, with their places.
    fn words(&self) -> impl Iterator<Item = (usize, &AtomicU64)> {
        let blocks = (0..BLOCKS).cycle().zip((*self.board).as_ref().iter().enumerate());
        blocks.filter(|(block, _)| owner(block * BLOCK, self.workers) == self.me).map(|(_, word)| word)
    }

    /// A random number below `end`: a keyed hash of how often it was asked.
    fn draw(&mut self, end: usize) -> usize {
        self.draws += 1;
        (((self.random.hash_one(self.draws) >> 32) * end as u64) >> 32) as usize
    }

    fn post(&self, id: OutsideId, lent: bool) {
        let (word, bit) = place(id);
        if let Some(word) = (*self.board).as_ref().get(word) {
            // Relaxed: the steering program reads one word at a time and orders nothing by it.
            match lent {
                true => word.fetch_or(bit, Ordering::Relaxed),
                false => word.fetch_and(!bit, Ordering::Relaxed),
            };
        }
    }
}

/// Where the bit of `id` is on a board.
fn place(id: OutsideId) -> (usize, u64) {
    (id.index() / usize::from(BLOCK), 1 << (id.port() % BLOCK))
}

impl fmt::Debug for Leases {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Leases").field("shelves", &self.shelves.len()).finish_non_exhaustive()
    }
}

impl Drop for Leases {
    /// What is still posted comes off the board.
    fn drop(&mut self) {
        self.words().for_each(|(_, word)| word.store(0, Ordering::Relaxed));
    }
}

/// The outside address of `inside`, the same for all its sessions (RFC 4787 REQ-2).
pub(super) fn paired<A: Address>(network: u16, inside: A, addresses: usize) -> u8 {
    let [high, low] = inside.words();
    let mixed = (high ^ (low << 16) ^ u64::from(network)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u8::try_from((mixed >> 32) as usize % addresses.max(1)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn leases(ports: &str, me: u16, workers: u16) -> Leases {
        Leases::new(&ports.parse().unwrap(), 1, WorkerId(me), workers, Arc::new(BlindBoard))
    }

    #[test]
    fn rfc4787_req4_parity_is_kept_while_it_can_be() {
        let mut leases = leases("20000-20099", 0, 1);
        for like in 0..100 {
            assert_eq!(leases.lease(0, Protocol::Udp, like).unwrap().port() % 2, like % 2);
        }
        assert_eq!(leases.lease(0, Protocol::Udp, 0), None, "and no port is lent twice");
        let mut leases = self::leases("20000-20003", 0, 1);
        let lent: Vec<u16> = (0..4).filter_map(|_| leases.lease(0, Protocol::Tcp, 8)).map(OutsideId::port).collect();
        assert_eq!(lent.iter().map(|port| port % 2).collect::<Vec<_>>(), [0, 0, 1, 1]);
    }

    #[test]
    fn rfc7857_9_the_choice_of_a_port_is_random() {
        let first: HashSet<u16> =
            (0..64).map(|_| leases("20000-29999", 0, 1).lease(0, Protocol::Udp, 0).unwrap().port()).collect();
        assert!(first.len() > 50, "{} different first choices of 64", first.len());
        let mut leases = leases("20000-29999", 0, 1);
        let lent: Vec<u16> = (0..1000).map(|_| leases.lease(0, Protocol::Udp, 0).unwrap().port()).collect();
        let follows = lent.windows(2).filter(|pair| pair[1] == pair[0] + 2).count();
        assert!(follows < 10, "{follows} of 1000 follow the port before");
    }

    #[test]
    fn a_port_given_back_rests_while_others_are_free() {
        let mut leases = leases("20000-20199", 0, 1);
        let first = leases.lease(0, Protocol::Tcp, 0).unwrap();
        leases.give_back(first);
        // 100 even ports: the eldest eighth is at least one, so the 99 others can come first but
        // for the choices among the last eighth.
        let until = (0..).position(|_| leases.lease(0, Protocol::Tcp, 0) == Some(first)).unwrap();
        assert!(until > 75, "lent again after {until}");
    }

    #[test]
    fn a_port_that_somebody_else_has_is_not_lent_until_it_is_free_again() {
        let mut leases = leases("20000-20009", 0, 1);
        let odd = |port: u16| (Protocol::Udp, port);
        leases.avoid((20_000..20_009).filter(|port| port % 2 == 1).map(odd));
        let lent: HashSet<u16> =
            std::iter::from_fn(|| leases.lease(0, Protocol::Udp, 1)).map(OutsideId::port).collect();
        assert_eq!(lent, HashSet::from([20_000, 20_002, 20_004, 20_006, 20_008, 20_009]));
        assert!(leases.lease(0, Protocol::Tcp, 1).is_some_and(|id| id.port() % 2 == 1), "of the other protocol");
        leases.avoid(std::iter::empty());
        assert_eq!(std::iter::from_fn(|| leases.lease(0, Protocol::Udp, 1)).count(), 4);
    }

    #[test]
    fn workers_share_the_ports_without_overlap_and_each_port_names_its_owner() {
        let mut seen = HashSet::new();
        for me in 0..3 {
            let mut leases = leases("1024-65535", me, 3);
            while let Some(id) = leases.lease(0, Protocol::Tcp, 0) {
                assert_eq!(owner(id.port(), 3), WorkerId(me));
                assert!(seen.insert(id.port()));
            }
        }
        assert_eq!(seen.len(), 64_512);
    }

    #[test]
    fn a_lease_is_posted_while_it_lasts() {
        let board: Arc<Vec<AtomicU64>> = Arc::new((0..3072).map(|_| AtomicU64::new(0)).collect());
        struct Shared(Arc<Vec<AtomicU64>>);
        impl AsRef<[AtomicU64]> for Shared {
            fn as_ref(&self) -> &[AtomicU64] {
                &self.0
            }
        }
        let posted = || -> u32 { board.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum() };
        let shared = Arc::new(Shared(Arc::clone(&board)));
        let mut leases = Leases::new(&"20000-20999".parse().unwrap(), 2, WorkerId(0), 1, shared);
        let udp = leases.lease(0, Protocol::Udp, 1).unwrap();
        leases.lease(0, Protocol::Icmp, 1).unwrap();
        assert_eq!(posted(), 2);
        let word = board[1024 + usize::from(udp.port() / 64)].load(Ordering::Relaxed);
        assert_eq!(word, 1 << (udp.port() % 64));
        leases.lease(1, Protocol::Udp, 1).unwrap();
        assert_eq!(posted(), 2, "the board has no room for the second address");
        leases.give_back(udp);
        assert_eq!(posted(), 1);
        drop(leases);
        assert_eq!(posted(), 0);
    }

    #[test]
    fn ports_read_back_what_they_print_and_refuse_what_is_none() {
        let ports: Ports = "61000-65535, 20000-29999,25000-30005,7".parse().unwrap();
        assert_eq!(ports.to_string(), "7,20000-30005,61000-65535");
        assert_eq!(ports.to_string().parse(), Ok(ports.clone()));
        assert_eq!(ports.len(), 1 + 10_006 + 4536);
        assert_eq!(ports.without(|port| port == 20_001 || port < 10).to_string(), "20000,20002-30005,61000-65535");
        for text in ["", "0", "0-5", "9-3", "70000", "a", "1-2-3", "5,"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
    }

    #[test]
    fn rfc4787_req2_an_inside_host_always_gets_the_same_address_of_the_pool() {
        let chosen: Vec<u8> = (0..=255).map(|host| paired(1, Ipv4Addr::new(10, 0, 0, host), 4)).collect();
        assert_eq!(chosen, (0..=255).map(|host| paired(1, Ipv4Addr::new(10, 0, 0, host), 4)).collect::<Vec<_>>());
        for address in 0..4 {
            let hosts = chosen.iter().filter(|&&of| of == address).count();
            assert!((32..=96).contains(&hosts), "{hosts} of 256 hosts at address {address}");
        }
    }
}
