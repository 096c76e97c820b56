//! What the steering program takes, what it leaves to the host, and that it leaves no trace.
//!
//! Needs root.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on is to stop"
)]

mod rig;

use etherparse::PacketBuilder;
use rig::*;
use std::{
    net::{Ipv6Addr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};
use vxlane_dataplane::{
    attach::{AttachMode, KeptLink, Role, Steer, SteerCounters, SteerError},
    link::{Link, XdpMode},
    port::{
        Receive,
        xdp::{BindMode, Config, XdpReceive, XdpSocket, XdpTransmit},
    },
    tables::LocalVtep,
};

const VXLAN: u16 = 4789;

/// Attaches to the near end and serves its queue 0.
fn steered(rig: &Rig, role: Role, mode: AttachMode) -> (Steer, XdpReceive, XdpTransmit) {
    rig.near.inside(|| {
        let mut steer = Steer::load().expect("load");
        steer.ours().set_vtep(&LocalVtep::new(Some(NEAR_IP.into()), Some(NEAR_IP6), VXLAN), None).expect("vtep");
        let attached = steer.attach(VETH, role, mode, 1).expect("attach");
        let config = Config { bind: BindMode::Copy, ..Config::new(VETH, 0) };
        let (rx, tx) = XdpSocket::open(&config).expect("open");
        steer.serve(attached.ifindex, 0, rx.socket()).expect("serve");
        (steer, rx, tx)
    })
}

/// The next frame on the ring, or `None` after two seconds of none.
fn next(rx: &mut XdpReceive) -> Option<Vec<u8>> {
    for _ in 0..400 {
        match rx.take() {
            0 => std::thread::sleep(Duration::from_millis(5)),
            1 => {
                let frame = rx.frame(0).to_vec();
                rx.release();
                return Some(frame);
            }
            many => panic!("{many} frames at once"),
        }
    }
    None
}

fn udp_from_far(rig: &Rig, to_port: u16, payload: &[u8]) {
    rig.far.inside(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("bind");
        socket.send_to(payload, (std::net::Ipv4Addr::from(NEAR_IP), to_port)).expect("send");
    });
}

fn host_socket(rig: &Rig, port: u16) -> UdpSocket {
    let socket = rig.near.inside(|| UdpSocket::bind(("0.0.0.0", port)).expect("bind"));
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("timeout");
    socket
}

fn check_byte_exact(mode: AttachMode, expected: XdpMode) {
    let rig = Rig::new();
    let (_steer, mut rx, _tx) = steered(&rig, Role::Access, mode);
    assert_eq!(rig.near.inside(|| Link::get(VETH)).unwrap().xdp.map(|p| p.mode), Some(expected));
    let mut far = rig.far.packets(VETH);
    for (number, length) in [60, 61, 64, 65, 127, 128, 590, 1000, 1499, 1513, 1514].iter().enumerate() {
        let sent = frame(number as u32, *length);
        far.send(&sent);
        assert_eq!(next(&mut rx).as_ref(), Some(&sent), "{length} bytes");
    }
}

#[test]
fn frames_sent_through_a_veth_arrive_byte_exact() {
    check_byte_exact(AttachMode::Auto, XdpMode::Native);
}

#[test]
fn frames_arrive_byte_exact_in_generic_mode_too() {
    check_byte_exact(AttachMode::Generic, XdpMode::Generic);
}

#[test]
fn an_uplink_leaves_ping_arp_and_foreign_udp_to_the_host_and_takes_vxlan() {
    let rig = Rig::new();
    let (steer, mut rx, _tx) = steered(&rig, Role::Uplink, AttachMode::Auto);
    rig.far.exec("ping", &["-c", "2", "-i", "0.05", "-W", "2", "10.9.0.1"]);
    let host = host_socket(&rig, 5000);
    udp_from_far(&rig, 5000, b"for the host");
    let mut buffer = [0; 64];
    let length = host.recv(&mut buffer).expect("the host's datagram");
    assert_eq!(&buffer[..length], b"for the host");
    assert_eq!(rx.take(), 0);

    let before = steer.counters().unwrap();
    assert_eq!((before.redirected, before.no_socket, before.fragment), (0, 0, 0));
    assert!(before.not_vxlan >= 4, "ARP, two pings, one datagram: {before:?}");
    udp_from_far(&rig, VXLAN, b"\x08\0\0\0\0\0\x2a\0 overlay");
    let taken = next(&mut rx).expect("VXLAN on the ring");
    assert!(taken.ends_with(b" overlay"));
    assert_eq!(steer.counters().unwrap(), SteerCounters { redirected: 1, ..before });
}

