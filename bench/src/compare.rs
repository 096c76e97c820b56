//! Sets two runs side by side, and says what really changed.

use crate::peer::Peer;
use crate::results::{Results, Row, Section};
use crate::stats::Spread;
use crate::table::aligned;

/// What became of a figure from one run to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Better, and the ranges do not overlap.
    Better,
    /// Worse, and the ranges do not overlap.
    Worse,
    /// The ranges overlap, or there are too few measurements to say.
    Unclear,
}

impl Change {
    /// What became of the figure on the line `row` from `before` to `after`.
    pub fn between(row: &Row, before: &Spread, after: &Spread) -> Self {
        let better = row.metric.better();
        if after.beats(before, better) {
            Self::Better
        } else if before.beats(after, better) {
            Self::Worse
        } else {
            Self::Unclear
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Better => "▲ better",
            Self::Worse => "▼ worse",
            Self::Unclear => "",
        }
    }
}

/// The comparison as text: a table for every peer that both runs have.
pub fn report(before: &Results, after: &Results) -> String {
    let mut text = String::new();
    for (name, run) in [("A", before), ("B", after)] {
        let about = &run.about;
        let commit = about.commit.as_deref().unwrap_or("unknown");
        let load = about.load_average.0.max(about.load_average.1);
        text += &format!("{name}: {}, commit {commit}, load average {load:.1}, {}\n", about.date, about.command);
    }
    let machine = |run: &Results| (run.about.machine.cpu.clone(), run.about.machine.kernel.clone());
    if machine(before) != machine(after) {
        text += "The machines or their kernels differ: compare ratios between peers, not figures.\n";
    }
    text += "▲ ▼: the ranges do not overlap. Peers that did not change show how far the machine did.\n";
    let common = before.peers().into_iter().filter(|peer| after.peers().contains(peer));
    common.for_each(|peer| text += &table(before, after, peer));
    text
}

fn table(before: &Results, after: &Results, peer: Peer) -> String {
    let mut lines = vec![[&format!("\n{peer}"), "", "A", "B", "change", ""].map(str::to_owned).to_vec()];
    for section in Section::ALL {
        for row in before.rows(section) {
            let (Some(a), Some(b)) = (before.spread(&row, peer), after.spread(&row, peer)) else {
                continue;
            };
            let show = |spread| row.metric.show_spread(spread);
            let change =
                if a.median == 0.0 { String::new() } else { format!("{:+.1} %", 100.0 * (b.median / a.median - 1.0)) };
            let mark = Change::between(&row, &a, &b).mark().to_owned();
            lines.push(vec![row.case.clone(), row.metric.heading(), show(&a), show(&b), change, mark]);
        }
    }
    aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Metric;

    #[test]
    fn only_ranges_apart_are_a_change_and_cost_is_better_when_less() {
        let spread = |values: [f64; 3]| Spread::of(&values).unwrap();
        let (low, high, wide) = (spread([1.0, 2.0, 3.0]), spread([4.0, 5.0, 6.0]), spread([2.0, 3.0, 9.0]));
        let row = |metric| Row { section: Section::Cpu, case: String::new(), metric };
        let (rate, cost) = (row(Metric::Flood), row(Metric::CpuGross));
        assert_eq!(Change::between(&rate, &low, &high), Change::Better);
        assert_eq!(Change::between(&cost, &low, &high), Change::Worse);
        assert_eq!(Change::between(&rate, &low, &wide), Change::Unclear);
    }
}
