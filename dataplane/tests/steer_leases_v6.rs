//! What the steering program takes of an uplink's IPv6 traffic once ports are lent or a prefix is
//! routed, and what it leaves to the host.
//!
//! Needs root.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on is to stop"
)]

mod rig;

use std::{collections::HashSet, net::Ipv6Addr};

use etherparse::{Icmpv6Type, PacketBuilder};
use ipnetwork::Ipv6Network;
use rig::{
    steered::{Program, Steered, post},
    *,
};
use vxlane_dataplane::{nat::Protocol, tables::LocalVtep};

const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 7);
/// An endpoint of a routed network, and somebody beside it.
const ROUTED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x50, 0, 0, 0, 0, 2);
const BESIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x50, 1, 0, 0, 0, 2);
const VXLAN: u16 = 4789;

/// Hosts that lend ports at [`NEAR_IP6`], where their VTEP is, too: with either program.
fn hosts() -> impl Iterator<Item = Steered> {
    Steered::each().map(|mut steered| {
        let vtep = LocalVtep::new(Some(NEAR_IP.into()), Some(NEAR_IP6), VXLAN);
        steered.ours().set_vtep(&vtep, None).unwrap();
        steered.ours().set_outside_v6(Some(NEAR_IP6), &HashSet::new()).unwrap();
        steered
    })
}

fn lend(steered: &mut Steered, protocol: Protocol, port: u16, lent: bool) {
    post(&steered.ours().boards().v6, protocol, port, lent);
}

fn udp(from: Ipv6Addr, source: u16, to: Ipv6Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from.octets(), to.octets(), 64).udp(source, port).write(&mut packet, payload).unwrap();
    packet
}

fn tcp(from: Ipv6Addr, source: u16, to: Ipv6Addr, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv6(from.octets(), to.octets(), 64).tcp(source, port, 1, 1000).write(&mut packet, &[]).unwrap();
    packet
}

/// An ICMPv6 message to `to`: its type, four bytes, and the rest.
fn icmp(to: Ipv6Addr, kind: u8, word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let kind = Icmpv6Type::Unknown { type_u8: kind, code_u8: 0, bytes5to8: word };
    PacketBuilder::ipv6(SERVER.octets(), to.octets(), 255).icmpv6(kind).write(&mut packet, rest).unwrap();
    packet
}

fn echo(kind: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    icmp(NEAR_IP6, kind, [high, low, 0, 1], b"ping")
}

/// `packet` with an extension header of eight bytes behind the fixed one.
fn extended(packet: &[u8], number: u8, rest: [u8; 7]) -> Vec<u8> {
    let mut extended = packet.to_vec();
    let next = std::mem::replace(&mut extended[6], number);
    extended.splice(40..40, [next].into_iter().chain(rest));
    let length = u16::try_from(extended.len() - 40).unwrap();
    extended[4..6].copy_from_slice(&length.to_be_bytes());
    extended
}

/// Two fragments of `packet`.
fn fragments(packet: &[u8], identification: u8) -> [Vec<u8>; 2] {
    let half = (packet.len() - 40) / 16 * 8;
    let [_, _, high, low] = u32::try_from(half).unwrap().to_be_bytes();
    let (first, later) = packet[40..].split_at(half);
    [(first, [0, 1]), (later, [high, low])].map(|(part, [high, low])| {
        extended(&[&packet[..40], part].concat(), FRAGMENT, [0, high, low, 0, 0, 0, identification])
    })
}

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// Options that are padding (RFC 8200 section 4.2).
const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

#[test]
fn only_what_is_for_a_lent_port_of_our_address_comes_to_the_ring() {
    for mut steered in hosts() {
        lend(&mut steered, Protocol::Udp, 20_001, true);
        lend(&mut steered, Protocol::Tcp, 20_002, true);
        steered.lend(Protocol::Udp, 20_003);
        let answer = udp(SERVER, 53, NEAR_IP6, 20_001, b"answer");
        let taken = steered.taken_v6(&[
            answer.clone(),
            tcp(SERVER, 80, NEAR_IP6, 20_002),
            extended(&answer, HOP_BY_HOP, PADDING),
            extended(&answer, DESTINATION_OPTIONS, PADDING),
            udp(SERVER, 53, NEAR_IP6, 20_002, b"a TCP port"),
            tcp(SERVER, 80, NEAR_IP6, 20_001),
            udp(SERVER, 53, NEAR_IP6, 20_000, b"its neighbour"),
            udp(SERVER, 53, NEAR_IP6, 20_003, b"lent at the IPv4 address"),
            tcp(SERVER, 80, NEAR_IP6, 22),
            udp(SERVER, 53, FAR_IP6, 20_001, b"another address"),
        ]);
        assert_eq!(taken, [true, true, true, true, false, false, false, false, false, false]);
        lend(&mut steered, Protocol::Udp, 20_001, false);
        assert_eq!(steered.taken_v6(std::slice::from_ref(&answer)), [false], "given back");
        lend(&mut steered, Protocol::Udp, 20_001, true);
        steered.ours().set_outside_v6(None, &HashSet::new()).unwrap();
        assert_eq!(steered.taken_v6(&[answer]), [false], "lent at no address");
    }
}

