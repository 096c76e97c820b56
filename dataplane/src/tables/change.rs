//! What differs between two snapshots, network by network.

use super::{Tables, get};
use crate::ids::NetworkId;

impl Tables {
    /// The networks about which `next` says something else than this does. What lies outside of
    /// all networks is not among it.
    pub fn changed<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = NetworkId> + 'a {
        let everything = self.local != next.local;
        let networks = self.networks.len().max(next.networks.len());
        let ids = (0..=u16::MAX).take(networks).map(NetworkId);
        ids.filter(move |&id| everything || !self.agrees(next, id))
    }

    fn agrees(&self, next: &Self, id: NetworkId) -> bool {
        let (Some(here), Some(there)) = (self.network(id), next.network(id)) else {
            return self.network(id).is_none() && next.network(id).is_none();
        };
        here == there
            && here.ports.iter().all(|&port| self.port(port) == next.port(port))
            && here.host.is_none_or(|port| self.port(port) == next.port(port))
            && here.peers.iter().all(|&peer| {
                let (here, there) = (get(&self.vteps, peer.index()), get(&next.vteps, peer.index()));
                let uplink = |vtep: &super::Vtep| (self.port(vtep.uplink), next.port(vtep.uplink));
                here == there && here.map(uplink).is_none_or(|(here, there)| here == there)
            })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use crate::{
        ids::{NetworkId, PortId, VtepId, WorkerId},
        tables::{LocalVtep, Network, Port, Role, Tables, Vtep},
        wire::{MacAddr, Vni},
    };

    const LOCAL: LocalVtep = LocalVtep::new(Some(Ipv4Addr::new(192, 0, 2, 1)), None, 4789);
    const UPLINK: PortId = PortId(0);

    fn vtep(number: u8, next_hop: u8) -> Vtep {
        let next_hop = Some(MacAddr([2, 0, 0, 0, 0, next_hop]));
        Vtep::new(LOCAL, Ipv4Addr::new(192, 0, 2, number), UPLINK, MacAddr([2; 6]), next_hop)
    }

    /// Two networks with a port and a peer each.
    fn tables() -> Tables {
        let mut tables = Tables::new(LOCAL);
        tables.set_port(UPLINK, Port::new(Role::Uplink, WorkerId(0)));
        for number in 0..2 {
            let (network, port) = (NetworkId(number), PortId(number + 1));
            tables.set_vtep(VtepId(number), vtep(2, 2));
            tables.set_port(port, Port::new(Role::Access(network), WorkerId(0)));
            let vni = Vni::new(5000 + u32::from(number)).unwrap();
            tables
                .set_network(network, Network { ports: vec![port], peers: vec![VtepId(number)], ..Network::new(vni) });
        }
        tables
    }

    fn check(change: impl FnOnce(&mut Tables), expected: &[u16]) {
        let (before, mut after) = (tables(), tables());
        change(&mut after);
        let changed: Vec<u16> = before.changed(&after).map(|network| network.0).collect();
        assert_eq!(changed, expected);
    }

    #[test]
    fn a_change_is_of_the_networks_that_it_concerns_and_of_no_other() {
        check(|_| {}, &[]);
        check(|tables| tables.set_vtep(VtepId(1), vtep(2, 3)), &[1]);
        check(|tables| tables.set_port(PortId(1), Port::new(Role::Access(NetworkId(0)), WorkerId(1))), &[0]);
        check(|tables| tables.set_port(UPLINK, Port::new(Role::Uplink, WorkerId(1))), &[0, 1]);
        let other = Network { mtu: 1400, ..tables().network(NetworkId(1)).unwrap().clone() };
        check(|tables| tables.set_network(NetworkId(1), other), &[1]);
        check(|tables| tables.set_network(NetworkId(2), Network::new(Vni::new(1).unwrap())), &[2]);
    }
}
