//! `vxlane run`: from a configuration file to forwarding, and back.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    api::{
        listener::{ListenError, Listener},
        server::Shared,
    },
    causes::chain,
    config::{ConfigError, ConfigFile},
    daemon::{self, Daemon, Estate, Look, PauseError, Places, RestoreError, StartError},
    desired::{Desired, Device, Host},
    host,
    keep::{Held, Keeper},
    netlink::Watch,
    notify,
    store::Embedded,
};

/// Why the daemon did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file, or what it asks for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// This process may not do what is needed.
    #[error("`vxlane run` needs root: this process lacks {0}")]
    Privilege(String),
    /// What this host has could not be found out.
    #[error("looking at this host")]
    Host(#[source] io::Error),
    /// The state directory cannot be used.
    #[error("state directory {}: {reason}", .path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// In words.
        reason: String,
    },
    /// What an earlier daemon has left attached cannot be had, or ours not be kept.
    #[error("asking who keeps interfaces attached between two daemons")]
    Keep(#[source] io::Error),
    /// What an earlier life was asked for cannot be had back.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The API cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The dataplane cannot be had.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Signals, netlink or the API's socket failed.
    #[error("waiting for events")]
    Events(#[source] io::Error),
    /// The next process cannot be given what is ours.
    #[error("restarting")]
    Pause(#[from] PauseError),
    /// There is no next process.
    #[error("{}", .program.display())]
    Exec {
        /// The program.
        program: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

/// How often next hops are looked at though nobody told of a change.
const LOOK: Duration = Duration::from_secs(1);
/// How long news may gather before they are looked at, and answers may take to leave.
const GATHER: Duration = Duration::from_millis(20);
/// In the state directory.
const STORE: &str = "store.redb";

/// Forwards as the file at `config` says, until a signal says to stop; then everything that was
/// attached is detached. The API listens at `socket`, or else where the file says.
///
/// # Errors
/// [`RunError`]; interfaces are as they were found.
pub async fn run(config: &Path, socket: Option<&Path>) -> Result<(), RunError> {
    let file = ConfigFile::load(config)?;
    require_privilege()?;
    host::lift_descriptor_limit();
    let control = file.config.control.clone();
    let socket = socket.unwrap_or(&control.socket);
    // Before the interfaces, on which that daemon's program would be found.
    Listener::probe(socket)?;
    let _state = claim(&control.state)?;
    let patience = Duration::from_secs(control.hold.into());
    let (keeper, held) = Keeper::choose(&control.state, patience).map_err(RunError::Keep)?;
    let (desired, store) = wanted(&file, &held)?;
    let host = look(&desired, &held)?;
    let plan = desired.validate(&host).map_err(|problems| file.refuse(problems))?;
    let listener = Listener::bind(socket, &control).await?;
    // From here on there is something to undo.
    let signals = Signals::catch().map_err(RunError::Events)?;
    // Before the first look, so that nothing happens unseen in between.
    let watch = Watch::start().map_err(RunError::Events)?;
    let program = std::env::current_exe().map_err(RunError::Host)?;
    let places = Places { file: config.to_owned(), control, program };
    let daemon = Daemon::start(desired, host, plan, Estate { store: Box::new(store), keeper, held, places })?;
    let (status, pulse) = (daemon.to_string(), daemon.pulse());
    let daemon = Shared::new(daemon);
    say(&format!("ready, {status}"));
    notify::ready(&status);
    let ended = tokio::select! {
        ending = signals.heed(&daemon) => Ok(ending),
        failed = follow(watch, &daemon) => failed,
        failed = listener.serve(daemon.clone()) => failed.map(|()| Ending::Stop).map_err(RunError::Events),
        () = notify::feed_watchdog(pulse) => Ok(Ending::Stop),
    };
    finish(ended?, &daemon)
}

/// Tells whoever reads standard error, if anybody does.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "vxlane: {text}");
}

/// Does what the last signal said.
fn finish(ending: Ending, daemon: &Shared) -> Result<(), RunError> {
    let mut daemon = daemon.lock();
    match ending {
        Ending::Restart => {
            notify::reloading();
            daemon.pause()?;
            let program = daemon.places().program.clone();
            let mut next = Command::new(&program);
            next.args(std::env::args_os().skip(1));
            // These are about descriptors that this process was given.
            for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
                next.env_remove(name);
            }
            Err(RunError::Exec { program, source: next.exec() })
        }
        Ending::Stop if daemon.outlives_a_stop() => {
            notify::stopping();
            daemon.come_to_rest()?;
            // Without a word to the interfaces: the service manager has them now.
            std::process::exit(0)
        }
        Ending::Stop => {
            notify::stopping();
            daemon.end();
            Ok(())
        }
    }
}

/// What the file and the store ask for, and the store.
fn wanted(file: &ConfigFile, held: &Held) -> Result<(Desired, Embedded), RunError> {
    let mut desired = file.desired();
    // What the file says is looked at first, so that a mistake in it changes nothing.
    desired.validate(&look(&desired, held)?).map_err(|problems| file.refuse(problems))?;
    let path = file.config.control.state.join(STORE);
    let mut store = Embedded::open(&path).map_err(RestoreError::Store)?;
    match store.lost() {
        0 => {}
        lost => say(&format!(
            "{} is damaged and has lost the last changes, {lost} of them; what was before is done",
            path.display()
        )),
    }
    daemon::restore(&mut desired, &mut store)?;
    Ok((desired, store))
}

/// This host, as if nothing of what is held were there. After an earlier life, interfaces that
/// have gone meanwhile are waited for.
fn look(desired: &Desired, held: &Held) -> Result<Host, RunError> {
    let mut host = host::look(desired).map_err(RunError::Host)?;
    if held.is_empty() {
        return Ok(host);
    }
    for (name, device) in &mut host.links {
        if host::find(name).map_err(RunError::Host)?.is_some_and(|link| held.has_program_of(&link)) {
            device.program = None;
        }
    }
    for endpoint in &desired.endpoints {
        let missing = Device { mtu: u32::MAX, is_ethernet: true, program: None };
        host.links.entry(endpoint.item.interface.clone()).or_insert(missing);
    }
    Ok(host)
}

/// Makes sure that this process may attach programs and open sockets.
fn require_privilege() -> Result<(), RunError> {
    let missing = host::missing_privilege().map_err(RunError::Host)?;
    if missing.is_empty() { Ok(()) } else { Err(RunError::Privilege(missing.join(", "))) }
}

/// Keeps a second daemon away from the directory at `path` while the result lives.
///
/// # Errors
/// [`RunError::State`]
pub fn claim(path: &Path) -> Result<Flock<File>, RunError> {
    let state = |reason: String| RunError::State { path: path.to_owned(), reason };
    fs::create_dir_all(path).map_err(|error| state(error.to_string()))?;
    let lock = File::create(path.join("lock")).map_err(|error| state(format!("not writable: {error}")))?;
    let locked = Flock::lock(lock, FlockArg::LockExclusiveNonblock);
    locked.map_err(|_| state("another daemon uses it".to_owned()))
}

/// How the daemon is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// For good.
    Stop,
    /// In favour of a new process, which goes on with everything.
    Restart,
}

/// The signals that mean something to us; caught from the moment this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    restart: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            restart: signal(SignalKind::user_defined2())?,
        })
    }

    /// Does what they say, until one says to end.
    async fn heed(mut self, daemon: &Shared) -> Ending {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ending::Stop,
                _ = self.interrupt.recv() => return Ending::Stop,
                _ = self.hangup.recv() => reload(daemon).await,
                _ = self.restart.recv() => {
                    if may_restart(daemon).await {
                        sleep(GATHER).await;
                        return Ending::Restart;
                    }
                }
            }
        }
    }
}