#[test]
fn of_icmpv6_replies_to_our_queries_and_errors_about_our_packets_come_to_the_ring() {
    for mut steered in hosts() {
        lend(&mut steered, Protocol::Icmp, 7, true);
        lend(&mut steered, Protocol::Udp, 20_001, true);
        lend(&mut steered, Protocol::Tcp, 20_002, true);
        let error = |kind, quoted: &[u8]| icmp(NEAR_IP6, kind, [0; 4], quoted);
        let (ours, other) =
            (udp(NEAR_IP6, 20_001, SERVER, 53, b"question"), udp(NEAR_IP6, 20_000, SERVER, 53, b"of the host"));
        let [first, _] = fragments(&ours, 1);
        let mut query = echo(128, 7);
        query[8..40].rotate_left(16);
        let taken = steered.taken_v6(&[
            echo(129, 7),
            error(1, &ours),
            error(2, &tcp(NEAR_IP6, 20_002, SERVER, 80)),
            error(3, &query),
            error(4, &first),
            echo(129, 8),
            echo(128, 7),
            error(1, &other),
            error(3, &ours[..41]),
        ]);
        assert_eq!(taken, [true, true, true, true, true, false, false, false, false]);
    }
}

#[test]
fn the_hosts_own_neighbours_and_routers_and_groups_stay_its_own() {
    for mut steered in hosts() {
        for identifier in [0, 0x2001, 0xfe80] {
            lend(&mut steered, Protocol::Icmp, identifier, true);
        }
        let prefix = Ipv6Network::new(NEAR_IP6, 64).unwrap();
        steered.ours().set_outside_v6(Some(NEAR_IP6), &HashSet::from([prefix])).unwrap();
        let neighbours: Vec<Vec<u8>> =
            (133..=137).map(|kind| icmp(NEAR_IP6, kind, [0; 4], &NEAR_IP6.octets())).collect();
        assert_eq!(steered.taken_v6(&neighbours), [false; 5], "even if all of its subnet were routed");
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let asked = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);
        let groups = [(all_nodes, 134), (asked, 135), (all_nodes, 130)];
        let groups = groups.map(|(group, kind)| icmp(group, kind, [0; 4], &NEAR_IP6.octets()));
        assert_eq!(steered.taken_v6(&groups), [false; 3]);
    }
}

#[test]
fn fragments_follow_the_first_of_their_datagram() {
    for mut steered in hosts() {
        lend(&mut steered, Protocol::Udp, 20_001, true);
        let answer = udp(SERVER, 53, NEAR_IP6, 20_001, &[9; 1000]);
        assert_eq!(steered.taken_v6(&fragments(&answer, 1)), [true; 2]);
        assert_eq!(steered.taken_v6(&fragments(&udp(SERVER, 53, NEAR_IP6, 53, &[9; 1000]), 2)), [false; 2]);
        assert_eq!(steered.taken_v6(&fragments(&answer, 3)[1..]), [false], "whose first fragment nobody saw");
        let elsewhere = udp(FAR_IP6, 53, NEAR_IP6, 20_001, &[9; 1000]);
        assert_eq!(steered.taken_v6(&fragments(&elsewhere, 1)[1..]), [false], "of another sender");
    }
}

#[test]
fn a_routed_prefix_is_ours_for_as_long_as_it_is_routed() {
    for mut steered in hosts() {
        let to_it = [
            tcp(SERVER, 1000, ROUTED, 80),
            udp(SERVER, 1000, ROUTED, 53, b"x"),
            icmp(ROUTED, 128, [0, 7, 0, 1], b"ping"),
            icmp(ROUTED, 1, [0; 4], &udp(ROUTED, 1, SERVER, 2, b"x")),
            fragments(&udp(SERVER, 1000, ROUTED, 53, &[9; 1000]), 1)[1].clone(),
        ];
        assert_eq!(steered.taken_v6(&to_it), [false; 5]);
        let prefix = Ipv6Network::new(ROUTED, 64).unwrap();
        steered.ours().set_outside_v6(None, &HashSet::from([prefix])).unwrap();
        assert_eq!(steered.taken_v6(&to_it), [true; 5]);
        assert_eq!(steered.taken_v6(&[tcp(SERVER, 1000, BESIDE, 80), tcp(SERVER, 1000, NEAR_IP6, 80)]), [false; 2]);
        steered.ours().set_outside_v6(None, &HashSet::new()).unwrap();
        assert_eq!(steered.taken_v6(&to_it), [false; 5]);
    }
}

#[test]
fn tunnels_are_ours_as_before_and_their_fragments_the_hosts() {
    for mut steered in hosts() {
        let tunnel = udp(FAR_IP6, 50_000, NEAR_IP6, VXLAN, &[8; 100]);
        assert_eq!(steered.taken_v6(std::slice::from_ref(&tunnel)), [true]);
        assert_eq!(steered.taken_v6(&fragments(&tunnel, 1)), [false; 2]);
        if let Program::Steer { steer, .. } = &steered.program {
            assert_eq!(steer.counters().unwrap().fragment, 2);
        }
    }
}
