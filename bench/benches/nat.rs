//! What address translation costs a packet: established and new, with few sessions and a million.
//!
//! Also asserts what is promised of it: no allocation for an established session, at most 1.6
//! times the cost at a million sessions, by itself and within a whole worker, at most ten
//! established packets for a new session, and less than 256 bytes for each.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::{
    net::Ipv4Addr,
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant as Clock},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use ipnetwork::Ipv4Network;
use vxlane_bench::counting::{Counting, allocations};
use vxlane_dataplane::{
    clock::Instant,
    handover::Mailbox,
    ids::{NetworkId, PortId, QueueId, WorkerId},
    nat::{BlindBoard, Glimpse, Nat, NatConfig, Sender, Way},
    port::{self, Census, KernelDrops, PutError, Receive, Transmit},
    tables::{Gateway, LocalVtep, Network, Outside, Port, Role, Route, Tables},
    wire::{MacAddr, Vni, checksum},
    worker::Worker,
};

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
    glimpses: [Option<Glimpse>; port::BURST],
}

impl Run {
    fn new(sessions: u32, room: usize) -> Self {
        let (nat, clean) = (nat(room), clean());
        let glimpses = [None; port::BURST];
        let mut run = Self { nat, packets: vec![clean.clone(); BURST], sessions, next: 0, clean, glimpses };
        for session in 0..sessions {
            run.address(0, session);
            run.translate(0);
        }
        assert_eq!(run.nat.report().sessions, sessions as usize);
        run
    }

    fn address(&mut self, slot: usize, session: u32) {
        address(&mut self.packets[slot], &self.clean, session);
    }

    fn translate(&mut self, slot: usize) -> bool {
        self.nat.translate(Instant(1), SENDER, &mut self.packets[slot]).is_ok()
    }

    /// Addresses a burst to the next sessions in an order that has no pattern.
    fn shuffle(&mut self) {
        for slot in 0..BURST {
            let session = any_below(&mut self.next, self.sessions);
            self.address(slot, session);
        }
    }

