//! The real `vxlane` binary as VTEP.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Serialize;
use tempfile::TempDir;

use super::{Segment, VXLAN_PORT, Vtep, switch::Switch};
use crate::LabError;
use crate::lab::{Host, UPLINK};
use crate::process::{self, Guard};

/// How vxlane is set up.
#[derive(Clone, Debug)]
pub struct VxlaneOptions {
    /// The binary; by default the one [`find_binary`] finds.
    pub binary: Option<PathBuf>,
    /// Number of workers.
    pub workers: u16,
    /// Whether established flows take the express lane.
    pub express: bool,
    /// Whether UDP over IPv6 is sent and accepted without checksums.
    pub zero_checksums: bool,
    /// How long it takes them until they leave it, and until they come back, if they do.
    pub switched: Option<Duration>,
    /// Seconds after which a silent station is forgotten; as the daemon has it by default.
    pub ageing: Option<u32>,
    /// More lines for the configuration file, put before the first network; they may open
    /// sections of their own.
    pub extra: String,
    /// Environment variables for the daemon.
    pub environment: Vec<(String, String)>,
}

impl Default for VxlaneOptions {
    fn default() -> Self {
        let choice = env::var(EXPRESS).unwrap_or_default();
        let switched = (choice == "switched").then_some(Duration::from_secs(1));
        Self {
            binary: None,
            workers: 1,
            express: choice != "off",
            zero_checksums: false,
            switched,
            ageing: None,
            extra: String::new(),
            environment: Vec::new(),
        }
    }
}

/// A running `vxlane run`, with a directory of its own for configuration, socket and state.
#[derive(Debug)]
pub struct VxlaneVtep {
    // Dropped first: what it asks of a daemon that is gone would come to nothing.
    switch: Option<Switch>,
    // Dropped before `files`: the daemon uses them until its end.
    daemon: Guard,
    binary: PathBuf,
    launch: Launch,
    files: TempDir,
}

impl VxlaneVtep {
    /// Writes the configuration for `segments` and starts the daemon on `host`.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the daemon's whole stderr when it does not say `ready`.
    pub fn start(host: &Host, segments: &[Segment<'_>], options: &VxlaneOptions) -> Result<Self, LabError> {
        let files = tempfile::Builder::new()
            .prefix("vxlane-")
            .tempdir_in(host.ns().directory())
            .map_err(LabError::syscall("mkdtemp", "a directory for vxlane"))?;
        let directory = files.path();
        let state = directory.join(STATE);
        fs::create_dir(&state).map_err(LabError::syscall("mkdir", state.display().to_string()))?;
        let config = |lane| configuration(host, segments, options, directory, lane);
        let (on, off) = (config(None)?, config(Some("off"))?);
        let path = directory.join("vxlane.toml");
        fs::write(&path, &on).map_err(LabError::syscall("write", path.display().to_string()))?;
        let binary = match &options.binary {
            Some(path) => path.clone(),
            None => find_binary()?,
        };
        let launch = Launch { environment: options.environment.clone() };
        let mut daemon = launch.spawn(host, &binary, directory)?;
        await_ready(&mut daemon, directory)?;
        let start = |period| Switch::start(binary.clone(), directory.join(SOCKET), path, [off, on], period);
        let switch = options.switched.map(start);
        Ok(Self { switch, daemon, binary, launch, files })
    }

    /// Runs a subcommand against the daemon's socket and returns the JSON it prints.
    ///
    /// # Errors
    /// [`LabError::Command`] when it fails, [`LabError::Unfit`] when it prints something else.
    pub fn cli(&self, arguments: &[&str]) -> Result<serde_json::Value, LabError> {
        let text = self.ask(arguments)?;
        serde_json::from_str(&text).map_err(|error| LabError::Unfit {
            what: "the command line did not print JSON",
            text: format!("{error} in {text:?}"),
        })
    }

    /// Runs a subcommand against the daemon's socket and returns what it prints.
    ///
    /// # Errors
    /// [`LabError::Command`] when it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(self.socket()).args(arguments);
        process::stdout(&mut command)
    }

    /// The metrics page, with the head of the answer.
    ///
    /// # Errors
    /// [`LabError::Syscall`] if the socket does not take the question or give the answer.
    pub fn metrics(&self) -> Result<String, LabError> {
        let ask = || -> io::Result<String> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        ask().map_err(LabError::syscall("GET /metrics", self.socket().display().to_string()))
    }