#[test]
fn ip_options_do_not_hide_vxlan() {
    let rig = Rig::new();
    let (_steer, mut rx, _tx) = steered(&rig, Role::Uplink, AttachMode::Auto);
    let mut ip = etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, FAR_IP, NEAR_IP).expect("header");
    ip.options = [1, 1, 1, 0].into();
    let builder = PacketBuilder::ethernet2(FAR_MAC, NEAR_MAC)
        .ip(etherparse::IpHeaders::Ipv4(ip, Default::default()))
        .udp(50_000, VXLAN);
    let mut sent = Vec::new();
    builder.write(&mut sent, &[7; 40]).expect("packet");
    rig.far.packets(VETH).send(&sent);
    assert_eq!(next(&mut rx), Some(sent));
}

#[test]
fn fragments_of_a_datagram_to_us_are_reassembled_by_the_host() {
    let rig = Rig::new();
    let (steer, mut rx, _tx) = steered(&rig, Role::Uplink, AttachMode::Auto);
    let host = host_socket(&rig, VXLAN);
    udp_from_far(&rig, VXLAN, &[9; 4000]);
    let mut buffer = [0; 5000];
    assert_eq!(host.recv(&mut buffer).expect("the datagram"), 4000);
    assert_eq!(steer.counters().unwrap().fragment, 3);
    assert_eq!(rx.take(), 0);
}

#[test]
fn a_queue_without_a_socket_passes_to_the_host() {
    let rig = Rig::new();
    let (steer, rx, tx) = steered(&rig, Role::Access, AttachMode::Auto);
    drop((rx, tx));
    rig.far.exec("ping", &["-c", "1", "-W", "2", "10.9.0.1"]);
    let counters = steer.counters().unwrap();
    assert_eq!(counters.redirected, 0);
    assert!(counters.no_socket >= 2, "{counters:?}");
}

#[test]
fn a_foreign_program_is_named_and_left_alone() {
    let rig = Rig::new();
    for mode in [XdpMode::Native, XdpMode::Generic] {
        let foreign = rig.near.inside(|| foreign_program(VETH, mode));
        let found = rig.near.inside(|| Link::get(VETH)).unwrap().xdp.expect("the foreign program");
        rig.near.inside(|| {
            let mut steer = Steer::load().expect("load");
            for ours in [AttachMode::Auto, AttachMode::Native, AttachMode::Generic] {
                let error = steer.attach(VETH, Role::Access, ours, 1).expect_err("refusal");
                let SteerError::Occupied { interface, program } = &error else {
                    panic!("{error}");
                };
                assert_eq!((interface.as_str(), *program), (VETH, found));
                assert!(error.to_string().contains(&found.id.to_string()), "{error}");
            }
        });
        assert_eq!(rig.near.inside(|| Link::get(VETH)).unwrap().xdp, Some(found));
        drop(foreign);
    }
}

#[test]
fn our_own_program_is_not_put_on_an_interface_twice() {
    let rig = Rig::new();
    let (mut steer, _rx, _tx) = steered(&rig, Role::Access, AttachMode::Auto);
    let again = rig.near.inside(|| steer.attach(VETH, Role::Access, AttachMode::Auto, 1));
    assert!(matches!(again, Err(SteerError::Occupied { .. })), "{again:?}");
}

fn check_leaves_no_trace(mode: AttachMode, gro_before: bool, detach: fn(Steer, u32)) {
    let rig = Rig::new();
    let setting = if gro_before { "on" } else { "off" };
    rig.near.exec("ethtool", &["-K", VETH, "gro", setting]);
    let features = rig.near.exec("ethtool", &["-k", VETH]);
    let before = rig.near.inside(|| Link::get(VETH)).unwrap();
    let (steer, _rx, _tx) = steered(&rig, Role::Access, mode);
    if mode == AttachMode::Generic {
        assert!(!rig.near.gro(VETH), "generic mode sees merged frames");
    }
    detach(steer, before.index);
    assert_eq!(rig.near.inside(|| Link::get(VETH)).unwrap(), before);
    assert_eq!(rig.near.exec("ethtool", &["-k", VETH]), features);
    assert_eq!(before.xdp, None);
}