    /// What a worker does with a burst, as far as it is translation.
    fn burst(&mut self) {
        if self.nat.outgrows_cache() {
            for (packet, glimpse) in self.packets.iter().zip(&mut self.glimpses) {
                *glimpse = Glimpse::at(Way::Out, SENDER.network, packet);
            }
            self.nat.prepare(&self.glimpses);
        }
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

fn nat(room: usize) -> Nat {
    let ports = "1024-65535".parse();
    let mut config = NatConfig::new(vec![OUTSIDE], ports.unwrap_or_default());
    config.sessions = room;
    (config.endpoint_limit, config.network_limit) = (u32::MAX, u32::MAX);
    Nat::new(config, WorkerId(0), 1, Arc::new(BlindBoard))
}

/// A packet of 46 bytes, 60 with its Ethernet header.
fn clean() -> Vec<u8> {
    let mut clean = Vec::new();
    let builder = PacketBuilder::ipv4([10, 0, 0, 2], [198, 51, 100, 7], 64).udp(1000, 53);
    // Writing to a vector cannot fail.
    let _ = builder.write(&mut clean, b"0123456789abcdef01");
    clean
}

/// Writes the addresses of session number `session` into `packet`, with right checksums.
fn address(packet: &mut [u8], clean: &[u8], session: u32) {
    let (inside, remote) = (session / 16, session % 16);
    packet.copy_from_slice(clean);
    let [_, high, middle, low] = (0x000a_0000 + inside).to_be_bytes();
    packet[12..16].copy_from_slice(&[10, high, middle, low]);
    packet[19] = u8::try_from(remote).unwrap_or(0);
    packet[26..28].fill(0);
    packet[10..12].fill(0);
    let sum = !checksum::fold(checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A number below `end`, in an order that has no pattern.
fn any_below(state: &mut u32, end: u32) -> u32 {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    ((u64::from(*state) * u64::from(end)) >> 32) as u32
}

/// An endpoint that sends bursts out of its network: of new sessions, one after the other, until
/// it is told how many there are, then of any of these.
struct Source {
    frames: Vec<Vec<u8>>,
    clean: Vec<u8>,
    next: u32,
    shared: Arc<Shared>,
}

/// What is known of a source while a worker has it.
#[derive(Default)]
struct Shared {
    sessions: AtomicU32,
    /// Nanoseconds that it took to address packets.
    spent: AtomicU64,
}

impl Receive for Source {
    fn take(&mut self) -> usize {
        let start = Clock::now();
        let sessions = self.shared.sessions.load(Ordering::Relaxed);
        for frame in &mut self.frames {
            let session = match sessions {
                0 => {
                    self.next += 1;
                    self.next - 1
                }
                all => any_below(&mut self.next, all),
            };
            // The worker addressed it to the router.
            frame[..6].copy_from_slice(&GATEWAY_MAC.0);
            frame[6..12].copy_from_slice(&SENDER.mac.0);
            address(&mut frame[14..], &self.clean, session);
        }
        let spent = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.shared.spent.fetch_add(spent, Ordering::Relaxed);
        self.frames.len()
    }

    #[inline]
    fn frame(&mut self, index: usize) -> &mut [u8] {
        &mut self.frames[index]
    }

    fn release(&mut self) {}

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn kernel_drops(&self) -> KernelDrops {
        KernelDrops::default()
    }

    fn census(&mut self) -> Census {
        Census::default()
    }
}

/// Takes frames and forgets them.
struct Nowhere([u8; 2048]);

impl Transmit for Nowhere {
    #[inline]
    fn lend(&mut self, length: usize) -> Result<&mut [u8], PutError> {
        self.0.get_mut(..length).ok_or(PutError::TooLong)
    }

    fn submit(&mut self) -> usize {
        0
    }

    fn census(&mut self) -> Census {
        Census::default()
    }
}

const UPLINK: PortId = PortId(0);
const ACCESS: PortId = PortId(1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 254);
const GATEWAY_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const ROUTER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

fn tables() -> Tables {
    let mut tables = Tables::new(LocalVtep::new(Some(OUTSIDE), None, 4789));
    tables.set_port(UPLINK, Port::new(Role::Uplink, WorkerId(0)));
    tables.set_port(ACCESS, Port::new(Role::Access(SENDER.network), WorkerId(0)));
    let any = Ipv4Network::new(Ipv4Addr::UNSPECIFIED, 0);
    let router = Ipv4Addr::new(192, 0, 2, 254);
    let routes = any.map(|any| (any, Route::Uplink { gateway: Some(router), mtu: 1500 }));
    tables.set_outside(Arc::new(Outside::new(UPLINK, GATEWAY_MAC, routes, [(router, ROUTER_MAC)])));
    let mut network =
        Network { ports: vec![ACCESS], masquerade: true, ..Network::new(Vni::new(5000).unwrap_or_default()) };
    let gateway = Gateway::new(network.vni, Ipv4Network::new(GATEWAY, 8).ok(), None);
    network.gateway = Some(Gateway { mac: GATEWAY_MAC, ..gateway });
    tables.set_network(SENDER.network, network);
    tables
}

/// Nanoseconds that a whole worker takes for a packet of any of `sessions` sessions.
fn worker(sessions: u32) -> f64 {
    const BURSTS: u32 = 64;
    let shared = Arc::new(Shared::default());
    let mut worker = Worker::new(WorkerId(0), 1024, Arc::new(tables()), Arc::<[Mailbox]>::from([]));
    worker.pipeline.router.nat = Some(Box::new(nat(1_048_576)));
    let (clean, frame) = (clean(), [&[0; 12][..], &[8, 0], &clean()].concat());
    let source = Source { frames: vec![frame; BURST], clean, next: 0, shared: Arc::clone(&shared) };
    worker.open_exit(UPLINK, Nowhere([0; 2048]));
    // Without a registry there is no descriptor to watch, hence nothing that can fail.
    let _ = worker.open(ACCESS, QueueId(0), source, Nowhere([0; 2048]));
    let bursts = sessions.div_ceil(u32::try_from(BURST).unwrap_or(1));
    (0..bursts).for_each(|_| {
        worker.breathe(Instant(1));
    });
    shared.sessions.store(sessions, Ordering::Relaxed);
    let cost = median(|| {
        shared.spent.store(0, Ordering::Relaxed);
        let start = Clock::now();
        (0..BURSTS).for_each(|_| {
            worker.breathe(Instant(1));
        });
        (start.elapsed() - Duration::from_nanos(shared.spent.load(Ordering::Relaxed))) / BURSTS
    });
    let report = worker.report().counters;
    assert_eq!((report.transmitted, report.drops.total()), (report.received, 0));
    cost / BURST as f64
}

/// Time of each of some thousand packets, middle of several rounds, so that a busy machine
/// spoils single rounds only.
fn median(mut round: impl FnMut() -> Duration) -> f64 {
    let mut rounds: Vec<f64> = (0..31).map(|_| round().as_secs_f64() * 1e9).collect();
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

const BURSTS: u32 = 64;
/// Packets in so many bursts of 32.
const PACKETS: u32 = BURSTS * 32;

/// Nanoseconds of a packet that belongs to one of so many `sessions`.
fn one_of(sessions: u32) -> f64 {
    let mut run = Run::new(sessions, 1_048_576);
    median(|| run.time(BURSTS.into()) / PACKETS)
}

/// Nanoseconds of a packet that begins a session, mapping included, among so few others that all of
/// them find a port.
fn beginning(sessions: u32) -> f64 {
    let mut run = Run::new(sessions, 1_048_576);
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
        spent / PACKETS
    });
    assert_eq!(run.nat.report().begun, u64::from(sessions + 31 * PACKETS));
    new
}

fn promises(_: &mut Criterion) {
    let ([small, large], small_new) = ([1000, 900_000].map(one_of), beginning(1000));
    println!("nat, 1k sessions: established {small:.0} ns, new {small_new:.0} ns, {:.1} times", small_new / small);
    println!("nat, 900k sessions: established {large:.0} ns, {:.2} times that of 1k", large / small);
    let [few, many] = [1000, 900_000].map(worker);
    println!(
        "worker, out of the overlay: {few:.0} ns with 1k sessions, {many:.0} ns with 900k, {:.2} times",
        many / few
    );
    let each = nat(1_000_000).report().memory as f64 / 1e6;
    println!("nat, a million sessions: {each:.0} bytes each");
    assert!(each < 256.0, "{each:.0} bytes a session");
    assert!(many <= 1.6 * few, "900k sessions cost a worker {:.2} times what 1k cost", many / few);
    assert!(small_new <= 10.0 * small, "a new session costs {:.1} established packets", small_new / small);
    assert!(large <= 1.6 * small, "900k sessions cost {:.2} times what 1k cost", large / small);
}

fn established(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("nat, established, burst of 32");
    group.throughput(Throughput::Elements(BURST as u64));
    for (label, sessions) in [("1k", 1000), ("64k", 65_536), ("1M", 1_000_000)] {
        let mut run = Run::new(sessions, 1_048_576);
        let before = allocations();
        run.time(1000);
        assert_eq!(allocations() - before, 0, "allocations in 1000 bursts at {label}");
        println!("nat, {label} sessions: 0 allocations in 1000 bursts of {BURST}");
        group.bench_function(format!("{label} sessions"), |bencher| bencher.iter_custom(|bursts| run.time(bursts)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = established, promises
}
criterion_main!(benches);
