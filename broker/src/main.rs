//! Arguments, configuration, run.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use barnabas_broker::config::sources;
use barnabas_broker::server::{self, Server};
use barnabas_broker::telemetry::{self, LogFormat};
use barnabas_core::config::{BrokerConfig, ConfigError};
use clap::Parser;

/// A broker that is Apache Kafka 3.9 in ZooKeeper mode to every client, tool, peer and znode.
#[derive(Parser)]
#[command(name = "barnabas-broker", version = server::VERSION)]
struct Arguments {
    /// Settings: a properties file such as Kafka's server.properties, or YAML (.yaml, .yml).
    ///
    /// A setting may also come from the environment (log.dirs as `BARNABAS_LOG_DIRS`), which wins over the file.
    config: Option<PathBuf>,

    /// Set one setting; wins over the file and the environment. May be repeated.
    #[arg(long = "override", value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// Check the settings, say what is wrong with them, and exit.
    #[arg(long)]
    check: bool,

    /// How log lines look.
    #[arg(long, value_enum, env = "BARNABAS_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let texts = sources::read(
        arguments.config.as_deref(),
        std::env::vars(),
        &arguments.overrides,
    );
    let texts = match texts {
        Ok(texts) => texts,
        Err(error) => return refuse(&[error.to_string()]),
    };
    let mut problems = BrokerConfig::problems(&texts);
    let config = match BrokerConfig::parse(&texts) {
        Ok(config) => {
            problems.extend(server::cannot_serve(&config));
            Some(config)
        }
        Err(_) => None,
    };
    let (Some(config), true) = (config, problems.is_empty()) else {
        let sentences: Vec<String> = problems.iter().map(ConfigError::to_string).collect();
        return refuse(&sentences);
    };
    if arguments.check {
        return report(&config);
    }
    telemetry::start(arguments.log_format);
    for remark in remarks(&config) {
        tracing::warn!("{remark}");
    }
    run(config)
}

/// What is odd about settings that are nevertheless usable.
fn remarks(config: &BrokerConfig) -> Vec<String> {
    let unknown = config.unknown_keys();
    let not_yet = config.keys_not_honoured_yet();
    let list = |keys: &[&str], what: &str| {
        (!keys.is_empty()).then(|| format!("{what}: {}", keys.join(", ")))
    };
    [
        list(&unknown, "unknown settings, ignored"),
        list(&not_yet, "settings that have no effect yet"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn refuse(sentences: &[String]) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    for sentence in sentences {
        // There is nobody left to tell if standard error is gone.
        let _ = writeln!(stderr, "barnabas-broker: {sentence}");
    }
    ExitCode::FAILURE
}

fn report(config: &BrokerConfig) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    let lines = remarks(config)
        .into_iter()
        .chain(["the settings are fine".to_owned()]);
    for line in lines {
        if writeln!(stdout, "{line}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(config: BrokerConfig) -> ExitCode {
    let runtime = match server::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(&[format!("cannot start threads: {error}")]),
    };
    runtime.block_on(async {
        let interrupted = server::interrupted();
        let running = match Server::start(config).await {
            Ok(running) => running,
            Err(error) => {
                tracing::error!("{error}");
                return ExitCode::FAILURE;
            }
        };
        interrupted.await;
        running.stop().await;
        ExitCode::SUCCESS
    })
}
