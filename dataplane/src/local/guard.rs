//! What an endpoint may send: as itself, and neither as a router nor as a DHCP server.
//!
//! Addresses are guarded by family: an endpoint whose IPv4 addresses are known may use any IPv6
//! address until one of those is known, too. Fields are read where a receiver would read them,
//! whether or not the packet holds together otherwise: what is broken enough to pass here
//! unseen is broken enough that no receiver takes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    tables::{Guard, Network},
    verdict::DropReason,
    wire::{
        Arp, EtherType, Ethernet, Layers, MacAddr, nd,
        nd::{Kind, Message},
        protocol,
    },
};

/// Whether an endpoint with this guard may send `frame`.
///
/// # Errors
/// What it must not do.
#[inline]
pub fn check(
    guard: &Guard,
    network: &Network,
    ethernet: &Ethernet,
    layers: &Layers,
    frame: &[u8],
) -> Result<(), DropReason> {
    if ethernet.source != guard.mac {
        return Err(DropReason::SpoofedMac);
    }
    match ethernet.ether_type {
        EtherType::IPV4 => check_v4(guard, layers, frame),
        EtherType::ARP => check_arp(guard, &frame[Ethernet::LEN..]),
        EtherType::IPV6 => check_v6(guard, network, layers, frame),
        _ => Ok(()),
    }
}

