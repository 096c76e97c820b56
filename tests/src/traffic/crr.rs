//! TCP connections that are opened, used for one request and closed, one after the other.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::LabError;
use crate::netns::Netns;

/// How many connections to make.
#[derive(Clone, Copy, Debug)]
pub struct CrrOptions {
    /// At most so many. The client closes first, and its port is not used again for a minute.
    pub count: u32,
    /// When to stop, though fewer were made.
    pub limit: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct CrrReport {
    /// Connections on which the answer came and the end was seen.
    pub done: u32,
    /// How long they took together.
    pub elapsed: Duration,
}

impl CrrReport {
    /// Connections in a second.
    pub fn rate(&self) -> f64 {
        f64::from(self.done) / self.elapsed.as_secs_f64().max(f64::EPSILON)
    }
}

/// Connects from `from` to a server of our own at `address` in `to`.
///
/// # Errors
/// [`LabError`] with the call of the first connection that failed.
pub fn exchange(from: &Netns, to: &Netns, address: Ipv4Addr, options: &CrrOptions) -> Result<CrrReport, LabError> {
    let listener = to.run(|| TcpListener::bind((address, 0)))?;
    let listener = listener.map_err(LabError::syscall("bind", address.to_string()))?;
    let target = listener.local_addr().map_err(LabError::syscall("getsockname", "a listener"))?;
    let look = TimeVal::milliseconds(LOOK);
    setsockopt(&listener, ReceiveTimeout, &look).map_err(LabError::syscall("setsockopt", "a listener"))?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| serve(&listener, &stop));
        let report = from.run(|| {
            let start = Instant::now();
            let mut done = 0;
            while done < options.count && start.elapsed() < options.limit {
                ask(target)?;
                done += 1;
            }
            Ok::<_, io::Error>(CrrReport { done, elapsed: start.elapsed() })
        });
        stop.store(true, Ordering::Relaxed);
        server.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        report?.map_err(LabError::syscall("connect", target.to_string()))
    })
}

fn ask(target: std::net::SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[b'?'; LENGTH])?;
    stream.read_exact(&mut [0; LENGTH])
}

/// Answers one request of each connection, until told to stop.
fn serve(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        // None came within the time after which to look whether to stop.
        let Ok((mut stream, _)) = listener.accept() else { continue };
        let mut bytes = [0; LENGTH];
        // A client that fails says so itself.
        if stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.read_exact(&mut bytes)).is_ok() {
            let _ = stream.write_all(&bytes);
            let _ = stream.read(&mut bytes);
        }
    }
}

/// Bytes of a request and of its answer.
const LENGTH: usize = 64;
/// How long each step of a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Milliseconds after which the server looks whether it should stop.
const LOOK: i64 = 100;
