//! Two hosts with the express lane, and a network `blue` of one container each.

use super::{Daemon, Home, Namespace, binary, eventually};
use serde_json::Value;

/// The hosts, and what is on them. Daemons come and go.
pub(crate) struct Two {
    pub(crate) daemons: [Option<Daemon>; 2],
    pub(crate) homes: [Home; 2],
    pub(crate) blue: [Namespace; 2],
    pub(crate) hosts: [Namespace; 2],
    environment: Vec<(&'static str, &'static str)>,
}

/// What the file of the host says whose peer has this number, with `extra` for the network.
pub(crate) fn config(peer: u8, extra: &str) -> String {
    format!(
        "[underlay]\ninterface = \"u0\"\n[dataplane]\nexpress = \"auto\"\nring = 4096\n[[network]]\nname = \"blue\"\n\
         vni = 5000\npeers = [\"192.0.2.{peer}\"]\n{extra}[[endpoint]]\nnetwork = \"blue\"\ninterface = \"b0\"\n"
    )
}

impl Two {
    /// With `extra` for the network of either file.
    pub(crate) fn new(extra: &str) -> Self {
        Self::with(extra, &[])
    }

    /// The same, with these environment variables for the daemons.
    pub(crate) fn with(extra: &str, environment: &[(&'static str, &'static str)]) -> Self {
        let (near, far) = (Namespace::new(), Namespace::new());
        near.ip(&format!("link add u0 type veth peer name u0 netns {}", far.0));
        for (host, number) in [(&near, 1), (&far, 2)] {
            host.ip(&format!("addr add 192.0.2.{number}/24 dev u0"));
            host.ip("link set u0 up");
        }
        let blue = [near.container("b0", "10.0.0.1/24"), far.container("b0", "10.0.0.2/24")];
        let homes = [2, 1].map(|peer| Home::with(&config(peer, extra)));
        let mut this =
            Self { daemons: [None, None], homes, blue, hosts: [near, far], environment: environment.to_vec() };
        (0..2).for_each(|side| this.start(side));
        this
    }

    pub(crate) fn start(&mut self, side: usize) {
        let daemon = Daemon::start_with(&binary(), &self.hosts[side], &self.homes[side], &self.environment);
        self.daemons[side] = Some(daemon);
    }

    pub(crate) fn daemon(&self, side: usize) -> &Daemon {
        self.daemons[side].as_ref().unwrap()
    }

    pub(crate) fn kill(&mut self, side: usize) {
        self.daemons[side].take().unwrap().kill();
    }

    pub(crate) fn terminate(&mut self, side: usize) {
        assert_eq!(self.daemons[side].take().unwrap().terminate(), Some(0));
    }

    /// The flows of a network that are good on one host.
    pub(crate) fn flows(&self, side: usize, network: &str) -> Vec<Value> {
        self.homes[side].json(&format!("express show --network {network}"))["flows"].as_array().unwrap().clone()
    }

    /// Waits until the flow of what one container sends to the other is known on both hosts.
    pub(crate) fn await_flows(&self) {
        for side in 0..2 {
            eventually("the flow", || !self.flows(side, "blue").is_empty());
        }
    }
}
