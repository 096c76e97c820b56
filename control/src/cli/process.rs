//! `vxlane reload`, `vxlane restart` and `vxlane detach`: the daemon itself.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use hyper::{Method, body::Bytes};
use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    time::{sleep, timeout},
};
use vxlane_dataplane::{attach::express::sweep, link::Link};

use super::Question;
use crate::{api::client::ClientError, config::ConfigFile, keep::hold, netlink, run};

/// `vxlane hold`
#[derive(Clone, Debug, Args)]
pub struct HoldArgs {
    /// How long to wait for the next daemon, in seconds
    #[arg(long)]
    pub patience: u64,
    /// The name of the socket that standard input is
    #[arg(long)]
    pub listening: PathBuf,
}

/// `vxlane detach`
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// The configuration file of the daemon that has ended
    #[arg(long, value_name = "FILE", default_value = "/etc/vxlane/vxlane.toml")]
    pub config: PathBuf,
}

/// How long the next process may take to answer.
const READY: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn reload(ask: &Question<'_>) -> Result<String, ClientError> {
    ask.send(Method::POST, "/v1/reload", Bytes::new()).await?;
    Ok(String::new())
}

/// Returns when the next process answers.
pub(super) async fn restart(ask: &Question<'_>) -> Result<String, ClientError> {
    // The old process has this connection as long as it lives.
    let mut old = UnixStream::connect(ask.socket()).await.ok();
    ask.send(Method::POST, "/v1/restart", Bytes::new()).await?;
    let next = async {
        if let Some(old) = &mut old {
            // However it ends, it has ended.
            let _ = old.read(&mut [0]).await;
        }
        while ask.send(Method::GET, "/v1/status", Bytes::new()).await.is_err() {
            sleep(LOOK).await;
        }
    };
    if timeout(READY, next).await.is_err() {
        // Says what is wrong, in the words of whoever would like to connect.
        ask.send(Method::GET, "/v1/status", Bytes::new()).await?;
    }
    Ok(String::new())
}

/// Leaves interfaces as they were found by a daemon that has ended and will not come back.
///
/// # Errors
/// If a daemon is there, or whoever keeps them attached does not answer.
pub fn detach(args: &DetachArgs) -> anyhow::Result<()> {
    let file = ConfigFile::load(&args.config)?.config;
    let state = file.control.state;
    let _claimed = run::claim(&state)?;
    let held = hold::detach(&state).with_context(|| asking(&state))?;
    let left = remove_lane(&file.underlay.interface)?;
    if !held && !left {
        bail!("nothing is kept attached for {}", state.display());
    }
    Ok(())
}

/// Removes what an express lane has left behind that nobody keeps, and says whether there was any.
fn remove_lane(uplink: &str) -> anyhow::Result<bool> {
    let Ok(uplink) = Link::get(uplink) else { return Ok(false) };
    let swept = sweep(&uplink.name);
    let [punt, _] = netlink::punt_names(uplink.index);
    if !netlink::is_punt(&punt) {
        return Ok(swept);
    }
    netlink::remove_pair(&punt).with_context(|| format!("removing {punt}"))?;
    Ok(true)
}

fn asking(state: &Path) -> String {
    format!("asking the holder of {}", state.display())
}
