//! What control tells the workers: an immutable snapshot, swapped whole between bursts.
//!
//! Ids are given out by control and are stable from one snapshot to the next, so that what a
//! worker learned stays true across a swap. Whatever is gone from the next snapshot is
//! forgotten when that snapshot is adopted (see [`Bridge::adopt`](crate::bridge::Bridge::adopt)).

mod change;
mod local;
mod network;
mod outside;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use foldhash::fast::RandomState;
pub use local::{LocalVtep, ZeroChecksums};
pub use network::{Gateway, Guard, MoveLimit, Network, WayOut};
pub use outside::{Hop, NoHop, Outside, Prefixes, Route, Ways};

use crate::{
    express::Leg,
    ids::{NetworkId, PortId, VtepId, WorkerId},
    nat::Publish,
    vtep::Template,
    wire::{MacAddr, Vni},
};

/// One consistent view of everything that control decides.
#[derive(Clone, Debug)]
pub struct Tables {
    local: LocalVtep,
    networks: Vec<Option<Network>>,
    ports: Vec<Option<Port>>,
    vteps: Vec<Option<Vtep>>,
    vnis: HashMap<Vni, NetworkId, RandomState>,
    tunnels_v4: HashMap<(Vni, Ipv4Addr), (NetworkId, VtepId), RandomState>,
    tunnels_v6: HashMap<(Vni, Ipv6Addr), (NetworkId, VtepId), RandomState>,
    outside: Option<Arc<Outside>>,
    /// Networks whose IPv6 packets leave as they are.
    routed: Prefixes<Ipv6Addr, NetworkId>,
    publishes: Arc<[Publish]>,
}

/// A port as the pipeline sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// What its frames are.
    pub role: Role,
    /// The worker that sends on it when the one at hand has no queue of it.
    pub owner: WorkerId,
    /// What its endpoint may send as; `None` if it may send as anybody.
    pub guard: Option<Arc<Guard>>,
    /// Where it is to the programs of the express lane; `None` if it is not in that lane.
    pub express: Option<Leg>,
}

impl Port {
    /// A port without a guard.
    pub fn new(role: Role, owner: WorkerId) -> Self {
        Self { role, owner, guard: None, express: None }
    }
}

/// What kind of frames a port carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Underlay frames, to and from other VTEPs.
    Uplink,
    /// Overlay frames of an endpoint of this network.
    Access(NetworkId),
    /// Overlay frames between this host itself and this network's endpoints on it.
    Host(NetworkId),
}

/// A remote VTEP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vtep {
    /// Its underlay address.
    pub address: IpAddr,
    /// The uplink that leads there.
    pub uplink: PortId,
    /// The outer headers, ready but for what each packet decides; `None` until the next
    /// hop's MAC address is known, and if we have no address of its family.
    pub template: Option<Template>,
}

impl Vtep {
    /// A VTEP behind `next_hop`, seen from `local` through an uplink whose own address is `source`.
    pub fn new(
        local: LocalVtep,
        address: impl Into<IpAddr>,
        uplink: PortId,
        source: MacAddr,
        next_hop: Option<MacAddr>,
    ) -> Self {
        let address = address.into();
        let template = next_hop.and_then(|next_hop| Template::new(local, source, address, next_hop));
        Self { address, uplink, template }
    }
}

impl Tables {
    /// Tables without any network.
    pub fn new(local: LocalVtep) -> Self {
        Self {
            local,
            networks: Vec::new(),
            ports: Vec::new(),
            vteps: Vec::new(),
            vnis: HashMap::default(),
            tunnels_v4: HashMap::default(),
            tunnels_v6: HashMap::default(),
            outside: None,
            routed: Prefixes::default(),
            publishes: Arc::default(),
        }
    }

    /// Puts a VTEP in place `id`.
    pub fn set_vtep(&mut self, id: VtepId, vtep: Vtep) {
        put(&mut self.vteps, id.index(), vtep);
    }

