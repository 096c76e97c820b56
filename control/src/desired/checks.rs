//! The rules that a request must keep, one function each.

mod endpoints;
mod nat;
mod publish;
mod stations;
mod subnets;

use std::{
    collections::{HashMap, HashSet},
    fmt::Display,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use vxlane_dataplane::wire::Vni;

use super::{Desired, Device, Host, Network, Owned, Owner, Problem, routes};
use crate::config::Addresses;

/// What a bad VNI is told.
pub(super) const VNI_RANGE: &str = "a VNI has 24 bits: 0 to 16777215";
/// What every IPv4 link must carry (RFC 791 section 3.2).
const SMALLEST_MTU: u32 = 68;
/// What every IPv6 link must carry (RFC 8200 section 5).
const SMALLEST_MTU_V6: u32 = 1280;
/// `IFNAMSIZ` less the zero at the end (`include/uapi/linux/if.h`).
const LONGEST_INTERFACE: usize = 15;
const LONGEST_NAME: usize = 63;
const LARGEST_RING: u32 = 1 << 16;
const SMALLEST_RING: u32 = 64;

/// What has to be held against the host; the rest was, when it was new.
pub(super) enum News<'a> {
    /// All of the file. What is stored has been in use before.
    Start,
    /// What was not in there.
    Since(&'a Desired),
}

impl News<'_> {
    fn has<T: PartialEq>(&self, item: &Owned<T>, list: impl Fn(&Desired) -> &[Owned<T>]) -> bool {
        match self {
            Self::Start => item.owner == Owner::File,
            Self::Since(before) => !list(before).iter().any(|other| other.item == item.item),
        }
    }
}

/// Everything that is wrong with `desired` on `host`.
pub(super) fn problems(desired: &Desired, host: &Host, news: &News<'_>) -> Vec<Problem> {
    let mut found = Vec::new();
    if matches!(news, News::Start) {
        check_underlay(desired, host, &mut found);
        check_dataplane(desired, host, &mut found);
        nat::check(desired, &mut found);
    }
    for network in &desired.networks {
        check_network(network, &mut found);
        nat::check_network(network, desired, host, &mut found);
        let mut peers = desired.peers.iter().filter(|peering| peering.item.network == network.item.name);
        // A peer of the other family leaves less room.
        if news.has(network, |desired| &desired.networks) || peers.any(|peer| news.has(peer, |desired| &desired.peers))
        {
            check_mtu(network, desired, host, &mut found);
        }
        check_peers(network, desired, host, &mut found);
    }
    let names = desired.networks.iter().map(|network| network.item.name.as_str());
    repeated(names, |index, first, name| {
        let (network, other) = (&desired.networks[index], &desired.networks[first]);
        Problem::new(network.field("name"), quoted(name), format!("also the name of {}", other.place))
    })
    .for_each(|problem| found.push(problem));
    let vnis = desired.networks.iter().map(|network| network.item.vni);
    repeated(vnis, |index, first, vni| {
        let (network, other) = (&desired.networks[index], &desired.networks[first].item.name);
        Problem::new(network.field("vni"), vni, format!("also the VNI of network \"{other}\""))
    })
    .for_each(|problem| found.push(problem));
    endpoints::check(desired, host, news, &mut found);
    publish::check(desired, host, &mut found);
    routes::check(desired, &mut found);
    nat::check_routed(desired, &mut found);
    stations::check(desired, news, &mut found);
    found
}

/// What is said when the uplink has no address and none was given.
pub(super) fn no_address(desired: &Desired) -> Problem {
    let reason = "has no global address, and [underlay] gives none";
    Problem::new("underlay.interface", quoted(&desired.underlay.interface), reason)
}

fn check_underlay(desired: &Desired, host: &Host, found: &mut Vec<Problem>) {
    let underlay = &desired.underlay;
    if underlay.port == 0 {
        found.push(Problem::new("underlay.port", 0, "not a UDP port"));
    }
    if let Some(addresses) = &underlay.address {
        found.extend(bad_addresses(addresses).map(|(value, reason)| Problem::new("underlay.address", value, reason)));
    }
    match check_interface("underlay.interface", &underlay.interface, host) {
        Err(problem) => found.push(problem),
        Ok(_) if desired.local(host).addresses().next().is_none() && underlay.address.is_none() => {
            found.push(no_address(desired))
        }
        Ok(_) => {}
    }
}

