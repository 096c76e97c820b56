//! Networks are apart unless they are routed, and then meet through their gateways.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    sync::mpsc,
};

use vxlane_tests::{
    LabError,
    netns::Netns,
    peer::VxlaneOptions,
    ways_out::{self, PATIENCE, WaysOut},
};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 2);
const DB: Ipv4Addr = Ipv4Addr::new(10, 60, 0, 2);

/// What a ping says.
fn ping(ns: &Netns, to: Ipv4Addr) -> String {
    let output = ns.command("ping").args(["-n", "-c", "1", "-W", "1", &to.to_string()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that prints nothing when it succeeds.
fn order(rig: &WaysOut, arguments: &[&str]) -> Result<(), LabError> {
    match rig.vtep.cli(arguments) {
        Ok(_) | Err(LabError::Unfit { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[test]
fn two_networks_reach_each_other_while_there_is_a_route_and_see_each_others_own_addresses() {
    let rig = WaysOut::start(&VxlaneOptions::default()).unwrap();
    rig.network("green", 6000, "10.60.0").unwrap();
    let (web, db) = (rig.container("blue", "web", &[]).unwrap(), rig.container("green", "db", &[]).unwrap());
    assert!(!ping(&web, DB).contains("1 received"), "apart by default");
    order(&rig, &["network", "route", "blue", "green"]).unwrap();
    for (from, to) in [(&web, DB), (&db, WEB)] {
        let pong = ping(from, to);
        assert!(pong.contains("1 received") && pong.contains("ttl=63"), "one hop: {pong}");
    }
    let nobody = ping(&web, Ipv4Addr::new(10, 60, 0, 99));
    assert!(nobody.contains("From 10.50.0.1") && nobody.contains("Destination Host Unreachable"), "{nobody}");

    let (tell, told) = mpsc::channel();
    let service = ways_out::serve(&db, SocketAddrV4::new(DB, 0), move |stream, from| {
        tell.send(from.ip()).unwrap();
        ways_out::echo(stream, from);
    });
    let mut stream = ways_out::connect(&web, service.unwrap()).unwrap();
    let data = ways_out::bytes(3, 50_000);
    stream.write_all(&data).unwrap();
    let mut back = vec![0; data.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == data);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), IpAddr::V4(WEB), "nothing is translated");
    let told = rig.vtep.cli(&["network", "inspect", "green", "--json"]).unwrap();
    assert_eq!(told["routes"], serde_json::json!(["blue"]));

    order(&rig, &["network", "unroute", "green", "blue"]).unwrap();
    assert!(!ping(&web, DB).contains("1 received"), "apart again");
}

#[test]
fn a_route_that_cannot_be_is_refused_with_the_reason() {
    let rig = WaysOut::start(&VxlaneOptions::default()).unwrap();
    rig.network("twin", 6000, "10.50.0").unwrap();
    let options = ["--vni", "7000", "--subnet", "10.70.0.0/24", "--gateway", "10.70.0.1", "--internal", "--json"];
    rig.vtep.cli(&[&["network", "create", "inside"][..], &options].concat()).unwrap();
    for (other, reason) in [
        ("twin", "their subnets overlap: 10.50.0.0/24 and 10.50.0.0/24"),
        ("inside", "network \"inside\" is internal"),
        ("blue", "leads where it comes from"),
        ("nobody", "no such network: nobody"),
    ] {
        let error = order(&rig, &["network", "route", "blue", other]).unwrap_err().to_string();
        assert!(error.contains(reason), "{other}: {error}");
    }
    let told = rig.vtep.cli(&["network", "inspect", "blue", "--json"]).unwrap();
    assert_eq!(told["routes"], serde_json::json!([]));
}
