//! RFC 4787, NAT behaviour for UDP, requirement by requirement.

use super::*;

/// The outside port of a datagram from `INSIDE:source` to `to:port`.
fn outside_port(rig: &mut Rig, source: u16, to: A, port: u16) -> u16 {
    let wire = rig.out(&udp(INSIDE, to, source, port, b"x")).unwrap();
    assert_eq!(addresses(&wire), (OUTSIDE, to));
    ports(&wire).0
}

#[test]
fn req1_one_inside_endpoint_has_one_outside_endpoint_for_all_its_remotes() {
    let mut rig = Rig::new();
    let first = outside_port(&mut rig, 1000, SERVER, 53);
    assert_eq!(outside_port(&mut rig, 1000, SERVER, 54), first);
    assert_eq!(outside_port(&mut rig, 1000, ROUTER, 53), first);
    assert_ne!(outside_port(&mut rig, 1001, SERVER, 53), first);
    assert_eq!((rig.sessions(), rig.mappings()), (4, 2));
}

#[test]
fn req2_one_inside_host_keeps_one_outside_address_and_is_refused_when_that_has_no_port_left() {
    let pool: Vec<A> = (1..=2).map(outside).collect();
    let mut rig = Rig::with(|config| {
        config.addresses = pool.clone();
        config.ports = "20000-20009".parse().unwrap();
    });
    let mut used = std::collections::HashSet::new();
    for host in 1..=20 {
        let mut of_host = std::collections::HashSet::new();
        for port in 1..=20 {
            match rig.out(&udp(inside(host), SERVER, port, 53, b"x")) {
                Ok(wire) => of_host.insert(addresses(&wire).0),
                Err(reason) => {
                    assert_eq!(reason, DropReason::NatNoPort);
                    continue;
                }
            };
        }
        assert!(of_host.len() <= 1, "host {host} has {of_host:?}");
        used.extend(of_host);
    }
    assert_eq!((used.len(), rig.mappings()), (2, 20));
}

#[test]
fn req3_no_outside_port_is_used_twice_and_an_overflow_is_refused() {
    let mut rig = Rig::with(|config| config.ports = "20000-20063".parse().unwrap());
    let mut seen = std::collections::HashSet::new();
    for source in 1..=64 {
        assert!(seen.insert(outside_port(&mut rig, source, SERVER, 53)));
    }
    assert_eq!(rig.out(&udp(INSIDE, SERVER, 65, 53, b"x")), Err(DropReason::NatNoPort));
    assert_eq!(outside_port(&mut rig, 65 - 1, ROUTER, 53), outside_port(&mut rig, 64, SERVER, 53), "the old live on");
    assert_eq!(rig.sessions(), 65);
}

#[test]
fn req3_other_protocols_have_ports_of_their_own() {
    let mut rig = Rig::with(|config| config.ports = "20000".parse().unwrap());
    assert_eq!(outside_port(&mut rig, 1, SERVER, 53), 20_000);
    assert_eq!(ports(&rig.out(&tcp(INSIDE, SERVER, 1, 53, tcp::SYN)).unwrap()).0, 20_000);
    assert_eq!(identifier(&rig.out(&echo(INSIDE, SERVER, 1)).unwrap()), 20_000);
}

#[test]
fn req4_the_parity_of_a_port_is_kept() {
    let mut rig = Rig::new();
    for source in 5000..5100 {
        assert_eq!(outside_port(&mut rig, source, SERVER, 53) % 2, source % 2);
    }
}

#[test]
fn req5_a_session_lives_five_minutes_and_not_longer() {
    let mut rig = Rig::new();
    let port = outside_port(&mut rig, 1000, SERVER, 53);
    rig.pass(299);
    rig.delivered(&udp(SERVER, OUTSIDE, 53, port, b"x"));
    rig.pass(2);
    assert_eq!(rig.back(&udp(SERVER, OUTSIDE, 53, port, b"x")), Err(DropReason::NatNoSession));
    assert_eq!((rig.sessions(), rig.mappings()), (0, 0));
}

#[test]
fn req5_the_timer_is_configurable() {
    let mut rig = Rig::with(|config| config.timeouts.udp = std::time::Duration::from_secs(120));
    let port = outside_port(&mut rig, 1000, SERVER, 53);
    rig.pass(119);
    rig.delivered(&udp(SERVER, OUTSIDE, 53, port, b"x"));
    rig.pass(2);
    assert_eq!(rig.sessions(), 0);
}

