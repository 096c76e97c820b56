//! Where packets were lost: every counter of a bed that counts losses, before and after.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use vxlane_tests::netns::Netns;

use crate::bed::Bed;
use crate::peer::Running;

/// Counters by name.
pub type Counters = BTreeMap<String, u64>;

/// Reads every loss counter of `bed`: the kernel's backlog, its devices, its containers' sockets
/// and its VTEPs. One that cannot be read is left out.
pub fn read(bed: &Bed) -> Counters {
    let mut counters = Counters::new();
    let softnet = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    counters.extend(softnet_losses(&softnet));
    let hosts = bed.lab.hosts().map(|host| (host.name().to_owned(), host.ns()));
    let ends = [&bed.left, &bed.right].map(|container| (container.name().to_owned(), container.ns()));
    for (name, ns) in hosts.chain(ends) {
        counters.extend(inside(ns).into_iter().map(|(key, value)| (format!("{name}/{key}"), value)));
    }
    for (number, vtep) in bed.vteps.iter().enumerate() {
        let own = own_counters(vtep).into_iter().filter(|(key, _)| counts_losses(key));
        counters.extend(own.map(|(key, value)| (format!("{} {number}: {key}", bed.peer), value)));
    }
    counters
}

/// What grew from `before` to `after`, the most first.
pub fn grown(before: &Counters, after: &Counters) -> Vec<(String, u64)> {
    let growth = after.iter().map(|(name, now)| {
        let then = before.get(name).copied().unwrap_or(0);
        (name.clone(), now.saturating_sub(then))
    });
    let mut grown: Vec<_> = growth.filter(|(_, count)| *count > 0).collect();
    grown.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    grown
}

/// Losses in the receive backlog of all processors, from the text of `/proc/net/softnet_stat`.
fn softnet_losses(text: &str) -> Vec<(String, u64)> {
    let column = |at: usize| -> u64 {
        let words = text.lines().filter_map(|line| line.split_whitespace().nth(at));
        words.filter_map(|word| u64::from_str_radix(word, 16).ok()).sum()
    };
    vec![("softnet backlog full".to_owned(), column(1))]
}

/// Devices and sockets of one namespace.
fn inside(ns: &Netns) -> Vec<(String, u64)> {
    let read = || {
        let mut found = Vec::new();
        for device in fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
            let name = device.file_name().to_string_lossy().into_owned();
            for counter in fs::read_dir(device.path().join("statistics")).into_iter().flatten().flatten() {
                let key = counter.file_name().to_string_lossy().into_owned();
                let value = fs::read_to_string(counter.path()).ok().and_then(|text| text.trim().parse().ok());
                found.extend(value.filter(|_| counts_losses(&key)).map(|value| (format!("{name} {key}"), value)));
            }
        }
        // `/proc/net` would be the process's own; the thread is the one inside.
        let snmp = fs::read_to_string("/proc/thread-self/net/snmp").unwrap_or_default();
        found.extend(udp_losses(&snmp));
        found
    };
    // A namespace that cannot be entered has no counters to show.
    ns.run(read).unwrap_or_default()
}

/// The loss counters of UDP in the text of `/proc/net/snmp`: a line of names, a line of values.
fn udp_losses(text: &str) -> Vec<(String, u64)> {
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return Vec::new();
    };
    let pairs = names.split_whitespace().zip(values.split_whitespace()).skip(1);
    let losses = pairs.filter(|(name, _)| ["RcvbufErrors", "InCsumErrors", "SndbufErrors"].contains(name));
    losses.filter_map(|(name, value)| Some((format!("UDP {name}"), value.parse().ok()?))).collect()
}

fn own_counters(vtep: &Running) -> Vec<(String, u64)> {
    match vtep {
        Running::Kernel(_) | Running::Null(_) => Vec::new(),
        Running::Ovs(vtep) => vtep.appctl(&["coverage/show"]).map(|text| coverage(&text)).unwrap_or_default(),
        Running::Vxlane(vtep) => {
            let mut leaves = Vec::new();
            if let Ok(stats) = vtep.cli(&["stats", "--json"]) {
                flatten("", &stats, &mut leaves);
            }
            leaves
        }
    }
}

/// Totals in what `ovs-appctl coverage/show` prints: `name  0.0/sec … total: N`.
fn coverage(text: &str) -> Vec<(String, u64)> {
    let line = |line: &str| {
        let (rates, total) = line.split_once("total: ")?;
        Some((rates.split_whitespace().next()?.to_owned(), total.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Every number of a JSON value, by its path.
fn flatten(path: &str, value: &Value, found: &mut Vec<(String, u64)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(&below(key), value, found)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&below(&index.to_string()), item, found);
            }
        }
        Value::Number(number) => found.extend(number.as_u64().map(|count| (path.to_owned(), count))),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Whether a counter of this name counts losses, and no other counter does it for the same packets:
/// what vxlane repeats of the kernel's account is in the devices' counters.
fn counts_losses(name: &str) -> bool {
    let name = name.to_lowercase();
    if name.starts_with("kernel.") {
        return false;
    }
    ["drop", "err", "lost", "full", "fail", "overrun", "miss"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backlog_losses_are_summed_over_processors() {
        let text = "00000100 0000000a 00000003\n00000200 00000010 00000000\n";
        assert_eq!(softnet_losses(text), [("softnet backlog full".to_owned(), 26)]);
    }

    #[test]
    fn only_what_grew_is_shown_and_the_most_first() {
        let counters =
            |values: &[(&str, u64)]| values.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let grown = grown(&counters(&[("a", 1), ("b", 5)]), &counters(&[("a", 3), ("b", 5), ("c", 9)]));
        assert_eq!(grown, [("c".to_owned(), 9), ("a".to_owned(), 2)]);
    }

    #[test]
    fn udp_losses_are_found_by_name() {
        let text = "Ip: A\nIp: 1\nUdp: InDatagrams NoPorts RcvbufErrors\nUdp: 10 2 7\n";
        assert_eq!(udp_losses(text), [("UDP RcvbufErrors".to_owned(), 7)]);
    }

    #[test]
    fn coverage_totals_are_read() {
        let text = "Event coverage, avg rate over last: 5 seconds, hash=1\n\
                    drop_x    0.0/sec  0.0/sec  0.0/sec   total: 42\n3 events never hit\n";
        assert_eq!(coverage(text), [("drop_x".to_owned(), 42)]);
    }

    #[test]
    fn every_number_of_a_json_value_has_a_path() {
        let mut found = Vec::new();
        flatten("", &serde_json::json!({"w": [{"drops": {"ttl": 3}}], "name": "x"}), &mut found);
        assert_eq!(found, [("w.0.drops.ttl".to_owned(), 3)]);
    }
}
