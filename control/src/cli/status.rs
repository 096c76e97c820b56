//! `vxlane status`: the daemon on one screen.

use std::net::IpAddr;

use super::{columns::Columns, endpoint::copying, express, joined, peer};
use crate::api::types::{Role, Status};

pub(super) fn render(status: &Status) -> String {
    let underlay = &status.underlay;
    let addresses = underlay.address.map(IpAddr::V4).into_iter().chain(underlay.address_v6.map(IpAddr::V6));
    let mut text = format!(
        "vxlane {}, pid {}, up {}\nunderlay {} address {} port {} mtu {}\nexpress lane {}\n\n",
        status.version,
        status.pid,
        duration(status.uptime_seconds),
        underlay.interface,
        joined(&addresses.collect::<Vec<_>>()),
        underlay.port,
        underlay.mtu,
        status.express,
    );
    for table in [ports(status), workers(status), frames(status), peer::table(&status.peers)] {
        text.push_str(&table);
        text.push('\n');
    }
    text.pop();
    text
}

fn ports(status: &Status) -> String {
    let mut columns = Columns::titled(&["PORT", "ROLE", "NETWORK", "XDP", "FRAMES", "QUEUES", "LANE"]);
    for port in &status.ports {
        let role = match port.role {
            Role::Uplink => "uplink",
            Role::Access => "access",
            Role::Host => "host",
        };
        columns.row([
            port.interface.clone(),
            role.to_owned(),
            port.network.clone().unwrap_or_default(),
            port.xdp.clone(),
            copying(port.zero_copy).to_owned(),
            port.queues.len().to_string(),
            express::lane(port.lane, port.why.as_deref()),
        ]);
    }
    columns.render()
}

fn workers(status: &Status) -> String {
    let mut columns = Columns::titled(&["WORKER", "CPU", "STATIONS"]);
    for worker in &status.workers {
        let cpu = worker.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        columns.row([worker.id.to_string(), cpu, worker.stations.to_string()]);
    }
    columns.render()
}

fn frames(status: &Status) -> String {
    let mut columns = Columns::titled(&["PORT", "QUEUE", "HALF", "WORKER", "TOTAL", "KERNEL", "OURS"]);
    for frames in &status.frames {
        columns.row([
            frames.interface.clone(),
            frames.queue.map(|queue| queue.to_string()).unwrap_or_default(),
            frames.half.clone(),
            frames.worker.to_string(),
            frames.total.to_string(),
            frames.kernel.to_string(),
            frames.ours.to_string(),
        ]);
    }
    columns.render()
}

/// Seconds in at most two units: `2d3h`, `4m5s`.
fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds}s"),
        (0, 0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (0, hours, minutes, _) => format!("{hours}h{minutes}m"),
        (days, hours, ..) => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_have_at_most_two_units() {
        let shown = [5, 65, 3661, 90_061].map(duration);
        assert_eq!(shown, ["5s", "1m5s", "1h1m", "1d1h"]);
    }
}
