//! A host with a way out: containers, the daemon, a router on the underlay and a server behind it.
//!
//! ```text
//!  web (10.50.0.x) ── vxlane on A (192.0.2.1) ── R (192.0.2.2 | 198.51.100.1) ── server (198.51.100.7)
//! ```

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::LabError;
use crate::lab::{Host, Lab};
use crate::netns::Netns;
use crate::peer::{VxlaneOptions, VxlaneVtep};

/// The address of the server.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// The router's address on the server's side.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The address of the host with the way out.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The gateway of the network `blue`.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 50, 0, 1);
/// The addresses of the server, of the router on the underlay, and of the host, for those who
/// [speak IPv6](WaysOut::speak_v6).
pub const SERVER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 7);
/// See [`SERVER_V6`].
pub const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
/// See [`SERVER_V6`].
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// How long anything that should come about may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The whole of it. The network `blue` (10.50.0.0/24) is there and has a way out.
#[derive(Debug)]
pub struct WaysOut {
    /// The daemon; dropped before the namespaces it is in.
    pub vtep: VxlaneVtep,
    /// Host `A`, where the daemon is, and `R`, the router.
    pub lab: Lab,
    /// Behind the router.
    pub server: Netns,
}

impl WaysOut {
    /// Sets everything up; `extra` is put into the daemon's configuration.
    ///
    /// # Errors
    /// Whatever could not be set up.
    pub fn start(options: &VxlaneOptions) -> Result<Self, LabError> {
        let (lab, server) = (Lab::new(&["A", "R"])?, Netns::new("server")?);
        let router = lab.host("R").ns();
        router.ip(&format!("link add s0 type veth peer name eth0 netns {}", server.name()))?;
        router.ip(&format!("addr add {ROUTER}/24 dev s0"))?;
        router.ip("link set s0 up")?;
        router.sysctl("net/ipv4/ip_forward", "1")?;
        server.ip(&format!("addr add {SERVER}/24 dev eth0"))?;
        server.ip("link set eth0 up")?;
        server.ip(&format!("route add default via {ROUTER}"))?;
        let host = lab.host("A");
        host.ns().ip(&format!("route add default via {}", lab.host("R").address()))?;
        let vtep = VxlaneVtep::start(host, &[], options)?;
        let this = Self { vtep, lab, server };
        this.network("blue", 5000, "10.50.0")?;
        Ok(this)
    }

    /// Gives the host, the router and the server IPv6 addresses and routes.
    ///
    /// # Errors
    /// Whatever could not be set up.
    pub fn speak_v6(&self) -> Result<(), LabError> {
        let (host, router) = (self.host().ns(), self.lab.host("R").ns());
        router.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // Whoever asks for a neighbour and is not the source of a packet asks from a link-local address.
        for (ns, device, number) in
            [(host, "uplink", 1), (router, "uplink", 2), (router, "s0", 3), (&self.server, "eth0", 4)]
        {
            ns.ip(&format!("addr add fe80::{number}/64 dev {device} nodad"))?;
        }
        router.ip(&format!("addr add {ROUTER_V6}/64 dev uplink nodad"))?;
        router.ip("addr add 2001:db8:51::1/64 dev s0 nodad")?;
        self.server.ip(&format!("addr add {SERVER_V6}/64 dev eth0 nodad"))?;
        self.server.ip("-6 route add default via 2001:db8:51::1")?;
        host.ip(&format!("addr add {OUTSIDE_V6}/64 dev uplink nodad"))?;
        host.ip(&format!("-6 route add default via {ROUTER_V6}")).map(drop)
    }

    /// The host with the way out.
    pub fn host(&self) -> &Host {
        self.lab.host("A")
    }

    /// Makes a network with a gateway: `prefix`.0/24 and `prefix`.1.
    ///
    /// # Errors
    /// If the daemon refuses.
    pub fn network(&self, name: &str, vni: u32, prefix: &str) -> Result<(), LabError> {
        let (vni, subnet, gateway) = (vni.to_string(), format!("{prefix}.0/24"), format!("{prefix}.1"));
        let options = ["--vni", &vni, "--subnet", &subnet, "--gateway", &gateway, "--json"];
        self.vtep.cli(&[&["network", "create", name][..], &options].concat()).map(drop)
    }

