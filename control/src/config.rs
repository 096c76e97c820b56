//! The configuration file: its keys, its defaults, and errors that name file and line.

mod access;
mod addresses;
mod nat;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
};

use clap::ValueEnum;
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use utoipa::ToSchema;

pub use nat::{FilteringChoice, Nat, Nat6Choice, NatChoice, Timeouts};

pub use access::{Group, Mode, User};
pub use addresses::Addresses;

use crate::{
    desired::{Desired, Problem},
    mac::Mac,
};

/// Everything that the file says. Keys that are not listed here are errors.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Our end of the tunnels.
    pub underlay: Underlay,
    /// The workers.
    #[serde(default)]
    pub dataplane: Dataplane,
    /// The daemon itself.
    #[serde(default)]
    pub control: Control,
    /// Ways out of the overlay.
    #[serde(default)]
    pub nat: Nat,
    /// Overlay networks.
    #[serde(default, rename = "network")]
    pub networks: Vec<Network>,
    /// Attachments to them.
    #[serde(default, rename = "endpoint")]
    pub endpoints: Vec<Endpoint>,
}

/// `[underlay]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Underlay {
    /// The uplink device.
    pub interface: String,
    /// Local VTEP address, or one of each family; the device's first global ones when not given.
    pub address: Option<Addresses>,
    /// UDP port.
    #[serde(default = "Underlay::default_port")]
    pub port: u16,
    /// Where the XDP program runs.
    #[serde(default)]
    pub xdp: XdpChoice,
    /// Whether UDP over IPv6 is sent without a checksum.
    #[serde(default)]
    pub udp6_zero_csum_tx: bool,
    /// Whether UDP over IPv6 is accepted without a checksum.
    #[serde(default)]
    pub udp6_zero_csum_rx: bool,
}

impl Underlay {
    /// The port of RFC 7348 section 5.
    fn default_port() -> u16 {
        4789
    }
}

/// Whether frames of established flows take the express lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ExpressChoice {
    /// Where the interfaces can have it.
    #[default]
    Auto,
    /// Nowhere.
    Off,
}

impl fmt::Display for ExpressChoice {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
        })
    }
}

/// Where an interface's XDP program is to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum XdpChoice {
    /// In the driver where it can, else in the network stack.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the network stack.
    Generic,
}

/// `[dataplane]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dataplane {
    /// Worker threads; one per spare core, at least one, when not given.
    pub workers: Option<usize>,
    /// The CPU of each worker.
    pub cpus: Vec<usize>,
    /// Stations that each worker's MAC table has room for.
    pub stations: usize,
    /// Most frames of each ring of each queue; a power of two. Uplinks have so many; endpoints share a
    /// pool, of which the later ones get less.
    pub ring: u32,
    /// Whether frames of established flows take the express lane.
    pub express: ExpressChoice,
}

impl Default for Dataplane {
    fn default() -> Self {
        Self { workers: None, cpus: Vec::new(), stations: 65_536, ring: 4096, express: ExpressChoice::Auto }
    }
}

/// `[control]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Where the API listens.
    pub socket: PathBuf,
    /// Who may use the socket: its permission bits.
    pub mode: Mode,
    /// Whose it is; the daemon's own user when not given.
    pub owner: Option<User>,
    /// Whose members may use it; the daemon's own group when not given.
    pub group: Option<Group>,
    /// Where Prometheus may read metrics without the socket; nowhere when not given.
    pub metrics: Option<SocketAddr>,
    /// The directory of everything that outlives the process.
    pub state: PathBuf,
    /// Seconds for which interfaces stay attached after a daemon that did not take leave, unless
    /// the service manager keeps them; 0 for not at all.
    pub hold: u32,
}

/// Where the API listens unless the file or `--socket` says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/vxlane/vxlane.sock";

impl Default for Control {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            owner: None,
            group: None,
            metrics: None,
            socket: DEFAULT_SOCKET.into(),
            state: "/var/lib/vxlane".into(),
            hold: 60,
        }
    }
}

