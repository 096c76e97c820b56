//! RFC 5508, NAT behaviour for ICMP, requirement by requirement.

use super::*;

#[test]
fn req1_queries_leave_and_replies_come_back_though_a_hundred_hosts_use_one_identifier() {
    let mut rig = Rig::new();
    let wires: Vec<_> = (1..=100).map(|host| rig.out(&echo(inside(host), SERVER, 1)).unwrap()).collect();
    let identifiers: std::collections::HashSet<u16> = wires.iter().map(|wire| identifier(wire)).collect();
    assert_eq!(identifiers.len(), 100);
    for (host, wire) in (1..=100).zip(&wires) {
        assert_checksums_hold(wire);
        let bytes = rig.delivered(&echo_reply(SERVER, OUTSIDE, identifier(wire)));
        assert_eq!((addresses(&bytes), identifier(&bytes)), ((SERVER, inside(host)), 1));
        assert_checksums_hold(&bytes);
    }
}

#[test]
fn req1_a_reply_from_somebody_else_and_a_query_from_outside_find_no_session() {
    let mut rig = Rig::new();
    let id = identifier(&rig.out(&echo(INSIDE, SERVER, 1)).unwrap());
    assert_eq!(rig.back(&echo_reply(ROUTER, OUTSIDE, id)), Err(DropReason::NatNoSession));
    assert_eq!(rig.back(&echo(SERVER, OUTSIDE, id)), Err(DropReason::NatNoSession));
}

#[test]
fn req2_a_query_session_lives_a_minute() {
    let mut rig = Rig::new();
    let id = identifier(&rig.out(&echo(INSIDE, SERVER, 1)).unwrap());
    rig.pass(59);
    rig.delivered(&echo_reply(SERVER, OUTSIDE, id));
    rig.pass(2);
    assert_eq!(rig.sessions(), 0);
}

#[test]
fn req4_an_error_from_outside_shows_the_endpoint_its_own_packet() {
    for original in
        [udp(INSIDE, SERVER, 1000, 53, b"question"), tcp(INSIDE, SERVER, 1000, 80, tcp::SYN), echo(INSIDE, SERVER, 77)]
    {
        let mut rig = Rig::new();
        let wire = rig.out(&original).unwrap();
        for ((kind, code), quoted) in [(TOO_LONG, wire.len()), (EXPIRED, UP + 8), (UNREACHABLE, wire.len())] {
            let bytes = rig.delivered(&error(ROUTER, OUTSIDE, (kind, code), &wire[..quoted]));
            assert_eq!((bytes[UP], bytes[UP + 1]), (kind, code), "type and code are kept");
            assert_eq!(addresses(&bytes), (ROUTER, INSIDE));
            assert_eq!(bytes[UP + 8..], original[..quoted], "the quote is what the endpoint sent, checksums and all");
            assert_checksums_hold(&bytes);
        }
    }
}

#[test]
fn req4_an_error_about_no_session_of_ours_is_dropped() {
    let mut rig = Rig::new();
    let wire = rig.out(&udp(INSIDE, SERVER, 1000, 53, b"x")).unwrap();
    let other = |quoted: &[u8]| error(ROUTER, OUTSIDE, CLOSED, quoted);
    for quoted in [
        udp(OUTSIDE, SERVER, ports(&wire).0 ^ 1, 53, b"x"),
        udp(OUTSIDE, ROUTER, ports(&wire).0, 53, b"x"),
        udp(OUTSIDE, SERVER, ports(&wire).0, 54, b"x"),
        udp(INSIDE, SERVER, ports(&wire).0, 53, b"x"),
    ] {
        assert_eq!(rig.back(&other(&quoted)), Err(DropReason::NatIcmpError));
    }
    rig.delivered(&other(&wire));
}

#[test]
fn req5_an_error_from_inside_shows_the_remote_its_own_packet() {
    let mut rig = Rig::new();
    let port = ports(&rig.out(&udp(INSIDE, SERVER, 1000, 53, b"x")).unwrap()).0;
    let original = udp(SERVER, OUTSIDE, 53, port, b"answer");
    let arrived = rig.delivered(&original);
    let wire = rig.out(&error(INSIDE, SERVER, CLOSED, &arrived)).unwrap();
    assert_eq!(addresses(&wire), (OUTSIDE, SERVER));
    assert_eq!(wire[UP + 8..], original[..]);
    assert_checksums_hold(&wire);
    let unknown = error(INSIDE, SERVER, CLOSED, &udp(SERVER, INSIDE, 53, 4444, b"x"));
    assert_eq!(rig.out(&unknown), Err(DropReason::NatIcmpError));
}

#[test]
fn req6_an_error_about_a_query_neither_refreshes_nor_ends_its_session() {
    let mut rig = Rig::new();
    let wire = rig.out(&echo(INSIDE, SERVER, 1)).unwrap();
    rig.pass(50);
    rig.delivered(&error(ROUTER, OUTSIDE, EXPIRED, &wire));
    assert_eq!(rig.sessions(), 1);
    rig.pass(11);
    assert_eq!(rig.sessions(), 0);
}

#[test]
fn req7_hairpinned_errors_reach_the_caller() {
    let mut rig = Rig::new();
    let callee = ports(&rig.out(&udp(inside(3), SERVER, 3000, 53, b"x")).unwrap()).0;
    let original = udp(inside(2), OUTSIDE, 2000, callee, b"hello");
    let wire = rig.out(&original).unwrap();
    let arrived = rig.delivered(&wire);
    // The callee has closed its port and says so to the outside endpoint that it saw.
    let complaint = rig.out(&error(inside(3), OUTSIDE, CLOSED, &arrived)).unwrap();
    let bytes = rig.delivered(&complaint);
    assert_eq!(addresses(&bytes), (OUTSIDE, inside(2)));
    assert_eq!(bytes[UP + 8..], original[..], "about what the caller sent, as the caller sent it");
    assert_checksums_hold(&bytes);
}

#[test]
fn req10_time_exceeded_lets_traceroute_see_the_hops() {
    let mut rig = Rig::new();
    let wire = rig.out(&udp(INSIDE, SERVER, 33_434, 33_434, b"probe")).unwrap();
    let bytes = rig.delivered(&error(ROUTER, OUTSIDE, EXPIRED, &wire));
    assert_eq!(addresses(&bytes).0, ROUTER, "the hop is seen as itself");
}
