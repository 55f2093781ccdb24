//! Log lines: text for people or JSON for collectors, with levels that can change while running.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The level of a logger, in Kafka's (log4j's) words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    /// Parses a name in any case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "TRACE" => Some(Self::Trace),
            "DEBUG" => Some(Self::Debug),
            "INFO" => Some(Self::Info),
            "WARN" => Some(Self::Warn),
            "ERROR" => Some(Self::Error),
            "FATAL" => Some(Self::Fatal),
            _ => None,
        }
    }

    /// The name as `DescribeConfigs` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "TRACE",
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    fn directive(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error | Self::Fatal => "error",
        }
    }
}

/// Kafka's loggers that have a counterpart here, and the module whose lines they stand for.
const LOGGERS: &[(&str, &str)] = &[
    ("kafka", "barnabas_broker"),
    ("kafka.controller", "barnabas_broker::controller"),
    ("kafka.coordinator", "barnabas_broker::coordinator"),
    ("kafka.log", "barnabas_broker::log"),
    ("kafka.network", "barnabas_broker::net"),
    ("kafka.request.logger", "barnabas_broker::api"),
    ("kafka.server.KafkaApis", "barnabas_broker::api"),
    ("kafka.server.KafkaServer", "barnabas_broker::server"),
    ("kafka.server.ReplicaManager", "barnabas_broker::replica"),
    ("kafka.zookeeper", "barnabas_broker::zookeeper"),
];

/// The logger of everything that has none of its own.
pub const ROOT_LOGGER: &str = "root";

/// Levels of loggers; those that are not set have the level of what encloses them.
#[derive(Debug)]
struct Levels {
    /// What the environment said, kept in force for what nobody changed.
    initial: String,
    root: Level,
    set: BTreeMap<&'static str, Level>,
}

type FilterHandle = reload::Handle<EnvFilter, Registry>;

static FILTER: OnceLock<FilterHandle> = OnceLock::new();
static LEVELS: Mutex<Levels> = Mutex::new(Levels {
    initial: String::new(),
    root: Level::Info,
    set: BTreeMap::new(),
});

/// Starts logging to standard output. `BARNABAS_LOG`, else `RUST_LOG`, sets levels
/// (`info`, or `warn,barnabas_broker::net=debug`).
pub fn start(format: LogFormat) {
    let levels = std::env::var("BARNABAS_LOG").or_else(|_| std::env::var("RUST_LOG"));
    let initial = levels.unwrap_or_else(|_| "info".to_owned());
    let root = initial
        .split(',')
        .find_map(Level::parse)
        .unwrap_or(Level::Info);
    {
        let mut levels = LEVELS.lock().unwrap_or_else(PoisonError::into_inner);
        levels.initial.clone_from(&initial);
        levels.root = root;
    }
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse_lossy(initial);
    let (filter, handle) = reload::Layer::new(filter);
    let lines = match format {
        LogFormat::Text => fmt::layer().with_ansi(is_terminal()).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
    if started.is_ok() {
        // The first call only: a second one has failed to start.
        let _ = FILTER.set(handle);
    }
}

fn is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout())
}

/// All loggers with the levels in force.
pub fn loggers() -> Vec<(&'static str, Level)> {
    let levels = LEVELS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = LOGGERS.iter().map(|(name, _)| *name);
    std::iter::once(ROOT_LOGGER)
        .chain(known)
        .map(|name| (name, level_in_force(&levels, name)))
        .collect()
}

/// Whether a logger of this name can be seen and set.
pub fn logger_exists(name: &str) -> bool {
    name == ROOT_LOGGER || LOGGERS.iter().any(|(known, _)| *known == name)
}

fn level_in_force(levels: &Levels, name: &str) -> Level {
    let mut scope = name;
    loop {
        if let Some(level) = levels.set.get(scope) {
            return *level;
        }
        match scope.rsplit_once('.') {
            Some((outer, _)) => scope = outer,
            None => return levels.set.get(ROOT_LOGGER).copied().unwrap_or(levels.root),
        }
    }
}

/// Sets the level of a logger, or with `None` gives it back to what encloses it. Unknown names are ignored.
pub fn set_level(name: &str, level: Option<Level>) {
    let mut levels = LEVELS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = LOGGERS.iter().map(|(known, _)| *known).chain([ROOT_LOGGER]);
    let Some(name) = known.into_iter().find(|known| *known == name) else {
        return;
    };
    match level {
        Some(level) => levels.set.insert(name, level),
        None => levels.set.remove(name),
    };
    let mut directives = vec![levels.initial.clone()];
    if let Some(root) = levels.set.get(ROOT_LOGGER) {
        directives.push(root.directive().to_owned());
    }
    for (logger, target) in LOGGERS {
        if let Some(level) = levels.set.get(logger) {
            directives.push(format!("{target}={}", level.directive()));
        }
    }
    if let Some(filter) = FILTER.get() {
        let changed = filter.reload(EnvFilter::builder().parse_lossy(directives.join(",")));
        if let Err(error) = changed {
            tracing::warn!(%error, "could not change log levels");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_without_a_level_has_that_of_what_encloses_it() {
        let mut levels = Levels {
            initial: "info".to_owned(),
            root: Level::Info,
            set: BTreeMap::new(),
        };
        assert_eq!(
            level_in_force(&levels, "kafka.server.KafkaServer"),
            Level::Info
        );
        levels.set.insert("kafka", Level::Debug);
        levels.set.insert(ROOT_LOGGER, Level::Warn);
        assert_eq!(
            level_in_force(&levels, "kafka.server.KafkaServer"),
            Level::Debug
        );
        assert_eq!(level_in_force(&levels, ROOT_LOGGER), Level::Warn);
    }

    #[test]
    fn levels_have_log4js_names() {
        assert_eq!(Level::parse("debug"), Some(Level::Debug));
        assert_eq!(Level::parse("FOO"), None);
        assert_eq!(Level::parse("Fatal").map(Level::name), Some("FATAL"));
    }
}
