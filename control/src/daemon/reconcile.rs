//! What happens to interfaces without our doing: they go, come back, go down, lose our program.
//!
//! Nothing is remembered of the news but that there were some: what should be is compared with
//! what is. A port that is not as it should be is closed, and opened when it can be.

use std::collections::{HashMap, HashSet};

use vxlane_dataplane::{attach::Role, link::Link};

use super::{
    Daemon, StartError,
    next_hops::Uplink,
    ports::{Mode, OpenPort},
};
use crate::{
    api::types::events::What,
    causes::chain,
    config::XdpChoice,
    desired::{Device, Plan},
    host, netlink,
};

/// How closely to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Whether our programs are where they were, as far as the kernel does not tell of it: one system
    /// call for each port at most.
    Brief,
    /// At every interface, and all that is on it.
    Thorough,
}

impl Daemon {
    /// Tells what the workers have told, closes the ports whose interfaces are not as they should be, opens those that wait for an
    /// interface that is there, and follows the MTU of the uplink.
    ///
    /// # Errors
    /// [`StartError::Gone`]. What else fails is told in the log, once, and tried again.
    pub fn reconcile(&mut self, look: Look) -> Result<(), StartError> {
        self.check_keeper();
        self.keep_sessions_at_times();
        self.tell_heard();
        let returned = self.retry_lane();
        let fault = self.lane_fault(look);
        let lost = self.take_lost(look, fault, returned);
        if !lost.is_empty() {
            self.publish()?;
            for port in &lost {
                self.close(port);
                self.events.tell(What::LinkDown { interface: port.interface.clone() });
            }
            let plan = self.plan.clone();
            self.retire(&lost, &plan);
        }
        if let Some(fault) = fault {
            tracing::warn!(fault, "the express lane is made anew");
            self.remake_lane();
        }
        if look == Look::Thorough {
            self.follow_mtu()?;
            self.tend_host_ports();
        }
        let new = self.open_waiting();
        if !new.is_empty() {
            self.publish()?;
        }
        self.expect(&new);
        for port in &new {
            match self.serve(port) {
                Ok(()) => self.events.tell(What::LinkUp { interface: port.interface.clone() }),
                Err(error) => tracing::warn!(interface = port.interface, error = chain(&error), "not served"),
            }
        }
        Ok(())
    }

    /// Takes the ports that cannot go on out of those that are open.
    fn take_lost(&mut self, look: Look, fault: Option<&'static str>, returned: bool) -> Vec<OpenPort> {
        let mut ports = std::mem::take(&mut self.ports);
        // One question for all of them. What it leaves open is asked for one by one.
        let links = (look == Look::Thorough).then(|| Link::all().unwrap_or_default());
        let links = links.map(|links| links.into_iter().map(|link| (link.index, link)).collect());
        let mut lost = Vec::new();
        ports.retain_mut(|port| {
            let back = returned && self.could_be_in_lane(port);
            let back = back.then_some("the express lane is there again");
            let fault = fault.filter(|_| port.is_in_lane()).or(back);
            let reason = fault.or_else(|| self.reason_to_close(port, links.as_ref()));
            if let Some(reason) = reason {
                tracing::warn!(interface = port.interface, reason, "closed");
                lost.push(port.clone());
            }
            reason.is_none()
        });
        self.ports = ports;
        lost
    }

