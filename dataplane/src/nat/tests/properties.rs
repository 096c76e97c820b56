//! Properties: restoring undoes translating, no outside tuple is shared, and a model agrees on every expiry.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

/// A packet that a session may begin with.
fn first_packets() -> impl Strategy<Value = Vec<u8>> {
    let host = (2..200u8).prop_map(inside);
    let remote = any::<[u8; 16]>().prop_map(|bits| A::first(&bits).unwrap());
    (host, remote, 1..=u16::MAX, 1..=u16::MAX, 0..3, prop::collection::vec(any::<u8>(), 0..600), any::<bool>())
        .prop_map(|(from, to, source, destination, protocol, payload, no_checksum)| match protocol {
            0 => tcp(from, to, source, destination, tcp::SYN),
            1 => {
                let packet = udp(from, to, source, destination, &payload);
                if no_checksum { edited(packet, |packet| packet[UP + 6..UP + 8].fill(0)) } else { packet }
            }
            _ => echo(from, to, source),
        })
}

proptest! {
    #[test]
    fn restoring_the_answer_to_a_translated_packet_is_the_answer_to_the_packet(packets in prop::collection::vec(first_packets(), 1..40)) {
        let mut rig = Rig::new();
        for packet in &packets {
            let wire = rig.out(packet).unwrap();
            assert_checksums_hold(&wire);
            let mut answer = mirrored(&wire);
            let mut expected = mirrored(packet);
            if is_tcp(packet) {
                for bytes in [&mut answer, &mut expected] {
                    bytes[UP + 13] = tcp::SYN | tcp::ACK;
                    fix_tcp(bytes);
                }
            }
            let arrived = rig.delivered(&answer);
            assert_checksums_hold(&arrived);
            prop_assert_eq!(arrived, expected);
        }
    }

    #[test]
    fn no_two_sessions_share_an_outside_tuple(packets in prop::collection::vec((first_packets(), 0..3u16), 1..300)) {
        let mut rig = Rig::with(|config| config.ports = "20000-20099".parse().unwrap());
        for (packet, network) in &packets {
            let _ = rig.out_of(NetworkId(*network), packet);
        }
        let (views, _) = rig.nat.page(rig.now, 0, usize::MAX);
        let mut tuples = HashSet::new();
        let mut mapped = HashMap::new();
        for view in &views {
            prop_assert!(tuples.insert((view.protocol, view.outside, view.remote)), "{view:?}");
            let inside = (view.network, view.inside);
            prop_assert_eq!(*mapped.entry((view.protocol, view.outside)).or_insert(inside), inside);
        }
        prop_assert_eq!(views.len(), rig.sessions());
        prop_assert_eq!(mapped.len(), rig.mappings());
    }

    #[test]
    fn whatever_the_bytes_nothing_panics_and_what_leaves_is_from_outside(packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..120), any::<bool>()), 1..40)) {
        let mut rig = Rig::new();
        for (mut bytes, honest) in packets {
            if honest && bytes.len() >= UP {
                let at = protocol_at();
                bytes[0] = if A::VERSION == Version::V4 { 0x45 } else { 0x60 };
                if A::VERSION == Version::V4 {
                    bytes[6..8].fill(0);
                }
                bytes[at] = [A::VERSION.icmp(), 6, 17, 44, 60][usize::from(bytes[at] % 5)];
                fix_ip(&mut bytes);
            }
            if let Ok(wire) = rig.out(&bytes) {
                prop_assert_eq!(addresses(&wire).0, OUTSIDE);
                let _ = rig.back(&mirrored(&wire));
            }
            let _ = rig.back(&bytes);
        }
    }
}

