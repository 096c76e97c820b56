//! Every way to set the daemon up wrong gets one clear line and exit code 1.
//!
//! Needs root.

mod rig;

use std::{fs, process::Command};

use rig::{Daemon, Home, Namespace, VXLANE, refusal};

const UPLINK: &str = "[underlay]\ninterface = \"uA\"\n";
const BLUE: &str = "[[network]]\nname = \"blue\"\nvni = 5000\n";

/// A host with an uplink, 192.0.2.1 with MTU 1500, and a device `p0`.
fn host() -> Namespace {
    let host = Namespace::new();
    host.ip("link add uA type veth peer name uB");
    host.ip("addr add 192.0.2.1/24 dev uA");
    host.ip("link set uA up");
    host.ip("link add p0 type veth peer name c0");
    host
}

#[track_caller]
fn check(text: &str, expected: &str) {
    let home = Home::with(text);
    assert_eq!(refusal(&mut host().command(VXLANE), &home.config()), format!("vxlane: vxlane.toml:{expected}\n"));
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    let home = Home::with("[underlay]\ninterface = \"uA\"\nmtu = 1500\n");
    let expected = "vxlane: vxlane.toml:3: unknown key `mtu` in [underlay]; \
                    expected one of `interface`, `address`, `port`, `xdp`, `udp6_zero_csum_tx`, `udp6_zero_csum_rx`\n";
    assert_eq!(refusal(&mut Command::new(VXLANE), &home.config()), expected);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let home = Home::with("");
    let expected = "vxlane: other.toml: No such file or directory (os error 2)\n";
    assert_eq!(refusal(&mut Command::new(VXLANE), &home.path("other.toml")), expected);
}

#[test]
fn without_privilege_it_says_what_is_missing() {
    let home = Home::with(UPLINK);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all", "--inh-caps=-all", VXLANE]);
    let expected = "vxlane: `vxlane run` needs root: this process lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF\n";
    assert_eq!(refusal(&mut command, &home.config()), expected);
}

#[test]
fn a_missing_interface_is_named() {
    check("[underlay]\ninterface = \"eth7\"\n", "2: underlay.interface = \"eth7\": no such interface");
    check(
        &format!("{UPLINK}{BLUE}[[endpoint]]\nnetwork = \"blue\"\ninterface = \"p9\"\n"),
        "8: endpoint[0].interface = \"p9\": no such interface",
    );
}

#[test]
fn a_duplicate_vni_is_named() {
    let text = format!("{UPLINK}{BLUE}[[network]]\nname = \"red\"\nvni = 5000\n");
    check(&text, "8: network[1].vni = 5000: also the VNI of network \"blue\"");
}

#[test]
fn a_peer_that_is_ourselves_is_named() {
    let text = format!("{UPLINK}{BLUE}peers = [\"192.0.2.1\"]\n");
    check(&text, "6: network[0].peers[0] = 192.0.2.1: this is our own VTEP address");
}

#[test]
fn an_mtu_that_cannot_fit_is_named() {
    check(
        &format!("{UPLINK}{BLUE}mtu = 1500\n"),
        "6: network[0].mtu = 1500: with 50 bytes of tunnel headers it does not fit the MTU of uA, 1500; at most 1450",
    );
}

#[test]
fn an_interface_with_another_program_is_left_alone() {
    let host = host();
    for (lane, program) in [("off", "the native XDP program "), ("auto", "program ")] {
        let text = format!("{UPLINK}[dataplane]\nexpress = \"{lane}\"\n");
        let first = Home::with(&text);
        let daemon = Daemon::start(&host, &first);
        let before = host.ip("-j link");
        let second = Home::with(&text);
        let text = refusal(&mut host.command(VXLANE), &second.config());
        let start = format!("vxlane: vxlane.toml:2: underlay.interface = \"uA\": already carries {program}");
        let end = if lane == "off" { "" } else { " of another vxlane's express lane" };
        assert!(text.starts_with(&start) && text.ends_with(&format!("{end}, which is not replaced\n")), "{text}");
        assert_eq!(host.ip("-j link"), before);
        assert_eq!(daemon.terminate(), Some(0));
    }
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
    let host = host();
    let home = Home::with(UPLINK);
    let daemon = Daemon::start(&host, &home);
    let text = refusal(&mut host.command(VXLANE), &home.config());
    assert_eq!(text, "vxlane: s: another daemon listens here\n");
    // It has no chance to remove its socket.
    daemon.kill();
    assert!(home.path("s").exists());
    assert_eq!(Daemon::start(&host, &home).terminate(), Some(0));
    assert!(!home.path("s").exists());
}

#[test]
fn a_state_directory_that_cannot_be_is_named() {
    let home = Home::with(UPLINK);
    fs::write(home.path("state"), "a file").unwrap();
    let text = refusal(&mut host().command(VXLANE), &home.config());
    assert_eq!(text, "vxlane: state directory state: File exists (os error 17)\n");
}

#[test]
fn too_little_locked_memory_is_explained() {
    let home = Home::with_rings(UPLINK);
    // Root without CAP_IPC_LOCK and CAP_SYS_RESOURCE, which lift the limit.
    let bounds = "--bounding-set=-ipc_lock,-sys_resource";
    let host = host();
    let mut command = host.command("prlimit");
    command.args(["--memlock=65536:65536", "setpriv", bounds, VXLANE]);
    let text = refusal(&mut command, &home.config());
    assert!(text.contains("RLIMIT_MEMLOCK is 65536 bytes"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn without_a_daemon_the_command_line_says_so() {
    let home = Home::with("");
    let output = home.ask("stats");
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("vxlane: no daemon at {} (is `vxlane run` running?)\n", home.path("s").display());
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    assert_eq!(home.ask("statistics").status.code(), Some(1), "usage");
}
