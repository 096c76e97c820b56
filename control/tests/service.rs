//! The daemon and the service manager that waits for it.
//!
//! Needs root.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is a test that failed")]

mod rig;

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixDatagram,
    },
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::{
        ptrace,
        signal::{Signal, kill},
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
        wait::waitpid,
    },
    unistd::Pid,
};
use rig::{Home, Namespace, VXLANE};

/// A daemon whose service manager is this test.
struct Service {
    socket: UnixDatagram,
    child: Child,
    _home: Home,
    _host: Namespace,
}

impl Service {
    fn start() -> Self {
        let host = Namespace::new();
        host.ip("link add u0 type veth peer name far");
        host.ip("addr add 192.0.2.1/24 dev u0");
        let home = Home::with("[underlay]\ninterface = \"u0\"\n");
        let path = home.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut command = host.command(VXLANE);
        command.arg("run").arg("--config").arg(home.config()).stderr(Stdio::null());
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "1000000");
        Self { socket, child: command.spawn().unwrap(), _home: home, _host: host }
    }

    /// What comes within `limit`.
    fn told(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 1024];
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn expect(&self, what: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if let Some(told) = self.told(Duration::from_secs(1)).filter(|told| told.contains(what)) {
                return told;
            }
        }
        panic!("not told within ten seconds: {what}");
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The thread of the first worker.
    fn worker(&self) -> Pid {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().map(|task| task.unwrap().path());
        let mut workers = tasks.filter(|task| fs::read_to_string(task.join("comm")).unwrap().starts_with("worker-0"));
        let worker = workers.next().unwrap();
        Pid::from_raw(worker.file_name().unwrap().to_str().unwrap().parse().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_service_manager_is_told_and_a_hanging_worker_starves_its_watchdog() {
    let mut service = Service::start();
    let ready = service.expect("READY=1");
    assert!(ready.contains("STATUS=0 networks, 0 endpoints, uplink u0 express copy\n"), "{ready}");
    service.expect("WATCHDOG=1");
    service.expect("WATCHDOG=1");

    let worker = service.worker();
    ptrace::seize(worker, ptrace::Options::empty()).unwrap();
    ptrace::interrupt(worker).unwrap();
    waitpid(worker, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
    // What was on its way.
    while service.told(Duration::from_millis(600)).is_some() {}
    assert_eq!(service.told(Duration::from_secs(2)), None, "while worker 0 stands still");
    ptrace::detach(worker, None).unwrap();
    service.expect("WATCHDOG=1");

    kill(service.pid(), Signal::SIGHUP).unwrap();
    assert!(service.expect("RELOADING=1").contains("MONOTONIC_USEC="));
    service.expect("READY=1");
    kill(service.pid(), Signal::SIGTERM).unwrap();
    service.expect("STOPPING=1");
    assert!(service.child.wait().unwrap().success());
}

/// What a service manager keeps: descriptors by name.
type Kept = BTreeMap<String, OwnedFd>;

/// Does to `kept` what the daemon says, until it has said all.
fn keep(socket: &UnixDatagram, kept: &mut Kept, until: &str) {
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    loop {
        let (mut text, mut control) = ([0; 1024], nix::cmsg_space!([RawFd; 1]));
        let mut slices = [io::IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags).unwrap();
        let mut received = None;
        for part in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(fds) = part {
                received = Some(own(fds[0]));
            }
        }
        let length = message.bytes;
        let text = String::from_utf8(text[..length].to_vec()).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).map(str::to_owned);
        match (name, received) {
            (Some(name), Some(fd)) => assert!(kept.insert(name, fd).is_none(), "twice: {text}"),
            (Some(name), None) if text.contains("FDSTOREREMOVE=1") => drop(kept.remove(&name)),
            _ => {}
        }
        if text.contains(until) {
            return;
        }
    }
}

#[expect(unsafe_code, reason = "what comes from elsewhere comes as a number")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel has just put it into this process's table for the message received.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A daemon whose service manager keeps descriptors, and gives back those in `kept`.
fn start_with(host: &Namespace, home: &Home, kept: &Kept) -> Child {
    // The first is to be number 3, whatever is there now. One at a time: the shell puts what was
    // there aside until a command is done, at the next number that is free.
    let high: Vec<RawFd> = kept.values().map(|fd| fcntl(fd, FcntlArg::F_DUPFD(200)).unwrap()).collect();
    let moves: Vec<String> = (3..).zip(&high).map(|(number, fd)| format!("exec {number}<&{fd} {fd}<&-;")).collect();
    let names: Vec<&str> = kept.keys().map(String::as_str).collect();
    let mut script = String::new();
    if !kept.is_empty() {
        script = format!("{} export LISTEN_PID=$$ LISTEN_FDS={}", moves.join(" "), names.len());
        script.push_str(&format!(" LISTEN_FDNAMES={}; ", names.join(":")));
    }
    script.push_str(&format!("exec {VXLANE} run --config {}", home.config().display()));
    let mut command = host.command("bash");
    command.arg("-c").arg(script).stderr(Stdio::null());
    command.env("NOTIFY_SOCKET", home.path("notify")).env("FDSTORE", "64");
    let child = command.spawn().unwrap();
    high.into_iter().for_each(|fd| drop(own(fd)));
    child
}

#[test]
fn a_service_manager_that_keeps_descriptors_gives_them_to_the_next_daemon_and_nothing_is_lost() {
    let host = rig::host();
    let home = Home::with_rings(
        "[underlay]\ninterface = \"u0\"\n[dataplane]\nring = 4096\n[[network]]\nname = \"blue\"\nvni = 5000\n\
         [[endpoint]]\nnetwork = \"blue\"\ninterface = \"p0\"\n[[endpoint]]\nnetwork = \"blue\"\ninterface = \"p1\"\n",
    );
    let (web, db) = (host.container("p0", "10.0.0.1/24"), host.container("p1", "10.0.0.2/24"));
    let socket = UnixDatagram::bind(home.path("notify")).unwrap();
    let mut kept = Kept::new();
    let mut daemon = start_with(&host, &home, &kept);
    keep(&socket, &mut kept, "READY=1");
    assert_eq!(kept.len(), 9, "a link, a socket and frames of each: {:?}", kept.keys());
    assert!(!home.path("state/hold").exists(), "nobody else keeps anything");
    assert!(web.pings("10.0.0.2", 3));
    let probe = rig::probe::Probe::start(&web, &db, "10.0.0.2");
    let mut away = rig::probe::Away::new(&home, "p0");
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGTERM] {
        let from = probe.sent();
        kill(Pid::from_raw(daemon.id().cast_signed()), signal).unwrap();
        let ended = daemon.wait().unwrap();
        assert_eq!(ended.success(), signal == Signal::SIGTERM);
        if signal == Signal::SIGTERM {
            keep(&socket, &mut kept, "FDSTORE=1\nFDNAME=stations");
            assert_eq!(kept.len(), 10, "{:?}", kept.keys());
        }
        assert!(host.ip("-d link show p0").contains("xdp"), "still attached after {signal}");
        daemon = start_with(&host, &home, &kept);
        keep(&socket, &mut kept, "READY=1");
        assert_eq!(kept.len(), 9, "{:?}", kept.keys());
        away.since(from, &probe);
    }
    let fate = probe.finish();
    // A kill may cost what the worker had in its hands.
    let lost = fate.lost(0..fate.sent);
    assert!(lost <= 64 + away.beyond(), "{lost} of {}; {away:?}", fate.sent);
    kill(Pid::from_raw(daemon.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(daemon.wait().unwrap().success());
    // As `systemctl stop` does: what is kept is closed.
    kept.clear();
    rig::eventually("interfaces are as they were found", || !host.ip("-d link").contains("xdp"));
}
