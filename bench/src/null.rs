//! `vxlane-bench null`: an AF_XDP forwarder that parses nothing, the ceiling of our design.
//!
//! Per host one thread and two ports. Every frame from one goes out of the other, copied once,
//! unchanged: the same port halves, the same steering program and the same sleep as a worker of
//! vxlane, and nothing in between. Between two hosts it bridges the containers' frames over the
//! underlay without a tunnel.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use vxlane_dataplane::attach::{AttachMode, Role, Steer, SteerError};
use vxlane_dataplane::port::xdp::{Config, OpenError, XdpReceive, XdpSocket, XdpTransmit};
use vxlane_dataplane::port::{Receive, Transmit};
use vxlane_tests::LabError;
use vxlane_tests::lab::{Host, UPLINK};
use vxlane_tests::peer::Segment;
use vxlane_tests::process::{Guard, await_value};

/// The forwarder running on one host.
#[derive(Debug)]
pub struct NullVtep {
    daemon: Guard,
    log: PathBuf,
}

impl NullVtep {
    /// Starts it between `uplink` and the first container of `segment`; it forwards when this
    /// returns.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with its own words when it does not get ready.
    pub fn start(host: &Host, segment: &Segment<'_>) -> Result<Self, LabError> {
        let [container] = segment.containers.as_slice() else {
            return Err(LabError::Unfit { what: "null connects exactly one container", text: host.name().to_owned() });
        };
        // It takes a frame's checksums as they are.
        container.without_offload()?;
        let log = host.ns().directory().join("null.log");
        let file = File::create(&log).map_err(LabError::syscall("create", log.display().to_string()))?;
        let program = std::env::current_exe().map_err(LabError::syscall("readlink", "/proc/self/exe"))?;
        let mut command = host.ns().command(&program.to_string_lossy());
        command.args(["null", "--uplink", UPLINK, "--access", container.port()]);
        let daemon = host.ns().spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file))?;
        let vtep = Self { daemon, log };
        let ready = || vtep.words().contains(READY).then_some(());
        await_value("line with `ready` from null", Duration::from_secs(10), ready, || vtep.words())?;
        Ok(vtep)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.daemon.pid()
    }

    /// Everything it has said.
    pub fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Why the forwarder could not go on.
#[derive(Debug, thiserror::Error)]
pub enum NullError {
    /// The steering program would not go where it should.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// A port could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The poll could not be made.
    #[error("epoll")]
    Poll(#[from] io::Error),
}

/// Forwards between the interfaces `uplink` and `access` until killed.
///
/// # Errors
/// [`NullError`] when a port cannot be opened; once it forwards it does not return.
pub fn forward(uplink: &str, access: &str) -> Result<(), NullError> {
    let mut steer = Steer::load()?;
    let mut poll = Poll::new()?;
    let mut open = |interface: &str, token: usize, ring: u32| -> Result<_, NullError> {
        // Both take the role that has every frame steered to the ring.
        let attached = steer.attach(interface, Role::Access, AttachMode::Auto, 1)?;
        let (receive, transmit) =
            XdpSocket::open(&Config { rx_frames: ring, tx_frames: ring, ..Config::new(interface, 0) })?;
        steer.serve(attached.ifindex, 0, receive.socket())?;
        poll.registry().register(&mut SourceFd(&receive.socket()), Token(token), Interest::READABLE)?;
        Ok((receive, transmit))
    };
    let (mut up_rx, mut up_tx) = open(uplink, 0, RINGS[0])?;
    let (mut down_rx, mut down_tx) = open(access, 1, RINGS[1])?;
    eprintln!("{READY}");
    let mut events = Events::with_capacity(8);
    let mut yields = 0;
    loop {
        let count = carry(&mut up_rx, &mut down_tx) + carry(&mut down_rx, &mut up_tx);
        let waiting = up_tx.submit() + down_tx.submit();
        if count > 0 {
            yields = YIELDS;
            continue;
        }
        if waiting == 0 && yields > 0 {
            yields -= 1;
            thread::yield_now();
            continue;
        }
        let nap = if waiting > 0 { STALL } else { TICK };
        // An interrupted sleep is a short one.
        let _ = poll.poll(&mut events, Some(nap));
    }
}

/// Moves one burst and returns how many frames it had.
fn carry(from: &mut XdpReceive, to: &mut XdpTransmit) -> usize {
    let count = from.take();
    if count == 0 {
        return 0;
    }
    for index in 0..count {
        // A full port loses the frame, as a worker's does; the sink counts what is missing.
        let _ = to.put(&[], from.frame(index));
    }
    from.release();
    count
}

/// What it says once it forwards.
const READY: &str = "ready";

/// As many frames as vxlane gives an uplink and its first endpoint.
const RINGS: [u32; 2] = [4096, 2048];

/// As the engine's: how often others get the CPU before it sleeps.
const YIELDS: u32 = 3;

/// As the engine's: how long to wait before the kernel is offered again what it would not take.
const STALL: Duration = Duration::from_micros(200);

/// As the engine's.
const TICK: Duration = Duration::from_millis(100);