    /// Why a port cannot go on, as far as can be seen without or with `links`. Where the kernel does
    /// not say, it can.
    fn reason_to_close(&self, port: &mut OpenPort, links: Option<&HashMap<u32, Link>>) -> Option<&'static str> {
        let is_off = match port.mode {
            Mode::Rings(_) => matches!(self.steer.is_on(port.ifindex), Ok(false)),
            Mode::Express(_) => self.lane.as_ref().is_none_or(|lane| !lane.express.is_on(port.id, links.is_some())),
        };
        if is_off {
            return Some("the interface is gone, or somebody took our program off it");
        }
        let known = links?.get(&port.ifindex).filter(|link| link.name == port.interface);
        let link = match known.map_or_else(|| host::find(&port.interface), |link| Ok(Some(link.clone()))) {
            Ok(Some(link)) if link.index == port.ifindex => link,
            Ok(_) => return Some("the interface is gone"),
            Err(_) => return None,
        };
        let was_up = std::mem::replace(&mut port.is_up, link.is_up);
        if was_up && !link.is_up {
            // Its frames would wait in the ring, and a worker would try again and again.
            return Some("the interface is down");
        }
        // Frames of the express lane are segmented to what the networks allow.
        (!port.is_in_lane() && link.mtu > port.mtu).then_some("its MTU has grown beyond the frames")
    }

    /// Opens every interface that should be open and can be.
    fn open_waiting(&mut self) -> Vec<OpenPort> {
        let before = self.ports.len();
        let uplink = (self.plan.uplink.clone(), Role::Uplink, self.plan.uplink_xdp);
        let access =
            |endpoint: &crate::desired::PlannedEndpoint| (endpoint.interface.clone(), Role::Access, endpoint.xdp);
        let wanted: Vec<_> = std::iter::once(uplink).chain(self.plan.endpoints.iter().map(access)).collect();
        let open: HashSet<String> = self.ports.iter().map(|port| port.interface.clone()).collect();
        for (interface, role, xdp) in wanted.iter().filter(|(interface, ..)| !open.contains(interface)) {
            self.open_if_up(interface, *role, *xdp);
        }
        self.open_host_ports(&self.plan.clone());
        self.ports[before..].to_vec()
    }

    fn open_if_up(&mut self, interface: &str, role: Role, xdp: XdpChoice) {
        if !matches!(host::find(interface), Ok(Some(link)) if link.is_up) {
            return;
        }
        let told = self.open(interface, role, xdp).err().map(|error| chain(&error).to_string());
        self.complain(interface, told, "cannot be attached, and is tried again");
    }

    /// Tells what is wrong with an interface, if that is news; without anything wrong, what was
    /// is forgotten.
    pub(super) fn complain(&mut self, interface: &str, told: Option<String>, about: &str) {
        let known = self.complaints.get(interface);
        if let Some(error) = told.as_ref().filter(|&error| known != Some(error)) {
            tracing::warn!(interface, error, "{about}");
        }
        match told {
            Some(error) => drop(self.complaints.insert(interface.to_owned(), error)),
            None => drop(self.complaints.remove(interface)),
        }
    }

    /// Gives networks that have no MTU of their own the one that the uplink leaves room for now,
    /// and the pairs of their endpoints too.
    fn follow_mtu(&mut self) -> Result<(), StartError> {
        let Ok(uplink) = Uplink::look(&self.plan.uplink) else { return Ok(()) };
        if uplink.mtu == self.uplink.mtu {
            return Ok(());
        }
        self.uplink = uplink;
        let mut host = self.host.clone();
        host.links.insert(self.plan.uplink.clone(), Device { mtu: uplink.mtu, is_ethernet: true, program: None });
        let next = match self.desired.validate_after(&self.desired, &host) {
            Ok(next) => next,
            Err(problems) => {
                let problem = problems.first().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(mtu = uplink.mtu, problem, "networks keep the MTU they had");
                return Ok(());
            }
        };
        tracing::info!(mtu = uplink.mtu, "the MTU of the uplink has changed");
        self.follow_lane_mtu(uplink.mtu);
        set_pairs(&self.plan, &next);
        self.plan = next;
        self.publish()
    }
}

/// Sets the MTU of the pairs of all networks whose MTU differs from `before` to `next`.
pub(super) fn set_pairs(before: &Plan, next: &Plan) {
    for network in &next.networks {
        let known = before.networks.iter().find(|known| known.name == network.name);
        if known.is_none_or(|known| known.mtu == network.mtu) {
            continue;
        }
        for endpoint in next.endpoints.iter().filter(|endpoint| endpoint.network == network.name) {
            let Some(veth) = &endpoint.veth else { continue };
            let set = netlink::set_pair_mtu(&endpoint.interface, &veth.netns, &veth.ifname, network.mtu.into());
            if let Err(error) = set {
                tracing::warn!(endpoint.interface, error = chain(&error), "its MTU stays as it was");
            }
        }
    }
}
