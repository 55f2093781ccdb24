//! `barnabas-operator balance`: the mover for clusters on plain machines.
//!
//! One run does what there is to do and ends; `--watch` stays. With `--zookeeper` brokers are known by their registrations,
//! and a lock there keeps a second balancer (also the operator in Kubernetes) waiting; without it metadata has to do, and
//! whoever starts it sees to it that there is one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use barnabas_core::ids::BrokerId;
use barnabas_core::time::Now;
use clap::Args;
use tokio::sync::watch;

use crate::admin::{Admin, AdminOptions, SaslMechanism, SaslOptions, TlsOptions};
use crate::cluster::Cluster;
use crate::moves::evidence::{Graces, Registrations};
use crate::moves::record::{FileRecord, NoRecord};
use crate::moves::report::LogReporter;
use crate::moves::{
    Evidence, EvidenceSource, Guard, Mode, Mover, MoverSettings, NoGauges, Parts, RecordStore,
    Status, Unguarded,
};
use crate::zookeeper::{Lock, Seen, ZooKeeper};

/// Heals, empties, fills and evens out a cluster on plain machines.
#[derive(Args, Clone, Debug)]
pub struct BalanceArgs {
    /// Brokers to ask first, `host:port,host:port`.
    #[arg(long, value_delimiter = ',', required = true)]
    pub bootstrap: Vec<String>,
    /// `zookeeper.connect` of the brokers, with the chroot: for registrations and the lock.
    #[arg(long)]
    pub zookeeper: Option<String>,
    /// Show what would move, and move nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Stay: heal brokers that are lost, fill those that are added, even out.
    #[arg(long, conflicts_with = "dry_run")]
    pub watch: bool,
    /// Only heal, empty and put replicas right; do not fill new brokers or even out.
    #[arg(long)]
    pub heal_only: bool,
    /// Brokers to be emptied.
    #[arg(long, value_delimiter = ',')]
    pub drain: Vec<i32>,
    /// Brokers that will not come back: what they had is made anew at once.
    #[arg(long, value_delimiter = ',')]
    pub lost: Vec<i32>,
    /// Replicas that each partition of a topic shall have, `topic=3`; several by commas.
    #[arg(long, value_delimiter = ',', value_parser = topic_replicas)]
    pub replicas: Vec<(String, usize)>,
    /// Seconds that a broker that is not registered is waited for.
    #[arg(long, default_value_t = 600)]
    pub failure_grace: u64,
    /// Seconds that a new broker has to be there before it is filled, with --watch.
    #[arg(long, default_value_t = 60)]
    pub settle: u64,
    /// Bytes per second and direction of a broker for moves; repair may use four times as much.
    #[arg(long, default_value_t = 50 << 20)]
    pub throttle: u64,
    /// Percent of a broker's disks that may be in use after moves, both copies counted meanwhile.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub disk_max_used: u64,
    /// Moves at once into a broker and out of one.
    #[arg(long, default_value_t = 5)]
    pub moves_per_broker: usize,
    /// Moves at once altogether.
    #[arg(long, default_value_t = 50)]
    pub moves: usize,
    /// A file for what throttles were before, so that a balancer that was killed can put them back.
    #[arg(long)]
    pub state: Option<PathBuf>,
    /// What is logged, as in `info,barnabas_operator=debug`.
    #[arg(
        long,
        env = "BARNABAS_OPERATOR_LOG",
        default_value = "info,zookeeper_client=warn"
    )]
    pub log: String,
    /// PEM file with certificates that brokers' are signed by: speaks TLS.
    #[arg(long)]
    pub tls_ca: Option<PathBuf>,
    /// PEM file with our certificate chain.
    #[arg(long, requires = "tls_key", requires = "tls_ca")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with our private key.
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    #[arg(long, requires = "sasl_username")]
    pub sasl_mechanism: Option<SaslMechanism>,
    #[arg(long, requires = "sasl_mechanism")]
    pub sasl_username: Option<String>,
    /// The password; better from the environment than from a command line that others can see.
    #[arg(long, env = "BARNABAS_SASL_PASSWORD", hide_env_values = true)]
    pub sasl_password: Option<String>,
}

fn topic_replicas(text: &str) -> Result<(String, usize), String> {
    let parsed = text
        .rsplit_once('=')
        .and_then(|(topic, count)| Some((topic.to_owned(), count.parse().ok()?)));
    parsed.ok_or_else(|| format!("`{text}` is not topic=number"))
}

