//! `vxlane run`: from a configuration file to forwarding, and back.

use std::path::Path;

use crate::config::{ConfigError, ConfigFile};

/// Runs.
///
/// # Errors
/// [`ConfigError`]
pub async fn run(config: &Path, _socket: Option<&Path>) -> Result<(), ConfigError> {
    ConfigFile::load(config).map(drop)
}
