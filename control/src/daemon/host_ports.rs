//! The host's own port on every network that has one: made, kept as it should be, taken away.
//!
//! A network without such a port is a network all the same. So what is in the way of one is told,
//! in the log and with the network, and tried again whenever interfaces are looked at.

use std::path::Path;

use ipnetwork::IpNetwork;
use vxlane_dataplane::tables::Gateway;

use super::{Daemon, StartError, change::LONGEST_PACKET, ports::OpenPort};
use crate::{
    causes::chain,
    desired::{Desired, HostPort, Plan, PlannedNetwork},
    host,
    netlink::{self, Pair, PairError},
    store::{Change, Store, StoreError},
};

/// Begins the keys of the pairs that we made for the host.
const KEY: &str = "host/";
/// Both ends of the pair are in the namespace of this process.
const HERE: &str = "/proc/self/ns/net";

/// Why the host has no port on a network.
#[derive(Debug, thiserror::Error)]
enum HostPortError {
    /// With it, packets of the host would go into the overlay that do not now.
    #[error("the host has a route to {route}, which overlaps the subnet {subnet}")]
    Overlaps { route: IpNetwork, subnet: IpNetwork },
    /// The kernel does not say what there is.
    #[error("looking at this host")]
    Host(#[from] std::io::Error),
    /// The pair could not be made.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// The next start would not know whose the pair is.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be attached.
    #[error(transparent)]
    Open(#[from] StartError),
}

/// Whether `key` of the store is about a pair that we made for the host.
pub(super) fn is_key(key: &str) -> bool {
    key.starts_with(KEY)
}

/// Takes away the pairs of an earlier life which `keys` tell of and `desired` has no use for.
///
/// # Errors
/// If the store does not take that note.
pub(super) fn remove_old<'a>(
    keys: impl Iterator<Item = &'a String>,
    desired: &Desired,
    store: &mut dyn Store,
) -> Result<(), StoreError> {
    for key in keys {
        let interface = key.trim_start_matches(KEY);
        if desired.host_ports().any(|(_, port)| port.interface == interface) {
            continue;
        }
        match netlink::remove_pair(interface) {
            Ok(()) => drop(store.commit(&[Change::Delete(key.clone())])?),
            Err(error) => tracing::warn!(interface, %error, "removing"),
        }
    }
    Ok(())
}

impl Daemon {
    /// Opens the host's port on every network of `plan` where it is not open and can be.
    pub(super) fn open_host_ports(&mut self, plan: &Plan) {
        for (network, port) in plan.host_ports() {
            if self.is_open(&port.interface) {
                continue;
            }
            let told = self.open_host_port(network, port).err().map(|error| chain(&error).to_string());
            self.complain(&port.interface, told, "the host has no port on its network, and that is tried again");
        }
    }

    fn open_host_port(&mut self, network: &PlannedNetwork, port: &HostPort) -> Result<(), HostPortError> {
        if host::find(&port.interface)?.is_some() && host::find(&port.name)?.is_none() {
            // Somebody renamed the other end, or moved it elsewhere.
            netlink::remove_pair(&port.interface)?;
        }
        let made = host::find(&port.interface)?.is_none();
        if made {
            self.make_host_pair(network, port)?;
        }
        if host::find(&port.interface)?.is_some_and(|link| !link.is_up) {
            netlink::set_up(&port.interface)?;
        }
        let opened = self.tend_host_port(network, port).and_then(|()| Ok(self.open_host(&port.interface)?));
        if opened.is_err() && made {
            self.remove_host_pair(&port.interface);
        }
        opened
    }

    fn make_host_pair(&mut self, network: &PlannedNetwork, port: &HostPort) -> Result<(), HostPortError> {
        for address in &port.addresses {
            let subnet = IpNetwork::new(address.network(), address.prefix()).unwrap_or(*address);
            if let Some(route) = netlink::overlapping(subnet)? {
                return Err(HostPortError::Overlaps { route, subnet });
            }
        }
        self.store.commit(&[Change::Put(format!("{KEY}{}", port.interface), String::new())])?;
        let pair = Pair {
            interface: &port.interface,
            alias: &format!("vxlane host port of {}", network.name),
            mtu: network.mtu.into(),
            gso_max: LONGEST_PACKET - network.overhead,
            netns: Path::new(HERE),
            ifname: &port.name,
            mac: Some(Gateway::mac_of(network.vni)),
            addresses: &addresses(network, port),
            quiet: true,
        };
        Ok(pair.make().inspect_err(|_| self.forget_host_pair(&port.interface))?)
    }

    /// Sets right what somebody may have changed of the end that people see.
    fn tend_host_port(&self, network: &PlannedNetwork, port: &HostPort) -> Result<(), HostPortError> {
        let Some(link) = host::find(&port.name)? else { return Ok(()) };
        let mac = Gateway::mac_of(network.vni);
        if link.mac != Some(mac.0) {
            netlink::set_mac(&port.name, mac)?;
        }
        if link.mtu != u32::from(network.mtu) {
            netlink::set_pair_mtu(&port.interface, Path::new(HERE), &port.name, network.mtu.into())?;
        }
        Ok(netlink::set_addresses(link.index, &port.name, &addresses(network, port))?)
    }

    /// Has every host port that is open be as it should be. One whose other end is gone is made
    /// anew by the next look.
    pub(super) fn tend_host_ports(&mut self) {
        let plan = self.plan.clone();
        for (network, port) in plan.host_ports() {
            if !self.is_open(&port.interface) {
                continue;
            }
            let tended = match host::find(&port.name) {
                Ok(None) => netlink::remove_pair(&port.interface).map_err(HostPortError::Host),
                _ => self.tend_host_port(network, port),
            };
            let told = tended.err().map(|error| chain(&error).to_string());
            self.complain(&port.interface, told, "the host's port is not as it should be");
        }
    }

    /// Takes away the pairs of those of `closed` that were host ports in `plan`.
    pub(super) fn remove_host_pairs(&mut self, closed: &[OpenPort], plan: &Plan) {
        let is_closed = |interface: &str| closed.iter().any(|port| port.interface == interface);
        for (_, port) in plan.host_ports().filter(|(_, port)| is_closed(&port.interface)) {
            self.remove_host_pair(&port.interface);
        }
    }

    fn remove_host_pair(&mut self, interface: &str) {
        self.complaints.remove(interface);
        match netlink::remove_pair(interface) {
            Ok(()) => self.forget_host_pair(interface),
            // The next start tries again.
            Err(error) => tracing::warn!(interface, %error, "removing"),
        }
    }

    fn forget_host_pair(&mut self, interface: &str) {
        if let Err(error) = self.store.commit(&[Change::Delete(format!("{KEY}{interface}"))]) {
            tracing::warn!(interface, error = chain(&error), "forgetting");
        }
    }
}

/// The addresses of the host on `network`: those of the gateway, and with IPv6 its link-local one,
/// from which the kernel asks for neighbours.
fn addresses(network: &PlannedNetwork, port: &HostPort) -> Vec<IpNetwork> {
    let link_local = Gateway::new(network.vni, None, None).link_local();
    let speaks_v6 = port.addresses.iter().any(IpNetwork::is_ipv6);
    let link_local = IpNetwork::new(link_local.into(), 64).ok().filter(|_| speaks_v6);
    port.addresses.iter().copied().chain(link_local).collect()
}
