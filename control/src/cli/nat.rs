//! `vxlane nat`: the way out of the overlay and its sessions.

use std::net::IpAddr;

use clap::Subcommand;

use super::{Question, columns::Columns};
use crate::api::{
    client::{ClientError, escape},
    types::nat::{NatFlushed, NatStatus, NatWorker},
};

/// `vxlane nat`
#[derive(Clone, Debug, Subcommand)]
pub enum NatCommand {
    /// Print the ports that may be lent, and the sessions
    #[command(alias = "list", alias = "ls")]
    Show {
        /// Only the sessions of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// End sessions
    Flush {
        /// Only those of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
        /// Only those of the endpoint with this address
        #[arg(long, value_name = "ADDRESS")]
        address: Option<IpAddr>,
    },
}

pub(super) async fn answer(ask: &Question<'_>, command: &NatCommand) -> Result<String, ClientError> {
    match command {
        NatCommand::Show { network } => {
            ask.show(&format!("/v1/nat{}", query(&[("network", network.clone())])), render).await
        }
        NatCommand::Flush { network, address } => {
            let address = address.map(|address| address.to_string());
            let path = format!("/v1/nat/sessions{}", query(&[("network", network.clone()), ("address", address)]));
            ask.delete_and_show(&path, |flushed: &NatFlushed| format!("{}\n", flushed.sessions)).await
        }
    }
}

/// The query of those parts that have a value.
pub(super) fn query(parts: &[(&str, Option<String>)]) -> String {
    let given = parts.iter().filter_map(|(name, value)| Some(format!("{name}={}", escape(value.as_ref()?))));
    let joined = given.collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

fn render(status: &NatStatus) -> String {
    if status.ports.is_empty() {
        return "no network has a way out\n".to_owned();
    }
    let mut sessions = Columns::titled(&[
        "PROTO", "STATE", "NETWORK", "ENDPOINT", "INSIDE", "OUTSIDE", "REMOTE", "AGE", "EXPIRES", "OUT", "BACK",
    ]);
    for session in &status.sessions {
        sessions.row([
            session.protocol.clone(),
            session.state.clone(),
            session.network.clone(),
            session.endpoint.clone().unwrap_or_default(),
            session.inside.to_string(),
            session.outside.to_string(),
            session.remote.to_string(),
            session.age.to_string(),
            session.expires.to_string(),
            session.out_packets.to_string(),
            session.back_packets.to_string(),
        ]);
    }
    let addresses = status.address.map(|address| address.to_string()).into_iter();
    let addresses: Vec<_> = addresses.chain(status.address6.map(|address| address.to_string())).collect();
    let addresses = if addresses.is_empty() { "none".to_owned() } else { addresses.join(",") };
    let mut head = format!("address {addresses} ports {}\n", status.ports);
    for (of, workers) in [("", &status.workers), ("IPv6\n", &status.workers6)] {
        if !workers.is_empty() {
            head.push_str(&format!("\n{of}{}", render_workers(workers)));
        }
    }
    if status.sessions.is_empty() { head } else { format!("{head}\n{}", sessions.render()) }
}

fn render_workers(workers: &[NatWorker]) -> String {
    let mut columns =
        Columns::titled(&["WORKER", "SESSIONS", "MAPPINGS", "BEGUN", "FREE-TCP", "FREE-UDP", "FREE-ICMP"]);
    for worker in workers {
        let free = worker.free;
        let counts = [worker.sessions, worker.mappings].map(|count| count.to_string());
        let free = [free.tcp, free.udp, free.icmp].map(|count| count.to_string());
        columns.row([worker.id.to_string()].into_iter().chain(counts).chain([worker.begun.to_string()]).chain(free));
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::nat::{FreePorts, NatSession};

    #[test]
    fn ports_come_first_and_then_a_line_for_each_session() {
        let worker = NatWorker {
            id: 0,
            sessions: 1,
            mappings: 1,
            begun: 7,
            free: FreePorts { tcp: 9, udp: 8, icmp: 9 },
            fragments: 0,
            memory: 1,
        };
        let session = NatSession {
            protocol: "udp".to_owned(),
            state: "active".to_owned(),
            network: "blue".to_owned(),
            endpoint: Some("web".to_owned()),
            inside: "10.50.0.2:1000".parse().unwrap(),
            outside: "192.0.2.1:20000".parse().unwrap(),
            remote: "198.51.100.7:53".parse().unwrap(),
            worker: 0,
            age: 3,
            expires: 297,
            out_packets: 2,
            out_bytes: 80,
            back_packets: 1,
            back_bytes: 40,
        };
        let status = NatStatus {
            address: Some([192, 0, 2, 1].into()),
            address6: None,
            ports: "20000-20009".to_owned(),
            workers: vec![worker],
            workers6: vec![],
            sessions: vec![session],
        };
        let expected = "\
address 192.0.2.1 ports 20000-20009

WORKER  SESSIONS  MAPPINGS  BEGUN  FREE-TCP  FREE-UDP  FREE-ICMP
     0         1         1      7         9         8          9

PROTO  STATE   NETWORK  ENDPOINT  INSIDE          OUTSIDE          REMOTE           AGE  EXPIRES  OUT  BACK
udp    active  blue     web       10.50.0.2:1000  192.0.2.1:20000  198.51.100.7:53    3      297    2     1
";
        assert_eq!(render(&status), expected);
        assert_eq!(render(&NatStatus { ports: String::new(), ..status }), "no network has a way out\n");
    }
}
