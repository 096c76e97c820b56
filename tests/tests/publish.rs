//! Ports of the host that lead to containers: from outside, from the host, from other containers.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use vxlane_tests::{
    LabError,
    netns::Netns,
    peer::VxlaneOptions,
    ways_out::{self, OUTSIDE, PATIENCE, SERVER, WaysOut},
};

fn start() -> WaysOut {
    WaysOut::start(&VxlaneOptions::default()).unwrap()
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddrV4::new(address, port).into()
}

/// Echoes TCP at `port` of `container` and tells who calls.
fn callers(container: &Netns, port: u16) -> Receiver<IpAddr> {
    let (tell, told) = mpsc::channel();
    let echo = move |stream, from: SocketAddr| {
        // The test may have seen enough.
        let _ = tell.send(from.ip());
        ways_out::echo(stream, from);
    };
    ways_out::serve(container, at(Ipv4Addr::UNSPECIFIED, port), echo).unwrap();
    told
}

/// Has `ns` talk to an echo at `port` of the host.
fn talk(ns: &Netns, port: u16) -> Result<(), LabError> {
    let mut stream = ways_out::connect(ns, at(OUTSIDE, port))?;
    let data = ways_out::bytes(port.into(), 50_000);
    stream.write_all(&data).map_err(LabError::syscall("write", "a published port"))?;
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back).map_err(LabError::syscall("read", "a published port"))?;
    assert!(back == data, "what was sent comes back");
    Ok(())
}

#[test]
fn a_published_port_is_reached_from_outside_from_the_host_and_from_other_containers() {
    let rig = start();
    let web = rig.container("blue", "web", &["--publish", "8080:80/tcp"]).unwrap();
    rig.network("green", 6000, "10.60.0").unwrap();
    let (near, far) = (rig.container("blue", "near", &[]).unwrap(), rig.container("green", "far", &[]).unwrap());
    let told = callers(&web, 80);
    let who = || told.recv_timeout(PATIENCE).unwrap();
    talk(&rig.server, 8080).unwrap();
    assert_eq!(who(), IpAddr::V4(SERVER), "the client's own address");
    for container in [&near, &far, &web] {
        talk(container, 8080).unwrap();
        assert_eq!(who(), IpAddr::V4(OUTSIDE), "from inside, by way of the host's address");
    }
    talk(rig.host().ns(), 8080).unwrap();
    assert_eq!(who(), IpAddr::V4(Ipv4Addr::new(10, 50, 0, 2)), "from the host, by way of the container itself");
    let told = rig.vtep.cli(&["endpoint", "inspect", "blue", "--name", "web", "--json"]).unwrap();
    assert_eq!(told["publish"], serde_json::json!(["8080:80/tcp"]));
}

#[test]
fn ranges_and_udp_lead_to_the_right_ports_and_several_containers_share_the_host() {
    let rig = start();
    let one = rig.container("blue", "one", &["--publish", "7000-7001:70-71/udp", "--publish", "192.0.2.1:8001:80"]);
    let (one, two) = (one.unwrap(), rig.container("blue", "two", &["--publish", "8002:80"]).unwrap());
    let (first, second) = (callers(&one, 80), callers(&two, 80));
    talk(&rig.server, 8001).unwrap();
    assert!(first.recv_timeout(PATIENCE).is_ok() && second.try_recv().is_err());
    talk(&rig.server, 8002).unwrap();
    assert!(second.recv_timeout(PATIENCE).is_ok() && first.try_recv().is_err());
    for (ns, port, inside) in [(&rig.server, 7001, 71), (&rig.server, 7000, 70), (rig.host().ns(), 7001, 71)] {
        let bound = |ns: &Netns, port| {
            let socket = ns.run(|| UdpSocket::bind(at(Ipv4Addr::UNSPECIFIED, port))).unwrap().unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let (client, service) = (bound(ns, 0), bound(&one, inside));
        client.send_to(b"question", at(OUTSIDE, port)).unwrap();
        let mut buffer = [0; 64];
        let (length, from) = service.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"question");
        service.send_to(b"answer", from).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&b"answer"[..], at(OUTSIDE, port)));
    }
}

#[test]
fn what_cannot_be_published_is_refused_with_the_reason_and_nothing_is_left() {
    let rig = start();
    let _listening = rig.host().ns().run(|| TcpListener::bind(at(OUTSIDE, 8080))).unwrap().unwrap();
    let refused = |network: &str, publish: &str| {
        let error = rig.container(network, "web", &["--publish", publish]).unwrap_err().to_string();
        assert_eq!(rig.vtep.cli(&["endpoint", "ls", "--json"]).unwrap(), serde_json::json!([]), "{publish}");
        error
    };
    let test = std::fs::read_to_string("/proc/self/comm").unwrap();
    let error = refused("blue", "8080:80");
    let named = format!("8080/tcp\": in use by {} ({})", test.trim(), std::process::id());
    assert!(error.contains(&named), "the process is named, {named}: {error}");
    assert!(refused("blue", "4789:80/udp").contains("the port of the tunnels"));
    assert!(refused("blue", "80:80:80:80").contains("is not an IPv4 address"));
    assert!(refused("blue", "203.0.113.9:80:80").contains("ours is 192.0.2.1"));
    let options = ["--vni", "7000", "--subnet", "10.70.0.0/24", "--gateway", "10.70.0.1", "--internal", "--json"];
    rig.vtep.cli(&[&["network", "create", "inside"][..], &options].concat()).unwrap();
    assert!(refused("inside", "8081:80").contains("is internal: nothing leads into it"));
    let _one = rig.container("blue", "one", &["--publish", "8081:80"]).unwrap();
    let error = rig.container("blue", "two", &["--publish", "8081:81"]).unwrap_err().to_string();
    assert!(error.contains("8081/tcp is published by endpoint[one], too"), "{error}");
}

#[test]
fn a_port_is_the_hosts_again_when_its_endpoint_is_disconnected() {
    let rig = start();
    let web = rig.container("blue", "web", &["--publish", "8080:80"]).unwrap();
    let told = callers(&web, 80);
    talk(&rig.server, 8080).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    let taken = rig.host().ns().run(|| TcpListener::bind(at(OUTSIDE, 8080))).unwrap();
    assert_eq!(taken.unwrap_err().kind(), std::io::ErrorKind::AddrInUse, "nobody else gets it meanwhile");
    let disconnect = ["network", "disconnect", "blue", "--name", "web"];
    // This one prints nothing, which is no JSON.
    assert!(matches!(rig.vtep.cli(&disconnect), Err(LabError::Unfit { .. })));
    let host = vxlane_tests::process::await_value(
        "port 8080 for the host",
        Duration::from_secs(2),
        || ways_out::serve(rig.host().ns(), at(OUTSIDE, 8080), ways_out::echo).ok(),
        String::new,
    );
    host.unwrap();
    talk(&rig.server, 8080).unwrap();
    assert!(told.try_recv().is_err(), "the host itself answered");
}