/// SIGHUP: reads the file again. What is wrong with it is told, and changes nothing.
async fn reload(daemon: &Shared) {
    notify::reloading();
    let daemon = daemon.clone();
    let reloaded = spawn_blocking(move || {
        let mut daemon = daemon.lock();
        (daemon.reload(), daemon.to_string())
    });
    match reloaded.await {
        Ok((Ok(()), status)) => notify::ready(&status),
        Ok((Err(error), status)) => {
            for line in chain(&error).lines() {
                say(&format!("not reloaded: {line}"));
            }
            notify::ready(&format!("{status}; the file was not reloaded: it has mistakes"));
        }
        Err(error) => tracing::error!(%error, "reloading"),
    }
}

/// SIGUSR2: whether a new process could go on.
async fn may_restart(daemon: &Shared) -> bool {
    let daemon = daemon.clone();
    match spawn_blocking(move || daemon.lock().check_restart()).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            for line in chain(&error).lines() {
                say(&format!("not restarted: {line}"));
            }
            false
        }
        Err(error) => {
            tracing::error!(%error, "looking whether a restart is possible");
            false
        }
    }
}

/// Keeps ports and tables true to what the kernel knows. Ends only with an error.
async fn follow(mut watch: Watch, daemon: &Shared) -> Result<Ending, RunError> {
    let mut tick = interval(LOOK);
    let bell = daemon.lock().bell();
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let look = tokio::select! {
            _ = tick.tick() => Look::Brief,
            () = bell.notified() => Look::Brief,
            changed = watch.changed() => {
                let links = changed.map_err(RunError::Events)?;
                sleep(GATHER).await;
                if links { Look::Thorough } else { Look::Brief }
            }
        };
        let daemon = daemon.clone();
        let refreshed = spawn_blocking(move || {
            let mut daemon = daemon.lock();
            daemon.reconcile(look)?;
            let refreshed = daemon.refresh();
            daemon.solicit();
            refreshed
        });
        match refreshed.await {
            Ok(Ok(_)) => {}
            Ok(Err(StartError::Gone(worker))) => return Err(StartError::Gone(worker).into()),
            Ok(Err(error)) => tracing::warn!(error = chain(&error), "next hops stay as they were"),
            Err(error) => tracing::error!(%error, "looking at interfaces and next hops"),
        }
    }
}
