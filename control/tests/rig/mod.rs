//! Network namespaces, a daemon in one of them, and what it says.

#![allow(dead_code, reason = "each test binary uses its own part of the rig")]
#![expect(clippy::unwrap_used, reason = "a rig that cannot be set up is a test that failed")]

pub(crate) mod probe;
pub(crate) mod thief;
pub(crate) mod two;

use std::{
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{self, Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub(crate) const VXLANE: &str = env!("CARGO_BIN_EXE_vxlane");

/// The same, built for speed where there is one: for tests in which time matters.
pub(crate) fn binary() -> String {
    env::var("VXLANE_BIN").unwrap_or_else(|_| VXLANE.to_owned())
}

/// A namespace that goes away when dropped.
pub(crate) struct Namespace(pub(crate) String);

impl Namespace {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vxc-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        run(Command::new("ip").args(["netns", "add", &name]));
        let this = Self(name);
        this.ip("link set lo up");
        this
    }

    /// `ip` in this namespace; returns what it printed.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run(Command::new("ip").args(["-n", &self.0]).args(arguments.split_whitespace()))
    }

    /// What its interfaces have lost by their own account: name, received and sent.
    pub(crate) fn lost_by_links(&self) -> Vec<(String, u64, u64)> {
        let links: Vec<Value> = serde_json::from_str(&self.ip("-s -j link")).unwrap();
        let number = |link: &Value, way: &str, what: &str| link["stats64"][way][what].as_u64().unwrap_or(0);
        let lost = |link: &Value, way: &str| number(link, way, "dropped") + number(link, way, "errors");
        let all = links.iter().map(|link| (link["ifname"].to_string(), lost(link, "rx"), lost(link, "tx")));
        all.filter(|&(_, received, sent)| received + sent > 0).collect()
    }

    /// A veth from `interface` here to `eth0` of a new container at `address`.
    pub(crate) fn container(&self, interface: &str, address: &str) -> Self {
        let container = Self::new();
        self.ip(&format!("link add {interface} type veth peer name eth0 netns {}", container.0));
        self.ip(&format!("link set {interface} up"));
        container.ip(&format!("addr add {address} dev eth0"));
        container.ip("link set eth0 mtu 1450 up");
        // Both ends are up only now, and the kernel says so a little later.
        eventually("carrier", || self.ip(&format!("link show {interface}")).contains("state UP"));
        container
    }

    /// The command `program`, to be run in this namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Whether every one of `count` pings to `address` is answered.
    pub(crate) fn pings(&self, address: &str, count: u32) -> bool {
        let mut ping = self.command("ping");
        ping.args(["-q", "-c", &count.to_string(), "-i", "0.05", "-W", "2", address]);
        let output = ping.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !text.contains(" 0% packet loss") {
            eprintln!("{text}");
        }
        text.contains(" 0% packet loss")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A host with an uplink `u0` at 192.0.2.1, MTU 1500, on a wire to nobody in particular.
pub(crate) fn host() -> Namespace {
    let host = Namespace::new();
    host.ip("link add u0 type veth peer name u1");
    host.ip("addr add 192.0.2.1/24 dev u0");
    host.ip("link set u0 up");
    host.ip("link set u1 up");
    host
}

/// Has the daemon of `home` do `arguments`, which must succeed, and returns what that printed.
#[track_caller]
pub(crate) fn ask(home: &Home, arguments: &str) -> String {
    let output = home.ask(arguments);
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the daemon of `home` says of `arguments`, which it must refuse.
#[track_caller]
pub(crate) fn ask_refused(home: &Home, arguments: &str) -> String {
    let Output { status, stdout, stderr } = home.ask(arguments);
    assert_eq!(status.code(), Some(2), "{arguments}: {}", String::from_utf8_lossy(&stdout));
    String::from_utf8(stderr).unwrap()
}

/// What the daemon of `home` answers to these bytes: status and body.
pub(crate) fn raw(home: &Home, bytes: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(home.path("s")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Whoever is refused early is not read to the end.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// What the daemon of `home` answers to a request: status and body.
pub(crate) fn request(home: &Home, method: &str, path: &str, body: &str) -> (u16, String) {
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost:\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    raw(home, format!("{head}{body}").as_bytes())
}

/// What `work` comes to on a thread in `namespace`.
pub(crate) fn inside<T: Send>(namespace: &Namespace, work: impl FnOnce() -> T + Send) -> T {
    let file = fs::File::open(format!("/run/netns/{}", namespace.0)).unwrap();
    let entered = || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(entered).join().unwrap())
}

/// A directory with a configuration, a socket and a state directory.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    /// `text` with a `[control]` table that keeps everything in this directory.
    pub(crate) fn with(text: &str) -> Self {
        let this = Self { directory: tempfile::tempdir().unwrap() };
        let control = format!(
            "\n[control]\nsocket = \"{}\"\nstate = \"{}\"\nhold = 10\n",
            this.path("s").display(),
            this.path("state").display()
        );
        fs::write(this.config(), text.to_owned() + &control).unwrap();
        this
    }

    /// The same for a daemon without the express lane, whose ports have rings of their own.
    pub(crate) fn with_rings(text: &str) -> Self {
        const TABLE: &str = "[dataplane]\n";
        let (before, after) = text.split_once(TABLE).unwrap_or((text, ""));
        Self::with(&format!("{before}\n{TABLE}express = \"off\"\n{after}"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("vxlane.toml")
    }

    /// `vxlane` talking to the daemon of this home.
    pub(crate) fn ask(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(VXLANE);
        command.arg("--socket").arg(self.path("s")).args(arguments.split_whitespace());
        command
    }

    /// The JSON answer to `arguments`.
    pub(crate) fn json(&self, arguments: &str) -> Value {
        let output = self.ask(&format!("{arguments} --json"));
        assert!(output.status.success(), "{arguments}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// A running daemon, killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) ready: String,
}

impl Daemon {
    /// Starts the daemon of `home` in `host` and waits for its line.
    pub(crate) fn start(host: &Namespace, home: &Home) -> Self {
        Self::start_as(VXLANE, host, home)
    }

    /// The same, of another binary.
    pub(crate) fn start_as(program: &str, host: &Namespace, home: &Home) -> Self {
        Self::start_with(program, host, home, &[])
    }

    /// The same, with these environment variables.
    pub(crate) fn start_with(program: &str, host: &Namespace, home: &Home, environment: &[(&str, &str)]) -> Self {
        let mut command = host.command(program);
        command.envs(environment.iter().copied());
        command.arg("run").arg("--config").arg(home.config()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (mut told, mut lines) = (String::new(), BufReader::new(child.stderr.take().unwrap()));
        let ready = loop {
            let line = told.len();
            assert!(lines.read_line(&mut told).unwrap() > 0, "it ended: {told}");
            if told[line..].starts_with("vxlane: ready") {
                break told[line..].to_owned();
            }
        };
        // Nobody reads what it says later on, and it must not mind.
        drop(lines);
        Self { child, ready }
    }

    /// Ends the daemon as nothing can prepare for.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM and returns the exit code. `ip netns exec` becomes the program it starts,
    /// so the child is the daemon.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().code()
    }

    /// Its process, and that of those that it restarts as.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked first: what is killed leaves its interfaces to a holder for a while.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGTERM);
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `command`, which must succeed, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits up to five seconds for `condition`.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(5), "not within 5 s: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What `vxlane run` says of `config` when it refuses it, without the directory's name.
pub(crate) fn refusal(command: &mut Command, config: &Path) -> String {
    let output = command.arg("run").arg("--config").arg(config).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stderr).unwrap();
    text.replace(&format!("{}/", config.parent().unwrap().display()), "")
}
