//! `vxlane stats` and `vxlane drops`: counters, and whether they add up.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};

use super::{Output, Question, columns::Columns};
use crate::api::{
    client::ClientError,
    types::{Lane, LaneStats, PortStats, Stats},
};

/// `vxlane stats`
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// Go on with what changes in a second, or so many, until interrupted
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
    /// Both lanes apart, or one of them
    #[arg(long, value_enum, value_name = "LANE", num_args = 0..=1, default_missing_value = "both", conflicts_with = "watch")]
    pub lane: Option<LaneChoice>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LaneChoice {
    /// One after the other.
    Both,
    /// What workers decided about.
    Worker,
    /// What programs repeated.
    Express,
}

/// Moves the cursor home and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) async fn answer(ask: &Question<'_>, args: &StatsArgs, out: Output<'_>) -> Result<(), ClientError> {
    if let Some(choice) = args.lane {
        return super::print(out, &by_lane(ask, choice).await?);
    }
    let Some(seconds) = args.watch else {
        return super::print(out, &ask.show(PATH, render).await?);
    };
    // A table in place for people, table after table for everything else.
    let clear = if io::stdout().is_terminal() && !ask.cli.json { CLEAR } else { "" };
    let mut before: Option<(Instant, Stats)> = None;
    loop {
        let now: Stats = ask.get(PATH).await?;
        let at = Instant::now();
        if let Some((then, before)) = &before {
            let text = if ask.cli.json { super::json(&now)? } else { changes(before, &now, at - *then) + "\n" };
            super::print(out, &format!("{clear}{text}"))?;
        }
        before = Some((at, now));
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

const PATH: &str = "/v1/stats";

async fn by_lane(ask: &Question<'_>, choice: LaneChoice) -> Result<String, ClientError> {
    let stats: Stats = ask.get(PATH).await?;
    let wanted = |lane: &&LaneStats| match choice {
        LaneChoice::Both => true,
        LaneChoice::Worker => lane.lane == Lane::Worker.name(),
        LaneChoice::Express => lane.lane == Lane::Express.name(),
    };
    let lanes: Vec<&LaneStats> = stats.lanes.iter().filter(wanted).collect();
    if ask.cli.json {
        return super::json(&lanes);
    }
    let shown = lanes.iter().map(|lane| format!("{}: {}", lane.lane, one(lane)));
    Ok(shown.collect::<Vec<_>>().join("\n"))
}

/// One lane, by reason and by port.
fn one(lane: &LaneStats) -> String {
    let LaneStats { received, transmitted, copies, replies, dropped, imbalance, drops, ports: by_port, .. } = lane;
    let sums = law(&[*received, *copies, *replies, *transmitted, *dropped], *imbalance);
    let drops = if drops.is_empty() { String::new() } else { reasons(drops) + "\n" };
    format!("{sums}\n{drops}{}", ports(by_port))
}

/// By port, what changed from `before` to `now` in each second of `time`.
fn changes(before: &Stats, now: &Stats, time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let rate = |now: u64, before: u64| format!("{:.0}", now.saturating_sub(before) as f64 / seconds);
    let titles = ["PORT", "RX-PPS", "RX-BPS", "RX-DROPS/S", "TX-PPS", "TX-BPS", "TX-DROPS/S"];
    let mut columns = Columns::titled(&titles);
    for port in &now.ports {
        let zero = PortStats { interface: port.interface.clone(), ..PortStats::default() };
        let old = before.ports.iter().find(|old| old.interface == port.interface).unwrap_or(&zero);
        columns.row([
            port.interface.clone(),
            rate(port.rx_packets, old.rx_packets),
            rate(port.rx_bytes * 8, old.rx_bytes * 8),
            rate(port.rx_drops, old.rx_drops),
            rate(port.tx_packets, old.tx_packets),
            rate(port.tx_bytes * 8, old.tx_bytes * 8),
            rate(port.tx_drops, old.tx_drops),
        ]);
    }
    let mut drops = Columns::titled(&["REASON", "FRAMES/S"]);
    let mut any = false;
    for (reason, &count) in &now.drops {
        let old = before.drops.get(reason).copied().unwrap_or(0);
        if count > old {
            drops.row([reason.clone(), rate(count, old)]);
            any = true;
        }
    }
    columns.render() + &if any { format!("\n{}", drops.render()) } else { String::new() }
}

pub(super) fn render(stats: &Stats) -> String {
    let Stats { received, copies, replies, transmitted, dropped, imbalance, .. } = *stats;
    let mut text = law(&[received, copies, replies, transmitted, dropped], imbalance) + "\n";
    let drops = if stats.drops.is_empty() { String::new() } else { render_drops(stats) + "\n" };
    text.push_str(&drops);
    text.push_str(&ports(&stats.ports));
    text.push('\n');
    text.push_str(&kernel(stats));
    let steer = &stats.steer;
    text.push_str(&format!(
        "\nsteered: redirected {} passed {} (not_vxlan {} no_socket {} fragment {} unknown_port {}) dropped {} (no_worker)\n",
        steer.redirected,
        steer.passed,
        steer.not_vxlan,
        steer.no_socket,
        steer.fragment,
        steer.unknown_port,
        steer.no_worker,
    ));
    text
}

/// The law that all counters obey, with its numbers.
fn law(&[received, copies, replies, transmitted, dropped]: &[u64; 5], imbalance: i64) -> String {
    let holds = if imbalance == 0 { "balanced".to_owned() } else { format!("off by {imbalance}") };
    format!(
        "received {received} + copies {copies} + replies {replies} = transmitted {transmitted} + dropped {dropped}  ({holds})\n"
    )
}

pub(super) fn render_drops(stats: &Stats) -> String {
    reasons(&stats.drops)
}

fn reasons(drops: &BTreeMap<String, u64>) -> String {
    let mut columns = Columns::titled(&["REASON", "FRAMES"]);
    for (reason, count) in drops {
        columns.row([reason.clone(), count.to_string()]);
    }
    columns.render()
}

fn ports(ports: &[PortStats]) -> String {
    let titles = ["PORT", "RX-PACKETS", "RX-BYTES", "RX-DROPS", "TX-PACKETS", "TX-BYTES", "TX-DROPS"];
    let mut columns = Columns::titled(&titles);
    for port in ports {
        let numbers = [port.rx_packets, port.rx_bytes, port.rx_drops, port.tx_packets, port.tx_bytes, port.tx_drops];
        columns.row([port.interface.clone()].into_iter().chain(numbers.map(|number| number.to_string())));
    }
    columns.render()
}

fn kernel(stats: &Stats) -> String {
    let titles = ["KERNEL-LOST", "QUEUE", "RX-DROPPED", "RX-RING-FULL", "RX-FILL-EMPTY", "TX-INVALID"];
    let mut columns = Columns::titled(&titles);
    for queue in &stats.kernel {
        let numbers = [queue.rx_dropped, queue.rx_ring_full, queue.rx_fill_ring_empty, queue.tx_invalid];
        let place = [queue.interface.clone(), queue.queue.to_string()];
        columns.row(place.into_iter().chain(numbers.map(|number| number.to_string())));
    }
    columns.render()
}
