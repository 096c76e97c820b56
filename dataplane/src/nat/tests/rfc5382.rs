//! RFC 5382, NAT behaviour for TCP, with RFC 7857, requirement by requirement.

use std::time::Duration;

use super::*;

const SYN: u8 = tcp::SYN;
const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
const ACK: u8 = tcp::ACK;
const FIN_ACK: u8 = tcp::FIN | tcp::ACK;
const RST: u8 = tcp::RST;

/// One connection from `INSIDE:1000` to `SERVER:80`.
struct Connection {
    rig: Rig,
    port: u16,
}

impl Connection {
    fn opening(edit: impl FnOnce(&mut NatConfig<A>)) -> Self {
        let mut rig = Rig::with(edit);
        let wire = rig.out(&tcp(INSIDE, SERVER, 1000, 80, SYN)).unwrap();
        assert_checksums_hold(&wire);
        Self { port: ports(&wire).0, rig }
    }

    fn established() -> Self {
        let mut connection = Self::opening(|_| {});
        connection.receive(SYN_ACK);
        connection.send(ACK);
        connection
    }

    fn send(&mut self, flags: u8) {
        let wire = self.rig.out(&tcp(INSIDE, SERVER, 1000, 80, flags)).unwrap();
        assert_eq!(ports(&wire).0, self.port);
        assert_checksums_hold(&wire);
    }

    fn receive(&mut self, flags: u8) {
        let bytes = self.rig.delivered(&tcp(SERVER, OUTSIDE, 80, self.port, flags));
        assert_eq!((addresses(&bytes), ports(&bytes)), ((SERVER, INSIDE), (80, 1000)));
        assert_checksums_hold(&bytes);
    }

    /// Whether the session lives `seconds` from now and not a second and a tick more.
    fn ends_after(mut self, seconds: u64) {
        self.rig.pass(seconds - 1);
        assert_eq!(self.rig.sessions(), 1, "ended before {seconds} s");
        self.rig.pass(2);
        assert_eq!((self.rig.sessions(), self.rig.mappings()), (0, 0), "lives beyond {seconds} s");
    }
}

#[test]
fn req1_one_inside_endpoint_has_one_outside_endpoint_for_all_its_remotes() {
    let mut connection = Connection::opening(|_| {});
    for (to, port) in [(SERVER, 81), (ROUTER, 80)] {
        let wire = connection.rig.out(&tcp(INSIDE, to, 1000, port, SYN)).unwrap();
        assert_eq!(ports(&wire).0, connection.port);
    }
}

#[test]
fn req2_three_way_handshake_and_orderly_end() {
    let mut connection = Connection::established();
    assert_eq!(connection.rig.state(), State::Established);
    connection.send(FIN_ACK);
    connection.receive(ACK);
    assert_eq!(connection.rig.state(), State::FinOut);
    connection.receive(FIN_ACK);
    connection.send(ACK);
    assert_eq!(connection.rig.state(), State::Closed);
}

#[test]
fn req2_simultaneous_open() {
    let mut connection = Connection::opening(|_| {});
    connection.receive(SYN);
    connection.send(SYN_ACK);
    connection.receive(SYN_ACK);
    connection.send(ACK);
    assert_eq!(connection.rig.state(), State::Established);
}

#[test]
fn req2_a_connection_to_a_mapped_endpoint_opens_from_outside() {
    let mut connection = Connection::opening(|_| {});
    let port = connection.port;
    connection.rig.delivered(&tcp(ROUTER, OUTSIDE, 5555, port, SYN));
    let wire = connection.rig.out(&tcp(INSIDE, ROUTER, 1000, 5555, SYN_ACK)).unwrap();
    assert_eq!(ports(&wire), (port, 5555));
    connection.rig.delivered(&tcp(ROUTER, OUTSIDE, 5555, port, ACK));
    assert_eq!(connection.rig.sessions(), 2);
}

#[test]
fn req3_filtering_is_a_choice() {
    let mut strict = Connection::opening(|config| config.filtering = Filtering::AddressDependent);
    let (server, stranger) = (tcp(SERVER, OUTSIDE, 99, strict.port, SYN), tcp(ROUTER, OUTSIDE, 5555, strict.port, SYN));
    strict.rig.delivered(&server);
    assert_eq!(strict.rig.back(&stranger), Err(DropReason::NatFiltered));
}

#[test]
fn req4_an_unsolicited_syn_is_dropped_in_silence_and_an_outbound_one_then_opens() {
    let mut rig = Rig::with(|config| config.ports = "20000".parse().unwrap());
    let early = tcp(SERVER, OUTSIDE, 80, 20_000, SYN);
    // A reason that nobody is told of: no ICMP error ever answers it.
    assert_eq!(rig.back(&early), Err(DropReason::NatNoSession));
    rig.pass(3);
    rig.out(&tcp(INSIDE, SERVER, 1000, 80, SYN)).unwrap();
    rig.delivered(&early);
    assert_eq!(rig.state(), State::Established);
}

#[test]
fn req4_an_unsolicited_syn_that_filtering_keeps_out_is_silent_until_the_inside_calls_back() {
    let mut connection = Connection::opening(|config| config.filtering = Filtering::AddressDependent);
    let early = tcp(ROUTER, OUTSIDE, 5555, connection.port, SYN);
    for _ in 0..6 {
        // Neither an answer nor a state, however long it goes on.
        assert_eq!(connection.rig.back(&early), Err(DropReason::NatFiltered));
        connection.rig.pass(1);
    }
    assert_eq!(connection.rig.sessions(), 1);
    connection.rig.out(&tcp(INSIDE, ROUTER, 1000, 5555, SYN)).unwrap();
    connection.rig.delivered(&early);
    assert_eq!(connection.rig.sessions(), 2, "both have called each other: a simultaneous open");
}

