//! What the express lane leaves to the uplink comes out right whatever the uplink can do itself.
//!
//! The kernel cuts super-frames and finishes checksums where the device does not. For every
//! setting each packet on the wire is looked at, while verified streams go to a foreign VTEP.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use vxlane_tests::{
    lab::{Host, LabOptions, UPLINK, Underlay},
    peer::{KernelOptions, VXLAN_PORT, VtepKind, VxlaneOptions},
    rig::Rig,
    traffic::{
        pace::{Amount, Pace},
        raw::{Heading, Watch},
        tcp::{self, TcpOptions, Way},
        udp::{self, UdpOptions},
    },
};

/// What an uplink may leave to the kernel, as arguments of `ethtool -K`, and what then comes out:
/// a device that can segment by itself is given whole frames though `gso` is off.
const SETTINGS: [(&str, Out); 8] = [
    ("tx on", Out::Whole),
    ("tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off", Out::Cut),
    ("tso off", Out::Cut),
    ("gso off", Out::Whole),
    ("tso off gso off", Out::Cut),
    ("sg off", Out::Cut),
    ("tx off", Out::Finished),
    ("tx off tso off gso off sg off", Out::Finished),
];

/// Every setting is made from here.
const ALL_ON: &str = "tx on sg on tso on gso on tx-udp_tnl-segmentation on tx-udp_tnl-csum-segmentation on";

/// How far the kernel has come when a frame leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Out {
    /// The device would cut it.
    Whole,
    /// The device would finish its checksum.
    Cut,
    /// As on a wire.
    Finished,
}

/// What is wrong with packets of one kind of `Out`, and how many were looked at.
#[derive(Debug, Default)]
struct Findings {
    packets: u64,
    faults: Vec<String>,
    /// By ports.
    streams: HashMap<(u16, u16), Stream>,
    /// Segments that followed the one before.
    followed: u64,
    /// Of those, whose sender had sent something else in between, such as a segment again.
    after_others: u64,
}

/// One way of a TCP connection, far shorter than 65,536 packets.
#[derive(Debug, Default)]
struct Stream {
    /// Number and identification that the next segment should have.
    next: Option<(u32, u16)>,
    /// The identifications so far.
    used: HashSet<u16>,
}

impl Findings {
    fn look(&mut self, frame: &[u8], out: Out) {
        if !is_udp(frame) {
            return;
        }
        self.packets += 1;
        let fault = match inside(frame, out) {
            Ok(inner) => {
                let fault = fault(inner, out);
                // Of what is still whole nobody can tell how many follow.
                if out == Out::Whole { fault } else { fault.or_else(|| self.fault_in_sequence(inner)) }
            }
            Err(fault) => Some(fault),
        };
        if let Some(fault) = fault.filter(|_| self.faults.len() < 5) {
            let bytes: String = frame.iter().take(120).map(|byte| format!("{byte:02x}")).collect();
            self.faults.push(format!("{fault}, {} bytes: {bytes}", frame.len()));
        }
    }

    /// Segments of one stream have identifications that count up, as the sender's kernel gives them,
    /// and no two have the same. What was sent again, and overtook, may come with a higher one first.
    fn fault_in_sequence(&mut self, inner: &[u8]) -> Option<String> {
        let packet = SlicedPacket::from_ethernet(inner).ok()?;
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&packet.net, &packet.transport) else {
            return None;
        };
        let (number, length) = (tcp.sequence_number(), u32::try_from(tcp.payload().len()).unwrap());
        let identification = ip.header().identification();
        let stream = self.streams.entry((tcp.source_port(), tcp.destination_port())).or_default();
        let expected = stream.next.replace((number.wrapping_add(length), identification.wrapping_add(1)));
        if length == 0 {
            return None;
        }
        if let Some((_, expected)) = expected.filter(|&(expected, _)| expected == number) {
            self.followed += 1;
            self.after_others += u64::from(identification != expected);
        }
        let is_new = stream.used.insert(identification);
        (!is_new).then(|| format!("identification {identification} a second time"))
    }
}

/// Whether this is UDP, over IPv4 or IPv6.
fn is_udp(frame: &[u8]) -> bool {
    let v4 = frame.get(12..14) == Some(&[8, 0]) && frame.get(23) == Some(&17);
    v4 || frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(20) == Some(&17)
}

/// The frame inside, or what is wrong with the headers around it.
fn inside(frame: &[u8], out: Out) -> Result<&[u8], String> {
    if frame.len() > 1514 && out != Out::Whole {
        return Err("longer than the wire allows".to_owned());
    }
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| format!("outer headers: {error}"))?;
    let (Some(net), Some(TransportSlice::Udp(udp))) = (&packet.net, &packet.transport) else {
        return Err("not VXLAN".to_owned());
    };
    let (ip_length, is_right) = match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            let is_right = header.header_checksum == header.calc_header_checksum() && header.dont_fragment;
            (usize::from(header.total_len) + 14, is_right)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            let label = u32::from(udp.source_port()).wrapping_mul(0x9e37_79b1) >> 12;
            let is_right = header.flow_label.value() == label && header.hop_limit == 64;
            (usize::from(header.payload_length) + 54, is_right)
        }
        NetSlice::Arp(_) => return Err("not VXLAN".to_owned()),
    };
    let headers = if matches!(net, NetSlice::Ipv4(_)) { 34 } else { 54 };
    let lengths = (ip_length, usize::from(udp.length()) + headers);
    if lengths != (frame.len(), frame.len()) {
        return Err(format!("outer lengths {lengths:?}"));
    }
    if !is_right || udp.checksum() != 0 || udp.destination_port() != VXLAN_PORT {
        return Err(format!("outer headers {net:?} {udp:?}"));
    }
    udp.payload().get(8..).ok_or_else(|| "no VXLAN header".to_owned())
}