#[test]
fn req6_packets_from_inside_refresh_and_those_from_outside_only_when_asked_to() {
    let mut rig = Rig::new();
    let port = outside_port(&mut rig, 1000, SERVER, 53);
    rig.pass(299);
    assert_eq!(outside_port(&mut rig, 1000, SERVER, 53), port);
    rig.pass(298);
    rig.delivered(&udp(SERVER, OUTSIDE, 53, port, b"x"));
    rig.pass(3);
    assert_eq!(rig.sessions(), 0, "the packet from outside did not count");

    let mut rig = Rig::with(|config| config.inbound_refresh = true);
    let port = outside_port(&mut rig, 1000, SERVER, 53);
    rig.pass(299);
    rig.delivered(&udp(SERVER, OUTSIDE, 53, port, b"x"));
    rig.pass(299);
    assert_eq!(rig.sessions(), 1);
}

#[test]
fn req7_an_outside_host_with_the_address_of_an_inside_one_is_another() {
    let mut rig = Rig::new();
    let port = outside_port(&mut rig, 1000, inside(3), 53);
    let own = rig.out(&udp(inside(3), SERVER, 53, 9, b"x")).unwrap();
    assert_ne!(ports(&own).0, port);
    let arrived = rig.delivered(&udp(inside(3), OUTSIDE, 53, port, b"y"));
    assert_eq!((addresses(&arrived), ports(&arrived)), ((inside(3), INSIDE), (53, 1000)));
    assert_checksums_hold(&arrived);
    let arrived = rig.delivered(&udp(SERVER, OUTSIDE, 9, ports(&own).0, b"y"));
    assert_eq!((addresses(&arrived), ports(&arrived)), ((SERVER, inside(3)), (9, 53)));
}

#[test]
fn req8_anybody_may_answer_or_only_whoever_has_a_called_address() {
    let mut open = Rig::new();
    let port = outside_port(&mut open, 1000, SERVER, 53);
    for (from, from_port) in [(SERVER, 53), (SERVER, 99), (ROUTER, 1)] {
        open.delivered(&udp(from, OUTSIDE, from_port, port, b"x"));
    }
    let mut strict = Rig::with(|config| config.filtering = Filtering::AddressDependent);
    let port = outside_port(&mut strict, 1000, SERVER, 53);
    for from_port in [53, 99] {
        strict.delivered(&udp(SERVER, OUTSIDE, from_port, port, b"x"));
    }
    let stranger = udp(ROUTER, OUTSIDE, 53, port, b"x");
    assert_eq!(strict.back(&stranger), Err(DropReason::NatFiltered));
    outside_port(&mut strict, 1000, ROUTER, 7);
    strict.delivered(&stranger);
}

#[test]
fn req9_hairpin_shows_the_outside_endpoint_of_the_caller() {
    let mut rig = Rig::new();
    let callee = ports(&rig.out(&udp(inside(3), SERVER, 3000, 53, b"x")).unwrap()).0;
    let wire = rig.out(&udp(inside(2), OUTSIDE, 2000, callee, b"hello")).unwrap();
    let caller = ports(&wire).0;
    let arrived = rig.delivered(&wire);
    assert_eq!(addresses(&arrived), (OUTSIDE, inside(3)));
    assert_eq!(ports(&arrived), (caller, 3000));
    assert_checksums_hold(&arrived);
    let answer = rig.out(&udp(inside(3), OUTSIDE, 3000, caller, b"hi")).unwrap();
    let arrived = rig.delivered(&answer);
    assert_eq!((addresses(&arrived), ports(&arrived)), ((OUTSIDE, inside(2)), (callee, 2000)));
}

#[test]
fn req10_payloads_are_not_touched() {
    let mut rig = Rig::new();
    let payload = b"PORT 10,0,0,2,3,232 sip:user@10.0.0.2:1000";
    let wire = rig.out(&udp(INSIDE, SERVER, 1000, 5060, payload)).unwrap();
    assert_eq!(&wire[UP + 8..], payload);
}

#[test]
fn req11_behaviour_is_the_same_with_the_pool_empty_or_nearly_full_and_whatever_the_worker() {
    for workers in 1..=4 {
        for me in 0..workers {
            let mut rig = Rig::worker(me, workers, |config| config.ports = "20000-20999".parse().unwrap());
            let share = rig.nat.report().free_ports[Protocol::Udp as usize];
            for used in 0..share - 1 {
                let source = 1000 + u16::try_from(used).unwrap();
                let first = outside_port(&mut rig, source, SERVER, 53);
                assert_eq!(outside_port(&mut rig, source, ROUTER, 53), first);
                assert_eq!(addresses(&rig.delivered(&udp(ROUTER, OUTSIDE, 53, first, b"x"))).1, INSIDE);
                assert_eq!(owner(first, workers), WorkerId(me));
            }
        }
    }
}

#[test]
fn req12_icmp_never_ends_a_mapping_and_is_not_filtered_by_its_source() {
    let mut rig = Rig::with(|config| config.filtering = Filtering::AddressDependent);
    let wire = rig.out(&udp(INSIDE, SERVER, 1000, 53, b"x")).unwrap();
    for (kind, code) in [UNREACHABLE, CLOSED, TOO_LONG, EXPIRED, PROBLEM] {
        rig.delivered(&error(ROUTER, OUTSIDE, (kind, code), &wire));
    }
    assert_eq!(rig.sessions(), 1);
    assert_eq!(rig.out(&udp(INSIDE, SERVER, 1000, 53, b"x")).unwrap(), wire);
}

