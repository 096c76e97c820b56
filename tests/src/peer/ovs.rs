//! Open vSwitch's userspace datapath as VTEP, with its own database and daemon per host.
//!
//! The set-up is the one its documentation asks for: the underlay address moves to `br-phy`, a
//! userspace bridge that has `uplink` as a port; each network is a bridge of its own with one
//! vxlan port per remote.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::{Segment, VXLAN_PORT, Vtep};
use crate::LabError;
use crate::lab::{Host, UPLINK};
use crate::netns::Netns;
use crate::process::{self, Guard};

/// How Open vSwitch is set up.
#[derive(Clone, Debug, Default)]
pub struct OvsOptions {
    /// How it reaches the uplink and the containers.
    pub port: OvsPort,
}

/// How Open vSwitch reaches a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OvsPort {
    /// Packet sockets, polled by the main thread.
    #[default]
    System,
    /// AF_XDP, polled by the main thread.
    Afxdp(XdpMode),
    /// AF_XDP, polled by threads that never sleep on the CPUs of the mask.
    AfxdpPmd(XdpMode, u64),
}

/// How Open vSwitch attaches its XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// The best mode that works.
    #[default]
    BestEffort,
    /// In the driver, frames copied.
    Native,
    /// In the driver, frames not copied.
    NativeWithZerocopy,
    /// In the kernel's generic hook.
    Generic,
}

impl XdpMode {
    fn word(self) -> &'static str {
        match self {
            Self::BestEffort => "best-effort",
            Self::Native => "native",
            Self::NativeWithZerocopy => "native-with-zerocopy",
            Self::Generic => "generic",
        }
    }
}

/// A running Open vSwitch.
#[derive(Debug)]
pub struct OvsVtep {
    // Dropped in this order: the switch before its database, both before their files.
    vswitchd: Guard,
    ovsdb: Guard,
    files: TempDir,
}

impl OvsVtep {
    /// Starts database and switch on `host` and configures them for `segments`.
    ///
    /// # Errors
    /// The step that failed; the daemons' log is in the message when the switch is the cause.
    pub fn start(host: &Host, segments: &[Segment<'_>], options: &OvsOptions) -> Result<Self, LabError> {
        let files = tempfile::Builder::new()
            .prefix("ovs-")
            .tempdir_in(host.ns().directory())
            .map_err(LabError::syscall("mkdtemp", "a directory for Open vSwitch"))?;
        let ns = host.ns();
        let ovsdb = start_database(ns, files.path())?;
        control(files.path(), &["--no-wait", "init"])?;
        let vswitchd = start_switch(ns, files.path())?;
        let made = Self { vswitchd, ovsdb, files };
        made.configure(host, segments, options).map_err(|error| LabError::Unfit {
            what: "Open vSwitch could not be configured",
            text: format!("{error}\n{}", made.log()),
        })?;
        Ok(made)
    }

    /// Runs `ovs-vsctl` against this instance and returns its output.
    ///
    /// # Errors
    /// [`LabError::Command`] when it fails.
    pub fn vsctl(&self, arguments: &[&str]) -> Result<String, LabError> {
        control(self.files.path(), arguments)
    }

    /// Runs `ovs-appctl` against this instance's switch and returns its output.
    ///
    /// # Errors
    /// [`LabError::Command`] when it fails.
    pub fn appctl(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new("ovs-appctl");
        in_directory(&mut command, self.files.path());
        process::stdout(command.arg("--timeout=10").args(arguments))
    }

    fn log(&self) -> String {
        let files = ["vswitchd.log", "vswitchd.err"];
        let text = files.map(|file| fs::read_to_string(self.files.path().join(file)).unwrap_or_default());
        text.concat()
    }

    fn configure(&self, host: &Host, segments: &[Segment<'_>], options: &OvsOptions) -> Result<(), LabError> {
        if let OvsPort::AfxdpPmd(_, cpus) = options.port {
            let mask = format!("other_config:pmd-cpu-mask={cpus:#x}");
            self.vsctl(&["set", "Open_vSwitch", ".", &mask])?;
        }
        self.move_underlay(host, options.port)?;
        for segment in segments {
            self.connect(host, segment, options.port)?;
        }
        Ok(())
    }

    /// Puts the uplink below `br-phy` and the host's address on it.
    fn move_underlay(&self, host: &Host, port: OvsPort) -> Result<(), LabError> {
        let mac = format!("other-config:hwaddr=\"{}\"", host.uplink_mac());
        self.vsctl(&["add-br", PHY, "--", "set", "bridge", PHY, "datapath_type=netdev", &mac])?;
        host.ns().ip(&format!("address flush dev {UPLINK}"))?;
        self.add_port(PHY, UPLINK, port)?;
        host.address_device(PHY)?;
        host.ns().ip(&format!("link set {PHY} up")).map(drop)
    }

    fn connect(&self, host: &Host, segment: &Segment<'_>, port: OvsPort) -> Result<(), LabError> {
        let bridge = format!("br-{}", segment.network.name);
        self.vsctl(&["add-br", &bridge, "--", "set", "bridge", &bridge, "datapath_type=netdev"])?;
        for (remote, number) in segment.remotes.iter().zip(0u8..) {
            let name = format!("vx{number}-{}", segment.network.name);
            let local = format!("options:local_ip={}", host.towards(*remote));
            let there = format!("options:remote_ip={remote}");
            let key = format!("options:key={}", segment.network.vni);
            let udp_port = format!("options:dst_port={VXLAN_PORT}");
            // A protected port does not forward to another: no way from tunnel to tunnel.
            self.vsctl(&[
                "add-port",
                &bridge,
                &name,
                "--",
                "set",
                "port",
                &name,
                "protected=true",
                "--",
                "set",
                "interface",
                &name,
                "type=vxlan",
                &local,
                &there,
                &key,
                &udp_port,
            ])?;
        }
        for container in &segment.containers {
            // This datapath takes a frame's checksums as they are.
            container.without_offload()?;
            self.add_port(&bridge, container.port(), port)?;
        }
        Ok(())
    }

    fn add_port(&self, bridge: &str, device: &str, port: OvsPort) -> Result<(), LabError> {
        let (kind, mode) = match port {
            OvsPort::System => {
                return self.vsctl(&["add-port", bridge, device]).map(drop);
            }
            OvsPort::Afxdp(mode) => ("type=afxdp-nonpmd", mode),
            OvsPort::AfxdpPmd(mode, _) => ("type=afxdp", mode),
        };
        let mode = format!("options:xdp-mode={}", mode.word());
        self.vsctl(&["add-port", bridge, device, "--", "set", "interface", device, kind, "options:n_rxq=1", &mode])?;
        let error = self.vsctl(&["get", "interface", device, "error"])?;
        if error.trim() == "[]" {
            return Ok(());
        }
        Err(LabError::Unfit { what: "Open vSwitch refused a port", text: format!("{device}: {error}") })
    }
}

impl Vtep for OvsVtep {
    fn kind(&self) -> &'static str {
        "ovs"
    }

    fn diagnosis(&self) -> String {
        let answers = [self.vsctl(&["show"]), self.appctl(&["dpctl/show", "-s"]), self.appctl(&["tnl/neigh/show"])];
        let mut text: Vec<String> =
            answers.into_iter().map(|answer| answer.unwrap_or_else(|error| error.to_string())).collect();
        text.push(self.log());
        text.join("\n")
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.ovsdb.pid(), self.vswitchd.pid()]
    }
}