/// What is wrong with the addresses of our own end.
fn bad_addresses(Addresses(addresses): &Addresses) -> Option<(String, &'static str)> {
    let bad = addresses.iter().find_map(|&address| Some((address.to_string(), not_vtep(address)?)));
    let [v4, v6] = [IpAddr::is_ipv4, IpAddr::is_ipv6].map(|is_it| addresses.iter().filter(|&it| is_it(it)).count());
    bad.or_else(|| match (v4, v6) {
        (0, 0) => Some(("[]".to_owned(), "at least one address is needed")),
        (0..=1, 0..=1) => None,
        _ => Some((Addresses(addresses.clone()).to_string(), "at most one address of each family")),
    })
}

fn check_dataplane(desired: &Desired, host: &Host, found: &mut Vec<Problem>) {
    let dataplane = &desired.dataplane;
    let workers = desired.workers(host);
    if workers == 0 {
        found.push(Problem::new("dataplane.workers", 0, "at least one is needed"));
    }
    if workers > usize::from(u8::MAX) {
        found.push(Problem::new("dataplane.workers", workers, "at most 255 can be had"));
    }
    if dataplane.cpus.len() > workers && workers > 0 {
        let value = format!("{:?}", dataplane.cpus);
        found.push(Problem::new(
            "dataplane.cpus",
            value,
            format!("more CPUs than workers, of which there are {workers}"),
        ));
    }
    let missing = dataplane.cpus.iter().filter(|cpu| !host.cpus.contains(cpu));
    found.extend(missing.map(|cpu| Problem::new("dataplane.cpus", cpu, "no such CPU, or not one we may use")));
    found.extend(repeated(dataplane.cpus.iter(), |_, _, cpu| {
        Problem::new("dataplane.cpus", cpu, "two workers cannot have the same CPU")
    }));
    if dataplane.stations == 0 {
        found.push(Problem::new("dataplane.stations", 0, "at least one is needed"));
    }
    let ring = dataplane.ring;
    if !ring.is_power_of_two() || !(SMALLEST_RING..=LARGEST_RING).contains(&ring) {
        let reason = format!("must be a power of two from {SMALLEST_RING} to {LARGEST_RING}");
        found.push(Problem::new("dataplane.ring", ring, reason));
    }
}

fn check_network(network: &Owned<Network>, found: &mut Vec<Problem>) {
    let Network { name, vni, ageing, .. } = &network.item;
    if let Some(reason) = bad_name(name) {
        found.push(Problem::new(network.field("name"), quoted(name), reason));
    }
    if *vni > Vni::MAX {
        found.push(Problem::new(network.field("vni"), vni, VNI_RANGE));
    }
    if *ageing == 0 {
        found.push(Problem::new(network.field("ageing"), 0, "stations would be forgotten at once"));
    }
    if network.item.flood_limit == Some(0) {
        let reason = "nobody would find anybody: what is not known yet is flooded";
        found.push(Problem::new(network.field("flood_limit"), 0, reason));
    }
    subnets::check(network, found);
}

fn check_peers(network: &Owned<Network>, desired: &Desired, host: &Host, found: &mut Vec<Problem>) {
    let local = desired.local(host);
    let mut before = HashSet::new();
    for peering in desired.peers.iter().filter(|peering| peering.item.network == network.item.name) {
        let peer = peering.item.address;
        let reason = if local.towards(peer) == Some(peer) {
            Some("this is our own VTEP address")
        } else if !before.insert(peer) {
            Some("listed twice")
        } else {
            not_vtep(peer).or(match (local.towards(peer), peer) {
                (Some(_), _) => None,
                (None, IpAddr::V4(_)) => Some("this VTEP has no IPv4 address; see `address` of [underlay]"),
                (None, IpAddr::V6(_)) => Some("this VTEP has no IPv6 address; see `address` of [underlay]"),
            })
        };
        found.extend(reason.map(|reason| Problem::new(&peering.place, peer, reason)));
    }
}

