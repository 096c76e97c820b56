//! What the API asked for outlives the process, however that ends.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rig::{Daemon, Home, Namespace, ask, ask_refused, eventually, host, refusal};
use serde_json::{Value, json};

const UPLINK: &str = "[underlay]\ninterface = \"u0\"\n";
const CREATE: &str = "network create blue --vni 5000 --subnet 10.50.0.0/24 --peer 192.0.2.2";

fn connect(name: &str, namespace: &Namespace) -> String {
    format!("network connect blue --netns /run/netns/{} --name {name}", namespace.0)
}

/// Everything that was asked for, and what became of it.
fn state(home: &Home) -> [Value; 2] {
    let mut networks = home.json("network ls");
    networks.as_array_mut().unwrap().sort_by_key(|network| network["name"].to_string());
    for network in networks.as_array_mut().unwrap() {
        network["endpoints"].as_array_mut().unwrap().sort_by_key(Value::to_string);
    }
    let mut endpoints = home.json("endpoint ls");
    endpoints.as_array_mut().unwrap().sort_by_key(|endpoint| endpoint["name"].to_string());
    for endpoint in endpoints.as_array_mut().unwrap() {
        // How many frames are left for a port depends on which were there before it.
        endpoint["ring"].take();
    }
    [networks, endpoints]
}

#[test]
fn networks_endpoints_and_peers_are_there_again_after_a_kill() {
    let host = host();
    let home = Home::with(UPLINK);
    let daemon = Daemon::start(&host, &home);
    let (web, db, cache) = (Namespace::new(), Namespace::new(), Namespace::new());
    ask(&home, CREATE);
    ask(&home, "peer add 192.0.2.7 --network blue");
    ask(&home, &connect("web", &web));
    ask(&home, &connect("db", &db));
    ask(&home, &connect("cache", &cache));
    ask(&home, "network disconnect blue --name cache");
    let before = state(&home);
    assert_eq!(before[0][0]["peers"], json!(["192.0.2.2", "192.0.2.7"]));
    daemon.kill();

    let daemon = Daemon::start(&host, &home);
    assert_eq!(state(&home), before);
    assert!(web.pings("10.50.0.2", 3));
    // Nor is what was given out last.
    assert!(ask(&home, &connect("cache", &cache)).ends_with(" 10.50.0.4\n"));
    ask(&home, "network disconnect blue --name web");
    ask(&home, "network disconnect blue --name cache");
    ask(&home, "peer del 192.0.2.7 --network blue");
    let before = state(&home);
    assert_eq!(daemon.terminate(), Some(0));

    let _daemon = Daemon::start(&host, &home);
    assert_eq!(state(&home), before);
    ask(&home, "network disconnect blue --name db");
    ask(&home, "network rm blue");
    assert_eq!(state(&home), [json!([]), json!([])]);
    assert!(!host.ip("link").contains("vx0"), "{}", host.ip("link"));
}

#[test]
fn an_endpoint_whose_interface_is_gone_waits_and_the_others_are_attached() {
    let host = host();
    let home = Home::with(UPLINK);
    let daemon = Daemon::start(&host, &home);
    ask(&home, "network create blue --vni 5000");
    let (web, db) = (host.container("p0", "10.0.0.1/24"), host.container("p1", "10.0.0.2/24"));
    ask(&home, "network connect blue --interface p0 --name web");
    ask(&home, "network connect blue --interface p1 --name db");
    daemon.kill();
    host.ip("link del p1");

    let daemon = Daemon::start(&host, &home);
    let state = |name: &str| home.json(&format!("endpoint inspect blue --name {name}"))["state"].clone();
    assert_eq!((state("web"), state("db")), (json!("attached"), json!("absent")));
    drop(db);
    let db = host.container("p1", "10.0.0.2/24");
    eventually("it is attached when it is back", || state("db") == "attached");
    assert!(web.pings("10.0.0.2", 3) && db.pings("10.0.0.1", 3));
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn a_store_that_cannot_be_read_is_named_and_not_taken_for_an_empty_one() {
    let host = host();
    let home = Home::with(UPLINK);
    let daemon = Daemon::start(&host, &home);
    ask(&home, CREATE);
    daemon.kill();
    let path = home.path("state").join("store.redb");
    let whole = fs::read(&path).unwrap();
    for damaged in [&b""[..], &whole[..whole.len() / 3], b"something else"] {
        fs::write(&path, damaged).unwrap();
        let told = refusal(&mut host.command(rig::VXLANE), &home.config());
        assert!(told.starts_with("vxlane: the store state/store.redb: "), "{told}");
        let again = refusal(&mut host.command(rig::VXLANE), &home.config());
        assert!(again.starts_with("vxlane: the store state/store.redb: "), "{again}");
    }
    fs::write(&path, whole).unwrap();
    let _daemon = Daemon::start(&host, &home);
    assert_eq!(home.json("network ls")[0]["name"], "blue");
}

/// A file system with room for one store and a bit, until it is dropped.
struct Small(PathBuf);

impl Small {
    fn mount(path: &Path, bytes: u64) -> Self {
        fs::create_dir(path).unwrap();
        let size = format!("size={bytes}");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
        Self(path.to_owned())
    }

    /// Writes until nothing fits any more.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn on_a_full_disk_a_change_is_refused_whole_and_traffic_goes_on() {
    let host = host();
    let home = Home::with(UPLINK);
    let disk = Small::mount(&home.path("state"), 8 << 20);
    let daemon = Daemon::start(&host, &home);
    ask(&home, "network create blue --vni 5000 --subnet 10.50.0.0/24");
    let (web, db, late) = (Namespace::new(), Namespace::new(), Namespace::new());
    ask(&home, &connect("web", &web));
    ask(&home, &connect("db", &db));
    let (before, links) = (state(&home), host.ip("-j link"));
    disk.fill();
    // What room the file has left inside is soon used up.
    let mut created = 0;
    let told = loop {
        let output = home.ask(&format!("network create n{created} --vni {}", 6000 + created));
        if !output.status.success() {
            break String::from_utf8(output.stderr).unwrap();
        }
        created += 1;
        assert!(created < 20_000, "nothing was refused");
    };
    assert!(told.contains("takes no changes") && told.contains("store.redb"), "{told}");
    assert!(ask_refused(&home, &connect("late", &late)).contains("takes no changes"));
    assert!(ask_refused(&home, "network disconnect blue --name web").contains("takes no changes"));
    assert!(ask_refused(&home, "peer add 192.0.2.9 --network blue").contains("takes no changes"));
    assert_eq!(state(&home)[1], before[1]);
    assert_eq!(host.ip("-j link"), links);
    assert!(!late.ip("link").contains("eth0"));
    assert!(web.pings("10.50.0.2", 5));

    disk.free();
    ask(&home, &connect("late", &late));
    assert!(late.pings("10.50.0.2", 2));
    let after = state(&home);
    daemon.kill();
    let daemon = Daemon::start(&host, &home);
    assert_eq!(state(&home), after);
    assert_eq!(daemon.terminate(), Some(0));
}