#[test]
fn req5_established_lives_two_hours_and_four_minutes() {
    Connection::established().ends_after(7440);
}

#[test]
fn req5_transitory_states_live_four_minutes() {
    Connection::opening(|_| {}).ends_after(240);
    let mut closed = Connection::established();
    closed.send(FIN_ACK);
    closed.receive(FIN_ACK);
    closed.ends_after(240);
}

#[test]
fn rfc7857_2_opening_and_closing_are_configured_apart() {
    let edit = |config: &mut NatConfig<A>| {
        config.timeouts.tcp_opening = Duration::from_secs(30);
        config.timeouts.tcp_closing = Duration::from_secs(400);
    };
    Connection::opening(edit).ends_after(30);
    let mut closed = Connection::opening(edit);
    closed.receive(SYN_ACK);
    closed.receive(FIN_ACK);
    closed.send(FIN_ACK);
    closed.ends_after(400);
}

#[test]
fn rfc7857_2_2_a_reset_is_translated_and_the_state_kept_four_minutes() {
    let mut connection = Connection::established();
    connection.receive(RST);
    assert_eq!(connection.rig.state(), State::Reset);
    connection.rig.pass(120);
    // A repeated reset does not keep it alive.
    connection.receive(RST);
    connection.ends_after(120);

    let mut connection = Connection::established();
    connection.receive(RST);
    connection.rig.pass(239);
    connection.send(ACK);
    connection.receive(ACK);
    connection.ends_after(7440);
}

#[test]
fn req7_no_outside_port_is_used_twice() {
    let mut rig = Rig::with(|config| config.ports = "20000-20127".parse().unwrap());
    let mut seen = std::collections::HashSet::new();
    for source in 1..=128 {
        assert!(seen.insert(ports(&rig.out(&tcp(INSIDE, SERVER, source, 80, SYN)).unwrap()).0));
    }
    assert_eq!(rig.out(&tcp(INSIDE, SERVER, 200, 80, SYN)), Err(DropReason::NatNoPort));
}

#[test]
fn req8_hairpin_shows_the_outside_endpoint_of_the_caller() {
    let mut connection = Connection::established();
    let callee = connection.port;
    let wire = connection.rig.out(&tcp(inside(3), OUTSIDE, 3000, callee, SYN)).unwrap();
    let arrived = connection.rig.delivered(&wire);
    assert_eq!(addresses(&arrived), (OUTSIDE, INSIDE));
    assert_eq!(ports(&arrived), (ports(&wire).0, 1000));
    assert_checksums_hold(&arrived);
    let answer = connection.rig.out(&tcp(INSIDE, OUTSIDE, 1000, ports(&wire).0, SYN_ACK)).unwrap();
    let arrived = connection.rig.delivered(&answer);
    assert_eq!((addresses(&arrived), ports(&arrived)), ((OUTSIDE, inside(3)), (callee, 3000)));
}

#[test]
fn req9_req10_unreachable_is_translated_and_ends_nothing() {
    let mut connection = Connection::established();
    let wire = connection.rig.out(&tcp(INSIDE, SERVER, 1000, 80, ACK)).unwrap();
    let bytes = connection.rig.delivered(&error(ROUTER, OUTSIDE, TOO_LONG, &wire));
    assert_eq!(addresses(&bytes), (ROUTER, INSIDE));
    assert_eq!(addresses(&bytes[UP + 8..]), (INSIDE, SERVER));
    assert_eq!(ports(&bytes[UP + 8..]), (1000, 80));
    assert_eq!(connection.rig.state(), State::Established);
}

#[test]
fn a_segment_without_a_connection_begins_none() {
    let mut rig = Rig::new();
    for flags in [ACK, RST, RST | ACK, FIN_ACK, SYN_ACK, 0] {
        let packet = tcp(INSIDE, SERVER, 1000, 80, flags);
        assert_eq!(rig.out(&packet), Err(DropReason::NatNoSession), "flags {flags:#x}");
    }
    assert_eq!((rig.sessions(), rig.mappings()), (0, 0));
}

#[test]
fn rfc6691_the_segment_size_of_a_syn_is_lowered_when_asked_and_never_raised() {
    let with_mss = |flags, mss: u16| {
        let mut packet = tcp(INSIDE, SERVER, 1000, 80, flags);
        let [high, low] = mss.to_be_bytes();
        packet.extend([1, 2, 4, high, low, 0, 0, 0]);
        packet[UP + 12] = 0x70;
        fix_ip(&mut packet);
        fix_tcp(&mut packet);
        packet
    };
    let mut rig = Rig::with(|config| config.clamp_mss = Some(1360));
    for (announced, agreed) in [(1460, 1360), (1360, 1360), (500, 500)] {
        let wire = rig.out(&with_mss(SYN, announced)).unwrap();
        assert_eq!(u16::from_be_bytes([wire[UP + 23], wire[UP + 24]]), agreed);
        assert_checksums_hold(&wire);
    }
    let wire = rig.out(&with_mss(ACK, 1460)).unwrap();
    assert_eq!(u16::from_be_bytes([wire[UP + 23], wire[UP + 24]]), 1460, "not a SYN");
}
