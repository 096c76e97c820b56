//! `vxlane fdb`: one line for each station, in the manner of `bridge fdb show`.

use clap::Subcommand;

use super::Question;
use crate::api::{
    client::{ClientError, escape},
    types::Station,
};

/// `vxlane fdb`
#[derive(Clone, Debug, Subcommand)]
pub enum FdbCommand {
    /// Print the stations that are known
    #[command(alias = "list", alias = "ls")]
    Show {
        /// Only of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
}

pub(super) async fn answer(ask: &Question<'_>, command: &FdbCommand) -> Result<String, ClientError> {
    match command {
        FdbCommand::Show { network } => ask.list(&format!("/v1/fdb{}", only(network.as_deref())), render).await,
    }
}

/// The query for one network, or for all.
fn only(network: Option<&str>) -> String {
    network.map(|name| format!("?network={}", escape(name))).unwrap_or_default()
}

/// One line for each station.
fn render(stations: &[Station]) -> String {
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
