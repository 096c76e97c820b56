//! What was lost under flood, all rounds together, and where it was counted.

use std::collections::BTreeMap;

use crate::peer::Peer;
use crate::results::{Results, Section};

/// What one peer lost in one case, all rounds together.
pub(crate) struct Loss {
    pub(crate) peer: Peer,
    pub(crate) case: String,
    /// Percent of what was sent.
    pub(crate) share: f64,
    /// The counters that grew, the largest first, and what no counter explains.
    pub(crate) causes: Vec<String>,
}

/// The losses worth to be shown.
pub(crate) fn losses(results: &Results) -> Vec<Loss> {
    let mut found = Vec::new();
    for section in Section::ALL {
        for peer in results.peers() {
            let mut sums: BTreeMap<&str, (u64, u64, BTreeMap<&str, u64>)> = BTreeMap::new();
            for drops in results.drops.iter().filter(|drops| drops.section == section && drops.peer == peer) {
                let (sent, lost, causes) = sums.entry(&drops.case).or_default();
                *sent += drops.sent;
                *lost += drops.lost;
                drops.causes.iter().for_each(|(cause, count)| *causes.entry(cause).or_default() += count);
            }
            found.extend(sums.into_iter().map(|(case, (sent, lost, causes))| loss(peer, case, (sent, lost), causes)));
        }
    }
    found.retain(|loss| loss.share >= LEAST_SHOWN);
    found
}

fn loss(peer: Peer, case: &str, (sent, lost): (u64, u64), causes: BTreeMap<&str, u64>) -> Loss {
    let share = |count: u64| 100.0 * count as f64 / sent.max(1) as f64;
    let explained: u64 = causes.values().sum();
    let mut causes: Vec<_> = causes.into_iter().filter(|(_, count)| share(*count) >= LEAST_SHOWN).collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut shown: Vec<_> =
        causes.iter().take(MOST_SHOWN).map(|(cause, count)| format!("{cause} {:.1} %", share(*count))).collect();
    let unexplained = lost.saturating_sub(explained);
    if share(unexplained) >= LEAST_SHOWN {
        shown.push(format!("no counter {:.1} %", share(unexplained)));
    }
    Loss { peer, case: case.to_owned(), share: share(lost), causes: shown }
}

/// Share of the sent packets, in percent, below which a cause is not shown.
const LEAST_SHOWN: f64 = 0.1;

/// Causes shown for one case.
const MOST_SHOWN: usize = 3;
