//! The figures that vxlane promises, and whether a run kept them.
//!
//! A ratio is taken within each round, between figures that were measured one after the other, so
//! that whatever else the machine did weighs on both.

use std::fmt;

use crate::load::SMALLEST;
use crate::measure::{self, cell};
use crate::peer::Peer;
use crate::results::{Metric, Results, Row, Section};
use crate::run::WANTED_LOAD;
use crate::stats::Spread;

/// One promised figure.
#[derive(Clone, Debug)]
pub struct Promise {
    /// What is promised.
    pub what: String,
    /// How much.
    pub bound: Bound,
    /// What was measured; none where the run did not measure it.
    pub measured: Option<Spread>,
}

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// A factor, at least.
    AtLeast(f64),
    /// A factor, at most.
    AtMost(f64),
    /// Percent of a processor, less than.
    Percent(f64),
}

/// What became of a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In every round.
    Kept,
    /// By the median, not in every round.
    MostlyKept,
    /// Broken by the median, kept in some round.
    MostlyBroken,
    /// In no round kept.
    Broken,
    /// The run did not measure it.
    Unmeasured,
}

/// Those of [`all`] that the run measured; none if it did not measure us.
pub fn measured(results: &Results) -> Vec<Promise> {
    all(results).into_iter().filter(|promise| promise.measured.is_some()).collect()
}

/// All promises, in the order of the report.
pub fn all(results: &Results) -> Vec<Promise> {
    [of_workers(results), of_express(results)].concat()
}

/// `peer` on one row set beside another on another.
fn compare(results: &Results, what: &str, bound: Bound, ours: (Row, Peer), theirs: (Row, Peer)) -> Promise {
    let measured = ratios(results, (&ours.0, ours.1), (&theirs.0, theirs.1));
    Promise { what: what.to_owned(), bound, measured }
}

fn rate(flows: u32, metric: Metric) -> Row {
    Row { section: Section::Pps, case: cell(SMALLEST, flows), metric }
}

/// Of the worker lane.
fn of_workers(results: &Results) -> Vec<Promise> {
    let compare = |what: &str, bound, ours, theirs| compare(results, what, bound, ours, theirs);
    let rate = |flows| rate(flows, Metric::Lossless);
    let cost = |case: String| Row { section: Section::Cpu, case, metric: Metric::CpuGross };
    let [one, _, many] = measure::FLOWS;
    let ours = (rate(one), Peer::Vxlane);
    let against = |peer| (rate(one), peer);
    let flood = || cost(measure::FLOOD.to_owned());
    let mut promises = vec![
        compare("rate, 64 B, 1 flow, vs kernel", Bound::AtLeast(2.0), ours.clone(), against(Peer::Kernel)),
        compare("rate, 64 B, 1 flow, vs OVS-AFXDP", Bound::AtLeast(1.3), ours.clone(), against(Peer::OvsAfxdp)),
        compare("rate, 64 B, 1 flow, vs null", Bound::AtLeast(0.85), ours.clone(), against(Peer::Null)),
        compare("rate, 64 B, 1000 flows, vs 1 flow", Bound::AtLeast(0.9), (rate(many), Peer::Vxlane), ours),
        compare(
            "cost per packet under flood, vs kernel",
            Bound::AtMost(1.0),
            (flood(), Peer::Vxlane),
            (flood(), Peer::Kernel),
        ),
    ];
    // Under flood a VTEP that drops frames early is charged for making those as well.
    let near = || cost(measure::NEAR_LIMIT.to_owned());
    let (ours, theirs) = ((near(), Peer::Vxlane), (near(), Peer::Kernel));
    promises.push(compare("cost per packet near its own limit, vs kernel", Bound::AtMost(1.0), ours, theirs));
    for (peer, name, bound) in [(Peer::Kernel, "kernel", 1.2), (Peer::OvsAfxdp, "OVS-AFXDP", 0.5)] {
        let case = measure::at(common_load(results, peer));
        let what = format!("cost per packet {case}, vs {name}");
        promises.push(compare(&what, Bound::AtMost(bound), (cost(case.clone()), Peer::Vxlane), (cost(case), peer)));
    }
    let net = |case: String| Row { metric: Metric::CpuNet, ..cost(case) };
    let case = measure::at(common_load(results, Peer::OvsAfxdp));
    let what = "the same net of wire, vs OVS-AFXDP";
    let (ours, theirs) = ((net(case.clone()), Peer::Vxlane), (net(case), Peer::OvsAfxdp));
    promises.push(compare(what, Bound::AtMost(0.5), ours, theirs));
    for (name, flows) in [("1 flow", one), ("1000 flows", many)] {
        let row = || Row { section: Section::Nat, case: cell(SMALLEST, flows), metric: Metric::Lossless };
        let what = format!("rate through masquerade, 64 B, {name}, vs nftables");
        promises.push(compare(&what, Bound::AtLeast(1.0), (row(), Peer::Vxlane), (row(), Peer::Kernel)));
    }
    let crowd = Row { section: Section::Crowd, case: measure::CROWD.to_owned(), metric: Metric::IdleCpu };
    let measured = results.spread(&crowd, Peer::Vxlane);
    promises.push(Promise {
        what: "idle with 64 ports, of a processor".to_owned(),
        bound: Bound::Percent(1.0),
        measured,
    });
    promises
}

