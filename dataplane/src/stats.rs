//! Counters: plain numbers that belong to one worker, copied out when control asks.
//!
//! They obey one law, whatever happens to a packet:
//! `received + copies + replies = transmitted + sum(drops)`. A flood to `n` places, or a packet
//! that leaves in `n` fragments, makes `n - 1` copies; a reply is a packet of our own.

use std::ops::{AddAssign, Index, IndexMut};

use crate::{ids::PortId, verdict::DropReason};

/// What one worker did, since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames taken from ports.
    pub received: u64,
    /// Frames put into ports.
    pub transmitted: u64,
    /// Copies that flooding added, and fragments but the first of each packet.
    pub copies: u64,
    /// Packets that left in fragments.
    pub fragmented: u64,
    /// Frames of our own: ICMP errors, and questions whether an address is still in use.
    pub replies: u64,
    /// Questions that were answered here; each is a frame received and its answer one transmitted.
    pub answered: u64,
    /// Frames given to the worker that owns their port; it counts them as transmitted or dropped.
    pub handed_over: u64,
    /// Frames taken over from other workers.
    pub taken_over: u64,
    /// Fragments put by until the first of their datagram comes.
    pub held: u64,
    /// Fragments that were put by and then went their way.
    pub released: u64,
    /// Frames that ended here.
    pub drops: Drops,
    /// By port, indexed by [`PortId`].
    pub ports: Vec<PortCounters>,
}

/// What one worker did at one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Frames that came in.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that came in here and ended.
    pub rx_drops: u64,
    /// Frames that left.
    pub tx_packets: u64,
    /// Frames that could not leave here.
    pub tx_drops: u64,
    /// Bytes of those that left.
    pub tx_bytes: u64,
}

impl Counters {
    /// The counters of `port`, which [`make_room`](Self::make_room) was told of.
    #[inline]
    pub fn port(&mut self, port: PortId) -> &mut PortCounters {
        &mut self.ports[port.index()]
    }

    /// Makes sure that ports up to `port` have counters.
    pub fn make_room(&mut self, port: PortId) {
        if self.ports.len() <= port.index() {
            self.ports.resize(port.index() + 1, PortCounters::default());
        }
    }

    /// How far the law is from holding; zero but for frames that wait, in a mailbox or as fragments.
    pub fn imbalance(&self) -> i128 {
        let sum = |values: &[u64]| values.iter().map(|&value| i128::from(value)).sum::<i128>();
        sum(&[self.received, self.copies, self.replies, self.taken_over, self.released])
            - sum(&[self.transmitted, self.handed_over, self.held, self.drops.total()])
    }
}

impl AddAssign<&Self> for Counters {
    fn add_assign(&mut self, other: &Self) {
        self.received += other.received;
        self.transmitted += other.transmitted;
        self.copies += other.copies;
        self.fragmented += other.fragmented;
        self.replies += other.replies;
        self.answered += other.answered;
        self.handed_over += other.handed_over;
        self.taken_over += other.taken_over;
        self.held += other.held;
        self.released += other.released;
        for &reason in DropReason::ALL {
            self.drops[reason] += other.drops[reason];
        }
        if self.ports.len() < other.ports.len() {
            self.ports.resize(other.ports.len(), PortCounters::default());
        }
        for (ours, theirs) in self.ports.iter_mut().zip(&other.ports) {
            ours.rx_packets += theirs.rx_packets;
            ours.rx_bytes += theirs.rx_bytes;
            ours.tx_packets += theirs.tx_packets;
            ours.tx_bytes += theirs.tx_bytes;
            ours.rx_drops += theirs.rx_drops;
            ours.tx_drops += theirs.tx_drops;
        }
    }
}

/// One counter for each [`DropReason`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drops([u64; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::COUNT])
    }
}

impl Drops {
    /// Sum over all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that have happened, with how often.
    pub fn nonzero(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self[reason])).filter(|&(_, count)| count > 0)
    }
}

impl Index<DropReason> for Drops {
    type Output = u64;

    #[inline]
    fn index(&self, reason: DropReason) -> &u64 {
        &self.0[reason as usize]
    }
}

impl IndexMut<DropReason> for Drops {
    #[inline]
    fn index_mut(&mut self, reason: DropReason) -> &mut u64 {
        &mut self.0[reason as usize]
    }
}
