//! Flows of the express lane while their daemon is killed, replaced, away, and back.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    env, fs,
    net::UdpSocket,
    thread,
    time::{Duration, Instant},
};

use rig::{
    Daemon, Home, Namespace, ask, binary, eventually, inside,
    probe::{Probe, RATE},
    run,
    thief::take_program_off,
    two::{Two, config},
};
use serde_json::Value;

/// `suite`, or `soak` in a run that has time.
fn turns(suite: usize, soak: usize) -> usize {
    if env::var_os("VXLANE_SOAK").is_some() { soak } else { suite }
}

/// A worker is asked again after an eighth of that, while there is one.
const AGEING: &str = "ageing = 24\n";

#[test]
fn an_established_flow_goes_on_while_nobody_is_there_and_when_somebody_comes_back() {
    let mut rig = Two::new(AGEING);
    assert!(rig.blue[0].pings("10.0.0.2", 3));
    let probe = Probe::start(&rig.blue[0], &rig.blue[1], "10.0.0.2");
    rig.await_flows();
    let mut marks = vec![probe.sent()];
    for turn in 0..turns(4, 40) {
        let side = turn % 2;
        rig.kill(side);
        // Once for longer than a worker that is there would go without asking.
        let away = if turn == 0 { Duration::from_secs(6) } else { Duration::from_millis(300) };
        let killed = Instant::now();
        while killed.elapsed() < away {
            probe.await_arrival();
        }
        rig.start(side);
        probe.await_arrival();
        // What a crash has made it forget is learned anew from those who speak.
        assert!(rig.blue[1 - side].pings(&format!("10.0.0.{}", side + 1), 2));
        rig.await_flows();
        marks.push(probe.sent());
    }
    let fate = probe.finish();
    let lost: Vec<u64> = marks.windows(2).map(|pair| fate.lost(pair[0]..pair[1])).collect();
    println!("{} kills, {} sent, lost by each {lost:?}", lost.len(), fate.sent);
    // What a worker had in its hands, a burst at most: nearly nothing takes that way.
    assert!(lost.iter().all(|&lost| lost <= 64), "{lost:?}");
    for home in &rig.homes {
        assert_eq!(home.json("stats")["imbalance"], 0);
    }
}

#[test]
fn a_planned_restart_loses_nothing_in_the_express_lane() {
    let rig = Two::new("");
    assert!(rig.blue[0].pings("10.0.0.2", 3));
    let probe = Probe::start(&rig.blue[0], &rig.blue[1], "10.0.0.2");
    rig.await_flows();
    let count = turns(4, 50);
    for turn in 0..count {
        let side = turn % 2;
        ask(&rig.homes[side], "restart");
        probe.await_arrival();
        rig.await_flows();
    }
    let fate = probe.finish();
    println!("{count} restarts, {} lost of {}", fate.lost(0..fate.sent), fate.sent);
    assert_eq!(fate.lost(0..fate.sent), 0, "of {} in {count} restarts", fate.sent);
    assert!(fate.sent > RATE);
}