fn check_mtu(network: &Owned<Network>, desired: &Desired, host: &Host, found: &mut Vec<Problem>) {
    let Some(underlay) = host.links.get(&desired.underlay.interface) else { return };
    let most = desired.default_mtu(&network.item.name, host);
    let overhead = desired.overhead(&network.item.name, host);
    let mtu = network.item.mtu.unwrap_or(most);
    let uplink = &desired.underlay.interface;
    if mtu > most {
        let reason = format!(
            "with {overhead} bytes of tunnel headers it does not fit the MTU of {uplink}, {}; at most {most}",
            underlay.mtu
        );
        found.push(Problem::new(network.field("mtu"), mtu, reason));
    } else if mtu < SMALLEST_MTU {
        found.push(Problem::new(network.field("mtu"), mtu, format!("IPv4 needs at least {SMALLEST_MTU}")));
    } else if mtu < SMALLEST_MTU_V6 && network.item.subnet6.is_some() {
        found.push(Problem::new(network.field("mtu"), mtu, format!("IPv6 needs at least {SMALLEST_MTU_V6}")));
    }
}

/// The device called `name`, if we can have it.
fn check_interface<'a>(field: &str, name: &str, host: &'a Host) -> Result<&'a Device, Problem> {
    let problem = |reason: String| Problem::new(field, quoted(name), reason);
    if let Some(reason) = bad_interface_name(name) {
        return Err(problem(reason));
    }
    let device = host.links.get(name).ok_or_else(|| problem("no such interface".to_owned()))?;
    if !device.is_ethernet {
        return Err(problem("not an Ethernet device".to_owned()));
    }
    match &device.program {
        Some(program) => Err(problem(format!("already carries {program}, which is not replaced"))),
        None => Ok(device),
    }
}

/// Why no interface can be called `name` (`dev_valid_name`, `net/core/dev.c`).
pub(super) fn bad_interface_name(name: &str) -> Option<String> {
    let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name == "." || name == ".." || name.contains(odd) {
        Some("not a name an interface can have".to_owned())
    } else if name.len() > LONGEST_INTERFACE {
        Some(format!("an interface name has at most {LONGEST_INTERFACE} characters"))
    } else {
        None
    }
}

fn bad_name(name: &str) -> Option<String> {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() {
        Some("a name is needed".to_owned())
    } else if name.len() > LONGEST_NAME {
        Some(format!("a name has at most {LONGEST_NAME} characters"))
    } else if !name.chars().all(ordinary) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        Some("a name is letters, digits, `_`, `.` and `-`, and begins with a letter or digit".to_owned())
    } else {
        None
    }
}

/// Why `address` cannot be one end of a tunnel.
fn not_vtep(address: IpAddr) -> Option<&'static str> {
    not_unicast(address).or(match address {
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some("a link-local address, which says nothing without its link; a global or unique local one is needed")
        }
        IpAddr::V6(address) if is_v4_in_disguise(address) => Some("an IPv4 address; write it as one"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    })
}

/// IPv4-mapped addresses never are on a wire (RFC 4291 section 2.5.5.2).
fn is_v4_in_disguise(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

/// Why `address` is not that of one host.
fn not_unicast(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        Some("not an address of a host")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        Some("the broadcast address")
    } else if address.is_multicast() {
        Some("a multicast address; list each VTEP instead")
    } else {
        None
    }
}

/// Describes every value that came before, by its index, that of the first and the value.
fn repeated<T: Hash + Eq + Copy>(
    values: impl Iterator<Item = T>,
    describe: impl Fn(usize, usize, T) -> Problem,
) -> impl Iterator<Item = Problem> {
    let mut first = HashMap::new();
    let mut told = HashSet::new();
    values.enumerate().filter_map(move |(index, value)| {
        let earlier = *first.entry(value).or_insert(index);
        (earlier != index && told.insert(index)).then(|| describe(index, earlier, value))
    })
}