#[test]
fn detaching_leaves_the_interface_as_found() {
    for mode in [AttachMode::Native, AttachMode::Generic] {
        for gro in [true, false] {
            check_leaves_no_trace(mode, gro, |mut steer, index| {
                steer.detach(index).expect("detach");
                assert!(matches!(steer.detach(index), Err(SteerError::NotAttached { .. })));
            });
        }
    }
}

#[test]
fn dropping_the_steering_leaves_the_interface_as_found() {
    for mode in [AttachMode::Native, AttachMode::Generic] {
        check_leaves_no_trace(mode, true, |steer, _| drop(steer));
    }
}

#[test]
fn a_device_without_native_xdp_gets_generic_unless_that_was_ruled_out() {
    let rig = Rig::new();
    rig.near.ip("link add bridge0 type bridge");
    rig.near.ip("link set bridge0 up");
    rig.near.inside(|| {
        let mut steer = Steer::load().expect("load");
        let refused = steer.attach("bridge0", Role::Access, AttachMode::Native, 1);
        assert!(matches!(refused, Err(SteerError::Attach { .. })), "{refused:?}");
        assert_eq!(Link::get("bridge0").unwrap().xdp, None);
        let attached = steer.attach("bridge0", Role::Access, AttachMode::Auto, 1).expect("attach");
        assert_eq!(attached.mode, XdpMode::Generic);
        assert_eq!(Link::get("bridge0").unwrap().xdp.map(|p| p.mode), Some(XdpMode::Generic));
    });
}

#[test]
fn a_link_says_what_the_kernel_says() {
    let rig = Rig::with_queues(3);
    rig.near.ip(&format!("link set {VETH} mtu 1400"));
    let link = rig.near.inside(|| Link::get(VETH)).unwrap();
    assert_eq!(link.mac, Some(NEAR_MAC));
    assert_eq!(link.mtu, 1400);
    assert_eq!(link.kind.as_deref(), Some("veth"));
    assert_eq!((link.rx_queues, link.tx_queues), (3, 3));
    rig.near.exec("ethtool", &["-L", VETH, "rx", "2"]);
    assert_eq!(rig.near.inside(|| Link::get(VETH)).unwrap().rx_queues, 2);
    let missing = rig.near.inside(|| Link::get("no-such")).expect_err("no such link");
    assert!(missing.to_string().contains("no-such"), "{missing}");
}

#[test]
fn serving_wants_a_queue_of_an_attached_interface_and_a_socket_of_the_right_kind() {
    let rig = Rig::new();
    let (mut steer, rx, _tx) = steered(&rig, Role::Access, AttachMode::Auto);
    let index = rig.near.inside(|| Link::get(VETH)).unwrap().index;
    let unknown = steer.serve(index + 1000, 0, rx.socket());
    assert!(matches!(unknown, Err(SteerError::NotAttached { .. })), "{unknown:?}");
    let beyond = steer.serve(index, 1, rx.socket());
    assert!(matches!(beyond, Err(SteerError::NoQueue { queue: 1, queues: 1, .. })), "{beyond:?}");
    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    let wrong = steer.serve(index, 0, udp.as_raw_fd());
    assert!(matches!(wrong, Err(SteerError::Map { .. })), "{wrong:?}");
}

#[test]
fn the_program_of_an_earlier_process_is_replaced_without_a_gap_and_leaves_as_if_it_were_ours() {
    let rig = Rig::new();
    rig.near.exec("ethtool", &["-K", VETH, "gro", "on"]);
    let (first, mut rx, _tx) = steered(&rig, Role::Access, AttachMode::Generic);
    assert!(!rig.near.gro(VETH));
    let kept = first.keep(index(&rig)).expect("keep");
    let (label, link) = (kept.label(), kept.link);
    assert_eq!(label, "gro");
    // What a process leaves that was killed: everything but its descriptors.
    std::mem::forget(first);
    let mut far = rig.far.packets(VETH);
    far.send(&frame(1, 60));
    let kept = KeptLink::from_label(&label, link);
    let second = rig.near.inside(|| {
        let mut steer = Steer::load().expect("load");
        let attached = steer.resume(VETH, Role::Access, kept, &[rx.socket()]).expect("resume");
        steer.take_over(attached.ifindex).expect("take over");
        assert_eq!((attached.mode, attached.queues), (XdpMode::Generic, 1));
        steer
    });
    far.send(&frame(2, 60));
    let mut got = 0;
    eventually("both frames", || {
        got += rx.take();
        rx.release();
        got == 2
    });
    assert_eq!(second.counters().expect("counters").redirected, 1, "the second frame came by the new program");
    assert_eq!(rig.near.inside(|| Link::get(VETH)).expect("link").xdp.map(|found| found.mode), Some(XdpMode::Generic));
    rig.near.inside(|| drop(second));
    assert_eq!(rig.near.inside(|| Link::get(VETH)).expect("link").xdp, None);
    assert!(rig.near.gro(VETH));
}