/// Whether this host itself may send `frame` through its port on `network`: it speaks as the
/// gateway and as nobody else, so that it forwards nothing into the network, whatever its routes
/// say, and none of its other addresses are seen there.
///
/// # Errors
/// What it must not do.
pub fn check_host(network: &Network, ethernet: &Ethernet, layers: &Layers, frame: &[u8]) -> Result<(), DropReason> {
    let gateway = network.gateway.filter(|gateway| gateway.mac == ethernet.source).ok_or(DropReason::SpoofedMac)?;
    let may_use = |address: IpAddr| if gateway.has(address) { Ok(()) } else { Err(DropReason::SpoofedAddress) };
    match ethernet.ether_type {
        EtherType::IPV4 => {
            let source: &[u8; 4] =
                frame.get(26..30).and_then(|bytes| bytes.first_chunk()).ok_or(DropReason::InnerTruncated)?;
            may_use(Ipv4Addr::from(*source).into())
        }
        EtherType::ARP => {
            let arp = Arp::new_checked(&frame[Ethernet::LEN..]).ok_or(DropReason::ArpInvalid)?;
            if arp.sender_mac != gateway.mac {
                return Err(DropReason::SpoofedMac);
            }
            may_use(arp.sender().into())
        }
        EtherType::IPV6 => {
            let source: &[u8; 16] =
                frame.get(22..38).and_then(|bytes| bytes.first_chunk()).ok_or(DropReason::InnerTruncated)?;
            // Without an address of its own it may still say what groups it is in (RFC 3590 section 4).
            let source = Ipv6Addr::from(*source);
            if !source.is_unspecified() {
                may_use(source.into())?;
            }
            match nd::parse(frame, layers) {
                Some(message) => message.map(drop).map_err(|_| DropReason::NdInvalid),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// A guard, with what nearly every packet of its endpoint needs at hand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtHand<'a> {
    guard: &'a Guard,
    mac: MacAddr,
    /// The first IPv4 address, mostly the only one; without any, that which is free to all.
    address: Ipv4Addr,
}

impl<'a> AtHand<'a> {
    pub(crate) fn of(guard: &'a Guard) -> Self {
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        };
        let address = guard.addresses.iter().find_map(v4).unwrap_or(Ipv4Addr::UNSPECIFIED);
        Self { guard, mac: guard.mac, address }
    }

    /// Whether [`check`] allows `frame`, whose `layers` are those of a whole IPv4 packet from the
    /// station `source`.
    #[inline(always)]
    pub(crate) fn allows(&self, source: MacAddr, layers: &Layers, frame: &[u8]) -> bool {
        let own = |bytes: &[u8; 4]| {
            let address = Ipv4Addr::from(*bytes);
            address == self.address || may_use_other_v4(self.guard, address)
        };
        source == self.mac
            && frame.get(26..30).and_then(|bytes| bytes.first_chunk()).is_some_and(own)
            && refuse_server(layers, frame, [67, 68]).is_ok()
    }
}

#[inline(never)]
fn may_use_other_v4(guard: &Guard, address: Ipv4Addr) -> bool {
    may_use_v4(guard, address)
}

#[inline]
fn check_v4(guard: &Guard, layers: &Layers, frame: &[u8]) -> Result<(), DropReason> {
    let source: &[u8; 4] = frame.get(26..30).and_then(|bytes| bytes.first_chunk()).ok_or(DropReason::InnerTruncated)?;
    if !may_use_v4(guard, Ipv4Addr::from(*source)) {
        return Err(DropReason::SpoofedAddress);
    }
    refuse_server(layers, frame, [67, 68])
}

#[inline(never)]
fn check_v6(guard: &Guard, network: &Network, layers: &Layers, frame: &[u8]) -> Result<(), DropReason> {
    let source: &[u8; 16] =
        frame.get(22..38).and_then(|bytes| bytes.first_chunk()).ok_or(DropReason::InnerTruncated)?;
    if !may_use_v6(guard, network, Ipv6Addr::from(*source)) {
        return Err(DropReason::SpoofedAddress);
    }
    refuse_server(layers, frame, [547, 546])?;
    match nd::parse(frame, layers) {
        None => Ok(()),
        Some(message) => check_nd(guard, network, &message.map_err(|_| DropReason::NdInvalid)?),
    }
}

/// Servers send from the first of `ports` to the second (RFC 2131 section 4.1, RFC 9915 section 7.2).
#[inline]
fn refuse_server(layers: &Layers, frame: &[u8], [server, client]: [u16; 2]) -> Result<(), DropReason> {
    let is_udp = layers.transport.is_some_and(|transport| transport.protocol == protocol::UDP);
    if !is_udp {
        return Ok(());
    }
    let ports = layers.port_bytes(frame).map(|ports| u32::from_be_bytes(ports.to_ne_bytes()));
    let refused = u32::from(server) << 16 | u32::from(client);
    if ports == Some(refused) { Err(DropReason::DhcpServer) } else { Ok(()) }
}

fn check_arp(guard: &Guard, packet: &[u8]) -> Result<(), DropReason> {
    let arp = Arp::new_checked(packet).ok_or(DropReason::ArpInvalid)?;
    if arp.sender_mac != guard.mac {
        Err(DropReason::SpoofedMac)
    } else if !may_use_v4(guard, arp.sender()) {
        Err(DropReason::SpoofedAddress)
    } else {
        Ok(())
    }
}

fn check_nd(guard: &Guard, network: &Network, message: &Message) -> Result<(), DropReason> {
    if message.link_layer.is_some_and(|mac| mac != guard.mac) {
        return Err(DropReason::SpoofedMac);
    }
    match message.kind {
        Kind::RouterAdvertisement | Kind::Redirect if !network.routers => Err(DropReason::RouterAdvertisement),
        Kind::Advertisement if !may_use_v6(guard, network, message.target) => Err(DropReason::SpoofedAddress),
        Kind::RouterSolicitation
        | Kind::RouterAdvertisement
        | Kind::Solicitation
        | Kind::Advertisement
        | Kind::Redirect => Ok(()),
    }
}

#[inline]
fn may_use_v4(guard: &Guard, address: Ipv4Addr) -> bool {
    let mut known = false;
    for own in &guard.addresses {
        if let IpAddr::V4(own) = own {
            if *own == address {
                return true;
            }
            known = true;
        }
    }
    !known || address.is_unspecified()
}

fn may_use_v6(guard: &Guard, network: &Network, address: Ipv6Addr) -> bool {
    if network.gateway.is_some_and(|gateway| gateway.has(address.into())) {
        return false;
    }
    let mut known = guard.addresses.iter().filter(|own| own.is_ipv6()).peekable();
    known.peek().is_none()
        || address.is_unspecified()
        || address.is_unicast_link_local()
        || known.any(|own| *own == address)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::{tables::Gateway, wire::Vni};

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xa]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0xb]);

    fn guard(addresses: &[&str]) -> Guard {
        Guard { mac: OWN, addresses: addresses.iter().map(|address| address.parse().unwrap()).collect() }
    }

    fn network() -> Network {
        let vni = Vni::new(7).unwrap();
        let gateway = Gateway::new(vni, "10.0.0.1/24".parse().ok(), "fd00::1/64".parse().ok());
        Network { gateway: Some(gateway), ..Network::new(vni) }
    }

    fn verdict(guard: &Guard, network: &Network, frame: &[u8]) -> Result<(), DropReason> {
        let (ethernet, _) = Ethernet::split(frame).unwrap();
        let verdict = check(guard, network, ethernet, &Layers::walk(frame), frame);
        if let Some(layers) = Layers::walk_plain(frame) {
            let allowed = AtHand::of(guard).allows(ethernet.source, &layers, frame);
            assert_eq!(allowed, verdict.is_ok(), "the short check and the long one: {frame:?}");
        }
        verdict
    }

    fn udp(source: &str, ports: (u16, u16)) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(OWN.0, OTHER.0);
        let builder = match source.parse().unwrap() {
            IpAddr::V4(source) => builder.ipv4(source.octets(), [10, 0, 0, 9], 64),
            IpAddr::V6(source) => builder.ipv6(source.octets(), [0xfd; 16], 64),
        };
        builder.udp(ports.0, ports.1).write(&mut frame, b"payload").unwrap();
        frame
    }

    fn arp(source: MacAddr, sender_mac: MacAddr, sender: &str) -> Vec<u8> {
        let mut frame = vec![0; 60];
        let arp = Arp::request(sender_mac, sender.parse().unwrap(), [10, 0, 0, 9].into());
        arp.write(MacAddr::BROADCAST, &mut frame).unwrap();
        frame[6..12].copy_from_slice(&source.0);
        frame
    }

    #[test]
    fn an_endpoint_sends_from_its_own_addresses_only() {
        let guard = guard(&["10.0.0.5", "fd00::5"]);
        let check = |source: &str, expected| {
            assert_eq!(verdict(&guard, &network(), &udp(source, (1, 2))), expected, "{source}");
        };
        for own in ["10.0.0.5", "fd00::5", "0.0.0.0", "::", "fe80::5"] {
            check(own, Ok(()));
        }
        for foreign in ["10.0.0.6", "10.0.0.1", "127.0.0.1", "fd00::6", "fd00::1", "fe80::76:78ff:fe00:7"] {
            check(foreign, Err(DropReason::SpoofedAddress));
        }
        let mut foreign = udp("10.0.0.5", (1, 2));
        foreign[11] ^= 1;
        assert_eq!(verdict(&guard, &network(), &foreign), Err(DropReason::SpoofedMac));
    }

    #[test]
    fn a_packet_that_is_cut_short_or_lies_about_its_length_is_no_way_round() {
        let guard = guard(&["10.0.0.5", "fd00::5"]);
        let mut lies = udp("10.0.0.6", (1, 2));
        lies[16] = 0xff;
        assert_eq!(verdict(&guard, &network(), &lies), Err(DropReason::SpoofedAddress));
        assert_eq!(verdict(&guard, &network(), &lies[..29]), Err(DropReason::InnerTruncated));
        assert_eq!(verdict(&guard, &network(), &udp("fd00::6", (1, 2))[..37]), Err(DropReason::InnerTruncated));
    }

    #[test]
    fn addresses_that_are_not_known_are_free_by_family() {
        let two = guard(&["fd00::5", "10.0.0.5", "10.0.0.6"]);
        for own in ["10.0.0.5", "10.0.0.6", "0.0.0.0"] {
            assert_eq!(verdict(&two, &network(), &udp(own, (1, 2))), Ok(()));
        }
        let any = guard(&[]);
        assert_eq!(verdict(&any, &network(), &udp("192.0.2.7", (1, 2))), Ok(()));
        let v4 = guard(&["10.0.0.5"]);
        assert_eq!(verdict(&v4, &network(), &udp("2001:db8::7", (1, 2))), Ok(()));
        assert_eq!(verdict(&v4, &network(), &udp("fd00::1", (1, 2))), Err(DropReason::SpoofedAddress), "the gateway's");
    }

    #[test]
    fn b11_arp_speaks_for_the_endpoint_itself_or_not_at_all() {
        let guard = guard(&["10.0.0.5"]);
        let check = |frame: &[u8], expected| assert_eq!(verdict(&guard, &network(), frame), expected);
        check(&arp(OWN, OWN, "10.0.0.5"), Ok(()));
        check(&arp(OWN, OWN, "0.0.0.0"), Ok(()));
        check(&arp(OWN, OTHER, "10.0.0.5"), Err(DropReason::SpoofedMac));
        check(&arp(OTHER, OWN, "10.0.0.5"), Err(DropReason::SpoofedMac));
        check(&arp(OWN, OWN, "10.0.0.1"), Err(DropReason::SpoofedAddress));
        check(&arp(OWN, OWN, "10.0.0.6"), Err(DropReason::SpoofedAddress));
        for (at, value) in [(15, 6), (18, 0), (18, 255), (19, 0)] {
            let mut odd = arp(OWN, OWN, "10.0.0.5");
            odd[at] = value;
            check(&odd, Err(DropReason::ArpInvalid));
        }
        check(&arp(OWN, OWN, "10.0.0.5")[..41], Err(DropReason::ArpInvalid));
        for operation in [0, 3, 255] {
            let mut odd = arp(OWN, OWN, "10.0.0.6");
            odd[21] = operation;
            check(&odd, Err(DropReason::SpoofedAddress));
        }
    }

    #[test]
    fn b12_nd_speaks_for_the_endpoint_itself_and_never_for_a_router() {
        let guard = guard(&["fd00::5"]);
        let (own, other): (Ipv6Addr, Ipv6Addr) = ("fd00::5".parse().unwrap(), "fd00::6".parse().unwrap());
        let solicitation = |mac: MacAddr| {
            let mut frame = vec![0; nd::MAX_FRAME];
            nd::write_solicitation(own, mac, other, OTHER, &mut frame).unwrap();
            frame[6..12].copy_from_slice(&OWN.0);
            frame
        };
        let advertisement = |target| {
            let mut frame = vec![0; nd::MAX_FRAME];
            let asked = Message {
                kind: Kind::Solicitation,
                source: other,
                destination: own,
                target,
                flags: 0,
                link_layer: None,
                has_others: false,
            };
            nd::write_advertisement(&asked, OTHER, OWN, 0, &mut frame).unwrap();
            frame
        };
        assert_eq!(verdict(&guard, &network(), &solicitation(OWN)), Ok(()));
        assert_eq!(verdict(&guard, &network(), &solicitation(OTHER)), Err(DropReason::SpoofedMac));
        assert_eq!(verdict(&guard, &network(), &advertisement(own)), Ok(()));
        assert_eq!(verdict(&guard, &network(), &advertisement(other)), Err(DropReason::SpoofedAddress));
        let mut expired = solicitation(OWN);
        expired[21] = 254;
        assert_eq!(verdict(&guard, &network(), &expired), Err(DropReason::NdInvalid));

        let mut router = Vec::new();
        let advertisement = PacketBuilder::ethernet2(OWN.0, [0x33, 0x33, 0, 0, 0, 1]);
        let from = "fe80::5".parse::<Ipv6Addr>().unwrap().octets();
        let advertisement = advertisement.ipv6(from, "ff02::1".parse::<Ipv6Addr>().unwrap().octets(), 255);
        advertisement.icmpv6_raw(134, 0, [64, 0, 7, 8]).write(&mut router, &[0; 8]).unwrap();
        assert_eq!(verdict(&guard, &network(), &router), Err(DropReason::RouterAdvertisement));
        let trusting = Network { routers: true, ..network() };
        assert_eq!(verdict(&guard, &trusting, &router), Ok(()));
    }

    #[test]
    fn the_host_speaks_as_the_gateway_and_forwards_for_nobody() {
        let network = network();
        let ours = network.gateway.unwrap().mac;
        let check = |mut frame: Vec<u8>, expected: Result<(), DropReason>| {
            frame[6..12].copy_from_slice(&ours.0);
            let (ethernet, _) = Ethernet::split(&frame).unwrap();
            assert_eq!(check_host(&network, ethernet, &Layers::walk(&frame), &frame), expected);
        };
        for own in ["10.0.0.1", "fd00::1", "fe80::76:78ff:fe00:7", "::"] {
            check(udp(own, (67, 68)), Ok(()));
        }
        for foreign in ["10.0.0.6", "192.0.2.1", "127.0.0.1", "0.0.0.0", "fd00::6", "fe80::5"] {
            check(udp(foreign, (1, 2)), Err(DropReason::SpoofedAddress));
        }
        check(arp(ours, ours, "10.0.0.1"), Ok(()));
        check(arp(ours, ours, "192.0.2.1"), Err(DropReason::SpoofedAddress));
        check(arp(ours, OTHER, "10.0.0.1"), Err(DropReason::SpoofedMac));
        let frame = udp("10.0.0.1", (1, 2));
        let (ethernet, _) = Ethernet::split(&frame).unwrap();
        let verdict = check_host(&network, ethernet, &Layers::walk(&frame), &frame);
        assert_eq!(verdict, Err(DropReason::SpoofedMac), "from another Ethernet address");
    }

    #[test]
    fn nobody_is_a_dhcp_server_and_everybody_may_ask_one() {
        let guard = guard(&[]);
        for (server, client, source) in [(67, 68, "10.0.0.5"), (547, 546, "fe80::5")] {
            assert_eq!(verdict(&guard, &network(), &udp(source, (server, client))), Err(DropReason::DhcpServer));
            assert_eq!(verdict(&guard, &network(), &udp(source, (client, server))), Ok(()));
        }
    }
}