    /// The daemon's account of every frame, once it holds: nothing on its way between workers,
    /// `received + copies + replies = transmitted + drops`, and every frame of the pools at home
    /// or with the kernel.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the account if it does not come to hold within a second.
    pub fn account(&self) -> Result<Account, LabError> {
        let settled = || Account::read(self).ok().filter(Account::holds);
        let now = || Account::read(self).map_or_else(|error| error.to_string(), |account| format!("{account:?}"));
        process::await_value("balanced account of vxlane", Duration::from_secs(1), settled, now)
    }

    /// How often its networks have left the express lane or come back, where they do.
    pub fn switches(&self) -> u64 {
        self.switch.as_ref().map_or(0, Switch::count)
    }

    /// The daemon's process, to be sent signals.
    pub fn daemon(&mut self) -> &mut Guard {
        &mut self.daemon
    }

    /// Starts the daemon again with the same configuration and state, after it has ended.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_again(&mut self, host: &Host) -> Result<(), LabError> {
        self.daemon.stop();
        self.daemon = self.launch.spawn(host, &self.binary, self.files.path())?;
        await_ready(&mut self.daemon, self.files.path())
    }

    /// Has the daemon become a new process, and returns when that answers.
    ///
    /// # Errors
    /// [`LabError::Command`] if it refuses, or does not come back.
    pub fn restart(&self) -> Result<(), LabError> {
        process::stdout(Command::new(&self.binary).arg("--socket").arg(self.socket()).arg("restart")).map(drop)
    }

    /// Everything the daemon has written to stderr since its last start.
    pub fn stderr(&self) -> String {
        stderr_of(self.files.path())
    }

    /// The configuration file, to be changed before a reload or a new start.
    pub fn config_path(&self) -> PathBuf {
        self.files.path().join("vxlane.toml")
    }

    /// The daemon's control socket.
    pub fn socket(&self) -> PathBuf {
        self.files.path().join(SOCKET)
    }
}

impl Vtep for VxlaneVtep {
    fn kind(&self) -> &'static str {
        "vxlane"
    }

    fn diagnosis(&self) -> String {
        let status = match self.cli(&["status", "--json"]) {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        format!("{status}\n{}", self.stderr())
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.daemon.pid()]
    }

    fn as_vxlane(&self) -> Option<&VxlaneVtep> {
        Some(self)
    }
}

/// What a daemon says became of the frames it saw.
#[derive(Clone, Debug)]
pub struct Account {
    /// `vxlane stats --json`.
    pub stats: serde_json::Value,
    /// The frames of `vxlane status --json`.
    pub frames: Vec<serde_json::Value>,
}

impl Account {
    fn read(vtep: &VxlaneVtep) -> Result<Self, LabError> {
        let stats = vtep.cli(&["stats", "--json"])?;
        let status = vtep.cli(&["status", "--json"])?;
        Ok(Self { stats, frames: status["frames"].as_array().cloned().unwrap_or_default() })
    }

    fn holds(&self) -> bool {
        let leaked = |half: &serde_json::Value| {
            let part = |name: &str| half[name].as_u64().unwrap_or(u64::MAX / 4);
            part("kernel") + part("ours") != part("total")
        };
        self.stats["imbalance"] == 0 && !self.frames.iter().any(leaked)
    }

    /// A number of the stats, such as `received`; 0 for a reason that never happened.
    pub fn number(&self, path: &[&str]) -> u64 {
        path.iter().fold(&self.stats, |value, key| &value[*key]).as_u64().unwrap_or(0)
    }

    /// Frames that the kernel lost before the daemon saw them, over all queues.
    pub fn lost_in_kernel(&self) -> u64 {
        let queues = self.stats["kernel"].as_array().map(Vec::as_slice).unwrap_or_default();
        // A frame for which the fill ring was empty is among `rx_dropped`, too.
        queues.iter().flat_map(|queue| [&queue["rx_dropped"], &queue["rx_ring_full"]]).filter_map(|n| n.as_u64()).sum()
    }
}

/// What is the same at every start of one instance.
#[derive(Debug)]
struct Launch {
    environment: Vec<(String, String)>,
}

impl Launch {
    fn spawn(&self, host: &Host, binary: &Path, directory: &Path) -> Result<Guard, LabError> {
        let log = directory.join(STDERR);
        let stderr = File::create(&log).map_err(LabError::syscall("create", log.display().to_string()))?;
        let mut command = host.ns().command(&binary.to_string_lossy());
        command
            .arg("run")
            .arg("--config")
            .arg(directory.join("vxlane.toml"))
            .envs(self.environment.iter().cloned())
            .stdout(Stdio::null())
            .stderr(stderr);
        host.ns().spawn(&mut command)
    }
}

