//! Has networks of a running vxlane leave the express lane and come back, again and again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Switches until dropped.
#[derive(Debug)]
pub(super) struct Switch {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Has the daemon of `binary` behind `socket` read one of `texts` after the other as its
    /// file `config`, one in each `period`.
    pub(super) fn start(
        binary: PathBuf,
        socket: PathBuf,
        config: PathBuf,
        texts: [String; 2],
        period: Duration,
    ) -> Self {
        let (stop, count): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let thread = {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            thread::spawn(move || {
                for text in texts.iter().cycle() {
                    if !wait(&stop, period) {
                        return;
                    }
                    // A daemon that a test has stopped just now reads the file when it is back.
                    if reload(&binary, &socket, &config, text) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        };
        Self { stop, count, thread: Some(thread) }
    }

    /// How often it has switched so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Waits for the next switch; `false` if there is to be none.
fn wait(stop: &AtomicBool, period: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < period {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

fn reload(binary: &Path, socket: &Path, config: &Path, text: &str) -> bool {
    let new = config.with_extension("new");
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, config));
    let mut command = Command::new(binary);
    command.arg("--socket").arg(socket).arg("reload");
    written.is_ok() && command.output().is_ok_and(|output| output.status.success())
}
