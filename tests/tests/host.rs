//! What the host does on the uplink goes on while vxlane runs there.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::Duration,
};

use vxlane_tests::{
    lab::{Host, Lab, LabOptions},
    peer::VtepKind,
    rig::Rig,
    traffic::{
        pace::{Amount, Pace},
        ping::{PingOptions, ping},
        udp::{self, UdpOptions},
    },
};

fn rig() -> Rig {
    let options = LabOptions { wire_offload: true, ..LabOptions::default() };
    Rig::start(&options, [&VtepKind::vxlane(), &VtepKind::vxlane()]).unwrap()
}

fn both(lab: &Lab) -> [&Host; 2] {
    [lab.host("a"), lab.host("b")]
}

#[test]
fn ping_and_arp_on_the_uplink_stay_the_hosts() {
    let rig = rig();
    let [a, b] = both(&rig.lab);
    for (from, to) in [(a, b), (b, a)] {
        from.ns().ip("neigh flush dev uplink").unwrap();
        let report = ping(from.ns(), to.address(), &PingOptions { count: 100, ..PingOptions::default() }).unwrap();
        assert!(report.complete(), "{report:?}");
        assert!(from.ns().ip("neigh show dev uplink").unwrap().contains(&to.address().to_string()));
    }
}

#[test]
fn a_tcp_session_like_ssh_goes_on_while_the_tunnel_is_flooded() {
    let rig = rig();
    let [a, b] = both(&rig.lab);
    let address = (b.address(), 22);
    let listener = b.ns().run(|| TcpListener::bind(address)).unwrap().unwrap();
    let server = thread::spawn(move || {
        let (mut session, _) = listener.accept().unwrap();
        let mut keys = [0; 1];
        while session.read(&mut keys).unwrap() > 0 {
            session.write_all(&keys).unwrap();
        }
    });
    let mut session = a.ns().run(|| TcpStream::connect(address)).unwrap().unwrap();
    session.set_nodelay(true).unwrap();
    session.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    thread::scope(|scope| {
        let flood = scope.spawn(|| rig.flood(64, Duration::from_secs(2)).unwrap());
        let mut typed = 0;
        while !flood.is_finished() {
            let mut echo = [0];
            session.write_all(b"x").unwrap();
            session.read_exact(&mut echo).unwrap();
            typed += 1;
        }
        assert!(typed > 20, "{typed} keys echoed in two seconds");
        let (_, received) = flood.join().unwrap();
        assert!(received.distinct > 10_000, "the tunnel carried traffic meanwhile: {received:?}");
    });
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_kernel_vxlan_device_on_another_port_keeps_working() {
    let rig = rig();
    for (host, other, last) in [("a", "b", 1), ("b", "a", 2)] {
        let (ns, remote) = (rig.lab.host(host).ns(), rig.lab.host(other).address());
        ns.ip(&format!("link add vxk type vxlan id 5000 dstport 8472 remote {remote} dev uplink")).unwrap();
        ns.ip(&format!("addr add 172.16.0.{last}/24 dev vxk")).unwrap();
        ns.ip("link set vxk up").unwrap();
    }
    let kernel: std::net::IpAddr = [172, 16, 0, 2].into();
    let a = rig.lab.host("a").ns();
    let report = ping(a, kernel, &PingOptions { count: 100, ..PingOptions::default() }).unwrap();
    assert!(report.complete(), "{report:?}");
    // And ours beside it.
    let options = UdpOptions { pace: Pace::Rate(5000), amount: Amount::Packets(5000), ..UdpOptions::default() };
    let (sent, received) = udp::exchange(&rig.left, &rig.right, &options).unwrap();
    assert!(received.exactly(sent.packets), "{received:?}");
}
