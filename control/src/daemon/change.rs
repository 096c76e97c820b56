//! Changes while traffic flows: whole, or not at all.
//!
//! A change is made to a copy of what is desired, validated, done in the dataplane, and only
//! then is the copy what is desired. What fails on the way is undone.

use std::{collections::HashSet, mem};

use ipnetwork::IpNetwork;
use vxlane_dataplane::attach::Role;

use super::{
    Daemon, Look, NoSuchEndpoint, NoSuchNetwork, StartError, next_hops, ports::OpenPort, reconcile::set_pairs, saved,
};
use crate::{
    api::types::{
        Endpoint, Network,
        requests::{EndpointRequest, NetworkRequest, PeerRequest},
    },
    desired::{Desired, Device, Plan, PlannedEndpoint, Problem, Refused},
    host,
    netlink::{Pair, PairError},
    store::{Change, StoreError},
};

/// Why a change was not made. Everything is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It cannot be had.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// This host would not say what it has.
    #[error("looking at this host")]
    Host(#[source] std::io::Error),
    /// The dataplane could not do it.
    #[error(transparent)]
    Failed(#[from] StartError),
    /// The container could not be given its end of the pair.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// It would not have outlived the process.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was done, and is gone again.
    #[error(transparent)]
    NoNetwork(#[from] NoSuchNetwork),
    /// It was done, and is gone again.
    #[error(transparent)]
    NoEndpoint(#[from] NoSuchEndpoint),
}

impl Daemon {
    /// Has a network be there, and returns it.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn create_network(&mut self, request: &NetworkRequest) -> Result<Network, ChangeError> {
        let mut next = self.desired.clone();
        next.create_network(request)?;
        self.change(next, &format!("network[{}]", request.name))?;
        Ok(self.network_called(&request.name)?)
    }

    /// Takes a network away.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn remove_network(&mut self, name: &str) -> Result<(), ChangeError> {
        let mut next = self.desired.clone();
        next.remove_network(name)?;
        self.change(next, "")
    }

    /// Has an endpoint be on `network`, and returns it.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn connect(&mut self, network: &str, request: &EndpointRequest) -> Result<Endpoint, ChangeError> {
        let mut next = self.desired.clone();
        next.connect(network, request)?;
        let place = format!("endpoint[{}]", request.name);
        let plan = self.validated(&next, &place)?;
        // What is reserved for an endpoint that comes to nothing is given back with the next tables.
        self.reserve(&plan)?;
        let made = self.make_pair(&plan, network, &request.name)?;
        let notes: Vec<Change> = made.iter().map(|interface| saved::forget(interface)).collect();
        let led = match (&made, &request.netns) {
            (Some(_), Some(netns)) => self.lead_out_of(&plan, netns),
            _ => Ok(()),
        };
        if let Err(error) = led.and_then(|()| self.adopt(next, plan, &notes)) {
            if let Some(interface) = &made {
                self.remove_pair(interface);
            }
            self.lead_out_as_before();
            return Err(error);
        }
        if made.is_some() {
            // It may be a new pair of an endpoint that had waited for it.
            self.reconcile(Look::Thorough)?;
        }
        Ok(self.endpoint_called(network, &request.name)?)
    }

    /// Makes the veth pair of an endpoint that has one, unless it is there; returns its name here
    /// if it was made.
    fn make_pair(&mut self, plan: &Plan, network: &str, name: &str) -> Result<Option<String>, ChangeError> {
        let endpoint = plan.endpoints.iter().find(|endpoint| endpoint.network == network && endpoint.name == name);
        let network = plan.networks.iter().find(|planned| planned.name == network);
        let (Some(endpoint), Some(network)) = (endpoint, network) else { return Ok(None) };
        let Some(veth) = &endpoint.veth else { return Ok(None) };
        if host::find(&endpoint.interface).map_err(ChangeError::Host)?.is_some() {
            return Ok(None);
        }
        let v4 = endpoint.address.zip(network.subnet);
        let v4 = v4.map(|(address, subnet)| IpNetwork::new(address.into(), subnet.prefix()));
        let v6 = endpoint.address6.zip(network.subnet6);
        let v6 = v6.map(|(address, subnet)| IpNetwork::new(address.into(), subnet.prefix()));
        let addresses: Vec<IpNetwork> = v4.into_iter().chain(v6).filter_map(Result::ok).collect();
        let pair = Pair {
            interface: &endpoint.interface,
            alias: &format!("vxlane {}/{name}", network.name),
            mtu: network.mtu.into(),
            gso_max: LONGEST_PACKET - network.overhead,
            netns: &veth.netns,
            ifname: &veth.ifname,
            mac: endpoint.mac.map(|mac| mac.0),
            addresses: &addresses,
            quiet: false,
        };
        self.store.commit(&[saved::note(&endpoint.interface)])?;
        if let Err(error) = pair.make() {
            self.forget_pair(&endpoint.interface);
            return Err(error.into());
        }
        Ok(Some(endpoint.interface.clone()))
    }

    /// Takes an endpoint away.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn disconnect(&mut self, network: &str, name: &str) -> Result<(), ChangeError> {
        let mut next = self.desired.clone();
        let endpoint = next.disconnect(network, name)?;
        let plan = self.validated(&next, "")?;
        let notes = endpoint.veth.as_ref().map(|_| saved::note(&endpoint.interface));
        self.adopt(next, plan, notes.as_slice())?;
        for address in endpoint.addresses() {
            // Whoever has the address next is not to get what was meant for this one.
            self.end_sessions(self.ids.network(network), Some(address)).map_err(StartError::from)?;
        }
        if endpoint.veth.is_some() {
            self.remove_pair(&endpoint.interface);
        }
        Ok(())
    }

    /// Has two networks reach each other through their gateways, and returns the first.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn add_route(&mut self, network: &str, other: &str) -> Result<Network, ChangeError> {
        let mut next = self.desired.clone();
        next.add_route(network, other)?;
        self.change(next, "")?;
        Ok(self.network_called(network)?)
    }

    /// Has two networks no longer reach each other.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn remove_route(&mut self, network: &str, other: &str) -> Result<(), ChangeError> {
        let mut next = self.desired.clone();
        next.remove_route(network, other)?;
        self.change(next, "")
    }

    /// Has a VTEP take part in `network`, and returns the network.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn add_peer(&mut self, network: &str, request: PeerRequest) -> Result<Network, ChangeError> {
        let mut next = self.desired.clone();
        next.add_peer(network, request.address)?;
        self.change(next, &format!("network[{network}].peers[{}]", request.address))?;
        self.solicit();
        Ok(self.network_called(network)?)
    }

    /// Has a VTEP no longer take part in `network`.
    ///
    /// # Errors
    /// [`ChangeError`]
    pub fn remove_peer(&mut self, network: &str, address: std::net::IpAddr) -> Result<(), ChangeError> {
        let mut next = self.desired.clone();
        next.remove_peer(network, address)?;
        self.change(next, "")
    }

    /// Makes `next` what is desired and done.
    pub(super) fn change(&mut self, next: Desired, place: &str) -> Result<(), ChangeError> {
        let plan = self.validated(&next, place)?;
        self.adopt(next, plan, &[])
    }

    /// What `next` comes to. Problems with the thing at `place` are told with the names that the
    /// request has for its fields.
    fn validated(&self, next: &Desired, place: &str) -> Result<Plan, ChangeError> {
        let requested = |problem: Problem| Problem { field: local(problem.field, place), ..problem };
        let invalid = |problems: Vec<Problem>| Refused::Invalid(problems.into_iter().map(requested).collect());
        Ok(self.plan(next)?.map_err(invalid)?)
    }

    /// Does `plan`, which `next` has come to, and keeps that, with `notes`.
    pub(super) fn adopt(&mut self, next: Desired, plan: Plan, notes: &[Change]) -> Result<(), ChangeError> {
        if plan != self.plan {
            self.lead_out(&plan)?;
            self.apply(plan, &next, notes).inspect_err(|_| self.lead_out_as_before())?;
        } else {
            self.save(&next, notes)?;
        }
        self.events.tell_difference(&self.desired, &next);
        self.desired = next;
        Ok(())
    }

    /// What `next` comes to on this host as it is now.
    pub(super) fn plan(&self, next: &Desired) -> Result<Result<Plan, Vec<Problem>>, ChangeError> {
        let known: HashSet<&str> = self.desired.interfaces().collect();
        let mut host = self.host.clone();
        let new = next.interfaces().filter(|interface| !known.contains(interface));
        host.links = host::devices(new).map_err(ChangeError::Host)?;
        let uplink = Device { mtu: self.uplink.mtu, is_ethernet: true, program: None };
        host.links.insert(self.plan.uplink.clone(), uplink);
        Ok(next.validate_after(&self.desired, &host))
    }

    /// Has the dataplane do as `next` says. Workers have the tables when this returns, and the
    /// store has `desired`, which `next` has come to.
    fn apply(&mut self, next: Plan, desired: &Desired, notes: &[Change]) -> Result<(), ChangeError> {
        let next_hops = next_hops::look(&next, self.uplink)?;
        let opened = self.ids.give(&next).map_err(Into::into).and_then(|()| self.open_new(&next));
        let new = match opened {
            Ok(new) => new,
            Err(error) => {
                self.ids.take_back(&self.plan);
                return Err(error.into());
            }
        };
        let before = (mem::replace(&mut self.plan, next), mem::replace(&mut self.next_hops, next_hops));
        let gone = self.take_gone();
        let done = self.publish_and_serve(&new).map_err(ChangeError::from);
        // While all of it can still be undone.
        if let Err(error) = done.and_then(|()| Ok(self.save(desired, notes)?)) {
            let next = mem::replace(&mut self.plan, before.0);
            self.next_hops = before.1;
            self.ports.retain(|port| !new.iter().any(|new| new.id == port.id));
            self.ports.extend(gone);
            self.publish()?;
            new.iter().for_each(|port| self.close(port));
            self.remove_host_pairs(&new, &next);
            self.ids.take_back(&self.plan);
            return Err(error);
        }
        gone.iter().for_each(|port| self.close(port));
        self.remove_host_pairs(&gone, &before.0);
        self.retire(&gone, &before.0);
        self.ids.take_back(&self.plan);
        set_pairs(&before.0, &self.plan);
        if self.plan.networks != before.0.networks {
            self.tend_host_ports();
        }
        Ok(())
    }

    fn publish_and_serve(&mut self, new: &[OpenPort]) -> Result<(), StartError> {
        self.publish()?;
        self.expect(new);
        new.iter().try_for_each(|port| self.serve(port))
    }

    /// Opens every interface of `next` that is not open; all of them or none.
    fn open_new(&mut self, next: &Plan) -> Result<Vec<OpenPort>, StartError> {
        let before = self.ports.len();
        for endpoint in self.openable(next) {
            if let Err(error) = self.open(&endpoint.interface, Role::Access, endpoint.xdp) {
                for port in self.ports.split_off(before) {
                    self.close(&port);
                }
                return Err(error);
            }
        }
        self.open_host_ports(next);
        Ok(self.ports[before..].to_vec())
    }

    /// The endpoints of `next` that are to be opened because they are new. Those that wait for
    /// an interface are none of a change's business.
    fn openable(&self, next: &Plan) -> Vec<PlannedEndpoint> {
        let known = self.plan.endpoints.iter().map(|endpoint| endpoint.interface.as_str());
        let known: HashSet<&str> = known.chain(self.ports.iter().map(|port| port.interface.as_str())).collect();
        next.endpoints.iter().filter(|endpoint| !known.contains(endpoint.interface.as_str())).cloned().collect()
    }

    /// Takes the ports that the plan has no more out of those that are open.
    fn take_gone(&mut self) -> Vec<OpenPort> {
        let wanted: HashSet<&String> = self.plan.access().collect();
        let stays = |port: &OpenPort| port.role == Role::Uplink || wanted.contains(&port.interface);
        let (kept, gone) = self.ports.drain(..).partition(stays);
        self.ports = kept;
        gone
    }
}

/// Bytes of an IP packet, at most; headers of the tunnel are among them.
pub(super) const LONGEST_PACKET: u32 = 65_535;

/// What the request calls `field` of the thing at `place`.
fn local(field: String, place: &str) -> String {
    match field.strip_prefix(place) {
        Some("") => "address".to_owned(),
        Some(rest) if rest.starts_with('.') => rest[1..].to_owned(),
        _ => field,
    }
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn fields_are_called_what_the_request_calls_them() {
        let check = |field: &str, place: &str, expected: &str| assert_eq!(local(field.to_owned(), place), expected);
        check("network[blue].vni", "network[blue]", "vni");
        check("network[blue].peers[0]", "network[blue]", "peers[0]");
        check("network[blue].peers[192.0.2.2]", "network[blue].peers[192.0.2.2]", "address");
        check("network[bluest].vni", "network[blue", "network[bluest].vni");
        check("network[1].vni", "network[blue]", "network[1].vni");
    }
}
