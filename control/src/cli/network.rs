//! `vxlane network`: overlay networks and what is connected to them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use ipnetwork::{Ipv4Network, Ipv6Network};

use super::{Question, both, columns::Columns, endpoint, joined};
use crate::{
    api::{
        client::{ClientError, escape},
        types::{
            EndpointState, HostPort, Network, Owner,
            requests::{EndpointRequest, NetworkRequest, RouteRequest},
        },
    },
    config::{ExpressChoice, Nat6Choice, NatChoice, XdpChoice},
    mac::Mac,
};

/// `vxlane network`
#[derive(Clone, Debug, Subcommand)]
pub enum NetworkCommand {
    /// Print them
    #[command(alias = "list", alias = "show")]
    Ls,
    /// Print everything about one
    Inspect {
        /// Its name
        network: String,
    },
    /// Make one
    Create(CreateArgs),
    /// Take one away, or several
    #[command(alias = "del", alias = "delete", alias = "remove")]
    Rm {
        /// Their names
        #[arg(required = true)]
        networks: Vec<String>,
    },
    /// Connect a container or a device to one
    Connect(ConnectArgs),
    /// Have two networks reach each other through their gateways
    Route {
        /// One
        network: String,
        /// The other
        other: String,
    },
    /// Undo that
    Unroute {
        /// One
        network: String,
        /// The other
        other: String,
    },
    /// Disconnect a container or a device from one
    Disconnect {
        /// The network
        network: String,
        /// The name of the endpoint
        #[arg(long)]
        name: String,
    },
}

/// `vxlane network create`
#[derive(Clone, Debug, Args)]
pub struct CreateArgs {
    /// Its name
    pub network: String,
    /// Its number on the wire; a free one when not given
    #[arg(long)]
    pub vni: Option<u32>,
    /// The addresses of its endpoints, such as 10.50.0.0/24
    #[arg(long, value_name = "ADDRESS/BITS")]
    pub subnet: Option<Ipv4Network>,
    /// The address of the way out
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Option<Ipv4Addr>,
    /// Their IPv6 addresses, such as fd00:50::/64
    #[arg(long, value_name = "ADDRESS/BITS")]
    pub subnet6: Option<Ipv6Network>,
    /// The address of the way out for IPv6
    #[arg(long, value_name = "ADDRESS")]
    pub gateway6: Option<Ipv6Addr>,
    /// There shall be no way out
    #[arg(long)]
    pub internal: bool,
    /// How its packets leave it [default: masquerade, with a gateway]
    #[arg(long, value_enum)]
    pub nat: Option<NatChoice>,
    /// How its IPv6 packets leave it [default: as --nat, with an IPv6 gateway]
    #[arg(long, value_enum)]
    pub nat6: Option<Nat6Choice>,
    /// Longest packet; what the underlay leaves room for when not given
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// When a silent station is forgotten [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub ageing: Option<u32>,
    /// How many stations may be learned [default: 8192]
    #[arg(long, value_name = "STATIONS")]
    pub mac_limit: Option<u32>,
    /// How many frames each worker may flood in a second [default: no limit]
    #[arg(long, value_name = "FRAMES")]
    pub flood_limit: Option<u32>,
    /// Endpoints shall reach the gateway and nobody else
    #[arg(long)]
    pub isolation: bool,
    /// ARP and ND questions shall be flooded though the answer is known
    #[arg(long)]
    pub no_suppression: bool,
    /// Whether established flows may take the express lane, where there is one
    #[arg(long, value_enum, default_value_t)]
    pub express: ExpressChoice,
    /// A VTEP that takes part; can be given several times
    #[arg(long = "peer", value_name = "ADDRESS")]
    pub peers: Vec<IpAddr>,
}

/// `vxlane network connect`
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// The network
    pub network: String,
    /// What the endpoint shall be called
    #[arg(long)]
    pub name: String,
    /// The container's network namespace, such as /run/netns/web: a veth pair is made
    #[arg(long, value_name = "PATH", required_unless_present = "interface")]
    pub netns: Option<PathBuf>,
    /// What the device shall be called in there [default: eth0]
    #[arg(long, value_name = "NAME", conflicts_with = "interface")]
    pub ifname: Option<String>,
    /// A device of this host, instead of a container
    #[arg(long, value_name = "NAME", conflicts_with = "netns")]
    pub interface: Option<String>,
    /// Its address; the next free one of the subnet when not given
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<Ipv4Addr>,
    /// Its IPv6 address; the next free one of the IPv6 subnet when not given
    #[arg(long, value_name = "ADDRESS")]
    pub address6: Option<Ipv6Addr>,
    /// Its Ethernet address
    #[arg(long, value_name = "ADDRESS")]
    pub mac: Option<Mac>,
    /// Where the XDP program runs
    #[arg(long, value_enum, default_value_t)]
    pub xdp: XdpChoice,
    /// A port of this host that leads to it, such as 8080:80/tcp; can be given several times
    #[arg(long, value_name = "[ADDRESS:]PORT[-PORT]:PORT[-PORT][/PROTO]")]
    pub publish: Vec<String>,
    /// Of the container's networks that with the highest has its default route; give it again to change it [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, conflicts_with = "interface")]
    pub gateway_priority: Option<i32>,
}

