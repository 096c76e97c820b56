//! What the programs on an uplink take of its traffic once ports are lent, and what not.
//!
//! Needs root.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on is to stop"
)]

mod rig;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, PacketBuilder};
use rig::{
    steered::{Program, Steered, post},
    *,
};
use vxlane_dataplane::nat::Protocol;

const SERVER: [u8; 4] = [198, 51, 100, 7];

fn udp(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(SERVER, to, 64).udp(53, port).write(&mut packet, payload).unwrap();
    packet
}

fn tcp(to: [u8; 4], port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(SERVER, to, 64).tcp(80, port, 1, 1000).write(&mut packet, &[]).unwrap();
    packet
}

fn echo_reply(id: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(SERVER, NEAR_IP, 64).icmpv4_echo_reply(id, 1).write(&mut packet, b"pong").unwrap();
    packet
}

fn echo(id: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    PacketBuilder::ipv4(SERVER, NEAR_IP, 64).icmpv4_echo_request(id, 1).write(&mut packet, b"ping").unwrap();
    packet
}

/// An ICMP error of `kind` about a packet of ours.
fn error(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], quoted].concat();
    let header = Ipv4Header::new(message.len() as u16, 64, IpNumber::ICMP, SERVER, NEAR_IP).unwrap();
    [&header.to_bytes()[..], &message].concat()
}

/// A packet that we sent from `port`.
fn ours(protocol: Protocol, port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(NEAR_IP, SERVER, 64);
    match protocol {
        Protocol::Tcp => builder.tcp(port, 80, 1, 1000).write(&mut packet, &[]).unwrap(),
        Protocol::Udp => builder.udp(port, 53).write(&mut packet, b"question").unwrap(),
        Protocol::Icmp => builder.icmpv4_echo_request(port, 1).write(&mut packet, b"ping").unwrap(),
    }
    packet
}

fn fragments(packet: &[u8], size: usize, identification: u16) -> Vec<Vec<u8>> {
    let last = (packet.len() - 20).div_ceil(size) - 1;
    let fragment = |(number, part): (usize, &[u8])| {
        let mut ip = Ipv4Header::from_slice(packet).unwrap().0;
        ip.identification = identification;
        ip.more_fragments = number < last;
        ip.fragment_offset = IpFragOffset::try_new((number * size / 8) as u16).unwrap();
        ip.set_payload_len(part.len()).unwrap();
        [&ip.to_bytes()[..], part].concat()
    };
    packet[20..].chunks(size).enumerate().map(fragment).collect()
}

#[test]
fn only_what_is_for_a_lent_port_of_our_address_comes_to_the_ring() {
    for mut steered in Steered::each() {
        steered.lend(Protocol::Udp, 20_001);
        steered.lend(Protocol::Tcp, 20_002);
        let taken = steered.taken_v4(&[
            udp(NEAR_IP, 20_001, b"answer"),
            tcp(NEAR_IP, 20_002),
            udp(NEAR_IP, 20_002, b"a TCP port"),
            tcp(NEAR_IP, 20_001),
            udp(NEAR_IP, 20_000, b"its neighbour"),
            tcp(NEAR_IP, 22),
            udp([10, 9, 0, 99], 20_001, b"another address"),
        ]);
        assert_eq!(taken, [true, true, false, false, false, false, false]);
        post(&steered.ours().boards().v4, Protocol::Udp, 20_001, false);
        assert_eq!(steered.taken_v4(&[udp(NEAR_IP, 20_001, b"late")]), [false], "given back");
    }
}

#[test]
fn of_icmp_replies_to_our_queries_and_errors_about_our_packets_come_to_the_ring() {
    for mut steered in Steered::each() {
        steered.lend(Protocol::Icmp, 7);
        steered.lend(Protocol::Udp, 20_001);
        steered.lend(Protocol::Tcp, 20_002);
        let [tcp, udp, icmp] = [(Protocol::Tcp, 20_002), (Protocol::Udp, 20_001), (Protocol::Icmp, 7)]
            .map(|(protocol, port)| ours(protocol, port));
        let with_options = {
            let mut quoted = udp.clone();
            quoted[0] = 0x46;
            quoted.splice(20..20, [1, 1, 1, 1]);
            error(3, &quoted)
        };
        let taken = steered.taken_v4(&[
            echo_reply(7),
            error(3, &tcp),
            error(11, &udp),
            error(12, &icmp),
            with_options,
            error(3, &udp[..28]),
            echo_reply(8),
            echo(7),
            error(3, &ours(Protocol::Udp, 20_000)),
            error(5, &udp),
            error(3, &udp[..21]),
        ]);
        assert_eq!(taken, [true, true, true, true, true, true, false, false, false, false, false]);
    }
}

#[test]
fn fragments_follow_the_first_of_their_datagram() {
    for mut steered in Steered::each() {
        steered.lend(Protocol::Udp, 20_001);
        let lent = fragments(&udp(NEAR_IP, 20_001, &[9; 1000]), 400, 1);
        assert_eq!(steered.taken_v4(&lent), [true; 3]);
        let of_the_host = fragments(&udp(NEAR_IP, 53, &[9; 1000]), 400, 2);
        assert_eq!(steered.taken_v4(&of_the_host), [false; 3]);
        if let Program::Steer { steer, .. } = &steered.program {
            assert_eq!(steer.counters().unwrap().fragment, 3);
        }
        let other = fragments(&udp(NEAR_IP, 20_001, &[9; 1000]), 400, 3);
        assert_eq!(steered.taken_v4(&other[1..]), [false; 2], "whose first fragment nobody saw");
    }
}
