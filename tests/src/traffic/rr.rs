//! Requests and responses over UDP, and how long they take.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::LabError;
use crate::lab::Container;

/// What to ask.
#[derive(Clone, Debug)]
pub struct RrOptions {
    /// Payload bytes of request and response, at least 8.
    pub payload: usize,
    /// Requests that count.
    pub count: u32,
    /// Requests before them that do not.
    pub warm_up: u32,
    /// Pause before each request; none asks again as soon as the answer is there.
    pub pause: Duration,
    /// How long to wait for an answer before it is lost.
    pub patience: Duration,
    /// When to stop asking, though fewer than `count` were asked.
    pub limit: Duration,
}

impl Default for RrOptions {
    fn default() -> Self {
        Self {
            payload: 64,
            count: 1_000,
            warm_up: 50,
            pause: Duration::ZERO,
            patience: Duration::from_millis(200),
            limit: Duration::from_secs(60),
        }
    }
}

/// How long the answers took.
#[derive(Clone, Debug)]
pub struct RrReport {
    /// Requests that counted.
    pub sent: u32,
    /// Those without an answer in time.
    pub lost: u32,
    sorted: Vec<Duration>,
}

impl RrReport {
    /// The time within which `percent` of the answers came; zero when there were none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = (percent / 100.0 * self.sorted.len() as f64).ceil();
        // A rank is between 0 and the number of answers.
        #[expect(clippy::cast_possible_truncation, reason = "a rank within the answers")]
        #[expect(clippy::cast_sign_loss, reason = "percent is not negative")]
        let rank = rank as usize;
        let at = rank.saturating_sub(1).min(self.sorted.len().saturating_sub(1));
        self.sorted.get(at).copied().unwrap_or_default()
    }

    /// Half of the answers came within this time.
    pub fn p50(&self) -> Duration {
        self.percentile(50.0)
    }

    /// 99 % of the answers came within this time.
    pub fn p99(&self) -> Duration {
        self.percentile(99.0)
    }

    /// 99.9 % of the answers came within this time.
    pub fn p999(&self) -> Duration {
        self.percentile(99.9)
    }
}

/// Asks an echo server in `to` from `from`, one request at a time.
///
/// # Errors
/// [`LabError::Syscall`] when a socket fails; lost answers are a result, not an error.
pub fn exchange(from: &Container, to: &Container, options: &RrOptions) -> Result<RrReport, LabError> {
    let wanted = SocketAddr::new(to.ipv4().into(), 0);
    let server = to.ns().run(|| UdpSocket::bind(wanted))?;
    let (server, target) = server
        .and_then(|socket| {
            socket.set_read_timeout(Some(LOOK_AROUND))?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        })
        .map_err(LabError::syscall("bind", wanted.to_string()))?;
    let client: io::Result<UdpSocket> = from.ns().run(|| {
        let socket = UdpSocket::bind((from.ipv4(), 0))?;
        socket.set_read_timeout(Some(options.patience))?;
        socket.connect(target)?;
        Ok(socket)
    })?;
    let client = client.map_err(LabError::syscall("connect", target.to_string()))?;
    let stop = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        scope.spawn(|| echo(&server, &stop));
        let report = ask(&client, options);
        stop.store(true, Ordering::Relaxed);
        report
    });
    report.map_err(LabError::syscall("request", target.to_string()))
}

fn echo(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            // An answer that cannot be sent is a lost answer, which the client counts.
            let _ = socket.send_to(&buffer[..length], client);
        }
    }
}

fn ask(socket: &UdpSocket, options: &RrOptions) -> io::Result<RrReport> {
    let mut times = Vec::with_capacity(options.count as usize);
    let mut request = vec![0x5a; options.payload.max(8)];
    let mut answer = vec![0; request.len()];
    let (mut lost, begin) = (0, Instant::now());
    for number in 0..options.warm_up + options.count {
        if begin.elapsed() >= options.limit {
            break;
        }
        thread::sleep(options.pause);
        request[..8].copy_from_slice(&u64::from(number).to_be_bytes());
        let start = Instant::now();
        socket.send(&request)?;
        let answered = await_answer(socket, &request, &mut answer, start + options.patience)?;
        let elapsed = start.elapsed();
        match (number < options.warm_up, answered) {
            (true, _) => {}
            (false, true) => times.push(elapsed),
            (false, false) => lost += 1,
        }
    }
    times.sort_unstable();
    let answered = u32::try_from(times.len()).unwrap_or(u32::MAX);
    Ok(RrReport { sent: answered + lost, lost, sorted: times })
}

/// Waits for the answer to `request`; late answers to earlier ones are passed over.
fn await_answer(socket: &UdpSocket, request: &[u8], answer: &mut [u8], deadline: Instant) -> io::Result<bool> {
    while Instant::now() < deadline {
        match socket.recv(answer) {
            Ok(length) if answer[..length] == *request => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// How often the server looks whether it should stop.
const LOOK_AROUND: Duration = Duration::from_millis(10);