    /// Puts a port in place `id`.
    pub fn set_port(&mut self, id: PortId, port: Port) {
        put(&mut self.ports, id.index(), port);
    }

    /// Puts a network in place `id`. Its peers must have been set before; others are left out.
    pub fn set_network(&mut self, id: NetworkId, network: Network) {
        if let Some(before) = get(&self.networks, id.index()) {
            self.vnis.remove(&before.vni);
            self.tunnels_v4.retain(|_, &mut (of, _)| of != id);
            self.tunnels_v6.retain(|_, &mut (of, _)| of != id);
        }
        self.vnis.insert(network.vni, id);
        for &peer in &network.peers {
            match get(&self.vteps, peer.index()).map(|vtep| vtep.address) {
                Some(IpAddr::V4(address)) => drop(self.tunnels_v4.insert((network.vni, address), (id, peer))),
                Some(IpAddr::V6(address)) => drop(self.tunnels_v6.insert((network.vni, address), (id, peer))),
                None => {}
            }
        }
        put(&mut self.networks, id.index(), network);
        let routed = self.networks().filter_map(|(id, network)| Some((id, network.routed_prefix()?)));
        let routed = routed.map(|(id, prefix)| (prefix.network(), prefix.prefix(), id));
        self.routed = Prefixes::new(routed.collect::<Vec<_>>());
    }

    /// Says how packets leave the overlay. Until then none do.
    pub fn set_outside(&mut self, outside: Arc<Outside>) {
        self.outside = Some(outside);
    }

    /// Says which ports of our own address lead to endpoints.
    pub fn set_publishes(&mut self, publishes: Arc<[Publish]>) {
        self.publishes = publishes;
    }

    /// The ports of our own address that lead to endpoints.
    pub fn publishes(&self) -> &[Publish] {
        &self.publishes
    }

    /// How packets leave the overlay, if they can.
    #[inline]
    pub fn outside(&self) -> Option<&Outside> {
        self.outside.as_deref()
    }

    /// The network whose own IPv6 addresses the outside knows `address` among.
    #[inline]
    pub fn routed_to(&self, address: Ipv6Addr) -> Option<NetworkId> {
        self.routed.longest(address).copied()
    }

    /// Our own VTEP.
    #[inline]
    pub fn local(&self) -> LocalVtep {
        self.local
    }

    /// The network in place `id`.
    #[inline]
    pub fn network(&self, id: NetworkId) -> Option<&Network> {
        get(&self.networks, id.index())
    }

    /// The port in place `id`.
    #[inline]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        get(&self.ports, id.index())
    }

    /// The VTEP in place `id`.
    #[inline]
    pub fn vtep(&self, id: VtepId) -> Option<&Vtep> {
        get(&self.vteps, id.index())
    }

    /// The network and the peer that a frame with `vni` from `source` belongs to.
    #[inline]
    pub fn tunnel(&self, vni: Vni, source: impl Into<IpAddr>) -> Option<(NetworkId, VtepId)> {
        match source.into() {
            IpAddr::V4(source) => self.tunnels_v4.get(&(vni, source)).copied(),
            IpAddr::V6(source) => self.tunnels_v6.get(&(vni, source)).copied(),
        }
    }

    /// The network with this VNI.
    pub fn network_of(&self, vni: Vni) -> Option<NetworkId> {
        self.vnis.get(&vni).copied()
    }

    /// Every network with its id.
    pub fn networks(&self) -> impl Iterator<Item = (NetworkId, &Network)> {
        let numbered = (0u16..).zip(&self.networks);
        numbered.filter_map(|(id, network)| network.as_ref().map(|network| (NetworkId(id), network)))
    }
}

#[inline]
fn get<T>(slots: &[Option<T>], index: usize) -> Option<&T> {
    slots.get(index).and_then(Option::as_ref)
}

fn put<T>(slots: &mut Vec<Option<T>>, index: usize, value: T) {
    if slots.len() <= index {
        slots.resize_with(index + 1, || None);
    }
    slots[index] = Some(value);
}
