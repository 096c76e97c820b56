//! What Prometheus is told of ways out: by network, by protocol, and nothing by address.

use std::net::Ipv4Addr;

use vxlane_dataplane::{
    engine::WorkerGone,
    ids::NetworkId,
    nat::{FULL, NatReport, Protocol, Share},
};

use super::{
    Daemon,
    metrics::{number, size},
};
use crate::metrics::Family;

impl Daemon {
    /// Everything there is to count of address translation; families without numbers where there
    /// is no way out.
    pub(super) fn of_nat(&self) -> Result<Vec<Family>, WorkerGone> {
        let networks: Vec<(&str, NetworkId)> = self
            .plan
            .networks
            .iter()
            .filter_map(|network| Some((network.name.as_str(), self.ids.network(&network.name)?)))
            .collect();
        let ids: Vec<NetworkId> = networks.iter().map(|&(_, id)| id).collect();
        let told = self.with_nat::<Ipv4Addr, _>(move |nat| {
            (nat.report(), nat.config().sessions, ids.iter().map(|&id| nat.share_of(id)).collect::<Vec<Share>>())
        })?;
        let mut all = Self::totals(&told.iter().map(|(_, (report, room, _))| (*report, *room)).collect::<Vec<_>>());
        let mut sessions = Family::gauge("nat_sessions", "Sessions of address translation");
        let mut ports = Family::gauge("nat_ports_lent", "Ports of the host lent to endpoints or published for them");
        let mut refused = Family::counter("nat_refused_sessions", "Sessions that could not begin, by reason");
        for (place, (name, _)) in networks.iter().enumerate().filter(|_| !told.is_empty()) {
            let shares = || told.iter().filter_map(|(_, (.., shares))| shares.get(place));
            sessions = sessions.with(&[("network", name)], shares().map(|share| f64::from(share.sessions)).sum());
            ports = ports.with(&[("network", name)], shares().map(|share| f64::from(share.ports)).sum());
            for (place, reason) in FULL.iter().enumerate() {
                let count = shares().map(|share| share.refused[place]).sum();
                refused = refused.with(&[("network", name), ("reason", &reason.name())], number(count));
            }
        }
        all.extend([sessions, ports, refused]);
        Ok(all)
    }

    /// What all workers have together.
    fn totals(workers: &[(NatReport, usize)]) -> Vec<Family> {
        let mut limit = Family::gauge("nat_sessions_limit", "Sessions that there is room for");
        let mut begun = Family::counter("nat_begun_sessions", "Sessions that ever began");
        let mut free = Family::gauge("nat_ports_free", "Ports that can still be lent, by protocol");
        if !workers.is_empty() {
            limit = limit.with(&[], size(workers.iter().map(|(_, room)| room).sum()));
            begun = begun.with(&[], number(workers.iter().map(|(report, _)| report.begun).sum()));
            for protocol in Protocol::ALL {
                let count = workers.iter().map(|(report, _)| report.free_ports[protocol as usize]).sum();
                free = free.with(&[("protocol", &protocol.name())], size(count));
            }
        }
        vec![limit, begun, free]
    }
}