#[test]
fn req13_a_packet_too_long_for_the_inside_is_named_before_anything_is_changed() {
    let mut rig = Rig::new();
    let port = outside_port(&mut rig, 1000, SERVER, 53);
    let long = udp(SERVER, OUTSIDE, 53, port, &[0; 1460]);
    let (restored, bytes) = rig.back(&dont_fragment(long.clone())).unwrap();
    assert_eq!((restored, bytes), (Restored::TooLong { mtu: MTU }, dont_fragment(long.clone())));
    if A::VERSION == Version::V4 {
        rig.delivered(&edited_ip(long, |packet| packet[6] = 0));
    }
}

#[test]
fn req14_fragments_leave_in_any_order_with_one_address_and_one_identification() {
    let whole = udp(INSIDE, SERVER, 1000, 53, &[7; 3000]);
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut rig = Rig::new();
        let parts = fragments(&whole, 1040);
        let left: Vec<Vec<u8>> = order.iter().map(|&part| rig.out(&parts[part]).unwrap()).collect();
        let arrived = reassembled(&left);
        assert_checksums_hold(&arrived);
        assert_eq!(addresses(&arrived), (OUTSIDE, SERVER));
        assert_eq!(&arrived[UP + 8..], &[7; 3000]);
    }
}

#[test]
fn rfc7857_10_rfc6864_fragments_of_two_hosts_with_equal_identifications_differ_outside() {
    let mut rig = Rig::new();
    let mut of = |host| {
        let parts = fragments(&udp(inside(host), SERVER, 1000, 53, &[host; 2000]), 1040);
        let left: Vec<_> = parts.iter().map(|part| rig.out(part).unwrap()).collect();
        identification(&left[0]).to_vec()
    };
    assert_ne!(of(2), of(3));
}

#[test]
fn req14_fragments_arrive_in_order_and_those_before_their_first_wait_for_it() {
    let mut rig = Rig::new();
    let port = outside_port(&mut rig, 1000, SERVER, 53);
    let parts = fragments(&udp(SERVER, OUTSIDE, 53, port, &[9; 3000]), 1040);
    let in_order: Vec<_> = parts.iter().map(|part| rig.delivered(part)).collect();
    assert_checksums_hold(&reassembled(&in_order));

    let parts: Vec<_> = parts.into_iter().map(|part| identified(part, 99)).collect();
    for late in [&parts[2], &parts[1]] {
        assert_eq!(rig.back(late).unwrap().0, Restored::Waits);
    }
    assert_eq!(rig.nat.take_released(), None);
    let mut arrived = vec![rig.delivered(&parts[0])];
    while let Some(mut frame) = rig.nat.take_released() {
        let restored = rig.nat.restore(rig.now, &mut frame, 0, false, |_| Some(MTU));
        assert_eq!(restored, Ok(Restored::Inside { network: BLUE, mac: MAC }));
        arrived.push(frame.clone());
        rig.nat.give_back(frame);
    }
    assert_eq!(arrived.len(), 3);
    let whole = reassembled(&arrived);
    assert_checksums_hold(&whole);
    assert_eq!((addresses(&whole), ports(&whole)), ((SERVER, INSIDE), (53, 1000)));
}

#[test]
fn req14_a_fragment_whose_first_never_comes_is_given_up() {
    let mut rig = Rig::new();
    let parts = fragments(&udp(SERVER, OUTSIDE, 53, 20_000, &[9; 2000]), 1040);
    assert_eq!(rig.back(&parts[1]).unwrap().0, Restored::Waits);
    rig.pass(3);
    let mut frame = rig.nat.take_released().unwrap();
    assert_eq!(rig.nat.restore(rig.now, &mut frame, 0, false, |_| Some(MTU)), Err(DropReason::NatFragment));
    rig.nat.give_back(frame);
    assert_eq!(rig.nat.report().fragments, 0);
}

#[test]
fn req14_a_flood_of_fragments_does_not_hurt_whole_packets_nor_grow() {
    let mut rig = Rig::new();
    let port = outside_port(&mut rig, 1000, SERVER, 53);
    let later = fragments(&udp(SERVER, OUTSIDE, 53, port, &[9; 2000]), 1040).remove(1);
    let mut refused = 0;
    for number in 0..50_000u16 {
        let fragment = identified(later.clone(), number);
        refused += u32::from(rig.back(&fragment) == Err(DropReason::NatFragment));
    }
    assert_eq!((refused, rig.nat.report().fragments), (50_000 - 64, 64));
    rig.delivered(&udp(SERVER, OUTSIDE, 53, port, b"x"));
    assert_eq!(rig.sessions(), 1);
}
