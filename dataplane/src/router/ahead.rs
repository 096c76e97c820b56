//! Looks ahead at a burst for what its packets will need of the translation's tables.
//!
//! With few sessions everything is in the processor's caches, and looking ahead would only cost.

use super::{Family, Router};
use crate::{
    ids::{NetworkId, PortId},
    nat::{Glimpse, Nat, Way},
    port::BURST,
    tables::{Role, Tables},
    wire::{Address, Ethernet, MacAddr, Version, protocol},
};

/// Which frames of a burst the router will be given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookout {
    /// Those of a network that are for its gateway.
    Out(NetworkId, MacAddr),
    /// Those from outside that are not for the tunnel at this port.
    In(u16),
}

impl Router {
    /// What to look out for in a burst of `port`, where looking ahead pays.
    #[inline]
    pub(crate) fn lookout(&self, tables: &Tables, port: PortId) -> Option<Lookout> {
        let pays = self.nat.as_deref().is_some_and(Nat::outgrows_cache);
        let pays_v6 = || self.nat6.as_deref().is_some_and(Nat::outgrows_cache);
        if !pays && !pays_v6() {
            return None;
        }
        match tables.port(port)?.role {
            Role::Access(id) => Some(Lookout::Out(id, tables.network(id)?.gateway?.mac)),
            Role::Uplink => Some(Lookout::In(tables.local().port)),
            Role::Host(_) => None,
        }
    }

    /// Has what those packets of a burst will need that are of one internet protocol come from
    /// memory, all at once. `glimpse` says what frame number so many looks like.
    #[inline(never)]
    pub(crate) fn look_ahead<A: Family>(&mut self, count: usize, mut glimpse: impl FnMut(usize) -> Option<Glimpse<A>>) {
        let Some(nat) = A::nat(self).filter(|nat| nat.outgrows_cache()) else { return };
        let mut glimpses = [None; BURST];
        for (index, place) in glimpses.iter_mut().enumerate().take(count) {
            *place = glimpse(index);
        }
        nat.prepare(&glimpses);
    }
}

impl Lookout {
    /// What can be seen of the packet in `frame`, if it is one of those.
    #[inline]
    pub(crate) fn glimpse<A: Address>(self, frame: &[u8]) -> Option<Glimpse<A>> {
        let (ethernet, packet) = Ethernet::split(frame)?;
        if ethernet.ether_type != A::VERSION.ether_type() {
            return None;
        }
        match self {
            Self::Out(id, gateway) => Glimpse::at(Way::Out, id, packet).filter(|_| ethernet.destination == gateway),
            Self::In(tunnel) => Glimpse::at(Way::In, NetworkId(0), packet).filter(|_| !is_tunnel::<A>(packet, tunnel)),
        }
    }
}

/// Whether a packet without options is UDP to the port `tunnel`.
#[inline]
fn is_tunnel<A: Address>(packet: &[u8], tunnel: u16) -> bool {
    let protocol_at = match A::VERSION {
        Version::V4 => 9,
        Version::V6 => 6,
    };
    let port = packet.get(A::VERSION.header_len() + 2..).and_then(|rest| rest.first_chunk());
    packet.get(protocol_at) == Some(&protocol::UDP) && port == Some(&tunnel.to_be_bytes())
}
