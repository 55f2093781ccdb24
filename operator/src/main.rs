//! `barnabas-operator`: see `--help`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use barnabas_operator::admin::Admin;
use barnabas_operator::balance_command::{self, BalanceArgs};
use barnabas_operator::cluster::Cluster;
use barnabas_operator::settings::Settings;
use barnabas_operator::{client, hooks, resource, run, topic};
use clap::{Args, Parser, Subcommand};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

#[derive(Parser)]
#[command(
    version,
    about = "Keeps topics and replicas of a Kafka cluster in ZooKeeper mode as described"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve Topic resources.
    Run(Common),
    /// Take finalizers off all Topics; topics stay. For uninstalling.
    Release(Common),
    /// Heal, empty, fill and even out a cluster on plain machines, without Kubernetes.
    Balance(Box<BalanceArgs>),
    /// Write Topic resources for the topics that exist, to standard output.
    ExportTopics(Common),
    /// Try a cluster out: records there and back, a Topic, the operator's pages. What `helm test` runs.
    Try(hooks::TrialArgs),
    /// Let the brokers with the highest ids go once they are empty. What `helm upgrade` runs first.
    ScaleIn(hooks::ScaleInArgs),
    /// Complete a broker's settings by the zone of its node.
    Rack(hooks::RackArgs),
    /// Write the definition of the Topic resource, generated from the types.
    Crdgen {
        /// Where to; `-` for standard output.
        #[arg(default_value = "manifests/crds/topics.yaml")]
        file: PathBuf,
    },
}

/// Settings: a file, over it the environment and flags.
#[derive(Args)]
struct Common {
    /// YAML file of settings.
    #[arg(long, env = "BARNABAS_OPERATOR_CONFIG")]
    config: Option<PathBuf>,
    /// Brokers to ask first, `host:port`, separated by commas.
    #[arg(long, env = "BARNABAS_OPERATOR_BOOTSTRAP")]
    bootstrap: Option<String>,
    /// ZooKeeper as brokers have it, chroot included.
    #[arg(long, env = "BARNABAS_OPERATOR_ZOOKEEPER")]
    zookeeper: Option<String>,
    /// Namespace to watch (repeatable, `*` for all); for exports the namespace of what is written.
    #[arg(long, env = "BARNABAS_OPERATOR_NAMESPACES", value_delimiter = ',')]
    namespace: Vec<String>,
    /// Lease that says who acts; empty for no election.
    #[arg(long, env = "BARNABAS_OPERATOR_LEASE")]
    lease: Option<String>,
    /// Address of metrics, health and debug pages.
    #[arg(long, env = "BARNABAS_OPERATOR_LISTEN")]
    listen: Option<SocketAddr>,
    /// Name of this process in the Lease and in events.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// Namespace of this process, of its Lease and of the brokers.
    #[arg(long, env = "POD_NAMESPACE")]
    pod_namespace: Option<String>,
    /// What is logged, as in `info,barnabas_operator=debug`.
    #[arg(long, env = "BARNABAS_OPERATOR_LOG", default_value = "info")]
    log: String,
    /// Logs as text, not JSON.
    #[arg(long)]
    log_text: bool,
}

impl Common {
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = match &self.config {
            Some(path) => Settings::load(path)?,
            None => Settings::default(),
        };
        let texts = [
            (&mut settings.bootstrap_servers, &self.bootstrap),
            (&mut settings.zookeeper_connect, &self.zookeeper),
            (&mut settings.lease, &self.lease),
            (&mut settings.pod_name, &self.pod_name),
            (&mut settings.pod_namespace, &self.pod_namespace),
        ];
        for (setting, given) in texts {
            if let Some(given) = given {
                setting.clone_from(given);
            }
        }
        if let Some(listen) = self.listen {
            settings.listen = listen;
        }
        if !self.namespace.is_empty() {
            settings.watch_namespaces.clone_from(&self.namespace);
        }
        Ok(settings)
    }

    /// Begins to log; what is logged can be changed by what it answers.
    fn log(&self) -> anyhow::Result<run::LogLevel> {
        let filter = EnvFilter::try_new(&self.log).context("--log")?;
        let (filter, handle) = reload::Layer::new(filter);
        let output = fmt::layer().with_writer(std::io::stderr);
        let registry = tracing_subscriber::registry().with(filter);
        if self.log_text {
            registry.with(output).init();
        } else {
            registry.with(output.json()).init();
        }
        let at_first = self.log.clone();
        let current = Mutex::new(at_first.clone());
        Ok(Box::new(move |wished| {
            let wished = wished.unwrap_or(&at_first);
            let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
            if *current == wished {
                return Ok(());
            }
            let filter = EnvFilter::try_new(wished).map_err(|error| error.to_string())?;
            handle.reload(filter).map_err(|error| error.to_string())?;
            wished.clone_into(&mut current);
            Ok(())
        }))
    }
}

fn main() -> anyhow::Result<()> {
    let command = Arguments::parse().command;
    if let Command::Crdgen { file } = &command {
        let yaml = resource::definition_yaml()?;
        if file.as_os_str() == "-" {
            return Ok(std::io::stdout().write_all(yaml.as_bytes())?);
        }
        return std::fs::write(file, yaml).with_context(|| format!("writing {}", file.display()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Run(common) => {
                let log = common.log()?;
                run::run(common.settings()?, client().await?, log).await
            }
            Command::Release(common) => {
                drop(common.log()?);
                // Whatever happens: an uninstall must not fail because of this.
                if let Err(error) = release(&common).await {
                    tracing::warn!(
                        "Topics may keep their finalizer {}: {error:#}",
                        resource::FINALIZER
                    );
                }
                Ok(())
            }
            Command::Balance(args) => {
                let filter = EnvFilter::try_new(&args.log).context("--log")?;
                let logs = tracing_subscriber::fmt().with_env_filter(filter);
                logs.with_writer(std::io::stderr).init();
                balance_command::run(*args).await
            }
            Command::ExportTopics(common) => {
                drop(common.log()?);
                export(&common).await
            }
            Command::Try(args) => {
                log_text()?;
                hooks::trial(&args).await
            }
            Command::ScaleIn(args) => {
                log_text()?;
                hooks::scale_in(&args, client().await?).await
            }
            Command::Rack(args) => {
                log_text()?;
                hooks::rack(&args, client().await?).await
            }
            Command::Crdgen { .. } => Ok(()),
        }
    })
}

async fn release(common: &Common) -> anyhow::Result<()> {
    run::release(&common.settings()?, client().await?).await
}

/// For people who look at what a hook says.
fn log_text() -> anyhow::Result<()> {
    let filter = EnvFilter::try_new("info").context("log")?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    logs.with_writer(std::io::stderr).init();
    Ok(())
}

async fn export(common: &Common) -> anyhow::Result<()> {
    let settings = common.settings()?;
    let cluster = Cluster::new(Admin::new(settings.admin_options()?)?);
    let view = cluster.refresh().await?;
    let namespace = common.namespace.first().map(String::as_str);
    let yaml = topic::export::manifests(&view, namespace)?;
    Ok(std::io::stdout().write_all(yaml.as_bytes())?)
}
