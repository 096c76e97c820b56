//! What vxlane itself costs a packet, without I/O, beside a `memcpy` of the same frame.
//!
//! Also asserts that a burst allocates nothing, whatever its packets go through.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vxlane_bench::counting::{Counting, allocations};
use vxlane_bench::dry::{DRY_BURST, DryPlan, DryRun, Path};
use vxlane_dataplane::wire::{Layers, checksum};

#[global_allocator]
static COUNTING: Counting = Counting;

const PATHS: [(&str, Path); 4] =
    [("encap", Path::Encap), ("decap", Path::Decap), ("local", Path::Local), ("flood", Path::Flood)];

fn run(path: Path, frame: usize, stations: usize, networks: usize) -> DryRun {
    let plan = DryPlan { path, frame, stations, networks };
    // The plans below fit the ids.
    DryRun::new(&plan).unwrap_or_else(|error| panic!("{plan:?}: {error}"))
}

fn a_burst_allocates_nothing() {
    for (name, path) in PATHS {
        let mut run = run(path, 64, 1000, 1);
        run.burst_of_packets();
        let before = allocations();
        for _ in 0..1000 {
            run.burst_of_packets();
        }
        assert_eq!(allocations() - before, 0, "{name}: allocations in 1000 bursts");
        println!("{name}: 0 allocations in 1000 bursts of {DRY_BURST}");
    }
}

fn whole_pipeline(criterion: &mut Criterion) {
    a_burst_allocates_nothing();
    let mut group = criterion.benchmark_group("burst of 32");
    group.throughput(Throughput::Elements(DRY_BURST as u64));
    for frame in [64, 512, 1464] {
        let source = vec![vec![0x5a_u8; frame]; DRY_BURST];
        let mut target = vec![vec![0_u8; frame]; DRY_BURST];
        group.bench_function(format!("memcpy/{frame}B"), |bencher| {
            bencher.iter(|| {
                for (to, from) in target.iter_mut().zip(black_box(&source)) {
                    to.copy_from_slice(from);
                }
                black_box(&target);
            });
        });
        for (name, path) in PATHS {
            let mut run = run(path, frame, 1000, 1);
            group.bench_function(format!("{name}/{frame}B"), |bencher| bencher.iter(|| run.burst_of_packets()));
        }
    }
    group.finish();
}

fn table_sizes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("burst of 32 at 64B");
    group.throughput(Throughput::Elements(DRY_BURST as u64));
    for (label, stations) in [("1k", 1_000), ("64k", 65_536), ("1M", 1_000_000)] {
        for (name, path) in [("encap", Path::Encap), ("decap", Path::Decap)] {
            let mut run = run(path, 64, stations, 1);
            group.bench_function(format!("{name}/{label} MACs"), |bencher| bencher.iter(|| run.burst_of_packets()));
        }
    }
    for networks in [1, 1024, 16_384] {
        let mut run = run(Path::Decap, 64, 65_536, networks);
        group.bench_function(format!("decap/{networks} VNIs"), |bencher| bencher.iter(|| run.burst_of_packets()));
    }
    group.finish();
}

fn parts(criterion: &mut Criterion) {
    let frame = vec![0x45_u8; 1464];
    criterion.bench_function("checksum of 1464B", |bencher| bencher.iter(|| checksum::sum(black_box(&frame))));
    criterion.bench_function("walk the headers", |bencher| bencher.iter(|| Layers::walk(black_box(&frame))));
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = whole_pipeline, table_sizes, parts
}
criterion_main!(benches);
