//! `vxlane run`: from a configuration file to forwarding, and back.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{
    api::{
        listener::{ListenError, Listener},
        server::Shared,
    },
    causes::chain,
    config::{ConfigError, ConfigFile},
    daemon::{self, Daemon, Look, RestoreError, StartError},
    host,
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
}

/// How often next hops are looked at though nobody told of a change.
const LOOK: Duration = Duration::from_secs(1);
/// How long news may gather before they are looked at.
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
    let control = &file.config.control;
    let socket = socket.unwrap_or(&control.socket);
    // Before the interfaces, on which that daemon's program would be found.
    Listener::probe(socket)?;
    let mut desired = file.desired();
    // What the file says is looked at first, so that a mistake in it changes nothing.
    let host = host::look(&desired).map_err(RunError::Host)?;
    desired.validate(&host).map_err(|problems| file.refuse(problems))?;
    let _state = claim(&control.state)?;
    let mut store = Embedded::open(&control.state.join(STORE)).map_err(RestoreError::Store)?;
    daemon::restore(&mut desired, &mut store)?;
    let host = host::look(&desired).map_err(RunError::Host)?;
    let plan = desired.validate(&host).map_err(|problems| file.refuse(problems))?;
    let listener = Listener::bind(socket)?;
    // From here on there is something to undo.
    let signals = Signals::catch().map_err(RunError::Events)?;
    // Before the first look, so that nothing happens unseen in between.
    let watch = Watch::start().map_err(RunError::Events)?;
    let daemon = Daemon::start(desired, host, plan, Box::new(store))?;
    let (status, pulse) = (daemon.to_string(), daemon.pulse());
    let daemon = Shared::new(daemon);
    eprintln!("vxlane: ready, {status}");
    notify::ready(&status);
    let ended = tokio::select! {
        () = signals.stop(&status) => Ok(()),
        failed = follow(watch, &daemon) => failed,
        failed = listener.serve(daemon.clone()) => failed.map_err(RunError::Events),
        () = notify::feed_watchdog(pulse) => Ok(()),
    };
    notify::stopping();
    ended
}

/// Makes sure that this process may attach programs and open sockets.
fn require_privilege() -> Result<(), RunError> {
    let missing = host::missing_privilege().map_err(RunError::Host)?;
    if missing.is_empty() { Ok(()) } else { Err(RunError::Privilege(missing.join(", "))) }
}

/// Keeps a second daemon away from the directory at `path` while the result lives.
fn claim(path: &Path) -> Result<Flock<File>, RunError> {
    let state = |reason: String| RunError::State { path: path.to_owned(), reason };
    fs::create_dir_all(path).map_err(|error| state(error.to_string()))?;
    let lock = File::create(path.join("lock")).map_err(|error| state(format!("not writable: {error}")))?;
    let locked = Flock::lock(lock, FlockArg::LockExclusiveNonblock);
    locked.map_err(|_| state("another daemon uses it".to_owned()))
}

/// The signals that mean something to us; caught from the moment this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for one that says to stop.
    async fn stop(mut self, status: &str) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    notify::reloading();
                    tracing::warn!("SIGHUP: the file is read at the start only; nothing was changed");
                    notify::ready(status);
                }
            }
        }
    }
}

/// Keeps ports and tables true to what the kernel knows. Ends only with an error.
async fn follow(mut watch: Watch, daemon: &Shared) -> Result<(), RunError> {
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
        let refreshed = tokio::task::spawn_blocking(move || {
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