fn quoted(text: impl Display) -> String {
    format!("\"{text}\"")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use vxlane_dataplane::tables::LocalVtep;

    use super::*;
    use crate::config::ConfigFile;

    /// A request without a fault: `uA` with MTU 1500 and two devices, on two CPUs.
    const GOOD: &str = r#"
        underlay.interface = "uA"
        dataplane = { workers = 1, cpus = [1] }
        [[network]]
        name = "blue"
        vni = 5000
        peers = ["192.0.2.2", "192.0.2.3"]
        [[network]]
        name = "red"
        vni = 6000
        [[endpoint]]
        network = "blue"
        interface = "p0"
        [[endpoint]]
        network = "red"
        interface = "p1"
    "#;

    fn host() -> Host {
        let device = |mtu| Device { mtu, is_ethernet: true, program: None };
        let mut links: HashMap<_, _> = ["p0", "p1", "uA"].map(|name| (name.to_owned(), device(1500))).into();
        links.insert("taken".to_owned(), Device { program: Some("native XDP program 12".to_owned()), ..device(1500) });
        links.insert("tun0".to_owned(), Device { is_ethernet: false, ..device(1500) });
        links.insert("tiny".to_owned(), device(110));
        Host { cpus: vec![0, 1], address: Some([192, 0, 2, 1].into()), address_v6: "2001:db8::1".parse().ok(), links }
    }

    fn validate(text: &str) -> Result<super::super::Plan, Vec<Problem>> {
        ConfigFile::parse(Path::new("v.toml"), text.to_owned()).unwrap().desired().validate(&host())
    }

    /// Changes `from` of the good request into `to` and expects exactly these problems.
    #[track_caller]
    fn check<T: AsRef<str>>(from: &str, to: &str, expected: &[T]) {
        assert!(GOOD.contains(from));
        let problems = validate(&GOOD.replacen(from, to, 1)).unwrap_err();
        let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
        assert_eq!(problems.iter().map(Problem::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_request_without_a_fault_becomes_a_plan_with_its_defaults() {
        let plan = validate(GOOD).unwrap();
        assert_eq!(plan.local, LocalVtep::new(Some([192, 0, 2, 1].into()), "2001:db8::1".parse().ok(), 4789));
        assert_eq!((plan.workers, plan.networks[0].mtu, plan.networks[0].ageing), (1, 1450, 300));
    }

    #[test]
    fn one_core_is_left_to_the_rest_of_the_host() {
        let mut host = host();
        let text = GOOD.replace("{ workers = 1, cpus = [1] }", "{}");
        let desired = ConfigFile::parse(Path::new("v.toml"), text).unwrap().desired();
        for (cpus, workers) in [(1, 1), (2, 1), (8, 7)] {
            host.cpus = (0..cpus).collect();
            assert_eq!(desired.validate(&host).unwrap().workers, workers);
        }
    }

    #[test]
    fn two_networks_cannot_share_a_vni() {
        check("6000", "5000", &[r#"network[1].vni = 5000: also the VNI of network "blue""#]);
    }

    #[test]
    fn two_networks_cannot_share_a_name() {
        check(
            r#"name = "red""#,
            r#"name = "blue""#,
            &[
                r#"network[1].name = "blue": also the name of network[0]"#,
                r#"endpoint[1].network = "red": no such network"#,
            ],
        );
    }

    #[test]
    fn a_vni_has_24_bits() {
        check("5000", "16777216", &["network[0].vni = 16777216: a VNI has 24 bits: 0 to 16777215"]);
    }

    #[test]
    fn names_are_plain() {
        let odd = "a name is letters, digits, `_`, `.` and `-`, and begins with a letter or digit";
        for bad in ["re d", "-red", "röd", "red/1"] {
            let (name, network) = (format!("name = \"{bad}\""), format!("network[1].name = \"{bad}\": {odd}"));
            check(r#"name = "red""#, &name, &[&network, r#"endpoint[1].network = "red": no such network"#]);
        }
        check(
            r#"name = "red""#,
            r#"name = """#,
            &[r#"network[1].name = "": a name is needed"#, r#"endpoint[1].network = "red": no such network"#],
        );
        let long = "x".repeat(64);
        check(
            r#"name = "red""#,
            &format!("name = \"{long}\""),
            &[
                &format!("network[1].name = \"{long}\": a name has at most 63 characters"),
                r#"endpoint[1].network = "red": no such network"#,
            ],
        );
    }

    #[test]
    fn a_peer_is_another_host_listed_once() {
        for (bad, reason) in [
            ("192.0.2.1", "this is our own VTEP address"),
            ("192.0.2.2", "listed twice"),
            ("239.0.0.1", "a multicast address; list each VTEP instead"),
            ("255.255.255.255", "the broadcast address"),
            ("0.0.0.0", "not an address of a host"),
            ("127.0.0.1", "a loopback address"),
            ("2001:db8::1", "this is our own VTEP address"),
            ("ff02::1", "a multicast address; list each VTEP instead"),
            ("::", "not an address of a host"),
            ("::1", "a loopback address"),
            (
                "fe80::2",
                "a link-local address, which says nothing without its link; a global or unique local one is needed",
            ),
            ("::ffff:192.0.2.9", "an IPv4 address; write it as one"),
        ] {
            check("192.0.2.3", bad, &[&format!("network[0].peers[1] = {bad}: {reason}")]);
        }
    }

    #[test]
    fn an_mtu_leaves_room_for_the_tunnel() {
        check(
            "vni = 5000",
            "vni = 5000\nmtu = 1451",
            &[
                "network[0].mtu = 1451: with 50 bytes of tunnel headers it does not fit the MTU of uA, 1500; at most 1450",
            ],
        );
        check("vni = 5000", "vni = 5000\nmtu = 67", &["network[0].mtu = 67: IPv4 needs at least 68"]);
        check(
            "\"uA\"",
            "\"tiny\"",
            &["network[0].mtu = 60: IPv4 needs at least 68", "network[1].mtu = 60: IPv4 needs at least 68"],
        );
    }

    #[test]
    fn peers_are_of_a_family_that_we_have_an_address_of() {
        let mut host = host();
        host.address_v6 = None;
        let text = GOOD.replace("192.0.2.3", "2001:db8::3");
        let desired = ConfigFile::parse(Path::new("v.toml"), text).unwrap().desired();
        let problems = desired.validate(&host).unwrap_err();
        let reason = "this VTEP has no IPv6 address; see `address` of [underlay]";
        assert_eq!(problems[0].to_string(), format!("network[0].peers[1] = 2001:db8::3: {reason}"));
        assert_eq!(problems.len(), 1);
        check(
            r#""uA""#,
            "\"uA\"\nunderlay.address = \"2001:db8::1\"",
            &["192.0.2.2", "192.0.2.3"].map(|peer| {
                let index = usize::from(peer.ends_with('3'));
                let reason = "this VTEP has no IPv4 address; see `address` of [underlay]";
                format!("network[0].peers[{index}] = {peer}: {reason}")
            }),
        );
    }

    #[test]
    fn a_peer_over_ipv6_leaves_its_network_twenty_bytes_less() {
        let plan = validate(&GOOD.replace("192.0.2.3", "2001:db8::3")).unwrap();
        assert_eq!(plan.networks.iter().map(|network| network.mtu).collect::<Vec<_>>(), [1430, 1450]);
        assert_eq!(plan.networks.iter().map(|network| network.overhead).collect::<Vec<_>>(), [70, 50]);
        let text = GOOD.replace("192.0.2.3", "2001:db8::3").replace("vni = 5000", "vni = 5000\nmtu = 1431");
        let reason = "with 70 bytes of tunnel headers it does not fit the MTU of uA, 1500; at most 1430";
        assert_eq!(validate(&text).unwrap_err()[0].to_string(), format!("network[0].mtu = 1431: {reason}"));
        let v6_alone = "\"uA\"\nunderlay.address = \"2001:db8::1\"";
        let text = GOOD.replacen("\"uA\"", v6_alone, 1).replace("peers = [\"192.0.2.2\", \"192.0.2.3\"]", "");
        assert_eq!(validate(&text).unwrap().networks[1].mtu, 1430, "every peer there may be");
    }

    #[test]
    fn a_peer_that_leaves_less_room_is_held_against_a_network_that_is_there() {
        let before = ConfigFile::parse(Path::new("v.toml"), GOOD.replace("vni = 5000", "vni = 5000\nmtu = 1450"));
        let before = before.unwrap().desired();
        let mut next = before.clone();
        next.add_peer("blue", "2001:db8::9".parse().unwrap()).unwrap();
        let problems = next.validate_after(&before, &host()).unwrap_err();
        let reason = "with 70 bytes of tunnel headers it does not fit the MTU of uA, 1500; at most 1430";
        assert_eq!(problems[0].to_string(), format!("network[0].mtu = 1450: {reason}"));
    }

    #[test]
    fn stations_must_not_be_forgotten_at_once() {
        check("vni = 5000", "vni = 5000\nageing = 0", &["network[0].ageing = 0: stations would be forgotten at once"]);
    }

    #[test]
    fn an_interface_is_there_and_ethernet_and_free_and_used_once() {
        for (bad, reason) in [
            ("p9", "no such interface"),
            ("tun0", "not an Ethernet device"),
            ("taken", "already carries native XDP program 12, which is not replaced"),
            ("p0", "also the interface of endpoint[0]"),
            ("uA", "this is the uplink"),
            ("", "not a name an interface can have"),
            ("a b", "not a name an interface can have"),
            ("sixteen-letters-", "an interface name has at most 15 characters"),
        ] {
            check("\"p1\"", &format!("\"{bad}\""), &[&format!("endpoint[1].interface = \"{bad}\": {reason}")]);
        }
        check("\"uA\"", "\"uB\"", &[r#"underlay.interface = "uB": no such interface"#]);
    }

    #[test]
    fn an_endpoint_is_on_a_network_of_ours() {
        check(r#"network = "red""#, r#"network = "green""#, &[r#"endpoint[1].network = "green": no such network"#]);
    }

    #[test]
    fn the_local_address_is_one_that_a_host_can_have() {
        check(
            "\"uA\"",
            "\"uA\"\nunderlay.address = \"224.0.0.1\"",
            &["underlay.address = 224.0.0.1: a multicast address; list each VTEP instead"],
        );
        check(
            "\"uA\"",
            "\"uA\"\nunderlay.address = [\"192.0.2.1\", \"192.0.2.9\"]",
            &["underlay.address = 192.0.2.1, 192.0.2.9: at most one address of each family"],
        );
        let none = GOOD.replacen("\"uA\"", "\"uA\"\nunderlay.address = []", 1);
        let reason = "underlay.address = []: at least one address is needed";
        assert_eq!(validate(&none).unwrap_err()[0].to_string(), reason);
        let mut host = host();
        (host.address, host.address_v6) = (None, None);
        let desired = ConfigFile::parse(Path::new("v.toml"), GOOD.to_owned()).unwrap().desired();
        let reason = r#"underlay.interface = "uA": has no global address, and [underlay] gives none"#;
        assert_eq!(desired.validate(&host).unwrap_err()[0].to_string(), reason);
    }

    #[test]
    fn port_zero_is_no_port() {
        check("\"uA\"", "\"uA\"\nunderlay.port = 0", &["underlay.port = 0: not a UDP port"]);
    }

    #[test]
    fn workers_have_cpus_that_exist_one_each() {
        let cpus = "workers = 1, cpus = [1]";
        check(cpus, "workers = 0", &["dataplane.workers = 0: at least one is needed"]);
        check(cpus, "workers = 1, cpus = [7]", &["dataplane.cpus = 7: no such CPU, or not one we may use"]);
        check(cpus, "workers = 2, cpus = [1, 1]", &["dataplane.cpus = 1: two workers cannot have the same CPU"]);
        check(
            cpus,
            "workers = 1, cpus = [0, 1]",
            &["dataplane.cpus = [0, 1]: more CPUs than workers, of which there are 1"],
        );
    }

    #[test]
    fn a_ring_is_a_power_of_two() {
        let reason = "must be a power of two from 64 to 65536";
        for ring in [0, 32, 1000, 131_072] {
            check("cpus = [1]", &format!("ring = {ring}"), &[&format!("dataplane.ring = {ring}: {reason}")]);
        }
        check("cpus = [1]", "stations = 0", &["dataplane.stations = 0: at least one is needed"]);
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = GOOD.replace("6000", "5000").replace("\"p1\"", "\"p9\"").replace("workers = 1", "workers = 0");
        assert_eq!(validate(&text).unwrap_err().len(), 3);
    }
}