#[test]
fn a_program_that_was_kept_and_has_been_taken_away_is_not_gone_on_with() {
    let rig = Rig::new();
    let (first, rx, _tx) = steered(&rig, Role::Access, AttachMode::Generic);
    let kept = first.keep(index(&rig)).expect("keep");
    rig.near.inside(|| drop(first));
    assert_eq!(kept.place().expect("place"), None);
    let error = rig.near.inside(|| {
        Steer::load().expect("load").resume(VETH, Role::Access, kept, &[rx.socket()]).expect_err("nothing there")
    });
    assert_eq!(error.to_string(), "veth0 does not carry the steering program that was kept");
}

fn index(rig: &Rig) -> u32 {
    rig.near.inside(|| Link::get(VETH)).expect("link").index
}

/// UDP over IPv6 from the far end, behind an extension header of this number and these bytes.
fn udp6(to: Ipv6Addr, port: u16, extension: Option<(u8, [u8; 8])>) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(FAR_MAC, NEAR_MAC).ipv6(FAR_IP6.octets(), to.octets(), 64);
    let mut frame = Vec::new();
    builder.udp(50_000, port).write(&mut frame, &[7; 40]).expect("packet");
    if let Some((number, bytes)) = extension {
        frame[20] = number;
        frame[18..20].copy_from_slice(&56_u16.to_be_bytes());
        frame.splice(54..54, bytes);
    }
    frame
}

#[test]
fn over_ipv6_an_uplink_takes_vxlan_to_our_address_and_leaves_all_else_to_the_host() {
    let rig = Rig::new();
    let (steer, mut rx, _tx) = steered(&rig, Role::Uplink, AttachMode::Auto);
    let vxlan = || udp6(NEAR_IP6, VXLAN, None);
    let mut icmp = vxlan();
    icmp[20] = 58;
    let mut cut = vxlan();
    cut.truncate(56);
    let options = udp6(NEAR_IP6, VXLAN, Some((0, [17, 0, 1, 4, 0, 0, 0, 0])));
    let fragment = udp6(NEAR_IP6, VXLAN, Some((44, [17, 0, 0, 1, 0, 0, 0, 9])));
    let ours = SteerCounters { redirected: 1, ..SteerCounters::default() };
    let not_ours = SteerCounters { not_vxlan: 1, ..SteerCounters::default() };
    let cases = [
        ("VXLAN", vxlan(), ours),
        ("another port", udp6(NEAR_IP6, VXLAN + 1, None), not_ours),
        ("another address", udp6(FAR_IP6, VXLAN, None), not_ours),
        ("rfc6936_4_10: ICMPv6, such as a packet too big, is for the host to judge", icmp, not_ours),
        ("behind options", options, not_ours),
        ("cut short", cut, not_ours),
        ("a fragment", fragment, SteerCounters { fragment: 1, ..SteerCounters::default() }),
    ];
    let mut far = rig.far.packets(VETH);
    for (what, frame, expected) in cases {
        let before = steer.counters().expect("counters");
        far.send(&frame);
        let grown = || {
            let now = steer.counters().expect("counters");
            SteerCounters {
                redirected: now.redirected - before.redirected,
                no_socket: now.no_socket - before.no_socket,
                not_vxlan: now.not_vxlan - before.not_vxlan,
                fragment: now.fragment - before.fragment,
                unknown_port: now.unknown_port - before.unknown_port,
                no_worker: 0,
            }
        };
        eventually(what, || grown() == expected);
        let taken = if expected == ours { next(&mut rx) } else { None };
        assert_eq!(taken, (expected == ours).then_some(frame), "{what}");
        assert_eq!(rx.take(), 0, "{what}");
    }
}
