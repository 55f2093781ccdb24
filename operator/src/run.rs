//! `barnabas-operator run`: the order of starting and stopping.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, PartialObjectMeta};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::admin::Admin;
use crate::balancer::{Balancing, ConfigMapStore, EventReporter, LeaseGuard, event_of};
use crate::brokers::watch::BrokerWatch;
use crate::cluster::Cluster;
use crate::controller::{Context, refresh, watch as topics};
use crate::election::{Candidate, Leader};
use crate::http::{self, Health};
use crate::metrics::Metrics;
use crate::moves::record::NoRecord;
use crate::moves::{Mover, NoGauges, Order, Parts, RecordStore, Reporter as _};
use crate::resource::Topic;
use crate::settings::Settings;
use crate::signals;
use crate::zookeeper::{Lock, ZooKeeper};

/// How long the definition of Topics is waited for.
const DEFINITION: Duration = Duration::from_secs(60);
/// Reconciles that run have so long to end.
const FINISH: Duration = Duration::from_secs(8);
/// An uninstall that began earlier than this is over.
const RELEASE_VALID: Duration = Duration::from_secs(600);
/// An uninstall waits for this, within the minute that the whole may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(40);

/// Changes what is logged: as wished for (`info,barnabas_operator=debug`), or as at the start. What is wrong with a wish.
pub type LogLevel = Box<dyn Fn(Option<&str>) -> Result<(), String> + Send + Sync>;

