//! The rules for the subnets and gateways of networks.

use std::net::Ipv6Addr;

use super::not_unicast;
use crate::{
    desired::{Network, Owned, Problem},
    ipam,
};

/// Everything that is wrong with the subnets of `network`.
pub(super) fn check(network: &Owned<Network>, found: &mut Vec<Problem>) {
    check_v4(network, found);
    check_v6(network, found);
}

const NO_SUBNET: &str = "a gateway needs a subnet that it is in";

fn check_v4(network: &Owned<Network>, found: &mut Vec<Problem>) {
    let Network { subnet, gateway, .. } = &network.item;
    let Some(subnet) = *subnet else {
        found.extend(gateway.map(|gateway| Problem::new(network.field("gateway"), gateway, NO_SUBNET)));
        return;
    };
    let of_hosts = subnet.network() == subnet.ip();
    if !of_hosts {
        let reason = format!("an address of a host; its subnet is {}/{}", subnet.network(), subnet.prefix());
        found.push(Problem::new(network.field("subnet"), subnet, reason));
    } else if let Some(reason) = not_unicast(subnet.ip().into()).filter(|_| subnet.prefix() > 0) {
        found.push(Problem::new(network.field("subnet"), subnet, reason));
    } else if !(1..=30).contains(&subnet.prefix()) {
        let reason = "has no room for endpoints; a prefix has 1 to 30 bits here";
        found.push(Problem::new(network.field("subnet"), subnet, reason));
    } else if let Some((gateway, reason)) = gateway.and_then(|gateway| Some((gateway, ipam::refuse(subnet, gateway)?)))
    {
        found.push(Problem::new(network.field("gateway"), gateway, reason));
    }
}

fn check_v6(network: &Owned<Network>, found: &mut Vec<Problem>) {
    let Network { subnet6, gateway6, .. } = &network.item;
    let Some(subnet) = *subnet6 else {
        found.extend(gateway6.map(|gateway| Problem::new(network.field("gateway6"), gateway, NO_SUBNET)));
        return;
    };
    let reason = if subnet.network() != subnet.ip() {
        Some(format!("an address of a host; its subnet is {}/{}", subnet.network(), subnet.prefix()))
    } else if !(1..=126).contains(&subnet.prefix()) {
        Some("has no room for endpoints; a prefix has 1 to 126 bits here".to_owned())
    } else {
        not_of_hosts(subnet.ip()).map(ToOwned::to_owned)
    };
    if let Some(reason) = reason {
        found.push(Problem::new(network.field("subnet6"), subnet, reason));
    } else if let Some((gateway, reason)) = gateway6.and_then(|gateway| Some((gateway, ipam::refuse(subnet, gateway)?)))
    {
        found.push(Problem::new(network.field("gateway6"), gateway, reason));
    }
}

/// Why endpoints cannot have addresses such as `address` given to them.
pub(super) fn not_of_hosts(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_multicast() {
        Some("multicast addresses")
    } else if address.is_unicast_link_local() {
        Some("link-local addresses, which endpoints give themselves")
    } else if address.segments()[..5] == [0; 5] {
        Some("not addresses of hosts (RFC 4291 section 2.5)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_of(subnet6: Option<&str>, gateway6: Option<&str>, expected: &[&str]) {
        let text = format!(
            "underlay.interface = \"u\"\n[[network]]\nname = \"blue\"\nvni = 1\n{}{}",
            subnet6.map(|subnet| format!("subnet6 = \"{subnet}\"\n")).unwrap_or_default(),
            gateway6.map(|gateway| format!("gateway6 = \"{gateway}\"\n")).unwrap_or_default(),
        );
        let file = crate::config::ConfigFile::parse(std::path::Path::new("v.toml"), text).unwrap();
        let mut found = Vec::new();
        check(&file.desired().networks[0], &mut found);
        assert_eq!(found.iter().map(Problem::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_ipv6_subnet_is_one_and_its_gateway_is_in_it() {
        check_of(Some("fd00::/64"), Some("fd00::1"), &[]);
        check_of(Some("fd00::/64"), None, &[]);
        check_of(None, Some("fd00::1"), &["network[0].gateway6 = fd00::1: a gateway needs a subnet that it is in"]);
        for (subnet, reason) in [
            ("fd00::1/64", "an address of a host; its subnet is fd00::/64"),
            ("fd00::/127", "has no room for endpoints; a prefix has 1 to 126 bits here"),
            ("::/0", "has no room for endpoints; a prefix has 1 to 126 bits here"),
            ("ff00::/8", "multicast addresses"),
            ("fe80::/64", "link-local addresses, which endpoints give themselves"),
            ("::/96", "not addresses of hosts (RFC 4291 section 2.5)"),
        ] {
            check_of(Some(subnet), None, &[&format!("network[0].subnet6 = {subnet}: {reason}")]);
        }
        for (gateway, reason) in
            [("fd00::", "the address of the subnet fd00::/64 itself"), ("fd01::1", "not in the subnet fd00::/64")]
        {
            check_of(Some("fd00::/64"), Some(gateway), &[&format!("network[0].gateway6 = {gateway}: {reason}")]);
        }
    }
}
