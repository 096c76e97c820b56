//! What the fuzzer runs, and what it starts from: one target per parser, and the whole worker.
//!
//! Each target is a plain function that panics where an invariant breaks, so that the coverage-guided
//! fuzzer (`cargo xtask fuzz`), the mutations of the test suite and the replay of past findings all
//! run the same code. A finding goes to `tests/fuzz/regressions/TARGET/`, under a name that
//! describes it.

use std::{net::Ipv4Addr, sync::Arc};

use etherparse::{IpNumber, TcpHeader};
use vxlane_dataplane::{
    clock::Instant,
    ids::{NetworkId, VtepId, WorkerId},
    nat::{BlindBoard, Nat, NatConfig, Restored, Sender},
    tables::{LocalVtep, Tables, Vtep, ZeroChecksums},
    vtep::{self, entropy},
    wire::{Ecn, Layers, MacAddr, icmp},
};

use crate::{
    frames::{self, Talk, Vxlan},
    lab,
    sim::{NetworkPlan, Sim, Underlay, at},
};

/// Something to be fed any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The name of its program and of its directories.
    pub name: &'static str,
    /// Panics where an invariant breaks.
    pub run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "decap", run: decap, seeds: underlay_frames },
    Target { name: "layers", run: layers, seeds: overlay_frames },
    Target { name: "nat", run: nat, seeds: packets_to_translate },
    Target { name: "pipeline", run: pipeline, seeds: frames_to_forward },
];

/// Outer headers: whatever the bytes, a range inside the frame or a reason.
pub fn decap(frame: &[u8]) {
    // The frame chooses our own addresses, so that the check of the destination can be passed.
    let v4 = frame.get(30..).and_then(|rest| rest.first_chunk::<4>()).map(|&address| address.into());
    let v6 = frame.get(38..).and_then(|rest| rest.first_chunk::<16>()).map(|&address| address.into());
    for receive in [false, true] {
        let zero_checksums = ZeroChecksums { transmit: false, receive };
        let local = LocalVtep { zero_checksums, ..LocalVtep::new(v4, v6, 4789) };
        if let Ok(outer) = vtep::decap(frame, local) {
            assert!(outer.inner.len() >= 14 && frame.get(outer.inner.clone()).is_some());
            assert!(outer.checked.is_some() || outer.checksum_holds(frame));
            assert!(outer.checked.is_none_or(|segment| frame.get(segment).is_some()));
        }
    }
}

/// Inner headers: what is found lies in the frame; finishing a checksum twice is finishing it once.
pub fn layers(frame: &[u8]) {
    let mut layers = Layers::walk(frame);
    if let Some(transport) = layers.transport {
        assert!(frame.get(transport.offset..transport.offset + transport.length).is_some());
    }
    assert!(entropy::source_port(frame, &layers) >= entropy::FIRST_PORT);
    let mut once = frame.to_vec();
    layers.finish_checksum(&mut once);
    let mut twice = once.clone();
    layers.finish_checksum(&mut twice);
    assert_eq!(once, twice);
    let mut error = [0; icmp::MAX_ERROR];
    if let Some(length) = icmp::too_big(frame, &layers, 1450, &mut error) {
        assert_eq!(icmp::mtu_of_too_big(&error[..length]), Some(1450));
    }
    layers.set_ecn(&mut once, Ecn::Ce);
    if layers.is_ip() {
        assert_eq!(Layers::walk(&once).ecn, Ecn::Ce);
    }
}

/// Address translation: no panic, refused packets unchanged, answers find home. The input is a
/// row of packets, each behind a byte for its length and one for what happens to it.
pub fn nat(input: &[u8]) {
    let ports = "20000-20063".parse().unwrap_or_default();
    let mut nat =
        Nat::new(NatConfig::new(vec![Ipv4Addr::new(192, 0, 2, 1)], ports), WorkerId(0), 1, Arc::new(BlindBoard));
    let sender = Sender { network: NetworkId(1), mac: MacAddr([2; 6]) };
    let mut now = Instant(0);
    for (what, packet) in row(input) {
        now = Instant(now.0 + (u64::from(what) << 28));
        nat.expire(now);
        let mut bytes = packet.to_vec();
        if what & 1 == 0 {
            match nat.translate(now, sender, &mut bytes) {
                Ok(()) => assert_eq!(bytes[12..16], [192, 0, 2, 1]),
                Err(_) => assert_eq!(bytes, packet),
            }
        }
        let before = bytes.clone();
        match nat.restore(now, &mut bytes, 0, what & 2 == 0, |_| Some(1450)) {
            Ok(Restored::Inside { network, .. }) => assert_eq!(network, sender.network),
            Ok(Restored::Elsewhere(worker)) => panic!("{worker} of one worker"),
            Ok(Restored::TooLong { .. } | Restored::Waits) | Err(_) => assert_eq!(bytes, before),
        }
        while let Some(frame) = nat.take_released() {
            nat.give_back(frame);
        }
    }
}