/// Runs until a signal comes or the Lease is lost; the latter is an error.
pub async fn run(settings: Settings, client: kube::Client, log: LogLevel) -> anyhow::Result<()> {
    let balancing = Balancing::read(&settings)?;
    let begun = Timestamp::now();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::default());
    let admin = Admin::observed(settings.admin_options()?, metrics.clone())?;
    let cluster = Cluster::new(admin);
    let context = Arc::new(Context::new(client.clone(), settings, cluster, metrics));
    let settings = &context.settings;
    let health = Health::start();
    let bound = http::serve(settings.listen, health.clone(), context.clone())
        .await
        .with_context(|| format!("listening on {}", settings.listen))?;
    info!(%bound, cluster = settings.cluster_name, "the operator starts");
    context.metrics.set("barnabas_operator_leader", &[], 0.0);

    tokio::select! {
        defined = wait_for_definition(&client, settings) => defined?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    let (acts_sender, acts) = watch::channel(false);
    let (stop_sender, stop) = watch::channel(false);
    let namespaces = settings.namespaces();
    let (synced, mut syncs) = mpsc::channel(namespaces.len() + 1);
    let mut serving = Vec::new();
    let count = namespaces.len();
    for namespace in namespaces {
        let served = topics::serve(
            context.clone(),
            namespace,
            acts.clone(),
            stop.clone(),
            synced.clone(),
        );
        serving.push(tokio::spawn(served));
    }
    let refreshing = tokio::spawn(refresh::run(context.clone()));
    let (registered, _) = watch::channel(signals::Registered::default());
    let following = (!settings.zookeeper_connect.is_empty())
        .then(|| tokio::spawn(signals::run(context.clone(), registered.clone())));

    let ready = health.clone();
    let lease = settings.lease.clone();
    let candidate = Candidate::new(client, &settings.pod_namespace, &lease, &settings.pod_name);
    let taking_over = async {
        // Claims are whole only when every namespace has been listed.
        for _ in 0..count {
            if syncs.recv().await.is_none() {
                bail!("the watches of Topics have ended");
            }
        }
        ready.is_ready.store(true, Ordering::Relaxed);
        Ok(if lease.is_empty() {
            None
        } else {
            Some(candidate.acquire().await)
        })
    };
    let leader = tokio::select! {
        taken = taking_over => taken?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    context.metrics.set("barnabas_operator_leader", &[], 1.0);
    if let Some(leader) = &leader {
        let _ = context.lease_renewed.set(leader.renewed());
    }
    let moving = start_mover(&context, balancing, &registered);
    let wishing = leader
        .as_ref()
        .map(|leader| tokio::spawn(follow_wishes(context.clone(), leader, begun, log)));
    acts_sender.send_replace(true);

    let mut leader = leader;
    let outcome = {
        let lost = async {
            match &mut leader {
                Some(leader) => leader.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = lost => Err(anyhow::anyhow!("the lease is lost: somebody else acts now")),
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        }
    };
    context.is_stopped.store(true, Ordering::Relaxed);
    stop_sender.send_replace(true);
    if outcome.is_ok() {
        info!("stopping");
        let finished = timeout(FINISH, futures::future::join_all(serving));
        if finished.await.is_err() {
            warn!("some passes did not end in time");
        }
        if let Some(leader) = leader {
            leader.release().await;
        }
    } else {
        error!("the lease is lost; stopping at once");
    }
    moving.abort();
    refreshing.abort();
    for task in following.into_iter().chain(wishing) {
        task.abort();
    }
    outcome
}

/// The one owner of moves begins to look.
fn start_mover(
    context: &Arc<Context>,
    balancing: Balancing,
    registered: &watch::Sender<signals::Registered>,
) -> tokio::task::JoinHandle<()> {
    let settings = &context.settings;
    let reporter = Arc::new(EventReporter {
        context: context.clone(),
    });
    let told = reporter.clone();
    let brokers = BrokerWatch::start(
        &context.client,
        settings,
        balancing.graces,
        context.cluster.clone(),
        registered.subscribe(),
        move |transition| {
            if let Some(event) = event_of(transition) {
                told.event(&event);
            }
        },
    );
    let store: Arc<dyn RecordStore> = if settings.state_config_map.is_empty() {
        Arc::new(NoRecord)
    } else {
        Arc::new(ConfigMapStore {
            api: Api::namespaced(context.client.clone(), &settings.pod_namespace),
            name: settings.state_config_map.clone(),
        })
    };
    // Kept by the task: the lock goes with the session.
    let session = (!settings.zookeeper_connect.is_empty()).then(|| {
        let says = format!("barnabas-operator {}", settings.pod_name);
        ZooKeeper::connect(&settings.zookeeper_connect, Lock::As(says))
    });
    let (mover, task) = Mover::new(Parts {
        cluster: context.cluster.clone(),
        evidence: Arc::new(brokers),
        store,
        reporter,
        guard: Arc::new(LeaseGuard {
            context: context.clone(),
            lock: session.as_ref().map(ZooKeeper::guard),
        }),
        gauges: Arc::new(NoGauges),
        settings: balancing.mover,
    });
    // A broker's wait begins when it goes, not when somebody happens to look.
    let (looks, mut registered) = (mover.clone(), registered.subscribe());
    tokio::spawn(async move {
        while registered.changed().await.is_ok() {
            looks.look();
        }
    });
    let _ = context.mover.set(mover);
    tokio::spawn(async move {
        let _session = session;
        task.await;
    })
}

/// The definition must be there and accepted. Reading definitions is not among our rights, so listing tells.
async fn wait_for_definition(client: &kube::Client, settings: &Settings) -> anyhow::Result<()> {
    let until = Instant::now() + DEFINITION;
    let api: Api<Topic> = match settings.namespaces().into_iter().next().flatten() {
        Some(namespace) => Api::namespaced(client.clone(), &namespace),
        None => Api::all(client.clone()),
    };
    let one = ListParams::default().limit(1);
    loop {
        let listed = timeout(Duration::from_secs(10), api.list_metadata(&one));
        let cause = match listed.await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => {
                let name = <CustomResourceDefinition as k8s_openapi::Resource>::KIND;
                format!("the {name} topics.barnabas.dev is not installed")
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the API server does not answer".to_owned(),
        };
        if Instant::now() > until {
            bail!("{cause}");
        }
        warn!(cause, "Topics cannot be listed yet");
        sleep(Duration::from_secs(1)).await;
    }
}

fn follow_wishes(
    context: Arc<Context>,
    leader: &Leader,
    begun: Timestamp,
    log: LogLevel,
) -> impl Future<Output = ()> + Send + 'static {
    let mut wishes = leader.wishes();
    async move {
        loop {
            let now = wishes.borrow_and_update().clone();
            if let Some(mover) = context.mover.get() {
                mover.order(match now.balancing.as_deref() {
                    Some("off") => Order::Off,
                    Some("cancel") => Order::Cancel,
                    _ => Order::Run,
                });
            }
            if let Err(error) = log(now.log.as_deref()) {
                warn!(wished = now.log, error, "the log is not changed");
            }
            let release = now.release;
            let is_released = release.as_deref().is_some_and(|time| is_meant(time, begun));
            if context.is_released.swap(is_released, Ordering::Relaxed) != is_released {
                warn!(is_released, "uninstalling: resources go, topics stay");
                let claimed: Vec<String> =
                    crate::controller::lock(&context.claims).topics().collect();
                context.enqueue_topics(claimed).await;
            }
            if wishes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whether an uninstall that began at `time` is about the operator that began at `begun`: the Lease outlives both, and
/// somebody who installs anew right afterwards means it.
fn is_meant(time: &str, begun: Timestamp) -> bool {
    time.parse::<Timestamp>().is_ok_and(|at| {
        let age = Timestamp::now().duration_since(at);
        age.unsigned_abs() < RELEASE_VALID && at >= begun
    })
}

/// `barnabas-operator release`: takes finalizers off all Topics, so that an uninstall never waits; topics stay.
/// An operator that runs is told by an annotation of the Lease, so that it does not put them back.
pub async fn release(settings: &Settings, client: kube::Client) -> anyhow::Result<()> {
    use k8s_openapi::api::coordination::v1::Lease;
    use kube::api::{Patch, PatchParams};
    let leases: Api<Lease> = Api::namespaced(client.clone(), &settings.pod_namespace);
    let now = Timestamp::now().to_string();
    let patch = serde_json::json!({"metadata": {"annotations": {"barnabas.dev/release": now}}});
    let params = PatchParams::default();
    if !settings.lease.is_empty()
        && let Err(error) = leases
            .patch(&settings.lease, &params, &Patch::Merge(&patch))
            .await
    {
        warn!(%error, "no running operator can be told");
    }
    let all = async {
        let mut quiet = 0;
        while quiet < 3 {
            quiet = match let_go(settings, &client).await {
                Ok(0) => quiet + 1,
                Ok(_) => 0,
                Err(error) => {
                    warn!(%error, "Topics cannot be listed; trying again");
                    0
                }
            };
            sleep(Duration::from_secs(1)).await;
        }
    };
    let limit = RELEASE_LIMIT.as_secs();
    let done = tokio::time::timeout(RELEASE_LIMIT, all).await;
    done.with_context(|| format!("not done after {limit} s"))
}

/// Takes the finalizer off all Topics that have it; how many did.
async fn let_go(settings: &Settings, client: &kube::Client) -> kube::Result<usize> {
    let mut held = 0;
    for namespace in settings.namespaces() {
        let api: Api<Topic> = match &namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let listed = match api.list_metadata(&ListParams::default()).await {
            Ok(listed) => listed,
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error),
        };
        for topic in listed.items.iter().filter(|topic| holds(topic)) {
            held += 1;
            remove_finalizer(client, topic).await;
        }
    }
    Ok(held)
}

fn holds(topic: &PartialObjectMeta<Topic>) -> bool {
    let mut finalizers = topic.finalizers().iter();
    finalizers.any(|one| one == crate::resource::FINALIZER)
}

async fn remove_finalizer(client: &kube::Client, topic: &PartialObjectMeta<Topic>) {
    use kube::api::{Patch, PatchParams};
    let finalizers: Vec<&String> = topic
        .finalizers()
        .iter()
        .filter(|one| *one != crate::resource::FINALIZER)
        .collect();
    let version = topic.metadata.resource_version.as_deref();
    let patch = serde_json::json!({
        "metadata": {"resourceVersion": version, "finalizers": finalizers}
    });
    let api: Api<Topic> = Api::namespaced(client.clone(), &topic.namespace().unwrap_or_default());
    let params = PatchParams::default();
    let name = topic.name_any();
    if let Err(error) = api
        .patch_metadata(&name, &params, &Patch::Merge(&patch))
        .await
    {
        warn!(name, %error, "the finalizer stays for now");
    }
}