/// How long brokers may take to answer for the first time.
const FIRST_LOOK: Duration = Duration::from_secs(60);

/// Runs until there is nothing left to do, or for ever with `--watch`.
pub async fn run(args: BalanceArgs) -> anyhow::Result<()> {
    let admin = Admin::new(admin_options(&args)?)?;
    let cluster = Cluster::new(admin);
    cluster
        .refresh()
        .await
        .context("the cluster does not answer")?;
    let lock = if args.dry_run {
        Lock::No
    } else {
        Lock::As(format!(
            "barnabas-operator balance, process {}",
            std::process::id()
        ))
    };
    let zookeeper = args
        .zookeeper
        .as_deref()
        .map(|connect| ZooKeeper::connect(connect, lock));
    if let Some(zookeeper) = &zookeeper {
        wait_for_zookeeper(&mut zookeeper.seen(), args.dry_run).await?;
    }
    let guard: Arc<dyn Guard> = match &zookeeper {
        Some(zookeeper) if !args.dry_run => zookeeper.guard(),
        Some(_) | None => Arc::new(Unguarded),
    };
    let evidence = PlainEvidence {
        cluster: cluster.clone(),
        seen: zookeeper.as_ref().map(ZooKeeper::seen),
        registrations: Mutex::new(Registrations::new(
            Graces {
                failure: Duration::from_secs(args.failure_grace),
                settled: Duration::from_secs(args.settle),
            },
            args.drain.iter().copied().map(BrokerId).collect(),
            args.lost.iter().copied().map(BrokerId).collect(),
        )),
    };
    let store: Arc<dyn RecordStore> = match &args.state {
        Some(path) => Arc::new(FileRecord(path.clone())),
        None => Arc::new(NoRecord),
    };
    let mover_view = cluster.clone();
    let (mover, task) = Mover::new(Parts {
        cluster,
        evidence: Arc::new(evidence),
        store,
        reporter: Arc::new(LogReporter),
        guard,
        gauges: Arc::new(NoGauges),
        settings: settings(&args),
    });
    for (topic, _) in &args.replicas {
        if !mover_view.view().topics.contains_key(topic.as_str()) {
            bail!("there is no topic {topic}");
        }
    }
    mover.wish(|wishes| {
        let wanted = args.replicas.iter();
        wishes.replicas = wanted
            .map(|(topic, count)| (topic.as_str().into(), *count))
            .collect();
    });
    let task = tokio::spawn(task);
    let finished = if args.watch {
        stopped().await
    } else {
        tokio::select! {
            biased;
            finished = until_done(&mover, &args) => finished,
            stopped = stopped() => stopped.and_then(|()| bail!("stopped; what runs goes on by itself")),
        }
    };
    task.abort();
    // Ended before anybody else may begin.
    drop(task.await);
    if let Some(zookeeper) = zookeeper {
        zookeeper.close().await;
    }
    finished
}

fn admin_options(args: &BalanceArgs) -> anyhow::Result<AdminOptions> {
    let mut options = AdminOptions::new(args.bootstrap.clone());
    options.tls = args.tls_ca.as_ref().map(|ca| TlsOptions {
        ca: ca.clone(),
        identity: args.tls_cert.clone().zip(args.tls_key.clone()),
    });
    if let (Some(mechanism), Some(username)) = (args.sasl_mechanism, &args.sasl_username) {
        let password = args.sasl_password.clone();
        options.sasl = Some(SaslOptions {
            mechanism,
            username: username.clone(),
            password: password.context("set BARNABAS_SASL_PASSWORD or --sasl-password")?,
        });
    }
    Ok(options)
}

fn settings(args: &BalanceArgs) -> MoverSettings {
    let settings = MoverSettings {
        mode: match (args.dry_run, args.heal_only) {
            (true, _) => Mode::DryRun,
            (false, true) => Mode::HealOnly,
            (false, false) => Mode::Full,
        },
        throttle: args.throttle.max(1),
        heal_throttle: args.throttle.max(1).saturating_mul(4),
        throttle_min: MoverSettings::default()
            .throttle_min
            .min(args.throttle.max(1)),
        planner: barnabas_core::balance::Settings {
            disk_used_percent_max: args.disk_max_used,
            ..barnabas_core::balance::Settings::default()
        },
        moves_in_max: args.moves_per_broker.max(1),
        moves_out_max: args.moves_per_broker.max(1),
        moves_max: args.moves.max(1),
        ..MoverSettings::default()
    };
    if args.watch {
        settings
    } else {
        settings.at_once()
    }
}