/// `[[network]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// What people call it.
    pub name: String,
    /// What the wire calls it.
    pub vni: u32,
    /// The addresses of its endpoints.
    pub subnet: Option<Ipv4Network>,
    /// The address of the way out.
    pub gateway: Option<Ipv4Addr>,
    /// Their IPv6 addresses.
    pub subnet6: Option<Ipv6Network>,
    /// The address of the way out for IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// Whether there is no way out.
    #[serde(default)]
    pub internal: bool,
    /// How packets leave it: with the host's address where there is a gateway, when not given.
    pub nat: Option<NatChoice>,
    /// How its IPv6 packets leave it; where there is an IPv6 gateway as `nat` says, when not given.
    pub nat6: Option<Nat6Choice>,
    /// Longest packet in bytes; what the underlay leaves room for when not given.
    pub mtu: Option<u32>,
    /// VTEPs to flood to and to learn from.
    #[serde(default)]
    pub peers: Vec<IpAddr>,
    /// Networks that it reaches through its gateway, and that reach it.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Seconds after which a silent station is forgotten.
    #[serde(default = "Network::default_ageing")]
    pub ageing: u32,
    /// How many stations may be learned.
    #[serde(default = "Network::default_mac_limit")]
    pub mac_limit: u32,
    /// Frames that each worker floods in a second; no limit when not given.
    pub flood_limit: Option<u32>,
    /// Whether endpoints reach the gateway and nobody else.
    #[serde(default)]
    pub isolation: bool,
    /// Whether ARP and ND questions are answered here when the answer is known.
    #[serde(default = "Network::default_suppression")]
    pub suppression: bool,
    /// Whether frames of established flows may take the express lane, where there is one.
    #[serde(default)]
    pub express: ExpressChoice,
}

impl Network {
    /// The kernel's own default (`FDB_AGE_DEFAULT`, `drivers/net/vxlan/vxlan_core.c`).
    pub(crate) fn default_ageing() -> u32 {
        300
    }

    /// As many as a large broadcast domain has.
    pub(crate) fn default_mac_limit() -> u32 {
        8192
    }

    /// What can be answered here need not be flooded.
    pub(crate) fn default_suppression() -> bool {
        true
    }
}

/// `[[endpoint]]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The name of its network.
    pub network: String,
    /// An existing device of the host.
    pub interface: String,
    /// What people call it; like its interface when not given.
    pub name: Option<String>,
    /// Its address in the subnet of the network.
    pub address: Option<Ipv4Addr>,
    /// Its address in the IPv6 subnet of the network.
    pub address6: Option<Ipv6Addr>,
    /// Its Ethernet address.
    pub mac: Option<Mac>,
    /// Where the XDP program runs.
    #[serde(default)]
    pub xdp: XdpChoice,
    /// Ports of the host that lead to it, such as `8080:80/tcp`.
    #[serde(default)]
    pub publish: Vec<String>,
}

/// Why a file was refused. Prints as one line for each mistake.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It could not be read.
    #[error("{}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system answered.
        source: std::io::Error,
    },
    /// It is not TOML, or has a key or a value that does not belong there.
    #[error("{}:{line}: {reason}", .file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// In words.
        reason: String,
    },
    /// Every key is fine by itself, but what they ask for is not possible.
    #[error("{0}")]
    Refused(Located),
}

/// Problems, each with the line that it comes from.
#[derive(Debug)]
pub struct Located(Vec<(PathBuf, usize, Problem)>);

impl fmt::Display for Located {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (file, line, problem)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}{}:{line}: {problem}", file.display())?;
        }
        Ok(())
    }
}

/// A file with what it says.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: String,
    /// What it says.
    pub config: Config,
}

impl ConfigFile {
    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError::Read`] or [`ConfigError::Syntax`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { file: path.to_owned(), source })?;
        Self::parse(path, text)
    }

    /// Parses `text`; `path` is for messages only.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`]
    pub fn parse(path: &Path, text: String) -> Result<Self, ConfigError> {
        match toml::from_str(&text) {
            Ok(config) => Ok(Self { path: path.to_owned(), text, config }),
            Err(error) => {
                let (line, reason) = explain(&text, &error);
                Err(ConfigError::Syntax { file: path.to_owned(), line, reason })
            }
        }
    }

    /// The part that can also change while the daemon runs.
    pub fn desired(&self) -> Desired {
        Desired::of_file(&self.config)
    }

    /// Says where in the file each of `problems` comes from.
    pub fn refuse(&self, problems: Vec<Problem>) -> ConfigError {
        let located = problems.into_iter().map(|problem| {
            let line = self.line_of(&problem.field).unwrap_or(1);
            (self.path.clone(), line, problem)
        });
        ConfigError::Refused(Located(located.collect()))
    }

    /// The line of `field`, such as `network[1].vni`, or of the table that it would be in.
    fn line_of(&self, field: &str) -> Option<usize> {
        let document = DeTable::parse(&self.text).ok()?;
        let span = document.span();
        let span = find(document.get_ref(), field).unwrap_or(span);
        Some(line_at(&self.text, span.start))
    }
}

/// The span of what `field` names, or of the closest thing around it that exists.
fn find(table: &DeTable<'_>, field: &str) -> Option<Range<usize>> {
    let (step, rest) = field.split_once('.').map_or((field, None), |(step, rest)| (step, Some(rest)));
    let (key, index) = match step.split_once('[') {
        Some((key, index)) => (key, index.trim_end_matches(']').parse::<usize>().ok()),
        None => (step, None),
    };
    let mut value: &Spanned<DeValue<'_>> = table.get(key)?;
    if let (Some(index), DeValue::Array(items)) = (index, value.get_ref()) {
        value = items.get(index)?;
    }
    let deeper = match (rest, value.get_ref()) {
        (Some(rest), DeValue::Table(table)) => find(table, rest),
        _ => None,
    };
    Some(deeper.unwrap_or_else(|| value.span()))
}