impl Drop for OvsVtep {
    fn drop(&mut self) {
        // The bridges' tap devices end with the switch. Ask it first: it then also detaches
        // its XDP programs, which a signal alone would leave on the devices.
        let _ = self.appctl(&["exit", "--cleanup"]);
        let _ = self.vswitchd.wait(Duration::from_secs(2));
    }
}

fn start_database(ns: &Netns, directory: &Path) -> Result<Guard, LabError> {
    let database = directory.join("conf.db");
    process::run(Command::new("ovsdb-tool").arg("create").arg(&database).arg(SCHEMA))?;
    let mut command = ns.command("ovsdb-server");
    in_directory(&mut command, directory);
    command
        .arg(format!("--remote=punix:{}", directory.join("db.sock").display()))
        .args(["--no-chdir", "--pidfile", "-vconsole:off", "-vsyslog:off", "-vfile:info"])
        .arg(format!("--log-file={}", directory.join("ovsdb.log").display()))
        .arg(&database);
    let mut server = ns.spawn(&mut command)?;
    let socket = directory.join("db.sock");
    process::await_value(
        "socket of ovsdb-server",
        START,
        || socket.exists().then_some(()),
        || format!("server ended: {:?}", server.ended()),
    )?;
    Ok(server)
}

fn start_switch(ns: &Netns, directory: &Path) -> Result<Guard, LabError> {
    let mut command = ns.command("ovs-vswitchd");
    in_directory(&mut command, directory);
    command
        .args(["--no-chdir", "--pidfile", "-vconsole:off", "-vsyslog:off", "-vfile:info"])
        .arg("--disable-system")
        .arg(format!("--log-file={}", directory.join("vswitchd.log").display()))
        .arg(format!("unix:{}", directory.join("db.sock").display()));
    // libxdp speaks to stderr whatever the logging options say.
    let words = directory.join("vswitchd.err");
    let words = File::create(&words).map_err(LabError::syscall("create", words.display().to_string()))?;
    command.stderr(words);
    ns.spawn(&mut command)
}

/// Runs `ovs-vsctl` against the database in `directory`.
fn control(directory: &Path, arguments: &[&str]) -> Result<String, LabError> {
    let mut command = Command::new("ovs-vsctl");
    in_directory(&mut command, directory);
    let database = format!("--db=unix:{}", directory.join("db.sock").display());
    process::stdout(command.args(["--timeout=10", &database]).args(arguments))
}

/// Makes an Open vSwitch program keep all its files in `directory`.
fn in_directory(command: &mut Command, directory: &Path) {
    for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, directory);
    }
}

/// The bridge that has the uplink as a port.
const PHY: &str = "br-phy";

/// Where Debian puts the database schema.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// How long a daemon may take to start.
const START: Duration = Duration::from_secs(10);
