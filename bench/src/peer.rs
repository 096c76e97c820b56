//! Who is measured: the ways to connect two containers.

use std::fmt;

use serde::{Deserialize, Serialize};
use vxlane_tests::LabError;
use vxlane_tests::lab::Host;
use vxlane_tests::peer::{
    KernelOptions, KernelVtep, OvsOptions, OvsPort, OvsVtep, Segment, Vtep, VxlaneOptions, VxlaneVtep, XdpMode,
};

use crate::null::NullVtep;

/// A way to connect two containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// No VTEP at all: one veth pair from container to container. What the tools cost.
    Wire,
    /// The kernel's bridge and vxlan device, all offloads on.
    Kernel,
    /// Open vSwitch's userspace datapath over packet sockets.
    OvsSystem,
    /// Open vSwitch's userspace datapath over AF_XDP, native mode, no polling threads.
    OvsAfxdp,
    /// The same with one polling thread per host that never sleeps.
    OvsPmd,
    /// An AF_XDP forwarder that parses nothing: the ceiling of our design.
    Null,
    /// vxlane, the worker lane alone.
    Vxlane,
    /// vxlane with the express lane on.
    VxlaneExpress,
}

impl Peer {
    /// All, in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Wire,
        Self::Kernel,
        Self::OvsSystem,
        Self::OvsAfxdp,
        Self::OvsPmd,
        Self::Null,
        Self::Vxlane,
        Self::VxlaneExpress,
    ];

    /// Its name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Kernel => "kernel",
            Self::OvsSystem => "ovs-system",
            Self::OvsAfxdp => "ovs-afxdp",
            Self::OvsPmd => "ovs-pmd",
            Self::Null => "null",
            Self::Vxlane => "vxlane",
            Self::VxlaneExpress => "vxlane-express",
        }
    }

    /// Whether it does a VTEP's job, so that it can win.
    pub fn competes(self) -> bool {
        !matches!(self, Self::Wire | Self::Null)
    }

    /// Whether the two are ours, or the same: lanes of one VTEP do not win over each other.
    pub fn is_kin(self, other: Self) -> bool {
        let ours = |peer| matches!(peer, Self::Vxlane | Self::VxlaneExpress);
        self == other || (ours(self) && ours(other))
    }

    /// Starts it on `host`; none for the wire, which is not on any host.
    ///
    /// # Errors
    /// Whatever kept it from starting.
    pub fn start(self, host: &Host, segment: &Segment<'_>) -> Result<Option<Running>, LabError> {
        let segments = std::slice::from_ref(segment);
        let ovs = |port| OvsVtep::start(host, segments, &OvsOptions { port }).map(Running::Ovs);
        let vxlane = |express| {
            let options = VxlaneOptions { express, ..VxlaneOptions::default() };
            VxlaneVtep::start(host, segments, &options).map(Running::Vxlane)
        };
        Ok(Some(match self {
            Self::Wire => return Ok(None),
            Self::Kernel => Running::Kernel(KernelVtep::start(host, segments, &KernelOptions::default())?),
            Self::OvsSystem => ovs(OvsPort::System)?,
            Self::OvsAfxdp => ovs(OvsPort::Afxdp(XdpMode::Native))?,
            Self::OvsPmd => ovs(OvsPort::AfxdpPmd(XdpMode::Native, PMD_CPUS))?,
            Self::Null => Running::Null(NullVtep::start(host, segment)?),
            Self::Vxlane => vxlane(false)?,
            Self::VxlaneExpress => vxlane(true)?,
        }))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A VTEP at work.
pub enum Running {
    /// The kernel.
    Kernel(KernelVtep),
    /// Open vSwitch.
    Ovs(OvsVtep),
    /// The forwarder that parses nothing.
    Null(NullVtep),
    /// vxlane.
    Vxlane(VxlaneVtep),
}

impl Running {
    /// The daemon, if it is one of ours.
    pub fn as_vxlane(&self) -> Option<&VxlaneVtep> {
        match self {
            Self::Vxlane(vtep) => Some(vtep),
            Self::Kernel(_) | Self::Ovs(_) | Self::Null(_) => None,
        }
    }

    /// The processes that do its work; empty for the kernel.
    pub fn processes(&self) -> Vec<u32> {
        match self {
            Self::Kernel(vtep) => vtep.processes(),
            Self::Ovs(vtep) => vtep.processes(),
            Self::Null(vtep) => vec![vtep.process()],
            Self::Vxlane(vtep) => vtep.processes(),
        }
    }

    /// What it says about itself, for a run that failed.
    pub fn diagnosis(&self) -> String {
        match self {
            Self::Kernel(vtep) => vtep.diagnosis(),
            Self::Ovs(vtep) => vtep.diagnosis(),
            Self::Null(vtep) => vtep.words(),
            Self::Vxlane(vtep) => vtep.diagnosis(),
        }
    }
}

/// One polling thread, on the second processor.
const PMD_CPUS: u64 = 0b10;
