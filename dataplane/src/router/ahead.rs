//! Looks ahead at a burst for what its packets will need of the translation's tables.
//!
//! With few sessions everything is in the processor's caches, and looking ahead would only cost.

use super::Router;
use crate::{
    ids::{NetworkId, PortId},
    nat::{Glimpse, Way},
    port::BURST,
    tables::{Role, Tables},
    wire::{EtherType, Ethernet, MacAddr, protocol},
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
        self.nat.as_ref().filter(|nat| nat.outgrows_cache())?;
        match tables.port(port)?.role {
            Role::Access(id) => Some(Lookout::Out(id, tables.network(id)?.gateway?.mac)),
            Role::Uplink => Some(Lookout::In(tables.local().port)),
            Role::Host(_) => None,
        }
    }

    /// Has what the packets of a burst will need come from memory, all at once. `glimpse` says what
    /// frame number so many looks like.
    #[inline(never)]
    pub(crate) fn look_ahead(&self, count: usize, mut glimpse: impl FnMut(usize) -> Option<Glimpse>) {
        let Some(nat) = &self.nat else { return };
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
    pub(crate) fn glimpse(self, frame: &[u8]) -> Option<Glimpse> {
        let (ethernet, packet) = Ethernet::split(frame)?;
        if ethernet.ether_type != EtherType::IPV4 {
            return None;
        }
        match self {
            Self::Out(id, gateway) => Glimpse::at(Way::Out, id, packet).filter(|_| ethernet.destination == gateway),
            Self::In(tunnel) => {
                let is_tunnel =
                    packet.get(9) == Some(&protocol::UDP) && packet.get(22..24) == Some(&tunnel.to_be_bytes()[..]);
                Glimpse::at(Way::In, NetworkId(0), packet).filter(|_| !is_tunnel)
            }
        }
    }
}
