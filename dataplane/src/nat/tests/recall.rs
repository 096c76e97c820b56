//! Sessions that outlive their translation.

use super::*;

/// Everything that `rig` knows of its sessions.
fn views(rig: &Rig) -> Vec<SessionView<A>> {
    let mut views = rig.nat.page(rig.now, 0, usize::MAX).0;
    views.sort_by_key(|view| (view.protocol as u8, view.outside, view.remote));
    views
}

/// Some of every kind, a second apart, with answers.
fn busy() -> (Rig, Vec<Vec<u8>>) {
    let mut rig = Rig::new();
    let mut wires = Vec::new();
    for host in 2..6 {
        for packet in [
            udp(inside(host), SERVER, 1000, 53, b"x"),
            udp(inside(host), ROUTER, 1000, 53, b"x"),
            tcp(inside(host), SERVER, 1000, 80, tcp::SYN),
            echo(inside(host), SERVER, 7),
        ] {
            wires.push(rig.out(&packet).unwrap());
            rig.pass(1);
        }
    }
    let answers: Vec<_> = wires.iter().map(|wire| mirrored(wire)).collect();
    for answer in answers.iter().filter(|answer| !is_tcp(answer)) {
        rig.delivered(answer);
    }
    (rig, wires)
}

#[test]
fn sessions_go_on_in_the_next_translation_as_if_nothing_had_been() {
    let (mut old, wires) = busy();
    let kept = views(&old);
    let mut new = Rig { now: old.now, ..Rig::new() };
    assert_eq!((new.nat.recall(new.now, &kept), views(&new)), (16, kept));
    let [before, after] = [&old, &new].map(|rig| rig.nat.report());
    assert_eq!((before.mappings, before.free_ports), (after.mappings, after.free_ports));
    for (wire, host) in wires.iter().zip((2..6).flat_map(|host| [host; 4])) {
        let mut answer = mirrored(wire);
        if is_tcp(&answer) {
            answer = edited(answer, |answer| answer[UP + 13] = tcp::SYN | tcp::ACK);
        }
        assert_eq!(new.delivered(&answer), old.delivered(&answer));
        assert_eq!(addresses(&new.delivered(&answer)).1, inside(host));
    }
    // Who has a mapping keeps it for whomever it calls next, and nobody else gets its port.
    let next = udp(inside(2), ROUTER, 1000, 9999, b"x");
    assert_eq!(ports(&new.out(&next).unwrap()), ports(&old.out(&next).unwrap()));
    let is_udp = |view: &&SessionView<A>| view.protocol == Protocol::Udp;
    let taken: Vec<u16> = views(&new).iter().filter(is_udp).map(|view| view.outside.1).collect();
    for source in 0..4000 {
        let port = ports(&new.out(&udp(inside(9), SERVER, 2000 + source, 53, b"x")).unwrap()).0;
        assert!(!taken.contains(&port), "{port} is lent twice");
    }
}

#[test]
fn a_session_ends_when_it_would_have_ended() {
    let (old, _) = busy();
    let kept = views(&old);
    let mut new = Rig { now: old.now, ..Rig::new() };
    new.nat.recall(new.now, &kept);
    let mut ends: Vec<_> = kept.iter().map(|view| view.deadline).collect();
    ends.sort_unstable();
    ends.dedup();
    for end in ends {
        new.now = Instant(u64::from(end.0 - 1) * 62_500_000);
        new.nat.expire(new.now);
        let before = new.sessions();
        new.now = Instant(u64::from(end.0) * 62_500_000);
        new.nat.expire(new.now);
        assert!(new.sessions() < before || before == 0, "at {end:?}");
    }
    assert_eq!((new.sessions(), new.mappings(), new.nat.report().free_ports), (0, 0, [10_000; 3]));
}

#[test]
fn what_has_ended_or_is_not_this_workers_or_has_no_room_is_left_behind_with_its_port() {
    let (old, _) = busy();
    let kept = views(&old);
    let mut late = Rig { now: old.now + std::time::Duration::from_secs(100), ..Rig::new() };
    assert_eq!(late.nat.recall(late.now, &kept), 12, "the echoes are over");
    let mut shared = 0;
    for me in 0..2 {
        let mut rig = Rig { now: old.now, ..Rig::worker(me, 2, |_| {}) };
        shared += rig.nat.recall(rig.now, &kept);
        assert!(views(&rig).iter().all(|view| owner(view.outside.1, 2) == WorkerId(me)));
    }
    assert_eq!(shared, 16, "two workers where there was one");
    let edits: [fn(&mut NatConfig<A>); 4] = [
        |config| config.ports = "1024-2047".parse().unwrap(),
        |config| config.addresses = vec![ROUTER],
        |config| config.endpoint_limit = 0,
        |config| config.sessions = 0,
    ];
    for edit in edits {
        let mut rig = Rig { now: old.now, ..Rig::with(edit) };
        let free = rig.nat.report().free_ports;
        assert_eq!((rig.nat.recall(rig.now, &kept), rig.sessions(), rig.mappings()), (0, 0, 0));
        assert_eq!(rig.nat.report().free_ports, free);
    }
    let mut twice = Rig { now: old.now, ..Rig::new() };
    assert_eq!([(); 2].map(|()| twice.nat.recall(old.now, &kept)), [16, 0]);
}
