//! TCP streams of a known sequence, checked byte for byte where they arrive.

#![expect(clippy::cast_possible_truncation, reason = "positions within a period, on a 64-bit machine")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::LabError;
use crate::lab::Container;
use crate::process::await_value;

/// What to send over one connection.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// Bytes in each direction used.
    pub bytes: u64,
    /// Chooses the sequence.
    pub seed: u64,
    /// Which way the bytes go.
    pub way: Way,
    /// How long the connection may stand still, and how long it may take to come about.
    pub patience: Duration,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self { bytes: 16 << 20, seed: 1, way: Way::Forward, patience: Duration::from_secs(5) }
    }
}

/// Directions of a connection, seen from who opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the one who connected.
    Forward,
    /// To the one who connected.
    Backward,
    /// Both at once.
    Both,
}

/// One direction of a connection after its end.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Bytes received, all of them right.
    pub bytes: u64,
    /// From the start of sending to the end of receiving.
    pub elapsed: Duration,
}

impl Stream {
    /// Bits per second.
    pub fn bits_per_second(&self) -> f64 {
        8.0 * self.bytes as f64 / self.elapsed.as_secs_f64()
    }
}

/// A connection after its end.
#[derive(Clone, Copy, Debug)]
pub struct TcpReport {
    /// What went from who connected to who listened.
    pub forward: Option<Stream>,
    /// What went the other way.
    pub backward: Option<Stream>,
}

/// Connects from `from` to `to`, sends as `options` say and checks everything that arrives.
///
/// # Errors
/// [`LabError::Syscall`] when the connection fails or stands still, or when a wrong byte or a
/// wrong end arrives; the message says where.
pub fn stream(from: &Container, to: &Container, options: &TcpOptions) -> Result<TcpReport, LabError> {
    let (near, far) = connect(from, to, options.patience)?;
    let sequence = Sequence::new(options.seed);
    let forward = options.way != Way::Backward;
    let backward = options.way != Way::Forward;
    let carry = |sender: &TcpStream, receiver: &TcpStream| -> io::Result<Stream> {
        thread::scope(|scope| {
            let start = Instant::now();
            let writing = scope.spawn(|| sequence.write_to(sender, options.bytes));
            let reading = sequence.verify_from(receiver, options.bytes);
            if reading.is_err() {
                // The writer would wait for a reader that has given up.
                let _ = sender.shutdown(Shutdown::Both);
            }
            let written = writing.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
            reading.and(written)?;
            Ok(Stream { bytes: options.bytes, elapsed: start.elapsed() })
        })
    };
    let (there, back) = thread::scope(|scope| {
        let there = scope.spawn(|| forward.then(|| carry(&near, &far)).transpose());
        let back = backward.then(|| carry(&far, &near)).transpose();
        let there = there.join().unwrap_or_else(|_| Err(io::Error::other("the carrier panicked")));
        (there, back)
    });
    let object = || format!("stream {} > {}", from.ns().name(), to.ns().name());
    Ok(TcpReport {
        forward: there.map_err(LabError::syscall("TCP", object()))?,
        backward: back.map_err(LabError::syscall("TCP", object()))?,
    })
}

/// Opens a connection and returns both its ends.
fn connect(from: &Container, to: &Container, patience: Duration) -> Result<(TcpStream, TcpStream), LabError> {
    let wanted = SocketAddr::new(to.ipv4().into(), 0);
    let listener =
        to.ns().run(|| TcpListener::bind(wanted))?.map_err(LabError::syscall("listen", wanted.to_string()))?;
    let ready = listener.set_nonblocking(true).and_then(|()| listener.local_addr());
    let target = ready.map_err(LabError::syscall("listen", wanted.to_string()))?;
    let near = from
        .ns()
        .run(|| TcpStream::connect_timeout(&target, patience))?
        .map_err(LabError::syscall("connect", target.to_string()))?;
    let (far, _) =
        await_value("connection", patience, || listener.accept().ok(), || format!("{target} accepted none"))?;
    let prepare = |end: &TcpStream| {
        end.set_nonblocking(false)?;
        end.set_read_timeout(Some(patience))?;
        end.set_write_timeout(Some(patience))
    };
    prepare(&near).and_then(|()| prepare(&far)).map_err(LabError::syscall("setsockopt", target.to_string()))?;
    Ok((near, far))
}

/// A pseudo-random sequence of bytes that is cheap to send and to compare.
///
/// It repeats after [`PERIOD`] bytes, a prime, so no displacement by a power of two, by a
/// segment or by a page goes unnoticed.
struct Sequence {
    period: Vec<u8>,
}

impl Sequence {
    fn new(seed: u64) -> Self {
        let words = (1u64..).flat_map(|index| mix(seed.wrapping_add(index.wrapping_mul(GOLDEN))).to_le_bytes());
        Self { period: words.take(PERIOD).collect() }
    }

    /// The bytes from `position` on, up to the end of the period and at most `most`.
    fn from(&self, position: u64, most: u64) -> &[u8] {
        let start = (position % PERIOD as u64) as usize;
        let length = most.min((PERIOD - start) as u64) as usize;
        &self.period[start..][..length]
    }

    fn write_to(&self, mut stream: &TcpStream, bytes: u64) -> io::Result<()> {
        let mut position = 0;
        while position < bytes {
            let chunk = self.from(position, (bytes - position).min(CHUNK));
            stream.write_all(chunk)?;
            position += chunk.len() as u64;
        }
        stream.shutdown(Shutdown::Write)
    }

    fn verify_from(&self, mut stream: &TcpStream, bytes: u64) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK as usize];
        let mut position = 0;
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 && position == bytes {
                return Ok(());
            }
            if count == 0 || position + count as u64 > bytes {
                return Err(io::Error::other(format!("the stream ended or went on at byte {position} of {bytes}")));
            }
            self.verify(position, &buffer[..count])?;
            position += count as u64;
        }
    }

    fn verify(&self, mut position: u64, mut received: &[u8]) -> io::Result<()> {
        while !received.is_empty() {
            let right = self.from(position, received.len() as u64);
            let (head, rest) = received.split_at(right.len());
            if head != right {
                let wrong = head.iter().zip(right).take_while(|(a, b)| a == b).count();
                let place = position + wrong as u64;
                return Err(io::Error::other(format!("byte {place} arrived changed")));
            }
            position += right.len() as u64;
            received = rest;
        }
        Ok(())
    }
}

/// The finalizer of splitmix64.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The smallest prime above 2^20.
const PERIOD: usize = 1_048_583;

/// Bytes per read and write.
const CHUNK: u64 = 128 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_found_where_it_is() {
        let sequence = Sequence::new(7);
        let start = PERIOD as u64 - 10;
        let mut bytes = [sequence.from(start, 10), sequence.from(0, 90)].concat();
        assert!(sequence.verify(start, &bytes).is_ok());
        bytes[42] ^= 1;
        let error = sequence.verify(start, &bytes).unwrap_err().to_string();
        assert!(error.contains(&(start + 42).to_string()), "{error}");
    }
}
