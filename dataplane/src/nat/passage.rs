//! What the express lane hears of sessions, and what it tells of them.

use std::net::Ipv4Addr;

use super::{Nat, Protocol, SessionId, SessionView, State, Way};
use crate::{clock::Ticks, wire::Address};

/// A packet of an established session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage<A = Ipv4Addr> {
    /// The number of the session, among those of its internet protocol.
    pub session: SessionId,
    /// Where the packet went.
    pub way: Way,
    /// The session.
    pub view: SessionView<A>,
}

/// What is remembered for the express lane.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Whether anybody looks.
    on: bool,
    /// The session that the packet at hand belongs to, and where that goes.
    passing: Option<(SessionId, Way)>,
    /// Sessions that no packet may take the express lane of any more; and whether they go on.
    left: Vec<(SessionId, bool)>,
}

impl Watch {
    /// A new packet is looked at.
    #[inline]
    pub(super) fn begin(&mut self) {
        self.passing = None;
    }

    /// The packet belongs to `session`.
    #[inline]
    pub(super) fn pass(&mut self, session: SessionId, way: Way) {
        self.passing = Some((session, way));
    }

    /// What `session` does from now on, workers have to see; if it `lives` on at all.
    #[inline]
    pub(super) fn leave(&mut self, session: SessionId, lives: bool) {
        if self.on {
            self.left.push((session, lives));
        }
    }
}

impl<A: Address> Nat<A> {
    /// Has [`take_left`](Self::take_left) tell of sessions from now on.
    pub(crate) fn watch(&mut self) {
        self.watch.on = true;
    }

    /// The session of the packet that was translated or restored last, if it has one that is
    /// established and that both ends have spoken in.
    pub(crate) fn take_passage(&mut self) -> Option<Passage<A>> {
        let (session, way) = self.watch.passing.take()?;
        let view = self.view(session)?;
        let spoken = view.out.packets() > 0 && view.back.packets() > 0;
        (spoken && view.state.is_settled()).then_some(Passage { session, way, view })
    }

    /// A session that has left the express lane, and whether it lives.
    pub(crate) fn take_left(&mut self) -> Option<(SessionId, bool)> {
        self.watch.left.pop()
    }

    /// Takes note of packets that took the express lane, the last of them at `last`.
    pub(crate) fn note_use(&mut self, id: SessionId, way: Way, packets: u64, bytes: u64, last: Ticks) {
        let refreshes = way == Way::Out || self.config.inbound_refresh;
        let session = self.sessions.get_mut(id);
        match way {
            Way::Out => session.out.add(packets, bytes),
            Way::In => session.back.add(packets, bytes),
        }
        let is_tcp = session.key.outside.protocol() == Protocol::Tcp;
        if session.state.is_settled() && (refreshes || is_tcp) {
            session.deadline = session.deadline.max(self.lifetimes.deadline(session.state, last));
        }
    }
}

impl State {
    /// Whether packets without a flag leave it as it is and keep it alive.
    pub(super) fn is_settled(self) -> bool {
        matches!(self, Self::Udp | Self::Established | Self::FinOut | Self::FinIn)
    }
}
