//! `vxlane express`: the express lane and its flows.

use clap::Subcommand;

use super::{Question, columns::Columns, nat::query};
use crate::api::{
    client::ClientError,
    types::{
        Lane,
        express::{ExpressFlushed, ExpressSession, ExpressStatus, Flow},
    },
};

/// `vxlane express`
#[derive(Clone, Debug, Subcommand)]
pub enum ExpressCommand {
    /// Print where there is one, how full its maps are, and the flows and sessions in it
    #[command(alias = "list", alias = "ls")]
    Show {
        /// Only the flows and sessions of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
    /// Have workers decide again about every flow and session, and print how many there were
    Flush {
        /// Only those of this network
        #[arg(long, value_name = "NAME")]
        network: Option<String>,
    },
}

pub(super) async fn answer(ask: &Question<'_>, command: &ExpressCommand) -> Result<String, ClientError> {
    match command {
        ExpressCommand::Show { network } => {
            ask.show(&format!("/v1/express{}", query(&[("network", network.clone())])), render).await
        }
        ExpressCommand::Flush { network } => {
            let path = format!("/v1/express/flows{}", query(&[("network", network.clone())]));
            let count = |flushed: &ExpressFlushed| format!("{}\n", flushed.flows + flushed.sessions);
            ask.delete_and_show(&path, count).await
        }
    }
}

/// A lane, and why it is not the other, in one cell.
pub(super) fn lane(lane: Lane, why: Option<&str>) -> String {
    why.map_or_else(|| lane.name().to_owned(), |why| format!("{}: {why}", lane.name()))
}

fn render(status: &ExpressStatus) -> String {
    let state = match (&status.attached, &status.why) {
        (Some(attached), _) if status.open => format!("open, by {attached}"),
        (_, why) => format!("not there: {}", why.as_deref().unwrap_or_default()),
    };
    let mut text = format!("express {}, {state}\n\n{}\n{}", status.choice, devices(status), workers(status));
    if status.open {
        let frames = &status.frames;
        text.push_str(&format!(
            "\nframes: hits {} misses {} confirms {} stale {} passed {} sent {} (dropped: no_exit {} no_tag {} no_headers {})\n",
            frames.hits,
            frames.misses,
            frames.confirms,
            frames.stale,
            frames.passed,
            frames.sent,
            frames.no_exit,
            frames.no_tag,
            frames.no_headers,
        ));
    }
    if !status.flows.is_empty() {
        text.push('\n');
        text.push_str(&flows(&status.flows));
    }
    if !status.sessions.is_empty() {
        text.push('\n');
        text.push_str(&sessions(&status.sessions));
    }
    text
}

fn devices(status: &ExpressStatus) -> String {
    let mut columns = Columns::titled(&["DEVICE", "NETWORK", "BY", "LANE"]);
    for device in &status.devices {
        let [network, by] = [&device.network, &device.attached].map(|cell| cell.clone().unwrap_or_default());
        columns.row([device.interface.clone(), network, by, lane(device.lane, device.why.as_deref())]);
    }
    columns.render()
}

fn workers(status: &ExpressStatus) -> String {
    let mut columns = Columns::titled(&["WORKER", "FLOWS", "LIMIT", "PLACED", "REFUSED", "REMOVED"]);
    for share in &status.workers {
        let counts = [share.flows, share.limit, share.placed, share.refused, share.removed];
        columns.row([share.worker.to_string()].into_iter().chain(counts.map(|count| count.to_string())));
    }
    columns.render()
}

fn flows(flows: &[Flow]) -> String {
    let titles = ["NETWORK", "FROM", "SOURCE", "ADDRESS", "TO", "DESTINATION", "WORKER", "EXPIRES", "AGES"];
    let mut columns = Columns::titled(&titles);
    for flow in flows {
        // Of the other end of a tunnel the VTEP says more than our own device does.
        let place = |device: &str, vtep: Option<std::net::IpAddr>| {
            vtep.map_or_else(|| device.to_owned(), |vtep| vtep.to_string())
        };
        columns.row([
            flow.network.clone(),
            place(&flow.from, flow.src_vtep),
            flow.source.clone(),
            flow.address.map(|address| address.to_string()).unwrap_or_default(),
            place(&flow.to, flow.dst_vtep),
            flow.destination.clone(),
            flow.worker.to_string(),
            flow.expires.to_string(),
            flow.ages.to_string(),
        ]);
    }
    columns.render()
}

fn sessions(sessions: &[ExpressSession]) -> String {
    let titles =
        ["NETWORK", "PROTO", "FROM", "SOURCE", "BECOMES", "TO", "DESTINATION", "BECOMES", "WORKER", "EXPIRES", "AGES"];
    let mut columns = Columns::titled(&titles);
    for session in sessions {
        let became = |end: Option<std::net::SocketAddr>| end.map(|end| end.to_string()).unwrap_or_default();
        columns.row([
            session.network.clone(),
            session.protocol.clone(),
            session.from.clone(),
            session.source.to_string(),
            became(session.new_source),
            session.to.clone(),
            session.destination.to_string(),
            became(session.new_destination),
            session.worker.to_string(),
            session.expires.to_string(),
            session.ages.to_string(),
        ]);
    }
    columns.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::types::express::{Device, Frames, Share},
        config::ExpressChoice,
    };

