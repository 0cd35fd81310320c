//! The config with the apps that there are, as a start, the check and a reload read it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ffconfig::{LoadError, Loaded};
use futures_util::future::BoxFuture;
use tokio::task::{JoinError, spawn_blocking};
use tracing::warn;

use crate::check;
use crate::supervisor::program::{AppsError, Programs};

/// Reads the config again.
pub type Source = Arc<dyn Fn() -> BoxFuture<'static, Result<Loaded, SourceError>> + Send + Sync>;

/// Why a config cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The config has faults, or cannot be read.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// The program that it names does not tell its apps.
    #[error(transparent)]
    Apps(#[from] AppsError),
    /// The config is sound, and apps of the program that it names do not fit their nodes in it: the one or the other is wrong.
    #[error("{0}")]
    Unfit(LoadError),
    /// Who reads it has panicked.
    #[error("the config cannot be read: {0}")]
    Task(#[from] JoinError),
}

/// The environment of a config: what a variable is.
type Environment = fn(&str) -> Option<String>;

/// A source that reads a config file for a reload, before which nothing is touched: the program is asked whether its apps fit
/// their nodes, as `master --check` does. One of an earlier release, which does not know the question, is taken as it is.
pub fn source(path: PathBuf, programs: Programs, env: Environment) -> Source {
    Arc::new(move || {
        let (path, programs) = (path.clone(), programs.clone());
        Box::pin(async move {
            let loaded = load(&path, &programs, env).await?;
            let program = programs.of(loaded.cluster.appmain.as_deref());
            let apps = program.check_apps(&path).await;
            let odd = check::fitting(&loaded, &apps).map_err(SourceError::Unfit)?;
            odd.iter().for_each(|odd| warn!("{odd}"));
            Ok(loaded)
        })
    })
}

/// Reads a config file, and asks the program that it names which apps there are. Without their names the config is checked as far
/// as that goes: its faults come first.
///
/// # Errors
/// With every fault of the config, or why the program does not tell its apps.
pub async fn load(path: &Path, programs: &Programs, env: Environment) -> Result<Loaded, SourceError> {
    let file = path.to_owned();
    let named = spawn_blocking(move || ffconfig::load_appmain(&file, &env)).await?;
    let (known, unknown) = match programs.of(named.as_deref()).apps().await {
        Ok(apps) => (Some(apps), None),
        Err(error) => (None, Some(error)),
    };
    let file = path.to_owned();
    let loaded = spawn_blocking(move || ffconfig::load_with_apps(&file, &env, known.as_deref())).await??;
    unknown.map_or(Ok(loaded), |unknown| Err(unknown.into()))
}
