//! `vxlane stats` and `vxlane drops`: counters, and whether they add up.

use super::columns::Columns;
use crate::api::types::Stats;

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
