//! What an operator should hear of: stations that flap, addresses that two claim, spoofing.
//!
//! The pipeline notes events; its worker passes them on, off the packet path, through a bounded
//! queue that [`Engine::next_event`](crate::engine::Engine::next_event) empties. What an attacker
//! can cause is limited, so that no flood of packets becomes a flood of events.

use std::net::IpAddr;

use crate::{
    bridge::Origin,
    clock::{Instant, Ticks},
    ids::{NetworkId, PortId},
    verdict::DropReason,
    wire::MacAddr,
};

/// Something that an operator should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A station moved so often that two must be using its address (RFC 7432 section 15.1). It is
    /// held where it was.
    StationFlaps {
        /// Its network.
        network: NetworkId,
        /// Its address.
        mac: MacAddr,
        /// Where it is held.
        held: Origin,
    },
    /// Two stations claim one address (RFC 9161 section 3.7). Nobody is told where it is until
    /// the hold is over.
    AddressClaimedTwice {
        /// Their network.
        network: NetworkId,
        /// The address.
        address: IpAddr,
        /// Who had it, and who claims it, too.
        stations: [MacAddr; 2],
    },
    /// An endpoint sent what it must not send; told once in ten seconds for each port.
    Refused {
        /// Its port.
        port: PortId,
        /// Why that was dropped.
        reason: DropReason,
    },
}

/// Events of one worker that wait to be passed on.
#[derive(Debug)]
pub struct Events {
    waiting: Vec<(Instant, Event)>,
    /// When each port may next be told of.
    quiet_until: Vec<Ticks>,
}

/// Events that wait at most; those beyond are lost, and the counters still tell of them.
const MOST: usize = 64;
/// Seconds between two events about what one port sends.
const QUIET: u32 = 10;

impl Events {
    /// No events.
    pub fn new() -> Self {
        Self { waiting: Vec::with_capacity(MOST), quiet_until: Vec::new() }
    }

    /// Notes an event.
    pub fn note(&mut self, now: Instant, event: Event) {
        if self.waiting.len() < MOST {
            self.waiting.push((now, event));
        }
    }

    /// Notes that a frame from `port` was refused, unless that was told a moment ago.
    #[cold]
    pub fn note_refused(&mut self, now: Instant, port: PortId, reason: DropReason) {
        let Some(quiet_until) = self.quiet_until.get_mut(port.index()) else { return };
        if now.ticks() >= *quiet_until {
            *quiet_until = Ticks(now.ticks().0.saturating_add(Ticks::from_secs(QUIET).0));
            self.note(now, Event::Refused { port, reason });
        }
    }

    /// Makes sure that ports up to `port` can be told of, and that a new one is told of at once.
    pub fn make_room(&mut self, port: PortId) {
        if self.quiet_until.len() <= port.index() {
            self.quiet_until.resize(port.index() + 1, Ticks(0));
        }
        self.quiet_until[port.index()] = Ticks(0);
    }

    /// Takes what waits, oldest first.
    pub fn take(&mut self) -> impl Iterator<Item = (Instant, Event)> + '_ {
        self.waiting.drain(..)
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_port_that_spoofs_without_end_is_told_of_once_in_ten_seconds() {
        let mut events = Events::new();
        events.make_room(PortId(3));
        for millisecond in 0..25_000 {
            let now = Instant::default() + Duration::from_millis(millisecond);
            events.note_refused(now, PortId(3), DropReason::SpoofedMac);
            events.note_refused(now, PortId(1), DropReason::SpoofedAddress);
        }
        let told: Vec<_> = events.take().map(|(at, event)| (at.ticks().0 / Ticks::PER_SECOND, event)).collect();
        let three = |second| (second, Event::Refused { port: PortId(3), reason: DropReason::SpoofedMac });
        let one = |second| (second, Event::Refused { port: PortId(1), reason: DropReason::SpoofedAddress });
        assert_eq!(told, [three(0), one(0), three(10), one(10), three(20), one(20)]);
    }

    #[test]
    fn events_beyond_the_bound_are_lost_and_cost_no_memory() {
        let mut events = Events::new();
        for n in 0..1000 {
            let mac = MacAddr::from_u64(n);
            let held = Origin::Port(PortId(0));
            events.note(Instant::default(), Event::StationFlaps { network: NetworkId(0), mac, held });
        }
        assert_eq!(events.take().count(), MOST);
    }
}
