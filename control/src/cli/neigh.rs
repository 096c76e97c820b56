//! `vxlane neigh`: one line for each binding, in the manner of `ip neigh`.

use clap::Subcommand;

use super::{Question, fdb::only};
use crate::api::{
    client::ClientError,
    types::neighbours::{Neighbour, NeighbourOrigin, NeighbourState},
};

/// `vxlane neigh`
#[derive(Clone, Debug, Subcommand)]
pub enum NeighCommand {
    /// Print the addresses for which questions are answered here
    #[command(alias = "list", alias = "ls")]
    Show {
        /// Only of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
        /// Also how many seconds ago each was heard from
        #[arg(long, short)]
        statistics: bool,
    },
}

pub(super) async fn answer(ask: &Question<'_>, command: &NeighCommand) -> Result<String, ClientError> {
    let NeighCommand::Show { network, statistics } = command;
    let path = format!("/v1/neighbours{}", only(network.as_deref()));
    let names = network.is_none();
    ask.list(&path, |all: &[Neighbour]| all.iter().map(|one| line(one, names, *statistics)).collect()).await
}

/// As `ip neigh show` has it, with how the binding is known, and the network where it was not
/// asked for one.
fn line(neighbour: &Neighbour, names: bool, statistics: bool) -> String {
    let Neighbour { dst, lladdr, network, dev, router, origin, state, used, .. } = neighbour;
    let mut words = vec![dst.to_string()];
    if names {
        words.push(format!("network {network}"));
    }
    words.extend(dev.as_ref().map(|dev| format!("dev {dev}")));
    words.push(format!("lladdr {lladdr}"));
    words.extend(router.then(|| "router".to_owned()));
    // All three are when it was last heard from: that is all that is kept.
    words.extend(used.filter(|_| statistics).map(|used| format!("used {used}/{used}/{used}")));
    words.push(origin_word(*origin).to_owned());
    words.push(state_word(*state).to_owned());
    words.join(" ") + "\n"
}

fn origin_word(origin: NeighbourOrigin) -> &'static str {
    match origin {
        NeighbourOrigin::Endpoint => "endpoint",
        NeighbourOrigin::Gateway => "gateway",
        NeighbourOrigin::Snooped => "snooped",
        NeighbourOrigin::Static => "static",
    }
}

fn state_word(state: NeighbourState) -> &'static str {
    match state {
        NeighbourState::Permanent => "PERMANENT",
        NeighbourState::Reachable => "REACHABLE",
        NeighbourState::Contested => "CONTESTED",
        NeighbourState::Duplicate => "DUPLICATE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_a_line_that_scripts_for_iproute2_can_read() {
        let snooped = Neighbour {
            dst: [10, 50, 0, 9].into(),
            lladdr: "02:00:00:00:00:0b".to_owned(),
            network: "blue".to_owned(),
            vni: 5000,
            dev: Some("p1".to_owned()),
            router: false,
            origin: NeighbourOrigin::Snooped,
            state: NeighbourState::Reachable,
            used: Some(3),
        };
        let gateway = Neighbour {
            dev: None,
            router: true,
            origin: NeighbourOrigin::Gateway,
            state: NeighbourState::Permanent,
            used: None,
            ..snooped.clone()
        };
        let ours = "10.50.0.9 dev p1 lladdr 02:00:00:00:00:0b";
        assert_eq!(line(&snooped, false, false), format!("{ours} snooped REACHABLE\n"));
        assert_eq!(line(&snooped, false, true), format!("{ours} used 3/3/3 snooped REACHABLE\n"));
        let expected = "10.50.0.9 network blue lladdr 02:00:00:00:00:0b router gateway PERMANENT\n";
        assert_eq!(line(&gateway, true, true), expected);
        let json = serde_json::to_value(&gateway).unwrap();
        assert_eq!((&json["origin"], &json["state"], json.get("dev")), (&"gateway".into(), &"permanent".into(), None));
    }
}
