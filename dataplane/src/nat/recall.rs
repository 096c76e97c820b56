//! Takes up the sessions of an earlier translation: same ports, same ends, same time left.

use std::collections::HashSet;

use super::{Nat, SessionView, mappings::Inside, ports::OutsideId, sessions::Key};
use crate::{clock::Instant, wire::Address};

impl<A: Address> Nat<A> {
    /// Takes up those of `sessions` whose ports are this worker's to lend, on the same clock; returns
    /// how many. It leaves out what has ended meanwhile, whose port is somebody else's now, and what
    /// there is no room for. To be called before packets come: it looks at every free port.
    pub fn recall(&mut self, now: Instant, sessions: &[SessionView<A>]) -> usize {
        let now = now.ticks();
        let living = sessions.iter().filter(|session| session.deadline > now);
        let ours: Vec<_> = living.filter_map(|session| Some((self.ours(session)?, session))).collect();
        let mut claimed = self.leases.claim(&ours.iter().map(|&(id, _)| id).collect());
        let recalled = ours.into_iter().filter(|&(id, session)| self.recall_one(id, session, &mut claimed)).count();
        claimed.into_iter().for_each(|id| self.leases.give_back(id));
        recalled
    }

    /// The outside endpoint of `session`, if it is one that this worker may lend.
    fn ours(&self, session: &SessionView<A>) -> Option<OutsideId> {
        let id = OutsideId::new(self.pool_index(session.outside.0)?, session.protocol, session.outside.1);
        self.elsewhere(id).is_none().then_some(id)
    }

    /// Takes up one session; a port that is `claimed` for it is its mapping's from then on.
    fn recall_one(&mut self, id: OutsideId, session: &SessionView<A>, claimed: &mut HashSet<OutsideId>) -> bool {
        let (address, port) = session.inside;
        let inside = Inside { network: session.network, address, port };
        let key = Key { outside: id, remote: session.remote.0, port: session.remote.1 };
        if self.admit(inside).is_err() || self.sessions.find(key.hash(&self.hasher), key).is_some() {
            return false;
        }
        match self.mappings.get(id) {
            Some(mapping) if mapping.inside() != inside => return false,
            Some(_) => {}
            None => {
                let hash = inside.hash(session.protocol, &self.hasher);
                if !claimed.contains(&id) || !self.mappings.insert(hash, id, inside, session.mac) {
                    return false;
                }
                claimed.remove(&id);
            }
        }
        let Ok(begun) = self.begin(session.created, key, session.state) else { return false };
        let place = self.sessions.get_mut(begun);
        (place.deadline, place.out, place.back) = (session.deadline, session.out, session.back);
        self.sessions.reschedule(begun);
        true
    }
}
