//! The API as it is documented, and as it answers those who do not keep to that.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod rig;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rig::{Daemon, Home, Namespace, VXLANE, ask, host, raw, refusal, request};
use serde_json::{Value, json};

const UPLINK: &str = "[underlay]\ninterface = \"u0\"\n";
const BLUE: &str = "[[network]]\nname = \"blue\"\nvni = 5000\npeers = [\"192.0.2.2\"]\n";

fn create(home: &Home, body: &str) -> (u16, Value) {
    let (status, body) = request(home, "POST", "/v1/networks", body);
    (status, serde_json::from_str(&body).unwrap_or_else(|_| json!(body)))
}

#[test]
fn every_documented_path_answers_and_no_other() {
    let host = host();
    let home = Home::with(&format!("{UPLINK}{BLUE}"));
    let _daemon = Daemon::start(&host, &home);
    let document: Value = serde_json::from_str(&vxlane::api::server::openapi().to_json().unwrap()).unwrap();
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let place = path
            .replace("{network}", "blue")
            .replace("{address}", "192.0.2.9")
            .replace("{mac}", "02:00:00:00:00:0b")
            .replace("{endpoint}", "web");
        for method in ["get", "post", "delete", "put"] {
            // What would end this daemon is tested where restarts are.
            if path.contains("restart") {
                continue;
            }
            let (status, body) = request(&home, &method.to_uppercase(), &place, "");
            let documented = methods.get(method).is_some();
            assert_eq!(status == 405, !documented, "{method} {path}: {status} {body}");
            if status >= 300 {
                let refusal: Value = serde_json::from_str(&body).unwrap();
                assert!(refusal["code"].is_string() && refusal["message"].is_string(), "{method} {path}: {body}");
                assert_ne!(refusal["message"], "no such path", "{method} {path}");
            }
            asked += 1;
        }
    }
    assert!(asked > 40, "{asked}");
    let (status, body) = request(&home, "GET", "/v2/networks", "");
    assert_eq!((status, body.as_str()), (404, r#"{"code":"not_found","message":"no such path","field":null}"#));
}

#[test]
fn what_is_no_request_is_refused_and_changes_nothing() {
    let host = host();
    let home = Home::with(UPLINK);
    let _daemon = Daemon::start(&host, &home);
    let name = |name: &str| json!({"name": name}).to_string();
    let long = "x".repeat(300);
    let nested = format!("{{\"name\":{}", "[".repeat(10_000));
    for (body, status, code, field) in [
        ("", 400, "bad_request", Value::Null),
        ("{", 400, "bad_request", Value::Null),
        ("[]", 400, "bad_request", Value::Null),
        (nested.as_str(), 400, "bad_request", json!("name")),
        (r#"{"name":"a"} {"name":"b"}"#, 400, "bad_request", Value::Null),
        (r#"{"name":"a","vni":"x"}"#, 400, "bad_request", json!("vni")),
        (r#"{"name":"a","color":"red"}"#, 400, "bad_request", json!("color")),
        (&name("../etc"), 400, "invalid", json!("name")),
        (&name("a\u{0}b"), 400, "invalid", json!("name")),
        (&name(&long), 400, "invalid", json!("name")),
        (&name(""), 400, "invalid", json!("name")),
    ] {
        let (was, answer) = create(&home, body);
        let shown = &body[..body.len().min(40)];
        assert_eq!((was, &answer["code"], &answer["field"]), (status, &json!(code), &field), "{shown}: {answer}");
    }
    let body = "x".repeat((1 << 20) + 1);
    assert_eq!(create(&home, &body).1["code"], "too_large");
    // Also where the length is not told beforehand, and where it is told and the body does not come.
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16)).repeat(17);
    let head = "POST /v1/networks HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(raw(&home, format!("{head}{chunk}0\r\n\r\n").as_bytes()).0, 413);
    for bytes in [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"GET /v1/status HTTP/9.9\r\n\r\n"] {
        assert_eq!(raw(&home, bytes).0, 400, "{bytes:?}");
    }
    assert_eq!(home.json("network ls"), json!([]));
    ask(&home, "network create blue --vni 5");
    for (body, status, field) in [
        (r#"{"name":"web","netns":"/etc/passwd"}"#, 400, "netns"),
        (r#"{"name":"web","netns":"/run/netns/nobody"}"#, 400, "netns"),
        (r#"{"name":"web","netns":"/proc/self/ns/net","ifname":"sixteen-letters-"}"#, 400, "ifname"),
        (r#"{"name":"../web","netns":"/proc/self/ns/net"}"#, 400, "name"),
    ] {
        let (was, answer) = request(&home, "POST", "/v1/networks/blue/endpoints", body);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((was, &answer["field"]), (status, &json!(field)), "{body}: {answer}");
    }
    assert_eq!(home.json("endpoint ls"), json!([]));
    assert!(!host.ip("link").contains("vx0"), "{}", host.ip("link"));
}

#[test]
fn a_slow_request_is_given_up_and_keeps_nobody_waiting() {
    let host = host();
    let home = Home::with(UPLINK);
    let _daemon = Daemon::start(&host, &home);
    let mut slow = UnixStream::connect(home.path("s")).unwrap();
    slow.write_all(b"POST /v1/networks HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"na").unwrap();
    let begin = Instant::now();
    home.json("status");
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[test]
fn a_thousand_clients_at_once_are_all_answered() {
    let host = host();
    let home = Home::with(UPLINK);
    let daemon = Daemon::start(&host, &home);
    let answered = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let open: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(home.path("s")).unwrap()).collect();
                for mut stream in open {
                    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                    stream.write_all(b"GET /v1/networks HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                    let mut answer = [0; 15];
                    stream.read_exact(&mut answer).unwrap();
                    answered.fetch_add(usize::from(&answer == b"HTTP/1.1 200 OK"), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(answered.into_inner(), 1000);
    assert_eq!(daemon.terminate(), Some(0));
}

#[test]
fn the_socket_is_for_those_whom_the_file_names() {
    let host = host();
    let home = Home::with(UPLINK);
    let daemon = Daemon::start(&host, &home);
    let socket = fs::metadata(home.path("s")).unwrap();
    assert_eq!((socket.permissions().mode() & 0o7777, socket.uid(), socket.gid()), (0o660, 0, 0));
    assert_eq!(daemon.terminate(), Some(0));

    // The home's own `[control]` table is the last thing in its file.
    let home = Home::with(UPLINK);
    let text = fs::read_to_string(home.config()).unwrap();
    fs::write(home.config(), format!("{text}mode = \"0600\"\nowner = \"daemon\"\ngroup = \"12\"\n")).unwrap();
    let daemon = Daemon::start(&host, &home);
    let socket = fs::metadata(home.path("s")).unwrap();
    assert_eq!((socket.permissions().mode() & 0o7777, socket.uid(), socket.gid()), (0o600, 1, 12));
    assert_eq!(daemon.terminate(), Some(0));

    for (line, reason) in [
        ("mode = \"0999\"", "mode = \"0999\": permission bits are octal, \"0\" to \"0777\" in [control]"),
        ("owner = \"nobody at all\"", "owner = \"nobody at all\": no such user on this host in [control]"),
        ("group = \"nobody at all\"", "group = \"nobody at all\": no such group on this host in [control]"),
        ("metrics = \"here\"", "invalid socket address syntax in [control]"),
    ] {
        fs::write(home.config(), format!("{text}{line}\n")).unwrap();
        let number = text.lines().count() + 1;
        let said = refusal(&mut host.command(VXLANE), &home.config());
        assert_eq!(said, format!("vxlane: vxlane.toml:{number}: {reason}\n"));
    }
}

/// What the reference implementation of OpenMetrics makes of `text`: a line for each sample.
fn parsed(text: &str) -> Vec<String> {
    let program = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
        for family in parse(sys.stdin.read()):\n\
        \x20   assert family.documentation, family.name\n\
        \x20   for sample in family.samples: print(sample.name, *sorted(sample.labels.items()), sample.value)\n";
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().unwrap();
    python.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The value of the one sample that begins so.
fn sample(samples: &[String], start: &str) -> f64 {
    let found: Vec<&String> = samples.iter().filter(|line| line.starts_with(start)).collect();
    assert_eq!(found.len(), 1, "{start}: {found:?}");
    found[0].rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn prometheus_reads_metrics_whose_sums_of_a_network_never_shrink() {
    let host = host();
    let port = {
        // Free a moment ago, and in a namespace where nobody else is.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let home = Home::with(&format!("{UPLINK}{BLUE}"));
    let text = fs::read_to_string(home.config()).unwrap();
    fs::write(home.config(), format!("{text}metrics = \"127.0.0.1:{port}\"\n")).unwrap();
    let _daemon = Daemon::start(&host, &home);
    let (web, db) = (Namespace::new(), Namespace::new());
    for (name, namespace) in [("web", &web), ("db", &db)] {
        ask(&home, &format!("network connect blue --netns /run/netns/{} --name {name}", namespace.0));
    }
    web.ip("addr add 10.0.0.1/24 dev eth0");
    db.ip("addr add 10.0.0.2/24 dev eth0");
    assert!(web.pings("10.0.0.2", 10));

    let metrics = || {
        let (status, text) = request(&home, "GET", "/metrics", "");
        assert_eq!(status, 200);
        (parsed(&text), text)
    };
    let received = "vxlane_network_received_frames_total ('network', 'blue')";
    let (before, text) = metrics();
    assert!(sample(&before, received) >= 20.0);
    assert!(sample(&before, "vxlane_network_endpoints ('network', 'blue')") == 2.0);
    assert!(sample(&before, "vxlane_fdb_entries ('network', 'blue') ('type', 'learned')") == 2.0);
    let stats = home.json("stats");
    let drops = before.iter().filter(|line| line.starts_with("vxlane_drops_total "));
    let drops: f64 = drops.map(|line| sample(&before, line.rsplit_once(' ').unwrap().0)).sum();
    assert!(drops <= stats["dropped"].as_f64().unwrap(), "{drops}");
    for mac_or_address in ["02:", "10.0.0.", "192.0.2."] {
        assert!(!text.contains(mac_or_address), "no label is an address: {mac_or_address}");
    }
    let documented = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(documented.contains(&format!("`{name}`")), "docs/metrics.md does not have {name}");
    }

    ask(&home, "network disconnect blue --name web");
    let (after, _) = metrics();
    assert!(sample(&after, received) >= sample(&before, received), "the sum of a network does not shrink");
    assert!(sample(&after, "vxlane_network_endpoints ('network', 'blue')") == 1.0);

    // By TCP there are metrics and nothing else.
    let over_tcp = |path: &str| {
        let mut socat = host.command("socat");
        socat
            .args(["-t5", "-", &format!("TCP:127.0.0.1:{port},shut-none")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut socat = socat.spawn().unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        socat.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
        String::from_utf8(socat.wait_with_output().unwrap().stdout).unwrap()
    };
    let answer = over_tcp("/metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("application/openmetrics-text"), "{answer}");
    assert!(answer.contains("vxlane_build_info{version=") && answer.contains("# EOF"), "{answer}");
    assert!(over_tcp("/v1/status").starts_with("HTTP/1.1 404"));
}
