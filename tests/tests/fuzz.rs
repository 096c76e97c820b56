//! Past findings of the fuzzer, its seeds, and mutations of both go through every target.
//!
//! The fuzzer itself, which watches coverage, is `cargo xtask fuzz`; this needs no more than a
//! stable toolchain, and gives the same mutations every time.
//!
//! Needs no root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, panic, path::Path, time::Instant};

use vxlane_tests::{
    fuzz::{TARGETS, Target},
    soak,
};

#[test]
fn seeds_and_past_findings_and_their_mutations_break_nothing() {
    // Ten million in all, with time (bad input B16 of the list of reliability tests).
    let mutations = soak::choose(20_000, 2_500_000);
    let began = Instant::now();
    for target in TARGETS {
        let mut inputs = (target.seeds)();
        assert!(inputs.len() > 5, "{}: seeds", target.name);
        inputs.extend(findings(target));
        for input in &inputs {
            check(target, input);
        }
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        for _ in 0..mutations {
            check(target, &chance.mutated(&inputs));
        }
    }
    println!("{} targets, {mutations} mutations each, {:?}", TARGETS.len(), began.elapsed());
}

/// Runs `target`, and shows the input if that panics.
fn check(target: &Target, input: &[u8]) {
    let outcome = panic::catch_unwind(|| (target.run)(input));
    assert!(outcome.is_ok(), "{} breaks on {input:02x?}", target.name);
}

fn findings(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(target.name);
    let Ok(entries) = fs::read_dir(&directory) else { return Vec::new() };
    entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// A generator that gives the same numbers in every run (xorshift64*, Vigna 2016).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).unwrap() % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// One of `inputs` with one to eight things done to it.
    fn mutated(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(8) {
            let place = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(place),
                1 => bytes.insert(place.min(bytes.len()), self.byte()),
                2 => {
                    let other = &inputs[self.below(inputs.len())];
                    bytes.extend_from_slice(&other[self.below(other.len())..]);
                }
                3 if !bytes.is_empty() => bytes[place] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                4 if !bytes.is_empty() => bytes[place] ^= 1 << self.below(8),
                _ if !bytes.is_empty() => bytes[place] = self.byte(),
                _ => bytes.push(self.byte()),
            }
        }
        bytes
    }
}