pub(super) async fn answer(ask: &Question<'_>, command: &NetworkCommand) -> Result<String, ClientError> {
    match command {
        NetworkCommand::Ls => ask.list("/v1/networks", table).await,
        NetworkCommand::Inspect { network } => ask.show(&path(network), details).await,
        NetworkCommand::Create(args) => ask.post("/v1/networks", &request(args), created).await,
        NetworkCommand::Rm { networks } => {
            for network in networks {
                ask.delete(&path(network)).await?;
            }
            Ok(String::new())
        }
        NetworkCommand::Connect(args) => {
            let path = format!("{}/endpoints", path(&args.network));
            ask.post(&path, &connection(args), endpoint::connected).await
        }
        NetworkCommand::Route { network, other } => {
            let request = RouteRequest { network: other.clone() };
            ask.post(&format!("{}/routes", path(network)), &request, |_: &Network| String::new()).await
        }
        NetworkCommand::Unroute { network, other } => {
            ask.delete(&format!("{}/routes/{}", path(network), escape(other))).await
        }
        NetworkCommand::Disconnect { network, name } => {
            ask.delete(&format!("{}/endpoints/{}", path(network), escape(name))).await
        }
    }
}

pub(super) fn path(network: &str) -> String {
    format!("/v1/networks/{}", escape(network))
}

fn request(args: &CreateArgs) -> NetworkRequest {
    let CreateArgs { network, vni, subnet, gateway, subnet6, gateway6, internal, mtu, ageing, .. } = args.clone();
    let CreateArgs { mac_limit, isolation, .. } = *args;
    let (suppression, peers) = (args.no_suppression.then_some(false), args.peers.clone());
    NetworkRequest {
        name: network,
        vni,
        subnet,
        gateway,
        subnet6,
        gateway6,
        internal,
        nat: args.nat,
        nat6: args.nat6,
        mtu,
        ageing,
        mac_limit,
        flood_limit: args.flood_limit,
        isolation,
        suppression,
        express: args.express,
        peers,
    }
}

fn connection(args: &ConnectArgs) -> EndpointRequest {
    let ConnectArgs {
        network: _,
        name,
        netns,
        ifname,
        interface,
        address,
        address6,
        mac,
        xdp,
        publish,
        gateway_priority,
    } = args.clone();
    EndpointRequest { name, netns, ifname, interface, address, address6, mac, xdp, publish, gateway_priority }
}

fn created(network: &Network) -> String {
    format!("{}\n", network.name)
}

fn table(networks: &[Network]) -> String {
    let mut columns = Columns::titled(&["NAME", "VNI", "SUBNET", "GATEWAY", "MTU", "OWNER", "ENDPOINTS", "PEERS"]);
    for network in networks {
        columns.row([
            network.name.clone(),
            network.vni.to_string(),
            both(network.subnet, network.subnet6),
            gateway(network),
            network.mtu.to_string(),
            owner(network.owner).to_owned(),
            joined(&network.endpoints),
            joined(&network.peers),
        ]);
    }
    columns.render()
}

fn details(network: &Network) -> String {
    let mut columns = Columns::default();
    let mut row = |key: &str, value: String| columns.row([key.to_owned(), value]);
    row("name", network.name.clone());
    row("vni", network.vni.to_string());
    row("subnet", both(network.subnet, network.subnet6));
    row("gateway", gateway(network));
    row("host", network.host.as_ref().map(host).unwrap_or_default());
    row("nat", network.nat.to_string());
    row("nat6", network.nat6.to_string());
    row("mtu", network.mtu.to_string());
    row("ageing", network.ageing.to_string());
    row("mac_limit", network.mac_limit.to_string());
    row("flood_limit", network.flood_limit.map(|limit| limit.to_string()).unwrap_or_default());
    row("isolation", yes(network.isolation));
    row("suppression", yes(network.suppression));
    row("express", network.express.to_string());
    row("owner", owner(network.owner).to_owned());
    row("endpoints", joined(&network.endpoints));
    row("peers", joined(&network.peers));
    row("routes", joined(&network.routes));
    columns.render()
}

fn gateway(network: &Network) -> String {
    if network.internal { "internal".to_owned() } else { both(network.gateway, network.gateway6) }
}

/// The host's own interface; where it is not as it should be, why.
fn host(port: &HostPort) -> String {
    let HostPort { name, state, reason, .. } = port;
    let absent = if *state == EndpointState::Absent { " absent" } else { "" };
    format!("{name}{absent}{}", reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())
}

fn yes(is_so: bool) -> String {
    if is_so { "yes" } else { "no" }.to_owned()
}

/// Who may change something, in one word.
pub(super) fn owner(owner: Owner) -> &'static str {
    match owner {
        Owner::File => "file",
        Owner::Api => "api",
    }
}
