//! A bed with a way out: a container, its host that translates addresses, and a server behind another host.
//!
//! ```text
//!  c0 (10.0.1.1) ── host a (192.0.2.1), translates ═══ host b (192.0.2.2), routes ── c1 (10.1.2.1)
//! ```

use vxlane_tests::LabError;
use vxlane_tests::lab::{Host, Lab, LabOptions, MacAddr, Network, UPLINK};
use vxlane_tests::peer::{KernelOptions, KernelVtep, Segment, VxlaneOptions, VxlaneVtep};
use vxlane_tests::process;

use super::{Bed, VNI};
use crate::peer::{Peer, Running};

impl Bed {
    /// A container that reaches a server by the address translation of `peer`.
    ///
    /// # Errors
    /// Whatever could not be made or started; a peer that translates nothing.
    pub fn ways_out(peer: Peer) -> Result<Self, LabError> {
        let lab = Lab::with(&["a", "b"], &LabOptions { wire_offload: true, ..LabOptions::default() })?;
        let network = Network::new("blue", VNI);
        let outside = Network { subnet: OUTSIDE, ..Network::new("outside", VNI + 1) };
        let (near, far) = (lab.host("a"), lab.host("b"));
        let (left, right) = (near.container("c0", &network)?, far.container("c1", &outside)?);
        far.ns().ip(&format!("address add 10.{OUTSIDE}.255.254/16 dev {}", right.port()))?;
        far.ns().sysctl("net/ipv4/ip_forward", "1")?;
        right.ns().ip(&format!("route add default via 10.{OUTSIDE}.255.254"))?;
        near.ns().ip(&format!("route add 10.{OUTSIDE}.0.0/16 via {}", far.address()))?;
        left.ns().ip(&format!("route add default via {GATEWAY}"))?;
        let running = match peer {
            Peer::Kernel => masquerade(near, &Segment::of(&lab, "a", &network, &[&left]))?,
            Peer::Vxlane | Peer::VxlaneExpress => {
                let (extra, express) = (configuration(left.port()), peer == Peer::VxlaneExpress);
                let options = VxlaneOptions { extra, express, ..VxlaneOptions::default() };
                Running::Vxlane(VxlaneVtep::start(near, &[], &options)?)
            }
            Peer::Wire | Peer::OvsSystem | Peer::OvsAfxdp | Peer::OvsPmd | Peer::Null => {
                return Err(LabError::Unfit { what: "a peer with a way out", text: peer.to_string() });
            }
        };
        let target = right.station();
        let mut bed = Self { peer, vteps: vec![running], left, right, target, others: Vec::new(), lab, network };
        bed.warm_up()?;
        bed.target.mac = bed.router()?;
        Ok(bed)
    }

    /// The MAC address of the gateway.
    fn router(&self) -> Result<MacAddr, LabError> {
        let text = self.left.ns().ip(&format!("neighbour show {GATEWAY} dev eth0"))?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "lladdr").skip(1);
        let mac = words.next().and_then(|word| word.parse().ok());
        mac.ok_or(LabError::Unfit { what: "the gateway's MAC address is not known", text })
    }

    /// Ends all translation sessions, so that the ports of an earlier turn are free for this one.
    ///
    /// # Errors
    /// [`LabError`] if vxlane refuses. The kernel's end in half a minute, and it has 64,512 ports.
    pub fn forget_sessions(&self) -> Result<(), LabError> {
        let mut ours = self.vteps.iter().filter_map(Running::as_vxlane);
        ours.try_for_each(|vtep| vtep.cli(&["nat", "flush", "--json"]).map(drop))
    }
}

/// The kernel's bridge as gateway, and nftables.
fn masquerade(host: &Host, segment: &Segment<'_>) -> Result<Running, LabError> {
    let vtep = KernelVtep::start(host, std::slice::from_ref(segment), &KernelOptions::default())?;
    host.ns().ip(&format!("address add {GATEWAY}/16 dev {}", KernelVtep::bridge_of(&segment.network.name)))?;
    host.ns().sysctl("net/ipv4/ip_forward", "1")?;
    let rules = format!(
        "add table ip nat; \
         add chain ip nat out {{ type nat hook postrouting priority srcnat; }}; \
         add rule ip nat out oifname {UPLINK} masquerade"
    );
    process::stdout(host.ns().command("nft").arg(rules))?;
    Ok(Running::Kernel(vtep))
}

/// The network with a way out, as the file of the daemon has it. Limits on one endpoint are no
/// part of the comparison, and the kernel has none.
fn configuration(port: &str) -> String {
    format!(
        "[nat]\nports = \"1024-65535\"\nendpoint_limit = 65536\n\
         [[network]]\nname = \"blue\"\nvni = {VNI}\nsubnet = \"10.0.0.0/16\"\ngateway = \"{GATEWAY}\"\n\
         [[endpoint]]\nnetwork = \"blue\"\ninterface = \"{port}\"\n"
    )
}

/// Second octet of the server's subnet.
const OUTSIDE: u8 = 1;
/// The container's default gateway.
const GATEWAY: &str = "10.0.255.254";