/// Of the express lane, all beside the kernel's.
fn of_express(results: &Results) -> Vec<Promise> {
    let beside = |what: &str, bound, row: Row| {
        let what = format!("express: {what}, vs kernel");
        compare(results, &what, bound, (row.clone(), Peer::VxlaneExpress), (row, Peer::Kernel))
    };
    let row = |section, case: &str, metric| Row { section, case: case.to_owned(), metric };
    let case = measure::at(common_load(results, Peer::Kernel));
    vec![
        beside("rate, 64 B, 1 flow", Bound::AtLeast(2.3), rate(measure::FLOWS[0], Metric::Lossless)),
        beside(&format!("cost {case} net of wire"), Bound::AtMost(0.45), row(Section::Cpu, &case, Metric::CpuNet)),
        beside("TCP, 1 stream", Bound::AtLeast(1.2), row(Section::Tcp, "1 stream", Metric::Throughput)),
        beside("TCP, 4 streams", Bound::AtLeast(1.35), row(Section::Tcp, "4 streams", Metric::Throughput)),
        beside("request and response, p50", Bound::AtMost(0.7), row(Section::Rr, measure::ALONE, Metric::P50)),
        beside(
            "TCP through masquerade, 1 stream",
            Bound::AtLeast(1.0),
            row(Section::Nat, "1 stream", Metric::Throughput),
        ),
    ]
}

/// The load that costs are compared at: the wanted one where both carry it, else the easy one.
fn common_load(results: &Results, peer: Peer) -> f64 {
    let row = Row { section: Section::Cpu, case: measure::at(WANTED_LOAD), metric: Metric::Loss };
    let lossy = |peer| results.spread(&row, peer).is_some_and(|loss| loss.median > MUCH_LOST);
    let easy = results.about.fixed_loads.first().copied().unwrap_or(WANTED_LOAD);
    if lossy(peer) || lossy(Peer::Vxlane) { easy } else { WANTED_LOAD }
}

/// What `ours` is to `theirs` in every round that has both.
fn ratios(results: &Results, ours: (&Row, Peer), theirs: (&Row, Peer)) -> Option<Spread> {
    let ratio = |round| {
        let own = results.value(ours.0, ours.1, round)?;
        let other = results.value(theirs.0, theirs.1, round).filter(|value| *value > 0.0)?;
        Some(own / other)
    };
    let ratios: Vec<f64> = (0..results.about.rounds).filter_map(ratio).collect();
    Spread::of(&ratios)
}

impl Promise {
    /// What became of it.
    pub fn verdict(&self) -> Verdict {
        let Some(Spread { median, min, max, .. }) = self.measured else {
            return Verdict::Unmeasured;
        };
        let keeps = |value: f64| match self.bound {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
            Bound::Percent(bound) => value < bound,
        };
        match (keeps(median), keeps(min), keeps(max)) {
            (true, true, true) => Verdict::Kept,
            (true, _, _) => Verdict::MostlyKept,
            (false, false, false) => Verdict::Broken,
            (false, _, _) => Verdict::MostlyBroken,
        }
    }

    /// What was measured, as a table shows it.
    pub fn shown(&self) -> String {
        let Some(Spread { median, min, max, .. }) = self.measured else {
            return "-".to_owned();
        };
        match self.bound {
            Bound::AtLeast(_) | Bound::AtMost(_) => format!("{median:.2}x [{min:.2}..{max:.2}]"),
            Bound::Percent(_) => format!("{median:.2} % [{min:.2}..{max:.2}]"),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}x"),
            Self::AtMost(bound) => write!(f, "<= {bound}x"),
            Self::Percent(bound) => write!(f, "< {bound} %"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kept => "kept",
            Self::MostlyKept => "kept by median",
            Self::MostlyBroken => "not kept by median",
            Self::Broken => "not kept",
            Self::Unmeasured => "not measured",
        })
    }
}

/// Loss in percent beyond which a peer does not carry a load.
const MUCH_LOST: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_when_every_round_keeps_it_and_half_kept_by_the_median() {
        let verdict = |bound, values: &[f64]| {
            let measured = Spread::of(values);
            Promise { what: String::new(), bound, measured }.verdict()
        };
        assert_eq!(verdict(Bound::AtLeast(2.0), &[2.0, 2.5, 3.0]), Verdict::Kept);
        assert_eq!(verdict(Bound::AtLeast(2.0), &[1.9, 2.5, 3.0]), Verdict::MostlyKept);
        assert_eq!(verdict(Bound::AtLeast(2.0), &[1.8, 1.9, 3.0]), Verdict::MostlyBroken);
        assert_eq!(verdict(Bound::AtMost(0.5), &[0.6, 0.7, 0.8]), Verdict::Broken);
        assert_eq!(verdict(Bound::Percent(1.0), &[1.0]), Verdict::Broken);
        assert_eq!(verdict(Bound::AtMost(0.5), &[]), Verdict::Unmeasured);
    }
}