async fn wait_for_zookeeper(
    seen: &mut watch::Receiver<Seen>,
    only_looks: bool,
) -> anyhow::Result<()> {
    let mut told = None;
    let ready = async {
        loop {
            {
                let now = seen.borrow_and_update();
                if now.brokers.is_some() && (only_looks || now.holds_lock) {
                    return Ok(());
                }
                if now.holder.is_some() && now.holder != told {
                    told.clone_from(&now.holder);
                    let holder = told.as_deref().unwrap_or_default();
                    tracing::info!(holder, "another balancer holds the lock; waiting");
                }
            }
            if seen.changed().await.is_err() {
                bail!("ZooKeeper is not asked any more");
            }
        }
    };
    ready.await
}

/// Waits until nothing is left to do, twice in a row, and says what was done.
async fn until_done(mover: &Mover, args: &BalanceArgs) -> anyhow::Result<()> {
    let mut status = mover.status();
    // The first is from before the first look.
    tokio::time::timeout(FIRST_LOOK, status.changed())
        .await
        .context("the cluster could not be looked at")??;
    let mut quiet = 0;
    loop {
        let now = status.borrow_and_update().clone();
        if let Some(why) = &now.frozen {
            bail!("nothing is moved: {why}");
        }
        if args.dry_run {
            return show(&now);
        }
        quiet = if now.is_idle { quiet + 1 } else { 0 };
        // A second look, since leaders are elected only when nothing else moves.
        if quiet >= 2 {
            return finish(&now);
        }
        if now.is_idle {
            mover.look();
        }
        status.changed().await?;
    }
}

fn show(status: &Status) -> anyhow::Result<()> {
    let mut text = String::new();
    for one in &status.planned {
        let list = |ids: &[BrokerId]| {
            let ids = ids.iter().map(ToString::to_string);
            ids.collect::<Vec<_>>().join(",")
        };
        let (from, to) = (list(&one.from), list(&one.to));
        let (partition, reason, bytes) = (&one.partition, one.reason, one.bytes);
        let _ = writeln!(text, "{partition}\t{from} -> {to}\t{bytes} bytes\t{reason}");
    }
    let bytes: u64 = status.planned.iter().map(|one| one.bytes).sum();
    let (count, score) = (status.planned.len(), status.score);
    let _ = writeln!(text, "{count} moves, {bytes} bytes; balance score {score}");
    text += &stuck(status);
    print(&text)
}

fn finish(status: &Status) -> anyhow::Result<()> {
    let done: u64 = status.finished.values().sum();
    let bytes: u64 = status.bytes_moved.values().sum();
    let text = format!(
        "{done} moves, {bytes} bytes; balance score {}\n{}",
        status.score,
        stuck(status)
    );
    print(&text)?;
    if let Some((topic, why)) = status.refused.first_key_value() {
        bail!("{topic}: {why}");
    }
    let waits = status.due_at.len();
    if waits > 0 {
        bail!(
            "{waits} brokers are down and still waited for; --watch heals them in time, --lost at once"
        );
    }
    if !status.stuck.is_empty() {
        bail!("{} replicas have nowhere to go", status.stuck.len());
    }
    Ok(())
}

fn stuck(status: &Status) -> String {
    let mut text = String::new();
    for one in &status.stuck {
        let (partition, broker, cause) = (&one.partition, one.broker, one.cause);
        let _ = writeln!(text, "{partition} on broker {broker} cannot move: {cause}");
    }
    text
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

async fn stopped() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}

/// Brokers by registration: ZooKeeper's if it is asked, else what metadata says of who is alive.
struct PlainEvidence {
    cluster: Cluster,
    seen: Option<watch::Receiver<Seen>>,
    registrations: Mutex<Registrations>,
}

impl EvidenceSource for PlainEvidence {
    fn evidence(&self, now: Now) -> Evidence {
        let view = self.cluster.view();
        let alive: BTreeSet<BrokerId> = view.brokers.keys().copied().collect();
        let registered = match &self.seen {
            None => Some(alive),
            Some(seen) => seen.borrow().brokers.clone(),
        };
        let mut with_replicas = BTreeSet::new();
        for topic in view.topics.values() {
            for partition in &topic.partitions {
                with_replicas.extend(&partition.replicas);
            }
        }
        let registrations = self.registrations.lock();
        registrations
            .unwrap_or_else(PoisonError::into_inner)
            .observe(registered.as_ref(), &with_replicas, now.monotonic)
    }
}
