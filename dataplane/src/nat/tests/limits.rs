//! What happens when something is full: newcomers are refused, the living live on.

use super::*;

#[test]
fn f13_64512_ports_to_one_destination_and_then_one_more() {
    let mut rig = Rig::with(|config| {
        config.ports = "1024-65535".parse().unwrap();
        config.sessions = 100_000;
        (config.endpoint_limit, config.network_limit) = (u32::MAX, u32::MAX);
    });
    let mut wires = Vec::new();
    for number in 0..64_512u32 {
        let (host, port) = (inside(u8::try_from(number / 1000).unwrap()), u16::try_from(1 + number % 1000).unwrap());
        let out = tcp(host, SERVER, port, 80, tcp::SYN);
        wires.push((out.clone(), rig.out(&out).unwrap()));
    }
    assert_eq!(rig.out(&tcp(inside(200), SERVER, 1, 80, tcp::SYN)), Err(DropReason::NatNoPort));
    for (out, wire) in &wires {
        assert_eq!(rig.out(out).as_ref(), Ok(wire), "established sessions are as they were");
    }
    // They are dead after 240 s; places and ports come back at 40,960 a second.
    rig.pass(242);
    assert_eq!((rig.sessions(), rig.mappings()), (0, 0));
    rig.out(&tcp(inside(200), SERVER, 1, 80, tcp::SYN)).unwrap();
}

#[test]
fn f13_a_million_syns_of_one_endpoint_leave_the_others_able_to_open() {
    let mut rig = Rig::new();
    let neighbour = tcp(inside(3), SERVER, 5, 80, tcp::SYN);
    let before = rig.out(&neighbour).unwrap();
    let memory = rig.nat.report().memory;
    let mut refused = 0u32;
    for number in 0..1_000_000u32 {
        let port = u16::try_from(1 + number % 60_000).unwrap();
        let to = server(u8::try_from(number / 60_000).unwrap());
        refused += u32::from(rig.out(&tcp(INSIDE, to, port, 80, tcp::SYN)) == Err(DropReason::NatEndpointLimit));
    }
    assert!(refused > 900_000, "{refused}");
    assert_eq!(rig.sessions(), 4097);
    assert_eq!(rig.out(&neighbour).as_ref(), Ok(&before));
    rig.out(&tcp(inside(4), SERVER, 6, 80, tcp::SYN)).unwrap();
    assert_eq!(rig.nat.report().memory, memory);
}

#[test]
fn b13_what_contradicts_itself_begins_no_session() {
    let mut rig = Rig::new();
    for (packet, reason) in [
        (tcp(SERVER, SERVER, 80, 80, tcp::SYN), DropReason::NatInvalid),
        (tcp(INSIDE, SERVER, 80, 80, tcp::SYN | tcp::FIN), DropReason::NatInvalid),
        (tcp(INSIDE, SERVER, 80, 80, tcp::RST), DropReason::NatNoSession),
        (udp(INSIDE, SERVER, 0, 53, b"x"), DropReason::NatInvalid),
        (error(INSIDE, SERVER, CLOSED, &[0x45; 60]), DropReason::NatIcmpError),
        (edited_ip(echo(INSIDE, SERVER, 1), |packet| packet[protocol_at()] = 47), DropReason::NatUnsupported),
    ] {
        assert_eq!(rig.out(&packet), Err(reason));
    }
    assert_eq!((rig.sessions(), rig.mappings()), (0, 0));
}

#[test]
fn a_network_at_its_limit_leaves_other_networks_able_to_open() {
    let mut rig = Rig::with(|config| config.network_limit = 10);
    let mut refused = 0;
    for host in 1..=20 {
        refused += u32::from(rig.out(&udp(inside(host), SERVER, 1, 2, b"x")) == Err(DropReason::NatNetworkLimit));
    }
    assert_eq!((refused, rig.nat.sessions_of(BLUE)), (10, 10));
    rig.out_of(NetworkId(2), &udp(inside(1), SERVER, 1, 2, b"x")).unwrap();
}

#[test]
fn equal_addresses_in_two_networks_are_two_endpoints() {
    let mut rig = Rig::new();
    let packet = udp(INSIDE, SERVER, 1000, 53, b"x");
    let (blue, red) = (rig.out(&packet).unwrap(), rig.out_of(NetworkId(2), &packet).unwrap());
    assert_ne!(ports(&blue).0, ports(&red).0);
    let (restored, _) = rig.back(&udp(SERVER, OUTSIDE, 53, ports(&red).0, b"x")).unwrap();
    assert_eq!(restored, Restored::Inside { network: NetworkId(2), mac: MAC });
}

#[test]
fn a_full_table_refuses_and_leaks_neither_ports_nor_counts() {
    for filtering in [Filtering::EndpointIndependent, Filtering::AddressDependent] {
        let mut rig = Rig::with(|config| (config.sessions, config.filtering) = (8, filtering));
        for port in 1..=20 {
            let result = rig.out(&udp(INSIDE, SERVER, port, 53, b"x"));
            assert_eq!(result.is_ok(), port <= 8, "{port}: {result:?}");
        }
        assert_eq!((rig.sessions(), rig.mappings(), rig.nat.sessions_of(BLUE)), (8, 8, 8));
        rig.pass(301);
        let report = rig.nat.report();
        assert_eq!((report.sessions, report.mappings, report.free_ports), (0, 0, [10_000; 3]));
        assert_eq!(rig.nat.sessions_of(BLUE), 0);
    }
}

