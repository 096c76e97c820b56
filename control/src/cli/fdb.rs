//! `vxlane fdb`: one line for each station, in the manner of `bridge fdb`.

use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::{Question, network};
use crate::{
    api::{
        client::{ClientError, escape},
        types::{Station, StationFlag, StationState, requests::StationRequest},
    },
    mac::Mac,
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
        /// Also how many seconds ago each was heard from
        #[arg(long, short)]
        statistics: bool,
    },
    /// Have a station be known at a place, and never move
    Add(AddArgs),
    /// Have it be learned like all others again
    #[command(alias = "rm", alias = "delete", alias = "remove")]
    Del {
        /// Its Ethernet address
        mac: Mac,
        /// Its network
        #[arg(long, value_name = "NAME")]
        network: String,
    },
    /// Forget the stations that were learned
    Flush {
        /// Only of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
}

/// `vxlane fdb add`
#[derive(Clone, Debug, Args)]
pub struct AddArgs {
    /// Its Ethernet address
    pub mac: Mac,
    /// Its network
    #[arg(long, value_name = "NAME")]
    pub network: String,
    /// The VTEP it is behind, a peer of the network
    #[arg(long, value_name = "ADDRESS", required_unless_present = "dev", conflicts_with = "dev")]
    pub dst: Option<IpAddr>,
    /// The interface it is behind, one of an endpoint of the network
    #[arg(long, value_name = "NAME")]
    pub dev: Option<String>,
}

pub(super) async fn answer(ask: &Question<'_>, command: &FdbCommand) -> Result<String, ClientError> {
    match command {
        FdbCommand::Show { network, statistics } => {
            let path = format!("/v1/fdb{}", only(network.as_deref()));
            let detail = Detail { network: network.is_none(), used: *statistics };
            ask.list(&path, |stations: &[Station]| stations.iter().map(|station| line(station, detail)).collect()).await
        }
        FdbCommand::Add(AddArgs { mac, network, dst, dev }) => {
            let request = StationRequest { mac: *mac, dst: *dst, dev: dev.clone() };
            ask.post(&format!("{}/fdb", network::path(network)), &request, |_: &Station| String::new()).await
        }
        FdbCommand::Del { mac, network } => {
            ask.delete(&format!("{}/fdb/{}", network::path(network), escape(&mac.to_string()))).await
        }
        FdbCommand::Flush { network } => ask.delete(&format!("/v1/fdb{}", only(network.as_deref()))).await,
    }
}

/// The query for one network, or for all.
pub(super) fn only(network: Option<&str>) -> String {
    network.map(|name| format!("?network={}", escape(name))).unwrap_or_default()
}

/// What of a station is told.
#[derive(Clone, Copy, Debug)]
struct Detail {
    network: bool,
    used: bool,
}

/// As `bridge fdb show dev VXLAN` has it, with the network where it was not asked for one.
fn line(station: &Station, detail: Detail) -> String {
    let Station { mac, network, dst, ifname, flags, state, used, .. } = station;
    let mut words = vec![mac.clone()];
    if detail.network {
        words.push(format!("network {network}"));
    }
    words.extend(dst.map(|dst| format!("dst {dst}")));
    words.extend(ifname.as_ref().map(|ifname| format!("dev {ifname}")));
    // Both are when it was last heard from: that is all that is kept.
    words.extend(used.filter(|_| detail.used).map(|used| format!("used {used}/{used}")));
    words.extend(flags.iter().map(|flag| match flag {
        StationFlag::Tunnel => "self".to_owned(),
        StationFlag::Master => "master".to_owned(),
    }));
    if *state == StationState::Static {
        words.push("static".to_owned());
    }
    words.join(" ") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_a_line_that_scripts_for_iproute2_can_read() {
        let learned = Station {
            mac: "02:00:00:00:00:0b".to_owned(),
            network: "blue".to_owned(),
            vni: 5000,
            dst: Some([192, 0, 2, 2].into()),
            ifname: None,
            flags: vec![StationFlag::Tunnel],
            state: StationState::Learned,
            used: Some(3),
        };
        let told = Station { state: StationState::Static, used: None, ..learned.clone() };
        let here =
            Station { dst: None, ifname: Some("p0".to_owned()), flags: vec![StationFlag::Master], ..learned.clone() };
        let (brief, long) = (Detail { network: false, used: false }, Detail { network: true, used: true });
        assert_eq!(line(&learned, brief), "02:00:00:00:00:0b dst 192.0.2.2 self\n");
        assert_eq!(line(&told, brief), "02:00:00:00:00:0b dst 192.0.2.2 self static\n");
        assert_eq!(line(&here, brief), "02:00:00:00:00:0b dev p0 master\n");
        assert_eq!(line(&learned, long), "02:00:00:00:00:0b network blue dst 192.0.2.2 used 3/3 self\n");
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!((&json["flags"][0], &json["state"]), (&"self".into(), &"static".into()));
        assert_eq!(serde_json::to_value(&learned).unwrap()["state"], "");
    }
}