    #[test]
    fn devices_come_first_with_the_reason_of_those_that_have_no_lane_and_then_a_line_for_each_flow_and_session() {
        let device = |interface: &str, lane, why: Option<&str>| Device {
            interface: interface.to_owned(),
            network: None,
            lane,
            why: why.map(str::to_owned),
            attached: why.is_none().then(|| "tcx".to_owned()),
        };
        let flow = Flow {
            network: "blue".to_owned(),
            from: "p0".to_owned(),
            src_vtep: None,
            source: "02:00:00:00:00:0a".to_owned(),
            address: Some("10.0.0.1".parse().unwrap()),
            destination: "02:00:00:00:00:0b".to_owned(),
            to: "u0".to_owned(),
            dst_vtep: Some("192.0.2.2".parse().unwrap()),
            worker: 0,
            expires: 29,
            ages: 299,
        };
        let (inside, remote) = ("10.0.0.1:4000".parse().unwrap(), "198.51.100.7:53".parse().unwrap());
        let outside = "192.0.2.1:20000".parse().unwrap();
        let out = ExpressSession {
            network: "blue".to_owned(),
            protocol: "udp".to_owned(),
            from: "p0".to_owned(),
            source: inside,
            destination: remote,
            to: "u0".to_owned(),
            new_source: Some(outside),
            new_destination: None,
            worker: 0,
            expires: 30,
            ages: 262,
        };
        let back = ExpressSession {
            from: "u0".to_owned(),
            source: remote,
            destination: outside,
            to: "p0".to_owned(),
            new_source: None,
            new_destination: Some(inside),
            ..out.clone()
        };
        let six = ExpressSession {
            protocol: "tcp".to_owned(),
            source: "[fd00:60::2]:5000".parse().unwrap(),
            destination: "[2001:db8:51::7]:80".parse().unwrap(),
            new_source: Some("[2001:db8::1]:20000".parse().unwrap()),
            ..out.clone()
        };
        let status = ExpressStatus {
            choice: ExpressChoice::Auto,
            open: true,
            why: None,
            attached: Some("tcx".to_owned()),
            devices: vec![device("u0", Lane::Express, None), device("t0", Lane::Worker, Some("it is no veth"))],
            workers: vec![Share { worker: 0, flows: 1, limit: 32_768, placed: 2, refused: 0, removed: 1 }],
            frames: Frames { hits: 5, misses: 2, sent: 2, ..Frames::default() },
            flows: vec![flow],
            sessions: vec![out, back, six],
        };
        let expected = "\
express auto, open, by tcx

DEVICE  NETWORK  BY   LANE
u0      -        tcx  express
t0      -        -    worker: it is no veth

WORKER  FLOWS  LIMIT  PLACED  REFUSED  REMOVED
     0      1  32768       2        0        1

frames: hits 5 misses 2 confirms 0 stale 0 passed 0 sent 2 (dropped: no_exit 0 no_tag 0 no_headers 0)

NETWORK  FROM  SOURCE             ADDRESS   TO         DESTINATION        WORKER  EXPIRES  AGES
blue     p0    02:00:00:00:00:0a  10.0.0.1  192.0.2.2  02:00:00:00:00:0b       0       29   299

NETWORK  PROTO  FROM  SOURCE             BECOMES              TO  DESTINATION          BECOMES        WORKER  EXPIRES  AGES
blue     udp    p0    10.0.0.1:4000      192.0.2.1:20000      u0  198.51.100.7:53      -                   0       30   262
blue     udp    u0    198.51.100.7:53    -                    p0  192.0.2.1:20000      10.0.0.1:4000       0       30   262
blue     tcp    p0    [fd00:60::2]:5000  [2001:db8::1]:20000  u0  [2001:db8:51::7]:80  -                   0       30   262
";
        assert_eq!(render(&status), expected);
        let closed = ExpressStatus { open: false, why: Some("it is off".to_owned()), attached: None, ..status };
        assert!(render(&closed).starts_with("express auto, not there: it is off\n"));
    }
}
