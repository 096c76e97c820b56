//! `vxlane fdb`: one line for each station, in the manner of `bridge fdb show`.

use crate::api::types::Station;

/// One line for each station.
pub(super) fn render(stations: &Vec<Station>) -> String {
    stations.iter().map(line).collect()
}

fn line(Station { mac, network, dst, dev, age, .. }: &Station) -> String {
    let place = match (dst, dev) {
        (Some(dst), _) => format!("dst {dst}"),
        (None, Some(dev)) => format!("dev {dev}"),
        (None, None) => "gone".to_owned(),
    };
    format!("{mac} network {network} {place} age {age}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::StationState;

    #[test]
    fn a_station_is_a_line_that_scripts_for_iproute2_can_read() {
        let there = Station {
            mac: "02:00:00:00:00:0b".to_owned(),
            network: "blue".to_owned(),
            dst: Some([192, 0, 2, 2].into()),
            dev: None,
            state: StationState::Learned,
            age: 3,
        };
        let here = Station { dst: None, dev: Some("p0".to_owned()), age: 0, ..there.clone() };
        assert_eq!(line(&there), "02:00:00:00:00:0b network blue dst 192.0.2.2 age 3\n");
        assert_eq!(line(&here), "02:00:00:00:00:0b network blue dev p0 age 0\n");
    }
}
