//! The daemon and the service manager that waits for it.
//!
//! Needs root.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is a test that failed")]

mod rig;

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::{
        ptrace,
        signal::{Signal, kill},
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
    assert!(ready.contains("STATUS=0 networks, 0 endpoints, uplink u0 native copy\n"), "{ready}");
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