    /// Kills the daemon and starts another one.
    ///
    /// # Errors
    /// If it does not end, or the next one does not start.
    pub fn kill_and_start_again(&mut self) -> Result<(), LabError> {
        self.vtep.daemon().signal(Signal::SIGKILL)?;
        self.vtep.daemon().wait(PATIENCE)?;
        self.vtep.start_again(self.lab.host("A"))
    }

    /// Connects a new container to `network`; `options` are those of `vxlane network connect`.
    ///
    /// # Errors
    /// If it cannot be made, or the daemon refuses.
    pub fn container(&self, network: &str, name: &str, options: &[&str]) -> Result<Netns, LabError> {
        let container = Netns::new(name)?;
        let netns = format!("/run/netns/{}", container.name());
        let connect = ["network", "connect", network, "--netns", &netns, "--name", name, "--json"];
        self.vtep.cli(&[&connect[..], options].concat())?;
        Ok(container)
    }
}

/// Listens inside `ns` at `address`, where port 0 means any, and has `serve` see to each
/// connection, in a thread of its own, for as long as this process lives. Returns where.
///
/// # Errors
/// If it cannot listen there.
pub fn serve(
    ns: &Netns,
    address: impl Into<SocketAddr>,
    serve: impl Fn(TcpStream, SocketAddr) + Send + Clone + 'static,
) -> Result<SocketAddr, LabError> {
    let address = address.into();
    let listener = ns.run(|| TcpListener::bind(address))?;
    let listener = listener.map_err(LabError::syscall("bind", address.to_string()))?;
    let address = listener.local_addr().map_err(LabError::syscall("getsockname", "a listener"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(from) = stream.peer_addr() else { continue };
            let serve = serve.clone();
            thread::spawn(move || serve(stream, from));
        }
    });
    Ok(address)
}

/// Connects from inside `ns`, with a time limit on everything that follows.
///
/// # Errors
/// If there is no connection.
pub fn connect(ns: &Netns, to: impl Into<SocketAddr>) -> Result<TcpStream, LabError> {
    let to = to.into();
    let connected = ns.run(|| {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE)).map(|()| stream)
    })?;
    connected.map_err(LabError::syscall("connect", to.to_string()))
}

/// Sends `length` bytes from inside `ns` to `service`, which sends them back, and closes its way first.
///
/// # Panics
/// If they do not come back as they were.
pub fn there_and_back(ns: &Netns, service: SocketAddr, length: usize) {
    let data = bytes(length as u64, length);
    let exchanged = connect(ns, service).and_then(|stream| {
        let failed = || LabError::syscall("exchange", service.to_string());
        let sender = stream.try_clone().map_err(failed())?;
        exchange(stream, sender, &data).map_err(failed())
    });
    match exchanged {
        Ok(back) => assert!(back == data, "{length} bytes came back changed"),
        Err(error) => panic!("{length} bytes did not come back: {error}"),
    }
}

/// Sends all of `data` and its end while it takes what comes back.
fn exchange(mut stream: TcpStream, mut sender: TcpStream, data: &[u8]) -> io::Result<Vec<u8>> {
    thread::scope(|scope| {
        let writing = scope.spawn(move || sender.write_all(data).and_then(|()| sender.shutdown(Shutdown::Write)));
        let mut back = Vec::new();
        stream.read_to_end(&mut back)?;
        writing.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))?;
        Ok(back)
    })
}

/// Waits until `condition` holds.
///
/// # Panics
/// If it does not within [`PATIENCE`]; `what` should have been.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// `length` bytes that nobody sends by chance.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Sends all that is read back, and then its end.
pub fn echo(mut stream: TcpStream, _: SocketAddr) {
    let mut buffer = vec![0; 65_536];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
    // The other end may have gone already.
    let _ = stream.shutdown(Shutdown::Write);
}
