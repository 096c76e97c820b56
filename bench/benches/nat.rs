//! What address translation costs a packet: established and new, with few sessions and a million.
//!
//! Also asserts what is promised of it: no allocation for an established session, at most 1.6
//! times the cost at a million sessions, and at most ten established packets for a new session.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant as Clock},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use vxlane_dataplane::{
    clock::Instant,
    ids::{NetworkId, WorkerId},
    nat::{BlindBoard, Glimpse, Nat, NatConfig, Sender, Way},
    wire::MacAddr,
};

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call goes to `System` with the arguments it came with; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: our caller keeps the contract of this very method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: our caller keeps the contract of this very method, and `alloc` used `System`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const BURST: usize = 32;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SENDER: Sender = Sender { network: NetworkId(1), mac: MacAddr([2, 0, 0, 0, 0, 2]) };

/// A translation with sessions of many hosts, sixteen remotes for each inside endpoint, and a
/// burst of packets that go round them in an order without a pattern.
struct Run {
    nat: Nat,
    packets: Vec<Vec<u8>>,
    sessions: u32,
    next: u32,
    clean: Vec<u8>,
    glimpses: Vec<Glimpse>,
}

impl Run {
    fn new(sessions: u32, room: usize) -> Self {
        let ports = "1024-65535".parse();
        let mut config = NatConfig::new(vec![OUTSIDE], ports.unwrap_or_default());
        config.sessions = room;
        (config.endpoint_limit, config.network_limit) = (u32::MAX, u32::MAX);
        let mut clean = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 2], [198, 51, 100, 7], 64).udp(1000, 53);
        // Writing to a vector cannot fail.
        let _ = builder.write(&mut clean, b"0123456789abcdef01");
        let nat = Nat::new(config, WorkerId(0), 1, Arc::new(BlindBoard));
        let glimpses = Vec::with_capacity(BURST);
        let mut run = Self { nat, packets: vec![clean.clone(); BURST], sessions, next: 0, clean, glimpses };
        for session in 0..sessions {
            run.address(0, session);
            run.translate(0);
        }
        assert_eq!(run.nat.report().sessions, sessions as usize);
        run
    }

    /// Writes the addresses of session number `session` into packet `slot`, with right checksums.
    fn address(&mut self, slot: usize, session: u32) {
        let (inside, remote) = (session / 16, session % 16);
        let packet = &mut self.packets[slot];
        packet.copy_from_slice(&self.clean);
        let [_, high, middle, low] = (0x000a_0000 + inside).to_be_bytes();
        packet[12..16].copy_from_slice(&[10, high, middle, low]);
        packet[19] = u8::try_from(remote).unwrap_or(0);
        packet[26..28].fill(0);
        packet[10..12].fill(0);
        let sum = !vxlane_dataplane::wire::checksum::fold(vxlane_dataplane::wire::checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }

    fn translate(&mut self, slot: usize) -> bool {
        self.nat.translate(Instant(1), SENDER, &mut self.packets[slot]).is_ok()
    }

    /// Addresses a burst to the next sessions in an order that has no pattern.
    fn shuffle(&mut self) {
        for slot in 0..BURST {
            self.next = self.next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            self.address(slot, ((u64::from(self.next) * u64::from(self.sessions)) >> 32) as u32);
        }
    }

    fn burst(&mut self) {
        self.glimpses.clear();
        self.glimpses.extend(self.packets.iter().filter_map(|packet| Glimpse::at(Way::Out, SENDER.network, packet)));
        self.nat.prepare(&self.glimpses);
        for slot in 0..BURST {
            assert!(self.translate(slot));
        }
    }

    /// Time of `bursts` bursts, without that of addressing them.
    fn time(&mut self, bursts: u64) -> Duration {
        let mut spent = Duration::ZERO;
        for _ in 0..bursts {
            self.shuffle();
            let start = Clock::now();
            self.burst();
            spent += start.elapsed();
        }
        spent
    }
}

/// Time of each of some thousand packets, middle of several rounds, so that a busy machine
/// spoils single rounds only.
fn median(mut round: impl FnMut() -> Duration) -> f64 {
    let mut rounds: Vec<f64> = (0..31).map(|_| round().as_secs_f64() * 1e9).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// Nanoseconds of a packet that begins a session, mapping included, and of one that belongs to
/// one, among `sessions` others.
fn new_and_established(sessions: u32) -> (f64, f64) {
    const BURSTS: u32 = 64;
    let packets = BURSTS * u32::try_from(BURST).unwrap_or(1);
    let mut run = Run::new(sessions, 1_048_576);
    let established = median(|| run.time(BURSTS.into()) / packets);
    // Session numbers are sixteen apart: each has an inside endpoint of its own.
    let mut session = sessions.next_multiple_of(16);
    let new = median(|| {
        let mut spent = Duration::ZERO;
        for _ in 0..BURSTS {
            for slot in 0..BURST {
                run.address(slot, session);
                session += 16;
            }
            let start = Clock::now();
            run.burst();
            spent += start.elapsed();
        }
        spent / packets
    });
    assert_eq!(run.nat.report().begun, u64::from(sessions + 31 * packets));
    (new, established)
}

fn promises(_: &mut Criterion) {
    let [(small_new, small), (_, large)] = [1000, 900_000].map(new_and_established);
    println!("nat, 1k sessions: established {small:.0} ns, new {small_new:.0} ns, {:.1} times", small_new / small);
    println!("nat, 900k sessions: established {large:.0} ns, {:.2} times that of 1k", large / small);
    assert!(small_new <= 10.0 * small, "a new session costs {:.1} established packets", small_new / small);
    assert!(large <= 1.6 * small, "900k sessions cost {:.2} times what 1k cost", large / small);
}

fn established(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nat, established, burst of 32");
    group.throughput(Throughput::Elements(BURST as u64));
    for (label, sessions) in [("1k", 1000), ("64k", 65_536), ("1M", 1_000_000)] {
        let mut run = Run::new(sessions, 1_048_576);
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        run.time(1000);
        assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "allocations in 1000 bursts at {label}");
        println!("nat, {label} sessions: 0 allocations in 1000 bursts of {BURST}");
        group.bench_function(format!("{label} sessions"), |bencher| bencher.iter_custom(|bursts| run.time(bursts)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = promises, established
}
criterion_main!(benches);
