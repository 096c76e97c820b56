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

/// All promises, in the order of the report.
pub fn all(results: &Results) -> Vec<Promise> {
    let compare = |what: &str, bound, (row, peer): (Row, Peer), (other_row, other): (Row, Peer)| {
        let measured = ratios(results, (&row, peer), (&other_row, other));
        Promise { what: what.to_owned(), bound, measured }
    };
    let rate = |flows| {
        let case = cell(SMALLEST, flows);
        Row { section: Section::Pps, case, metric: Metric::Lossless }
    };
    let cost = |case: String| Row { section: Section::Cpu, case, metric: Metric::CpuGross };
    let [one, _, many] = measure::FLOWS;
    let ours = (rate(one), Peer::Vxlane);
    let against = |peer| (rate(one), peer);
    let flood = || cost(measure::FLOOD.to_owned());
    let mut promises = vec![
        compare("rate, 64 B, 1 flow, to the kernel's", Bound::AtLeast(2.0), ours.clone(), against(Peer::Kernel)),
        compare("rate, 64 B, 1 flow, to OVS-AFXDP's", Bound::AtLeast(1.3), ours.clone(), against(Peer::OvsAfxdp)),
        compare("rate, 64 B, 1 flow, to null's", Bound::AtLeast(0.85), ours.clone(), against(Peer::Null)),
        compare("rate, 64 B, 1000 flows, to 1 flow", Bound::AtLeast(0.9), (rate(many), Peer::Vxlane), ours),
        compare(
            "cost per packet under flood, to the kernel's",
            Bound::AtMost(1.0),
            (flood(), Peer::Vxlane),
            (flood(), Peer::Kernel),
        ),
    ];
    for (peer, name, bound) in [(Peer::Kernel, "the kernel's", 1.2), (Peer::OvsAfxdp, "OVS-AFXDP's", 0.5)] {
        let case = measure::at(common_load(results, peer));
        let what = format!("cost per packet {case}, to {name}");
        promises.push(compare(&what, Bound::AtMost(bound), (cost(case.clone()), Peer::Vxlane), (cost(case), peer)));
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
            Self::MostlyKept => "kept by the median",
            Self::MostlyBroken => "not kept by the median",
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