/// A step of the model: what an endpoint or a server does, or how long nobody does anything.
#[derive(Clone, Debug)]
enum Step {
    Out { host: u8, source: u16, server: u8, flags: u8, udp: bool },
    In { host: u8, source: u16, server: u8, flags: u8, udp: bool },
    Wait(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop::sample::select(vec![tcp::SYN, tcp::SYN | tcp::ACK, tcp::ACK, tcp::FIN | tcp::ACK, tcp::RST]);
    let packet = (2..4u8, 1..3u16, 1..3u8, flags, any::<bool>());
    let step = prop_oneof![
        4 => packet.clone().prop_map(|(host, source, server, flags, udp)| Step::Out { host, source, server, flags, udp }),
        3 => packet.prop_map(|(host, source, server, flags, udp)| Step::In { host, source, server, flags, udp }),
        2 => prop::sample::select(vec![1, 59, 61, 239, 241, 299, 301, 3600, 7441]).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

type Endpoint = (u8, u16, bool);

/// The obvious translation: a map of sessions with the instant at which each ends.
#[derive(Default)]
struct Model {
    now: u64,
    sessions: HashMap<(Endpoint, u8), (State, u64)>,
}

impl Model {
    fn life(state: State) -> u64 {
        match state {
            State::Udp => 300,
            State::Icmp => 60,
            State::Established | State::FinOut | State::FinIn => 7440,
            State::OpeningOut | State::OpeningIn | State::Closed | State::Reset => 240,
        }
    }

    fn expire(&mut self) {
        self.sessions.retain(|_, &mut (_, end)| end > self.now);
    }

    fn is_mapped(&self, endpoint: Endpoint) -> bool {
        self.sessions.keys().any(|&(of, _)| of == endpoint)
    }

    /// Whether the packet passes.
    fn packet(&mut self, way: Way, endpoint: Endpoint, server: u8, flags: u8) -> bool {
        let udp = endpoint.2;
        if let Some((state, end)) = self.sessions.get_mut(&(endpoint, server)) {
            let next = if udp { *state } else { state.after(flags, way) };
            let ending = matches!(next, State::Closed | State::Reset);
            let counts = if udp { way == Way::Out } else { !ending || next != *state };
            if counts {
                *end = self.now + Self::life(next);
            }
            *state = next;
            return true;
        }
        let may_begin = udp || flags == tcp::SYN;
        if !may_begin || way == Way::In && !self.is_mapped(endpoint) {
            return false;
        }
        let state = match (udp, way) {
            (true, _) => State::Udp,
            (false, Way::Out) => State::OpeningOut,
            (false, Way::In) => State::OpeningIn,
        };
        self.sessions.insert((endpoint, server), (state, self.now + Self::life(state)));
        true
    }
}

proptest! {
    #[test]
    fn a_model_with_a_virtual_clock_agrees_on_every_packet_and_every_expiry(steps in steps()) {
        let (mut rig, mut model) = (Rig::new(), Model::default());
        // The last outside port of each endpoint, as its servers know it.
        let mut known: HashMap<Endpoint, u16> = HashMap::new();
        let packet = |from, to, source, destination, flags, is_udp| match is_udp {
            true => udp(from, to, source, destination, b"x"),
            false => tcp(from, to, source, destination, flags),
        };
        for step in steps {
            match step {
                Step::Wait(seconds) => {
                    model.now += u64::from(seconds);
                    rig.now = rig.now + std::time::Duration::from_secs(seconds.into());
                    rig.nat.expire(rig.now);
                    model.expire();
                }
                Step::Out { host, source, server, flags, udp } => {
                    let endpoint = (host, source, udp);
                    let passes = model.packet(Way::Out, endpoint, server, flags);
                    let to = super::server(server);
                    let wire = rig.out(&packet(inside(host), to, source, 80, flags, udp));
                    prop_assert_eq!(wire.is_ok(), passes, "{:?}", wire);
                    if let Ok(wire) = wire {
                        known.insert(endpoint, ports(&wire).0);
                    }
                }
                Step::In { host, source, server, flags, udp } => {
                    let endpoint = (host, source, udp);
                    let Some(&port) = known.get(&endpoint) else { continue };
                    let passes = model.packet(Way::In, endpoint, server, flags);
                    let from = super::server(server);
                    let arrived = rig.back(&packet(from, OUTSIDE, 80, port, flags, udp));
                    prop_assert_eq!(arrived.is_ok(), passes, "{:?}", arrived);
                    if let Ok((_, bytes)) = arrived {
                        prop_assert_eq!((addresses(&bytes).1, ports(&bytes).1), (inside(host), source));
                    }
                }
            }
            prop_assert_eq!(rig.sessions(), model.sessions.len());
        }
    }
}
