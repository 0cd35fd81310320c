//! What is shown of the log, by level and target: as the config or `FF_LOG` says at the start, and as it is told later.

use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// What is shown when nobody says otherwise; what is told at run time is put behind it.
const BASE: &str = "info,rocket=off,_=off,sqlx=warn";

/// Levels that are not understood.
#[derive(Debug, Clone, thiserror::Error)]
#[error("`{text}` are no levels, such as `debug` or `info,ffserver::gateway=debug`: {why}")]
pub struct LevelsError {
    text: String,
    why: String,
}

/// The levels of a process.
#[derive(Debug)]
pub(crate) struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    first: String,
    now: Mutex<String>,
}

/// What is filtered by, and its handle. `own` is the config's; `env` the environment's, which wins as it stands.
pub(crate) fn filter(
    own: Option<&str>,
    env: Option<&str>,
) -> (reload::Layer<EnvFilter, Registry>, Levels, Option<LevelsError>) {
    let told = match (env, own) {
        (Some(env), _) => Some(parse(env, env.to_owned())),
        (None, Some(own)) => Some(behind_base(own)),
        (None, None) => None,
    };
    let (parsed, fault) = match told {
        Some(Ok(parsed)) => (parsed, None),
        Some(Err(fault)) => ((EnvFilter::new(BASE), BASE.to_owned()), Some(fault)),
        None => ((EnvFilter::new(BASE), BASE.to_owned()), None),
    };
    let (filter, first) = parsed;
    let (layer, handle) = reload::Layer::new(filter);
    (layer, Levels { handle, now: Mutex::new(first.clone()), first }, fault)
}

fn behind_base(text: &str) -> Result<(EnvFilter, String), LevelsError> {
    parse(text, format!("{BASE},{text}"))
}

fn parse(text: &str, whole: String) -> Result<(EnvFilter, String), LevelsError> {
    let fault = |why: String| LevelsError { text: crate::escape::readable(text, 200).into_owned(), why };
    match EnvFilter::try_new(&whole) {
        Ok(filter) => Ok((filter, whole)),
        Err(error) => Err(fault(error.to_string())),
    }
}

impl Levels {
    /// Shows this from now on; an empty text is what was shown at the start.
    pub(crate) fn set(&self, text: &str) -> Result<(), LevelsError> {
        let text = text.trim();
        let (filter, whole) =
            if text.is_empty() { parse("", self.first.clone())? } else { behind_base(text)? };
        self.handle
            .reload(filter)
            .map_err(|error| LevelsError { text: text.into(), why: error.to_string() })?;
        *self.now.lock() = whole;
        Ok(())
    }

    /// What is shown now.
    pub(crate) fn now(&self) -> String {
        self.now.lock().clone()
    }
}