#[test]
fn a_packet_for_another_workers_port_is_left_as_it_is_and_names_the_worker() {
    let mut first = Rig::worker(0, 2, |_| {});
    let mut second = Rig::worker(1, 2, |_| {});
    let wire = first.out(&udp(INSIDE, SERVER, 1000, 53, b"x")).unwrap();
    let answer = mirrored(&wire);
    assert_eq!(second.back(&answer), Ok((Restored::Elsewhere(WorkerId(0)), answer.clone())));
    first.delivered(&answer);
    let complaint = error(ROUTER, OUTSIDE, UNREACHABLE, &wire);
    assert_eq!(second.back(&complaint), Ok((Restored::Elsewhere(WorkerId(0)), complaint.clone())));
    let parts = fragments(&udp(SERVER, OUTSIDE, 53, ports(&wire).0, &[1; 2000]), 1040);
    for part in &parts {
        assert_eq!(second.back(part), Ok((Restored::Elsewhere(WorkerId(0)), part.clone())));
    }
}

#[test]
fn sessions_that_are_not_kept_are_gone_with_their_ports() {
    let mut rig = Rig::new();
    for port in 1..=10 {
        rig.out(&udp(INSIDE, SERVER, port, 53, b"x")).unwrap();
        rig.out_of(NetworkId(2), &udp(INSIDE, SERVER, port, 53, b"x")).unwrap();
    }
    assert_eq!(rig.nat.retain(|session| session.network == BLUE), 10);
    assert_eq!((rig.sessions(), rig.mappings(), rig.nat.sessions_of(NetworkId(2))), (10, 10, 0));
    assert_eq!(rig.nat.retain(|_| false), 10);
    assert_eq!(rig.nat.report().free_ports, [10_000; 3]);
}

#[test]
fn a_session_counts_its_packets_and_bytes_both_ways() {
    let mut rig = Rig::new();
    let wire = rig.out(&udp(INSIDE, SERVER, 1000, 53, b"12345678")).unwrap();
    rig.out(&udp(INSIDE, SERVER, 1000, 53, b"12")).unwrap();
    rig.delivered(&udp(SERVER, OUTSIDE, 53, ports(&wire).0, b"1234"));
    let (views, next) = rig.nat.page(rig.now, 0, 10);
    assert_eq!(next, None);
    let [view] = views[..] else { panic!("{views:?}") };
    assert_eq!((view.out.packets(), view.out.bytes()), (2, 2 * (UP as u64 + 8) + 8 + 2));
    assert_eq!((view.back.packets(), view.back.bytes()), (1, UP as u64 + 8 + 4));
    assert_eq!((view.inside, view.remote), ((INSIDE, 1000), (SERVER, 53)));
    assert_eq!(view.outside, (OUTSIDE, ports(&wire).0));
}

#[test]
fn a_million_sessions_take_less_than_256_bytes_each() {
    let rig = Rig::with(|config| {
        config.ports = "1024-65535".parse().unwrap();
        config.sessions = 1_000_000;
        config.filtering = Filtering::AddressDependent;
    });
    let each = rig.nat.report().memory as f64 / 1e6;
    println!("{each:.0} bytes a session of a million of {:?}, with address-dependent filtering", A::VERSION);
    assert!(each < 256.0, "{each}");
}

#[test]
fn each_network_is_told_what_it_has_and_why_it_was_refused_more() {
    let mut rig = Rig::with(|config| {
        config.ports = "20000-20009".parse().unwrap();
        (config.endpoint_limit, config.network_limit) = (4, 6);
    });
    let red = NetworkId(2);
    for port in 1..=5 {
        let _ = rig.out(&udp(INSIDE, SERVER, port, 53, b"x"));
        let _ = rig.out(&udp(inside(3), SERVER, port, 53, b"x"));
        let _ = rig.out_of(red, &udp(inside(u8::try_from(port).unwrap() + 10), SERVER, port, 53, b"x"));
    }
    // Of ten ports the two hosts of blue, which may have six sessions, have six and red has four.
    assert_eq!(rig.nat.share_of(BLUE), Share { sessions: 6, ports: 6, refused: [0, 0, 0, 4] });
    assert_eq!(rig.nat.share_of(red), Share { sessions: 4, ports: 4, refused: [1, 0, 0, 0] });
    let _ = rig.out_of(red, &udp(inside(11), SERVER, 1, 54, b"x"));
    let callee = ports(&rig.out_of(red, &udp(inside(11), SERVER, 1, 54, b"x")).unwrap()).0;
    for from in 1..9 {
        let _ = rig.back(&udp(ROUTER, OUTSIDE, from, callee, b"x"));
    }
    let share = rig.nat.share_of(red);
    assert_eq!((share.sessions, share.ports, share.refused), (6, 4, [1, 0, 0, 7]), "whoever it is that calls");
    rig.pass(301);
    assert_eq!(rig.nat.share_of(BLUE), Share { refused: [0, 0, 0, 4], ..Share::default() });
}
