//! Network namespaces that exist as long as their value, and threads and programs inside them.
//!
//! A namespace is named `vxl-<process id>-<count>-<name>` and is visible to `ip netns`. What a
//! killed test run left behind is recognised by its process id and removed by the next run.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once};
use std::{io, panic, thread};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::LabError;
use crate::process::{self as programs, Guard};

/// A network namespace of our own, with `lo` up; removed when dropped.
///
/// It comes with a BPF file system of its own, which programs inside find at `/sys/fs/bpf`
/// and which outlives them, so that what a daemon pins is there when it is started again, and
/// with a [`directory`](Self::directory) for files that live as long as the namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    handle: Arc<File>,
    bpffs: PathBuf,
}

impl Netns {
    /// Makes a namespace whose unique name ends in `name`.
    ///
    /// # Errors
    /// Fails without root, or when the kernel refuses.
    pub fn new(name: &str) -> Result<Self, LabError> {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(remove_leftovers);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}-{name}", process::id());
        programs::run(Command::new("ip").args(["netns", "add", &name]))?;
        let path = Path::new(NETNS_DIR).join(&name);
        let handle = match File::open(&path) {
            Ok(handle) => Arc::new(handle),
            Err(source) => {
                let error = LabError::syscall("open", path.display().to_string())(source);
                remove(&name);
                return Err(error);
            }
        };
        let bpffs = bpffs_path(&name);
        let made = Self { name, handle, bpffs };
        made.mount_bpffs()?;
        // Devices get no IPv6 address by themselves: only what a test asks for is on the wire.
        made.sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        made.ip("link set lo up")?;
        Ok(made)
    }

    /// The name by which `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for files that are to go when the namespace goes, whatever becomes of this run.
    pub fn directory(&self) -> PathBuf {
        directory_of(&self.name)
    }

    /// Runs `work` in a fresh thread inside the namespace and returns what it returns.
    ///
    /// The thread sees the namespace's own `/sys`. Sockets it opens may be used from anywhere
    /// afterwards: they stay in the namespace. A panic in `work` goes on in the caller.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when the thread cannot enter.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let door = self.door();
        let outcome = thread::scope(|scope| {
            scope
                .spawn(move || door.enter().map(|()| work()))
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        });
        outcome.map_err(LabError::syscall("setns", self.name.clone()))
    }

    /// A command that will run inside the namespace, with the namespace's own `/sys`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        enter_before_exec(&mut command, self.door());
        command
    }

    /// Starts `command`, which must come from [`command`](Self::command), in the background.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Guard, LabError> {
        programs::spawn(command)
    }

    /// Runs `ip` with the words of `arguments` inside the namespace and returns its output.
    ///
    /// # Errors
    /// [`LabError::Command`] when `ip` fails.
    pub fn ip(&self, arguments: &str) -> Result<String, LabError> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]);
        programs::stdout(command.args(arguments.split_whitespace()))
    }

    /// The interfaces of the namespace, as `ip -j -s link show` tells of them.
    ///
    /// # Errors
    /// [`LabError::Command`] when `ip` fails, [`LabError::Unfit`] when it prints something else.
    pub fn links(&self) -> Result<Vec<Value>, LabError> {
        let text = self.ip("-j -s link show")?;
        serde_json::from_str(&text).map_err(|_| LabError::Unfit { what: "no list of interfaces", text })
    }

    /// The interface that leads from the express lane of a vxlane here to its workers, if there is one.
    ///
    /// # Errors
    /// As [`links`](Self::links).
    pub fn punt(&self) -> Result<Option<Value>, LabError> {
        let is_punt = |link: &Value| link["ifname"].as_str().is_some_and(|name| name.starts_with("vxp"));
        Ok(self.links()?.into_iter().find(is_punt))
    }

    /// Frames that the interfaces of the namespace have lost.
    ///
    /// # Errors
    /// As [`links`](Self::links).
    pub fn lost_by_links(&self) -> Result<u64, LabError> {
        let lost = |link: &Value| {
            let number = |way: &str, what: &str| link["stats64"][way][what].as_u64().unwrap_or(0);
            ["rx", "tx"].map(|way| number(way, "dropped") + number(way, "errors")).iter().sum::<u64>()
        };
        Ok(self.links()?.iter().map(lost).sum())
    }

    /// Runs `bridge` with the words of `arguments` inside the namespace and returns its output.
    ///
    /// # Errors
    /// [`LabError::Command`] when `bridge` fails.
    pub fn bridge(&self, arguments: &str) -> Result<String, LabError> {
        let mut command = Command::new("bridge");
        command.args(["-n", &self.name]);
        programs::stdout(command.args(arguments.split_whitespace()))
    }

    /// Runs `ethtool` with the words of `arguments` inside the namespace and returns its output.
    ///
    /// # Errors
    /// [`LabError::Command`] when `ethtool` fails.
    pub fn ethtool(&self, arguments: &str) -> Result<String, LabError> {
        programs::stdout(self.command("ethtool").args(arguments.split_whitespace()))
    }

    /// Writes `value` to a kernel setting of the namespace, named like `net/ipv4/ip_forward`.
    ///
    /// # Errors
    /// [`LabError::Syscall`] when there is no such setting or the kernel refuses the value.
    pub fn sysctl(&self, setting: &str, value: &str) -> Result<(), LabError> {
        let path = format!("/proc/sys/{setting}");
        // Settings below /proc/sys/net belong to the namespace of the task that opens them.
        self.run(|| fs::write(&path, value))?.map_err(LabError::syscall("write", path.clone()))
    }

    /// The processes that are inside the namespace now.
    pub fn processes(&self) -> Vec<u32> {
        processes_inside(&self.name)
    }

    fn mount_bpffs(&self) -> Result<(), LabError> {
        let object = self.bpffs.display().to_string();
        fs::create_dir_all(&self.bpffs).map_err(LabError::syscall("mkdir", object.clone()))?;
        mount(Some("bpf"), &self.bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
            .map_err(LabError::syscall("mount", object))
    }

    fn door(&self) -> Door {
        Door {
            netns: Arc::clone(&self.handle),
            // The path is made of our own prefix, digits and a test's name: never a NUL.
            bpffs: CString::new(self.bpffs.to_string_lossy().as_bytes()).unwrap_or_default(),
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// The way into a namespace for one thread or one forked child.
struct Door {
    netns: Arc<File>,
    bpffs: CString,
}

impl Door {
    /// Moves the calling thread into the namespace and gives it a `/sys` that shows it.
    ///
    /// Only system calls, no allocation: it also runs between fork and exec.
    fn enter(&self) -> Result<(), nix::Error> {
        const NONE: Option<&str> = None;
        setns(&*self.netns, CloneFlags::CLONE_NEWNET)?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        // A slave takes part in unmounts outside, so a namespace that ends is not kept here.
        mount(NONE, c"/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE)?;
        umount2(c"/sys", MntFlags::MNT_DETACH)?;
        mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), MsFlags::empty(), NONE)?;
        mount(Some(self.bpffs.as_c_str()), c"/sys/fs/bpf", NONE, MsFlags::MS_BIND, NONE)
    }
}

#[expect(unsafe_code, reason = "only a child between fork and exec can enter for its program")]
fn enter_before_exec(command: &mut Command, door: Door) {
    // SAFETY: the closure runs in the forked child, where only async-signal-safe calls are
    // allowed. `Door::enter` makes the system calls setns, unshare, mount and umount2 and
    // nothing else: its paths are C strings that nix passes on as they are, the file system
    // names are literals, and an error is a plain number turned into `io::Error` without
    // allocating. The closure owns `door`, so the descriptor is open in the child.
    unsafe {
        command.pre_exec(move || door.enter().map_err(io::Error::from));
    }
}

/// Removes the namespaces, and ends the processes in them, of test runs that no longer exist.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = owner_of(&name) else {
            continue;
        };
        if Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        for pid in processes_inside(&name) {
            // Whoever is in our namespace after its owner's end was started by that owner.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        remove(&name);
    }
}

/// The process that made the namespace called `name`, if it is one of ours.
fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Takes away the namespace called `name` and its files, whatever is left of them.
fn remove(name: &str) {
    let bpffs = bpffs_path(name);
    // Each step may find its work already done by another test process's sweep.
    let _ = umount2(&bpffs, MntFlags::MNT_DETACH);
    let _ = fs::remove_dir_all(directory_of(name));
    let path = Path::new(NETNS_DIR).join(name);
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(&path);
}

/// The processes whose network namespace is the one called `name`.
fn processes_inside(name: &str) -> Vec<u32> {
    let Ok(wanted) = fs::metadata(Path::new(NETNS_DIR).join(name)) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()))
        })
        .collect()
}

fn directory_of(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Where a namespace's BPF file system is mounted.
fn bpffs_path(name: &str) -> PathBuf {
    directory_of(name).join("bpf")
}

/// Numbers the namespaces of this process.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// How the names of all our namespaces begin.
pub const PREFIX: &str = "vxl-";

/// Where `ip netns` keeps its names.
const NETNS_DIR: &str = "/run/netns";

/// Where each namespace has a directory.
const DIRECTORY: &str = "/run/vxlane-tests";
