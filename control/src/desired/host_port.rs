//! The host's own port on a network: a pair of interfaces, one end for the host, one for us.

use ipnetwork::IpNetwork;

use super::{Desired, Network, checks};

/// The pair by which the host itself is on a network, as its gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The end that people see: it has the addresses of the gateway.
    pub name: String,
    /// The end that our program is on.
    pub interface: String,
    /// The addresses of the gateway, each with its subnet.
    pub addresses: Vec<IpNetwork>,
}

impl HostPort {
    /// What the interfaces of the network `name` with this VNI are called. The end that people
    /// see has the name of the network, where that fits.
    fn new(name: &str, vni: u32, addresses: Vec<IpNetwork>) -> Self {
        let readable = format!("gw-{name}");
        let name = if checks::bad_interface_name(&readable).is_none() { readable } else { format!("gw{vni}") };
        Self { name, interface: interface(vni), addresses }
    }
}

/// A VNI is one network's, and has at most eight digits.
fn interface(vni: u32) -> String {
    format!("vxg{vni}")
}

impl Network {
    /// The port of the host on this network: there is one wherever there is a gateway, unless
    /// the network is internal.
    pub(super) fn host_port(&self) -> Option<HostPort> {
        let v4 = self.subnet.zip(self.gateway);
        let v4 = v4.map(|(subnet, gateway)| IpNetwork::new(gateway.into(), subnet.prefix()));
        let v6 = self.subnet6.zip(self.gateway6);
        let v6 = v6.map(|(subnet, gateway)| IpNetwork::new(gateway.into(), subnet.prefix()));
        let addresses: Vec<IpNetwork> = v4.into_iter().chain(v6).filter_map(Result::ok).collect();
        let is_there = !self.internal && !addresses.is_empty();
        is_there.then(|| HostPort::new(&self.name, self.vni, addresses))
    }
}

impl Desired {
    /// The ports of the host that are asked for, with the names of their networks.
    pub fn host_ports(&self) -> impl Iterator<Item = (&str, HostPort)> {
        let networks = self.networks.iter().map(|network| &network.item);
        networks.filter_map(|network| Some((network.name.as_str(), network.host_port()?)))
    }
}

#[cfg(test)]
mod tests {
    use vxlane_dataplane::wire::Vni;

    use super::*;

    #[test]
    fn interfaces_have_the_name_of_the_network_where_it_fits() {
        let port = |name: &str| HostPort::new(name, Vni::MAX, vec![]);
        assert_eq!((port("blue").name.as_str(), port("blue").interface.as_str()), ("gw-blue", "vxg16777215"));
        assert_eq!(port("twelve-chars").name, "gw-twelve-chars");
        assert_eq!(port("thirteen-char").name, "gw16777215");
    }
}
