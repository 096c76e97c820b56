//! RFC 8200, what IPv6 has and IPv4 has not: extension headers; and RFC 4443, its ICMP.

use super::*;

/// `packet` with extension headers in front of its upper protocol, the first of which is `first`.
/// Each is eight bytes long and says what follows it.
fn extended(packet: &[u8], extensions: &[u8]) -> Vec<u8> {
    let upper = packet[6];
    let mut long = packet[..UP].to_vec();
    long[6] = extensions[0];
    for (place, _) in extensions.iter().enumerate() {
        long.extend([extensions.get(place + 1).copied().unwrap_or(upper), 0, 1, 4, 0, 0, 0, 0]);
    }
    long.extend(&packet[UP..]);
    fix_ip(&mut long);
    long
}

#[test]
fn section4_options_are_stepped_over_both_ways() {
    for extensions in [&[0][..], &[60], &[0, 60]] {
        let mut rig = Rig::new();
        let plain = udp(INSIDE, SERVER, 1000, 53, b"x");
        let wire = rig.out(&extended(&plain, extensions)).unwrap();
        let port = u16::from_be_bytes([wire[UP + 8 * extensions.len()], wire[UP + 8 * extensions.len() + 1]]);
        assert_eq!(addresses(&wire), (OUTSIDE, SERVER));
        assert_checksums_hold(&wire);
        let arrived = rig.delivered(&extended(&udp(SERVER, OUTSIDE, 53, port, b"x"), extensions));
        assert_eq!(arrived, extended(&udp(SERVER, INSIDE, 53, 1000, b"x"), extensions));
        assert_eq!(rig.out(&plain).map(|wire| ports(&wire).0), Ok(port), "the same session");
    }
}

#[test]
fn section4_what_routes_a_packet_or_vouches_for_its_addresses_is_not_translated() {
    let mut rig = Rig::new();
    for extensions in [&[43][..], &[51], &[50], &[60, 0], &[60; 6]] {
        let packet = extended(&udp(INSIDE, SERVER, 1000, 53, b"x"), extensions);
        assert!(matches!(rig.out(&packet), Err(DropReason::NatUnsupported | DropReason::NatInvalid)), "{extensions:?}");
    }
    assert_eq!(rig.sessions(), 0);
}

#[test]
fn rfc6946_an_atomic_fragment_is_a_whole_packet() {
    let mut rig = Rig::new();
    let mut atomic = fragments(&udp(INSIDE, SERVER, 1000, 53, b"x"), 1040).remove(0);
    assert_eq!(atomic[UP..UP + 4], [17, 0, 0, 0]);
    let wire = rig.out(&atomic).unwrap();
    assert_checksums_hold(&reassembled(&[wire]));
    // Nothing is known of a datagram that this would be a part of.
    atomic[UP + 3] = 8;
    assert_eq!(rig.back(&mirrored_addresses(&atomic)).unwrap().0, Restored::Waits);
}

/// `packet` from whom it was to, to [`OUTSIDE`].
fn mirrored_addresses(packet: &[u8]) -> Vec<u8> {
    let mut back = packet.to_vec();
    SERVER.replace(&mut back[8..]);
    OUTSIDE.replace(&mut back[24..]);
    back
}

#[test]
fn rfc7112_a_first_fragment_without_its_ports_is_refused() {
    let mut rig = Rig::new();
    let parts = fragments(&tcp(INSIDE, SERVER, 1000, 80, tcp::SYN), 8);
    assert_eq!(rig.out(&parts[0]), Err(DropReason::NatInvalid));
    assert_eq!(rig.sessions(), 0);
}

#[test]
fn rfc4443_3_2_packet_too_big_is_shown_to_the_sender_with_its_mtu_even_about_a_first_fragment() {
    let mut rig = Rig::new();
    let whole = udp(INSIDE, SERVER, 1000, 53, &[7; 3000]);
    let first = fragments(&whole, 1400).remove(0);
    let wire = rig.out(&first).unwrap();
    let mut complaint = error(ROUTER, OUTSIDE, TOO_LONG, &wire[..1232]);
    complaint[UP + 4..UP + 8].copy_from_slice(&1300u32.to_be_bytes());
    fix_icmp(&mut complaint);
    let bytes = rig.delivered(&complaint);
    assert_eq!(bytes[UP + 4..UP + 8], 1300u32.to_be_bytes());
    assert_eq!(addresses(&bytes), (ROUTER, INSIDE));
    let quoted = &bytes[UP + 8..];
    assert_eq!(addresses(quoted), (INSIDE, SERVER));
    assert_eq!(u16::from_be_bytes([quoted[UP + 8], quoted[UP + 9]]), 1000, "behind the fragment header");
    assert_checksums_hold(&bytes);
}

#[test]
fn rfc4443_2_4_neighbour_discovery_and_group_membership_never_pass() {
    let mut rig = Rig::new();
    let id = identifier(&rig.out(&echo(INSIDE, SERVER, 1)).unwrap());
    for kind in [130, 131, 132, 133, 134, 135, 136, 137, 143, 255, 5, 127] {
        let with = |from, to| {
            let mut packet = echo(from, to, id);
            packet[UP] = kind;
            fix_icmp(&mut packet);
            packet
        };
        assert_eq!(rig.out(&with(INSIDE, SERVER)), Err(DropReason::NatUnsupported), "type {kind}");
        assert_eq!(rig.back(&with(SERVER, OUTSIDE)), Err(DropReason::NatUnsupported), "type {kind}");
    }
}

#[test]
fn rfc4443_2_3_the_addresses_count_in_the_checksum_of_an_error() {
    let mut rig = Rig::new();
    let wire = rig.out(&udp(INSIDE, SERVER, 1000, 53, b"x")).unwrap();
    let mut complaint = error(ROUTER, OUTSIDE, CLOSED, &wire);
    SERVER.replace(&mut complaint[8..]);
    assert_eq!(rig.back(&complaint), Err(DropReason::NatIcmpError));
}
