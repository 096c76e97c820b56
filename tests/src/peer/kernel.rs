//! The kernel as VTEP: a bridge and a learning vxlan device per network.

use super::{Segment, VXLAN_PORT, Vtep};
use crate::LabError;
use crate::lab::{Host, UPLINK};
use crate::netns::Netns;

/// How the kernel's vxlan devices are set up.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// Whether the outer UDP checksum is filled in.
    pub udpcsum: bool,
    /// Whether the vxlan device learns which MAC is behind which VTEP.
    pub learning: bool,
    /// More words for `ip link add … type vxlan`, such as `ttl 100` or `tos inherit`.
    pub extra: String,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self { udpcsum: true, learning: true, extra: String::new() }
    }
}

/// The kernel's VTEP on one host: `br-NETWORK` and `vx-NETWORK` per network.
#[derive(Debug)]
pub struct KernelVtep {
    ns_name: String,
    networks: Vec<String>,
}

impl KernelVtep {
    /// Sets up bridges and vxlan devices on `host`.
    ///
    /// # Errors
    /// [`LabError::Command`] with the step that failed.
    pub fn start(host: &Host, segments: &[Segment<'_>], options: &KernelOptions) -> Result<Self, LabError> {
        let made = Self {
            ns_name: host.ns().name().to_owned(),
            networks: segments.iter().map(|s| s.network.name.clone()).collect(),
        };
        for segment in segments {
            connect(host, segment, options)?;
        }
        Ok(made)
    }

    /// The name of the bridge of `network`.
    pub fn bridge_of(network: &str) -> String {
        format!("br-{network}")
    }

    /// The name of the vxlan device of `network`.
    pub fn device_of(network: &str) -> String {
        format!("vx-{network}")
    }
}

impl Vtep for KernelVtep {
    fn kind(&self) -> &'static str {
        "kernel"
    }

    fn diagnosis(&self) -> String {
        let questions = [["ip", "-s", "-d", "link"], ["bridge", "-s", "fdb", "show"]];
        let answers = questions.map(|[program, rest @ ..]| ask(&self.ns_name, program, &rest));
        answers.join("\n")
    }

    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }
}

impl Drop for KernelVtep {
    fn drop(&mut self) {
        for network in &self.networks {
            for device in [Self::device_of(network), Self::bridge_of(network)] {
                // When the host is already gone, so are its devices.
                ask(&self.ns_name, "ip", &["link", "del", &device]);
            }
        }
    }
}

/// Asks an iproute2 program in the namespace; an error's words are an answer too.
fn ask(ns_name: &str, program: &str, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(program);
    command.args(["-n", ns_name]).args(arguments);
    crate::process::stdout(&mut command).unwrap_or_else(|error| error.to_string())
}

fn connect(host: &Host, segment: &Segment<'_>, options: &KernelOptions) -> Result<(), LabError> {
    let network = segment.network;
    let bridge = KernelVtep::bridge_of(&network.name);
    let vxlan = KernelVtep::device_of(&network.name);
    let first = segment.remotes.first().copied().or_else(|| host.addresses().first().copied());
    let Some(address) = first.map(|remote| host.towards(remote)) else { return Ok(()) };
    let vni = network.vni;
    let udpcsum = if options.udpcsum { "udpcsum" } else { "noudpcsum" };
    let learning = if options.learning { "learning" } else { "nolearning" };
    let extra = &options.extra;
    let ns: &Netns = host.ns();
    ns.ip(&format!("link add {bridge} type bridge stp_state 0 mcast_snooping 0"))?;
    ns.ip(&format!(
        "link add {vxlan} mtu {} type vxlan id {vni} local {address} \
         dstport {VXLAN_PORT} dev {UPLINK} {udpcsum} {learning} {extra}",
        network.mtu
    ))?;
    for remote in &segment.remotes {
        ns.bridge(&format!("fdb append 00:00:00:00:00:00 dev {vxlan} dst {remote}"))?;
    }
    ns.ip(&format!("link set {vxlan} master {bridge} up"))?;
    for container in &segment.containers {
        ns.ip(&format!("link set {} master {bridge}", container.port()))?;
    }
    ns.ip(&format!("link set {bridge} up")).map(drop)
}