/// What is wrong with a frame inside, if anything.
fn fault(inner: &[u8], out: Out) -> Option<String> {
    let packet = match SlicedPacket::from_ethernet(inner) {
        Ok(packet) => packet,
        Err(error) => return Some(format!("inner headers: {error}")),
    };
    let Some(NetSlice::Ipv4(ip)) = &packet.net else { return None };
    let header = ip.header().to_header();
    if usize::from(header.total_len) + 14 != inner.len() || header.header_checksum != header.calc_header_checksum() {
        return Some(format!("inner header {header:?}"));
    }
    let (found, right) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let right = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap();
            // All bits set is zero, too (RFC 1071 section 2), and the kernel's segmentation writes either.
            (tcp.checksum() % 0xffff, right % 0xffff)
        }
        Some(TransportSlice::Udp(udp)) => {
            if usize::from(udp.length()) + 34 != inner.len() {
                return Some(format!("inner UDP length {}", udp.length()));
            }
            (udp.checksum(), udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap())
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_)) | None => return None,
    };
    (out == Out::Finished && found != right).then(|| format!("inner checksum {found:04x}, should be {right:04x}"))
}

fn watch(host: &Host, out: Out) -> (Watch, Arc<Mutex<Findings>>) {
    let findings: Arc<Mutex<Findings>> = Arc::default();
    let shared = Arc::clone(&findings);
    let watch = Watch::start(host.ns(), UPLINK, Heading::Incoming, move |frame| {
        shared.lock().unwrap().look(frame, out);
        false
    });
    (watch.unwrap(), findings)
}

fn check(peer: &VtepKind, wire_offload: bool, underlay: Underlay) {
    let zero_checksums = underlay == Underlay::V6;
    let express = VxlaneOptions { express: true, switched: None, zero_checksums, ..VxlaneOptions::default() };
    let express = VtepKind::Vxlane(express);
    let options = LabOptions { wire_offload, underlay, ..LabOptions::default() };
    let rig = Rig::start(&options, [&express, peer]).unwrap();
    let [a, b] = ["a", "b"].map(|name| rig.lab.host(name));
    for (setting, out) in SETTINGS.iter().filter(|&&(_, out)| wire_offload || out == Out::Finished) {
        a.ns().ethtool(&format!("-K {UPLINK} {ALL_ON}")).unwrap();
        a.ns().ethtool(&format!("-K {UPLINK} {setting}")).unwrap();
        let (watch, findings) = watch(b, *out);
        let bytes = 8 << 20;
        let options = TcpOptions { bytes, way: Way::Both, patience: Duration::from_secs(20), ..TcpOptions::default() };
        tcp::stream(&rig.left, &rig.right, &options).unwrap_or_else(|error| {
            panic!("{setting}: {error}\n{:?}\n{}", findings.lock().unwrap().faults, rig.diagnosis())
        });
        let options = UdpOptions {
            payload: 1_001,
            pace: Pace::Rate(5_000),
            amount: Amount::Packets(1_000),
            ..UdpOptions::default()
        };
        let (sent, received) = udp::exchange(&rig.left, &rig.right, &options).unwrap();
        assert!(received.exactly(sent.packets), "{setting}: {received:?}");
        let lost = watch.lost();
        drop(watch);
        let findings = findings.lock().unwrap();
        assert!(findings.faults.is_empty(), "{setting}: {:#?}", findings.faults);
        let least = if *out == Out::Whole { 100 } else { bytes / 1400 };
        assert!(findings.packets >= least + 1_000, "{setting}: {} packets, {lost} not seen", findings.packets);
        assert!(*out == Out::Whole || findings.followed > 1_000, "{setting}: {} followed", findings.followed);
        let (followed, after_others) = (findings.followed, findings.after_others);
        assert!(after_others * 50 <= followed, "{setting}: {after_others} of {followed} do not count up");
        println!("{}, {setting}: {} packets looked at, {out:?}", peer_name(peer), findings.packets);
    }
    let account = rig.vteps[0].as_vxlane().unwrap().account().unwrap();
    assert_eq!(account.number(&["dropped"]), 0, "{account:?}");
}

fn peer_name(peer: &VtepKind) -> &'static str {
    match peer {
        VtepKind::Kernel(_) => "kernel",
        VtepKind::Ovs(_) => "OVS",
        VtepKind::Vxlane(_) => "vxlane",
    }
}

#[test]
fn whatever_the_uplink_leaves_to_the_kernel_the_kernels_vxlan_gets_right_packets_and_every_byte() {
    check(&VtepKind::kernel(), true, Underlay::V4);
}

#[test]
fn over_ipv6_the_kernels_vxlan_gets_right_packets_and_every_byte_too() {
    let extra = "udp6zerocsumtx udp6zerocsumrx".to_owned();
    check(&VtepKind::Kernel(KernelOptions { extra, ..KernelOptions::default() }), true, Underlay::V6);
}

#[test]
fn on_an_uplink_without_offload_open_vswitch_gets_right_packets_and_every_byte() {
    check(&VtepKind::ovs(), false, Underlay::V4);
}

#[test]
fn over_ipv6_without_offload_open_vswitch_gets_right_packets_and_every_byte() {
    check(&VtepKind::ovs(), false, Underlay::V6);
}
