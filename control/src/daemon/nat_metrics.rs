//! What Prometheus is told of ways out: by internet protocol, network and kind of port, and nothing
//! by address.

use std::net::{Ipv4Addr, Ipv6Addr};

use vxlane_dataplane::{
    engine::WorkerGone,
    ids::NetworkId,
    nat::{FULL, NatReport, Protocol, Share},
    router,
};

use super::{
    Daemon,
    metrics::{number, size},
};
use crate::metrics::Family;

/// What there is to count of the translation of one internet protocol.
struct Counted {
    /// What people call the protocol.
    family: &'static str,
    /// Of each worker: everything at a glance, the sessions it has room for, and the shares of
    /// networks. No worker where there is no way out.
    workers: Vec<(NatReport, usize, Vec<Share>)>,
}

impl Daemon {
    /// Everything there is to count of address translation; families without numbers where there
    /// is no way out.
    pub(super) fn of_nat(&self) -> Result<Vec<Family>, WorkerGone> {
        let networks = self.plan.networks.iter().map(|network| network.name.as_str());
        let networks: Vec<(&str, NetworkId)> =
            networks.filter_map(|name| Some((name, self.ids.network(name)?))).collect();
        let ids: Vec<NetworkId> = networks.iter().map(|&(_, id)| id).collect();
        let counted = [
            Counted { family: "ipv4", workers: self.translations::<Ipv4Addr>(&ids)? },
            Counted { family: "ipv6", workers: self.translations::<Ipv6Addr>(&ids)? },
        ];
        let there: Vec<&Counted> = counted.iter().filter(|counted| !counted.workers.is_empty()).collect();
        let mut all = totals(&there);
        all.extend(shares(&there, &networks));
        Ok(all)
    }

    fn translations<A: router::Family>(
        &self,
        networks: &[NetworkId],
    ) -> Result<Vec<(NatReport, usize, Vec<Share>)>, WorkerGone> {
        let ids = networks.to_vec();
        let told = self.with_nat::<A, _>(move |nat| {
            (nat.report(), nat.config().sessions, ids.iter().map(|&id| nat.share_of(id)).collect())
        })?;
        Ok(told.into_iter().map(|(_, told)| told).collect())
    }
}

/// What all workers have together.
fn totals(counted: &[&Counted]) -> Vec<Family> {
    let mut limit = Family::gauge("nat_sessions_limit", "Sessions that there is room for");
    let mut begun = Family::counter("nat_begun_sessions", "Sessions that ever began");
    let mut free = Family::gauge("nat_ports_free", "Ports that can still be lent, by protocol");
    for Counted { family, workers } in counted {
        let reports = || workers.iter().map(|(report, ..)| report);
        limit = limit.with(&[("family", family)], size(workers.iter().map(|(_, room, _)| room).sum()));
        begun = begun.with(&[("family", family)], number(reports().map(|report| report.begun).sum()));
        for protocol in Protocol::ALL {
            let count = reports().map(|report| report.free_ports[protocol as usize]).sum();
            free = free.with(&[("family", family), ("protocol", &protocol.name())], size(count));
        }
    }
    vec![limit, begun, free]
}

/// What each network has at all workers together.
fn shares(counted: &[&Counted], networks: &[(&str, NetworkId)]) -> Vec<Family> {
    let mut sessions = Family::gauge("nat_sessions", "Sessions of address translation");
    let mut ports = Family::gauge("nat_ports_lent", "Ports of the host lent to endpoints or published for them");
    let mut refused = Family::counter("nat_refused_sessions", "Sessions that could not begin, by reason");
    for Counted { family, workers } in counted {
        for (place, (network, _)) in networks.iter().enumerate() {
            let shares = || workers.iter().filter_map(|(.., shares)| shares.get(place));
            let labels: [(&'static str, &dyn std::fmt::Display); 2] = [("network", network), ("family", family)];
            sessions = sessions.with(&labels, shares().map(|share| f64::from(share.sessions)).sum());
            ports = ports.with(&labels, shares().map(|share| f64::from(share.ports)).sum());
            for (place, reason) in FULL.iter().enumerate() {
                let count = shares().map(|share| share.refused[place]).sum();
                refused = refused.with(&[labels[0], labels[1], ("reason", &reason.name())], number(count));
            }
        }
    }
    vec![sessions, ports, refused]
}