/// Packets that an interface has received.
fn received(host: &Namespace, interface: &str) -> u64 {
    let link: Value = serde_json::from_str(&host.ip(&format!("-s -j link show {interface}"))).unwrap();
    link[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
}

/// A VTEP of the kernel on `network`, on a switch.
fn vtep(switch: &Namespace, number: u8) -> Namespace {
    let host = Namespace::new();
    switch.ip(&format!("link add h{number} type veth peer name u0 netns {}", host.0));
    switch.ip(&format!("link set h{number} master br0 up"));
    host.ip(&format!("addr add 192.0.2.{number}/24 dev u0"));
    host.ip("link set u0 up");
    host
}

const MAC: &str = "02:00:00:00:00:99";

#[test]
fn no_packet_goes_to_a_vtep_that_lost_the_station_while_the_daemon_was_away_for_longer_than_it_ages() {
    let switch = Namespace::new();
    switch.ip("link add br0 type bridge");
    switch.ip("link set br0 up");
    let [near, old, new] = [1, 2, 3].map(|number| vtep(&switch, number));
    for (host, number) in [(&old, 2), (&new, 3)] {
        host.ip(&format!("link add x0 type vxlan id 5000 local 192.0.2.{number} remote 192.0.2.1 dstport 4789"));
    }
    let arrive = |host: &Namespace| {
        host.ip(&format!("link set x0 address {MAC}"));
        host.ip("addr add 10.0.0.2/24 dev x0");
        host.ip("link set x0 mtu 1450 up");
    };
    let ageing = Duration::from_secs(4);
    let file = config(2, "ageing = 4\n").replace("\"192.0.2.2\"", "\"192.0.2.2\", \"192.0.2.3\"");
    let home = Home::with(&file);
    let web = near.container("b0", "10.0.0.1/24");
    let daemon = Daemon::start_as(&binary(), &near, &home);
    // Nothing is to be heard of it but what this test sends: what is multicast goes to all.
    inside(&web, || fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap());
    arrive(&old);
    assert!(web.pings("10.0.0.2", 3));
    web.ip(&format!("neigh replace 10.0.0.2 lladdr {MAC} dev eth0 nud permanent"));
    let socket = inside(&web, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let send = |time: Duration| {
        let start = Instant::now();
        while start.elapsed() < time {
            socket.send_to(&[0; 64], "10.0.0.2:9").unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    };
    send(Duration::from_millis(500));
    daemon.kill();
    let killed = Instant::now();
    // The station moves while nobody can hear of it.
    old.ip("link set x0 address 02:00:00:00:00:98");
    old.ip("addr del 10.0.0.2/24 dev x0");
    let before = received(&old, "x0");
    send(Duration::from_secs(1));
    assert!(received(&old, "x0") > before + 100, "the flow goes on for a while");
    send(ageing.saturating_sub(killed.elapsed()) + Duration::from_millis(100));
    let before = received(&old, "x0");
    send(Duration::from_secs(1));
    assert_eq!(received(&old, "x0"), before, "and no longer than the station is remembered");
    arrive(&new);
    let daemon = Daemon::start_as(&binary(), &near, &home);
    // What waited for somebody to decide is flooded: nobody knows where the station is.
    new.pings("10.0.0.1", 3);
    eventually("the station is known in its new place", || {
        home.json("fdb show --network blue")
            .as_array()
            .unwrap()
            .iter()
            .any(|station| station["mac"] == MAC && station["dst"] == "192.0.2.3")
    });
    let (before, there) = (received(&old, "x0"), received(&new, "x0"));
    send(Duration::from_millis(500));
    assert_eq!(received(&old, "x0"), before, "every frame goes to the new place");
    assert!(received(&new, "x0") >= there + 100);
    assert_eq!(daemon.terminate(), Some(0));
}

/// Whether the host has its end of the pair of `b0` to itself: a program of ours would take
/// every frame.
fn is_the_hosts(rig: &Two) -> bool {
    rig.blue[0].pings("10.0.0.3", 1)
}

#[test]
fn what_was_kept_goes_whole_with_detach_and_with_a_daemon_that_is_asked_to_end() {
    let mut rig = Two::new("");
    rig.hosts[0].ip("addr add 10.0.0.3/24 dev b0");
    assert!(rig.blue[0].pings("10.0.0.2", 3) && !is_the_hosts(&rig));
    let links = |rig: &Two| rig.hosts[0].ip("-o link");
    assert!(links(&rig).contains("vxp") && links(&rig).contains("vxr"));
    rig.kill(0);
    assert!(rig.blue[0].pings("10.0.0.2", 1) && !is_the_hosts(&rig), "kept");
    let detach = |rig: &Two| {
        let mut detach = rig.hosts[0].command(&binary());
        detach.args(["detach", "--config"]).arg(rig.homes[0].config()).output().unwrap()
    };
    let output = detach(&rig);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_the_hosts(&rig) && !links(&rig).contains("vxp"), "{}", links(&rig));
    assert_eq!(detach(&rig).status.code(), Some(2), "there is nothing more");

    rig.start(0);
    assert!(rig.blue[0].pings("10.0.0.2", 3) && !is_the_hosts(&rig));
    rig.terminate(0);
    assert!(is_the_hosts(&rig) && !links(&rig).contains("vxp"), "{}", links(&rig));

    // Nobody keeps anything: with the process all programs go, and the pair is what is left.
    let text = fs::read_to_string(rig.homes[0].config()).unwrap();
    fs::write(rig.homes[0].config(), text.replace("hold = 10", "hold = 0")).unwrap();
    rig.start(0);
    assert!(rig.blue[0].pings("10.0.0.2", 3));
    rig.kill(0);
    eventually("the kernel lets go", || is_the_hosts(&rig));
    assert!(links(&rig).contains("vxp") && detach(&rig).status.success() && !links(&rig).contains("vxp"));
}

/// What `tc` says of an interface's filters and disciplines.
fn filters(host: &Namespace, interface: &str) -> String {
    let tc = |words: &[&str]| run(host.command("tc").args(words));
    tc(&["filter", "show", "dev", interface, "ingress"]) + &tc(&["qdisc", "show", "dev", interface])
}

#[test]
fn without_tcx_programs_are_filters_which_disturb_no_other_and_leave_with_the_daemon() {
    let mut rig = Two::with("", &[("VXLANE_TC", "clsact")]);
    let tc = |rig: &Two, words: &str| run(rig.hosts[0].command("tc").args(words.split_whitespace()));
    assert_eq!(rig.homes[0].json("express show")["attached"], "clsact");
    assert!(rig.blue[0].pings("10.0.0.2", 3));
    rig.await_flows();
    rig.terminate(0);
    assert!(!filters(&rig.hosts[0], "b0").contains("bpf") && !filters(&rig.hosts[0], "b0").contains("clsact"));

    // Somebody else's, before ours and in the same place.
    tc(&rig, "qdisc add dev b0 clsact");
    for priority in ["100", "61000"] {
        // It matches nothing.
        let mut filter = rig.hosts[0].command("tc");
        filter.args(["filter", "add", "dev", "b0", "ingress", "prio", priority, "bpf", "bytecode", "1,6 0 0 0,"]);
        run(&mut filter);
    }
    let theirs = filters(&rig.hosts[0], "b0");
    rig.start(0);
    assert!(rig.blue[0].pings("10.0.0.2", 3) && filters(&rig.hosts[0], "b0").contains("express_access"));
    let probe = Probe::start(&rig.blue[0], &rig.blue[1], "10.0.0.2");
    rig.await_flows();
    rig.kill(0);
    probe.await_arrival();
    rig.start(0);
    probe.await_arrival();
    assert_eq!(filters(&rig.hosts[0], "b0").matches("direct-action").count(), 1, "one, and not two");
    tc(&rig, "filter del dev b0 ingress prio 61000 handle 2 bpf");
    eventually("it is put on again", || filters(&rig.hosts[0], "b0").contains("express_access"));
    probe.await_arrival();
    probe.finish();
    rig.terminate(0);
    assert_eq!(filters(&rig.hosts[0], "b0"), theirs);

    // Where nobody keeps it a filter stays all the same, and the next daemon clears that away.
    let text = fs::read_to_string(rig.homes[0].config()).unwrap();
    fs::write(rig.homes[0].config(), text.replace("hold = 10", "hold = 0")).unwrap();
    rig.start(0);
    rig.kill(0);
    rig.start(0);
    assert!(rig.blue[0].pings("10.0.0.2", 3));
    assert_eq!(filters(&rig.hosts[0], "b0").matches("direct-action").count(), 1);
    rig.terminate(0);
    assert_eq!(filters(&rig.hosts[0], "b0"), theirs);
}

fn index(host: &Namespace, interface: &str) -> u32 {
    let link: Value = serde_json::from_str(&host.ip(&format!("-j link show {interface}"))).unwrap();
    u32::try_from(link[0]["ifindex"].as_u64().unwrap()).unwrap()
}

#[test]
fn programs_and_the_pair_to_the_workers_that_somebody_takes_away_come_back_and_mtus_are_followed() {
    let rig = Two::new("");
    rig.hosts[0].ip("addr add 10.0.0.3/24 dev b0");
    assert!(rig.blue[0].pings("10.0.0.2", 3));
    let flows_again = |what: &str| {
        eventually(what, || rig.blue[0].pings("10.0.0.2", 1) && rig.flows(0, "blue").len() >= 2);
    };
    take_program_off(rig.daemon(0), index(&rig.hosts[0], "b0"));
    eventually("the program is on again", || !is_the_hosts(&rig));
    flows_again("flows are back");
    take_program_off(rig.daemon(0), index(&rig.hosts[0], "u0"));
    flows_again("the uplink is in the lane again");
    // Its index, MTU and name.
    let punt = || {
        let links: Value = serde_json::from_str(&rig.hosts[0].ip("-j link")).unwrap();
        let punt = links.as_array().unwrap().iter().find(|link| link["ifname"].as_str().unwrap().starts_with("vxp"))?;
        let [index, mtu] = ["ifindex", "mtu"].map(|number| u32::try_from(punt[number].as_u64().unwrap()).unwrap());
        Some((index, mtu, punt["ifname"].as_str().unwrap().to_owned()))
    };
    let (old, _, name) = punt().unwrap();
    take_program_off(rig.daemon(0), old);
    flows_again("the way back from workers is there again");
    eventually("with another pair", || punt().is_some_and(|(index, ..)| index != old));
    let (old, ..) = punt().unwrap();
    rig.hosts[0].ip(&format!("link del {name}"));
    eventually("the pair is made anew", || punt().is_some_and(|(index, ..)| index != old));
    flows_again("with flows");

    for mtu in [1400, 1600, 9000, 1500] {
        for host in &rig.hosts {
            host.ip(&format!("link set u0 mtu {mtu}"));
        }
        eventually("the pair follows", || punt().is_some_and(|(_, now, _)| now == mtu));
        flows_again("and flows go on");
    }
    assert_eq!(rig.homes[0].json("stats")["imbalance"], 0);
}