/// The whole worker of two simulated hosts: every frame accounted for. The input is a row of
/// frames, each behind a byte for its length and one for where it comes in.
pub fn pipeline(input: &[u8]) {
    let mut sim = Sim::mesh_over(2, &[NetworkPlan::new(VNI, 2)], |_, _| Underlay::V6);
    sim.adopt(1, know_by_both_families);
    let mut count = 0;
    for (place, frame) in row(input) {
        match place % 3 {
            0 => sim.inject(1, frame),
            port => sim.send(at(1, 0, usize::from(port - 1)), frame),
        }
        count += 1;
    }
    // `counters` asserts the law.
    assert!(sim.counters(1).received >= count);
    sim.counters(0);
}

/// Has the second host know the first by its IPv4 address, too.
fn know_by_both_families(tables: &mut Tables) {
    let (first, again) = (VtepId(0), VtepId(2));
    let Some(known) = tables.vtep(first).cloned() else { return };
    let macs = (Sim::uplink_mac(1), Some(Sim::uplink_mac(0)));
    tables.set_vtep(again, Vtep::new(Sim::vtep(1), Sim::address(0), known.uplink, macs.0, macs.1));
    if let Some(mut network) = tables.network(NetworkId(0)).cloned() {
        network.peers.push(again);
        tables.set_network(NetworkId(0), network);
    }
}

/// Cuts `input` into pieces, each behind a byte for its length and one more.
fn row(mut input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [length, what, tail @ ..] = input else { return None };
        let (piece, rest) = tail.split_at(usize::from(*length).min(tail.len()));
        input = rest;
        Some((*what, piece))
    })
}

/// The contrary of [`row`]; pieces that are too long are left out.
fn in_a_row<'a>(pieces: impl IntoIterator<Item = (u8, &'a [u8])>) -> Vec<u8> {
    let fitting = pieces.into_iter().filter_map(|(what, piece)| Some((u8::try_from(piece.len()).ok()?, what, piece)));
    fitting.flat_map(|(length, what, piece)| [&[length, what], piece].concat()).collect()
}

/// One frame of every kind that a container sends.
fn overlay_frames() -> Vec<Vec<u8>> {
    let network = lab::Network::new("seeds", VNI);
    let talk = Talk::new(network.station(1, 1), network.station(2, 1));
    let (from, to) = (talk.from, talk.to);
    let datagram = talk.udp4(1000, 53, &[7; 64]);
    let mut frames = vec![
        talk.udp6(1000, 53, b"six"),
        talk.tcp4(TcpHeader::new(1000, 80, 1, 512), b"GET"),
        talk.tcp6(TcpHeader::new(1000, 80, 1, 512), b""),
        talk.echo4(1, 1, b"ping"),
        talk.echo6(1, 1, b"ping"),
        frames::arp_request(from, to.ipv4),
        frames::arp_reply(from, to),
        frames::tagged(&datagram, 0x8100, 5),
        frames::tagged(&frames::tagged(&datagram, 0x8100, 5), 0x88a8, 6),
        vec![0xff; 14],
    ];
    frames.extend(frames::fragments4(&datagram, 24).unwrap_or_default());
    frames.push(datagram);
    frames
}

/// The same in the tunnel, from the first simulated host to the second.
fn underlay_frames() -> Vec<Vec<u8>> {
    let mac = |host: usize| lab::MacAddr(Sim::uplink_mac(host).0);
    let v4 = |host: usize| (mac(host), Sim::address(host));
    let v6 = |host: usize| (mac(host), Sim::address_v6(host));
    let tunnels = [Vxlan::new(v4(0), v4(1), VNI), Vxlan::new(v6(0), v6(1), VNI)];
    let mut frames: Vec<Vec<u8>> =
        tunnels.iter().flat_map(|tunnel| overlay_frames().into_iter().map(|frame| tunnel.wrap(&frame))).collect();
    // UDP behind hop-by-hop options, and behind a fragment header.
    for extension in [[0, 17, 0, 1, 4, 0, 0, 0, 0], [44, 17, 0, 0, 1, 0, 0, 0, 9]] {
        let outer = &tunnels[1].outer;
        let udp = tunnels[1].wrap(&overlay_frames()[0]).split_off(ETHERNET + 40);
        frames.push(outer.ipv6(IpNumber(extension[0]), &[&extension[1..], &udp].concat()));
    }
    frames
}

/// A conversation: what one host's containers say, and what the other host's tunnel brings.
fn frames_to_forward() -> Vec<Vec<u8>> {
    let (overlay, underlay) = (overlay_frames(), underlay_frames());
    let both =
        || overlay.iter().map(|frame| (1, frame.as_slice())).chain(underlay.iter().map(|frame| (0, frame.as_slice())));
    let mut seeds: Vec<Vec<u8>> = both().map(|piece| in_a_row([piece])).collect();
    seeds.push(in_a_row(both()));
    seeds
}

/// The same as IPv4 packets, there and back.
fn packets_to_translate() -> Vec<Vec<u8>> {
    let frames = overlay_frames();
    let packets: Vec<&[u8]> =
        frames.iter().filter(|frame| frame[12..14] == [8, 0]).map(|frame| &frame[ETHERNET..]).collect();
    let mut seeds: Vec<Vec<u8>> = packets.iter().map(|packet| in_a_row([(0, *packet), (1, *packet)])).collect();
    seeds.push(in_a_row(packets.iter().map(|packet| (2, *packet))));
    seeds
}

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// The network of all seeds.
const VNI: u32 = 5000;