fn await_ready(daemon: &mut Guard, directory: &Path) -> Result<(), LabError> {
    let mut ended = None;
    let outcome = process::await_value(
        "line with `ready` from vxlane",
        START,
        || {
            let text = stderr_of(directory);
            if text.lines().any(|line| line.contains("ready")) {
                return Some(true);
            }
            ended = daemon.ended();
            ended.map(|_| false)
        },
        || stderr_of(directory),
    )?;
    if outcome {
        return Ok(());
    }
    Err(LabError::Unfit {
        what: "vxlane ended instead of getting ready",
        text: format!("{ended:?}: {}", stderr_of(directory)),
    })
}

fn stderr_of(directory: &Path) -> String {
    let bytes = fs::read(directory.join(STDERR)).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Finds the binary: `VXLANE_BIN`, or what the workspace's last build left, release first.
///
/// # Errors
/// [`LabError::Unfit`] when there is none.
pub fn find_binary() -> Result<PathBuf, LabError> {
    if let Some(path) = env::var_os("VXLANE_BIN") {
        return Ok(path.into());
    }
    let here = env::current_exe().map_err(LabError::syscall("readlink", "/proc/self/exe"))?;
    // A test runs as TARGET/PROFILE/deps/NAME, so the target directory is among the ancestors.
    let candidates = here
        .ancestors()
        .flat_map(|directory| ["release", "debug"].map(|profile| directory.join(profile).join("vxlane")));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| LabError::Unfit {
        what: "no vxlane binary; build it or set VXLANE_BIN",
        text: here.display().to_string(),
    })
}

fn configuration(
    host: &Host,
    segments: &[Segment<'_>],
    options: &VxlaneOptions,
    directory: &Path,
    lane: Option<&str>,
) -> Result<String, LabError> {
    let head = Head {
        underlay: Underlay {
            interface: UPLINK,
            address: host.addresses(),
            port: VXLAN_PORT,
            udp6_zero_csum_tx: options.zero_checksums,
            udp6_zero_csum_rx: options.zero_checksums,
        },
        dataplane: Dataplane { workers: options.workers, express: if options.express { "auto" } else { "off" } },
        control: Control { socket: directory.join(SOCKET), state: directory.join(STATE) },
    };
    let networks = segments.iter().map(|segment| NetworkEntry {
        name: &segment.network.name,
        vni: segment.network.vni,
        mtu: segment.network.mtu,
        ageing: options.ageing,
        express: lane,
        peers: &segment.remotes,
    });
    let endpoints = segments.iter().flat_map(|segment| {
        segment
            .containers
            .iter()
            .map(|container| EndpointEntry { network: &segment.network.name, interface: container.port() })
    });
    let tail = Tail { network: networks.collect(), endpoint: endpoints.collect() };
    Ok([text_of(&head)?, options.extra.clone(), text_of(&tail)?].join("\n"))
}

fn text_of(part: &impl Serialize) -> Result<String, LabError> {
    toml::to_string(part)
        .map_err(|error| LabError::Unfit { what: "the configuration cannot be written", text: error.to_string() })
}

#[derive(Serialize)]
struct Head {
    underlay: Underlay,
    dataplane: Dataplane,
    control: Control,
}

#[derive(Serialize)]
struct Underlay {
    interface: &'static str,
    address: Vec<IpAddr>,
    port: u16,
    udp6_zero_csum_tx: bool,
    udp6_zero_csum_rx: bool,
}

#[derive(Serialize)]
struct Dataplane {
    workers: u16,
    express: &'static str,
}

#[derive(Serialize)]
struct Control {
    socket: PathBuf,
    state: PathBuf,
}

#[derive(Serialize)]
struct Tail<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    network: Vec<NetworkEntry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoint: Vec<EndpointEntry<'a>>,
}

#[derive(Serialize)]
struct NetworkEntry<'a> {
    name: &'a str,
    vni: u32,
    mtu: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    ageing: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    express: Option<&'a str>,
    peers: &'a [IpAddr],
}

#[derive(Serialize)]
struct EndpointEntry<'a> {
    network: &'a str,
    interface: &'a str,
}

/// Set to `off`, has every vxlane of the tests that is not told otherwise be without the express lane;
/// set to `switched`, has its networks leave it and come back every second.
const EXPRESS: &str = "VXLANE_EXPRESS";

/// The control socket's name within the instance's directory.
const SOCKET: &str = "vxlane.sock";

/// The state directory's name.
const STATE: &str = "state";

/// The name of the file that collects the daemon's stderr.
const STDERR: &str = "stderr.log";

/// How long the daemon may take until it says `ready`: with a thousand endpoints on a busy machine.
const START: Duration = Duration::from_secs(120);