/// Line and reason of a parse error, in our words where toml speaks of "fields".
fn explain(text: &str, error: &toml::de::Error) -> (usize, String) {
    let span = error.span().unwrap_or(0..text.len());
    let line = line_at(text, span.start);
    let whole = DeTable::parse(text).is_ok_and(|document| document.span() == span);
    let message = error.message().trim().replace('\n', "; ");
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let (key, expected) = rest.split_once(", ").unwrap_or((rest, ""));
        return (line, format!("unknown key {key}{}; {expected}", section(text, line - 1)));
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        let place = if whole { String::new() } else { section(text, line) };
        return (line, format!("missing key {key}{place}"));
    }
    (line, format!("{message}{}", section(text, line - 1)))
}

/// ` in [table]` for the last table header among the first `lines` lines.
fn section(text: &str, lines: usize) -> String {
    let headers = text.lines().take(lines).map(str::trim).filter(|line| line.starts_with('['));
    let header = headers.last().and_then(|line| line.split_inclusive(']').next().map(|name| (line, name)));
    header.map_or_else(String::new, |(line, name)| {
        let close = if line.starts_with("[[") { "]" } else { "" };
        format!(" in {name}{close}")
    })
}

fn line_at(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[underlay]\ninterface = \"uA\"\n";

    fn parse(text: &str) -> Result<ConfigFile, String> {
        ConfigFile::parse(Path::new("v.toml"), text.to_owned()).map_err(|error| error.to_string())
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).map(|file| file.config).unwrap_err(), expected, "{text}");
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let config = parse(MINIMAL).unwrap().config;
        assert_eq!((config.underlay.port, config.underlay.address), (4789, None));
        assert_eq!(config.control.socket, Path::new("/run/vxlane/vxlane.sock"));
        assert_eq!(config.control.state, Path::new("/var/lib/vxlane"));
        assert_eq!(
            config.dataplane,
            Dataplane { workers: None, cpus: vec![], stations: 65_536, ring: 4096, express: ExpressChoice::Auto }
        );
    }

    #[test]
    fn a_network_needs_only_a_name_and_a_vni() {
        let config = parse(&format!("{MINIMAL}[[network]]\nname = \"blue\"\nvni = 5000\n")).unwrap().config;
        let network = &config.networks[0];
        assert_eq!((network.ageing, network.mac_limit, network.mtu, network.peers.len()), (300, 8192, None, 0));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_table() {
        check(
            "[underlay]\ninterface = \"uA\"\nfoo = 1\n",
            "v.toml:3: unknown key `foo` in [underlay]; expected one of `interface`, `address`, `port`, `xdp`, `udp6_zero_csum_tx`, `udp6_zero_csum_rx`",
        );
        check(
            "[underlay]\ninterface = \"uA\"\n\n[[endpoint]]\nnetwork = \"a\"\nvlan = 1\n",
            "v.toml:6: unknown key `vlan` in [[endpoint]]; expected one of `network`, `interface`, `name`, `address`, `address6`, `mac`, `xdp`, `publish`",
        );
        check(
            "[underlay]\ninterface = \"uA\"\n[daemon]\nx = 1\n",
            "v.toml:3: unknown key `daemon` in [underlay]; expected one of `underlay`, `dataplane`, `control`, `nat`, `network`, `endpoint`",
        );
    }

    #[test]
    fn a_missing_key_is_named_with_its_table() {
        check("[dataplane]\nworkers = 1\n", "v.toml:1: missing key `underlay`");
        check(&format!("{MINIMAL}[[network]]\nname = \"b\"\n"), "v.toml:3: missing key `vni` in [[network]]");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_line() {
        check(&format!("{MINIMAL}address = \"192.0.2\"\n"), "v.toml:3: invalid IP address syntax in [underlay]");
        check(
            &format!("{MINIMAL}xdp = \"turbo\"\n"),
            "v.toml:3: unknown variant `turbo`, expected one of `auto`, `native`, `generic` in [underlay]",
        );
    }

    #[test]
    fn a_problem_is_shown_at_the_line_of_its_key() {
        let file = parse(&format!("{MINIMAL}[[network]]\nname = \"a\"\nvni = 1\n[[network]]\nname = \"b\"\nvni = 1\n"));
        let problem = |field: &str| Problem::new(field, "1", "no");
        let error = file.unwrap().refuse(vec![problem("network[1].vni"), problem("network[0].mtu")]);
        assert_eq!(error.to_string(), "v.toml:8: network[1].vni = 1: no\nv.toml:3: network[0].mtu = 1: no");
    }
}
