//! VTEPs of every kind behind one interface, so that any scenario runs with any kind on any side.

mod kernel;
mod ovs;
mod switch;
mod vxlane;

use std::net::IpAddr;

pub use kernel::{KernelOptions, KernelVtep};
pub use ovs::{OvsOptions, OvsPort, OvsVtep, XdpMode};
pub use vxlane::{Account, VxlaneOptions, VxlaneVtep, find_binary};

use crate::LabError;
use crate::lab::{Container, Host, Lab, Network};

/// A running VTEP; it stops forwarding when dropped.
pub trait Vtep: Send + Sync {
    /// The kind's name, for messages and reports.
    fn kind(&self) -> &'static str;

    /// What the VTEP can say about itself, for the message of a test that failed.
    fn diagnosis(&self) -> String;

    /// The processes that do its work; empty for the kernel.
    fn processes(&self) -> Vec<u32>;

    /// The vxlane that it is, where it is one.
    fn as_vxlane(&self) -> Option<&VxlaneVtep> {
        None
    }
}

/// What a VTEP is to do for one network: connect these containers with these remote VTEPs.
#[derive(Clone, Debug)]
pub struct Segment<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its containers on this host.
    pub containers: Vec<&'a Container>,
    /// The other VTEPs that serve it.
    pub remotes: Vec<IpAddr>,
}

impl<'a> Segment<'a> {
    /// The segment of `network` with `containers` on the host called `host`; remotes are all
    /// other hosts of `lab`.
    pub fn of(lab: &Lab, host: &str, network: &'a Network, containers: &[&'a Container]) -> Self {
        Self { network, containers: containers.to_vec(), remotes: lab.others(host) }
    }
}

/// Which VTEP to start, and how.
#[derive(Clone, Debug)]
pub enum VtepKind {
    /// The kernel's bridge and vxlan device.
    Kernel(KernelOptions),
    /// Open vSwitch's userspace datapath.
    Ovs(OvsOptions),
    /// The real `vxlane` binary.
    Vxlane(VxlaneOptions),
}

impl VtepKind {
    /// The kernel with default options.
    pub fn kernel() -> Self {
        Self::Kernel(KernelOptions::default())
    }

    /// Open vSwitch with default options: `system` ports, no PMD threads.
    pub fn ovs() -> Self {
        Self::Ovs(OvsOptions::default())
    }

    /// vxlane with default options.
    pub fn vxlane() -> Self {
        Self::Vxlane(VxlaneOptions::default())
    }

    /// Starts a VTEP of this kind on `host` for `segments`; it forwards when this returns.
    ///
    /// # Errors
    /// Whatever kept it from starting, with the program's own words.
    pub fn start(&self, host: &Host, segments: &[Segment<'_>]) -> Result<Box<dyn Vtep>, LabError> {
        Ok(match self {
            Self::Kernel(options) => Box::new(KernelVtep::start(host, segments, options)?),
            Self::Ovs(options) => Box::new(OvsVtep::start(host, segments, options)?),
            Self::Vxlane(options) => Box::new(VxlaneVtep::start(host, segments, options)?),
        })
    }
}

/// The UDP port of VXLAN.
pub const VXLAN_PORT: u16 = 4789;
