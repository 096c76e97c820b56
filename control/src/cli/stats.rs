//! `vxlane stats` and `vxlane drops`: counters, and whether they add up.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use clap::Args;

use super::{Output, Question, columns::Columns};
use crate::api::{
    client::ClientError,
    types::{PortStats, Stats},
};

/// `vxlane stats`
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// Go on with what changes in a second, or so many, until interrupted
    #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
}

/// Moves the cursor home and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) async fn answer(ask: &Question<'_>, args: &StatsArgs, out: Output<'_>) -> Result<(), ClientError> {
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
    let law = if stats.imbalance == 0 { "balanced".to_owned() } else { format!("off by {}", stats.imbalance) };
    let mut text = format!(
        "received {} + copies {} + replies {} = transmitted {} + dropped {}  ({law})\n\n",
        stats.received, stats.copies, stats.replies, stats.transmitted, stats.dropped,
    );
    let drops = if stats.drops.is_empty() { String::new() } else { render_drops(stats) + "\n" };
    text.push_str(&drops);
    text.push_str(&ports(stats));
    text.push('\n');
    text.push_str(&kernel(stats));
    let steer = &stats.steer;
    text.push_str(&format!(
        "\nsteered: redirected {} passed {} (not_vxlan {} no_socket {} fragment {} unknown_port {})\n",
        steer.redirected, steer.passed, steer.not_vxlan, steer.no_socket, steer.fragment, steer.unknown_port,
    ));
    text
}

pub(super) fn render_drops(stats: &Stats) -> String {
    let mut columns = Columns::titled(&["REASON", "FRAMES"]);
    for (reason, count) in &stats.drops {
        columns.row([reason.clone(), count.to_string()]);
    }
    columns.render()
}

fn ports(stats: &Stats) -> String {
    let titles = ["PORT", "RX-PACKETS", "RX-BYTES", "RX-DROPS", "TX-PACKETS", "TX-BYTES", "TX-DROPS"];
    let mut columns = Columns::titled(&titles);
    for port in &stats.ports {
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
