//! Passes against an API server that fails as it is told to.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kube::api::ObjectMeta;
use kube::runtime::controller::Action;
use tokio::net::TcpListener;

use super::fake_broker::{FakeBroker, Fault};
use super::reconcile::reconcile;
use super::watch::error_policy;
use super::{Context, lock};
use crate::admin::{Admin, AdminOptions};
use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::resource::{FINALIZER, Topic, TopicSpec, annotation};
use crate::settings::Settings;

/// Where no broker is.
const NOBODY: &str = "127.0.0.1:1";

#[derive(Clone, Default)]
struct Script {
    /// What it fails with first.
    codes: Arc<Mutex<VecDeque<u16>>>,
    /// Status writes that came.
    writes: Arc<Mutex<usize>>,
    /// Status and reason of the `Ready` condition, as written last.
    ready: Arc<Mutex<String>>,
}

async fn answer(State(script): State<Script>, request: Request) -> Response {
    if !request.uri().path().ends_with("/topics/orders/status") {
        return StatusCode::CREATED.into_response();
    }
    *lock(&script.writes) += 1;
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await;
    let written: serde_json::Value =
        serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let condition = &written["status"]["conditions"][0];
    let word = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    *lock(&script.ready) = format!("{} {}", word("status"), word("reason"));
    let code = lock(&script.codes).pop_front();
    let body = match code {
        Some(code) => serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
            "reason": "Scripted", "message": "as told", "details": {"retryAfterSeconds": 0},
        }),
        None => serde_json::json!({
            "kind": "Topic", "apiVersion": "barnabas.dev/v1alpha1",
            "metadata": {"name": "orders", "namespace": "shop", "uid": "1", "resourceVersion": "9"},
            "spec": {},
        }),
    };
    let status = code.and_then(|code| StatusCode::from_u16(code).ok());
    let head = [("content-type", "application/json")];
    (status.unwrap_or(StatusCode::OK), head, body.to_string()).into_response()
}

async fn context(script: &Script, bootstrap: &str) -> Arc<Context> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    drop(provider.install_default());
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    let client = kube::Client::try_from(config).unwrap();
    let admin = Admin::new(AdminOptions::new([bootstrap])).unwrap();
    let metrics = Arc::new(Metrics::default());
    let settings = Settings::default();
    Arc::new(Context::new(client, settings, Cluster::new(admin), metrics))
}

/// One that needs nothing but a status.
fn topic() -> Arc<Topic> {
    let annotations = [(annotation::MANAGED.to_owned(), "false".to_owned())];
    Arc::new(Topic {
        metadata: ObjectMeta {
            name: Some("orders".to_owned()),
            namespace: Some("shop".to_owned()),
            uid: Some("1".to_owned()),
            resource_version: Some("5".to_owned()),
            generation: Some(1),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        },
        ..Topic::default()
    })
}

#[tokio::test]
async fn a_write_that_fails_is_tried_again_later_and_only_once_a_pass() {
    for code in [410, 422, 500] {
        let script = Script::default();
        script.codes.lock().unwrap().extend([code, code]);
        let context = context(&script, NOBODY).await;
        for pass in 1..=2 {
            let error = reconcile(topic(), context.clone()).await.unwrap_err();
            let next = error_policy(topic(), &error, context.clone());
            assert_ne!(next, Action::await_change(), "{code}");
            assert_eq!(*script.writes.lock().unwrap(), pass, "{code}");
        }
        let pairs = [("code", &*code.to_string())];
        let counted = context
            .metrics
            .counted("barnabas_operator_api_errors_total", &pairs);
        assert_eq!(counted, 2, "{code}");
        reconcile(topic(), context.clone()).await.unwrap();
        assert_eq!(*script.writes.lock().unwrap(), 3, "{code}");
    }
}

/// The client asks a few times itself when a server is overloaded; either way it is written in the end, and not at once a
/// hundred times.
#[tokio::test]
async fn an_overloaded_server_is_written_to_in_the_end() {
    for code in [429, 503, 504] {
        let script = Script::default();
        script.codes.lock().unwrap().extend([code, code]);
        let context = context(&script, NOBODY).await;
        let mut passes = 1;
        while reconcile(topic(), context.clone()).await.is_err() {
            passes += 1;
        }
        assert!(passes <= 3, "{code}");
        assert_eq!(*script.writes.lock().unwrap(), 3, "{code}");
    }
}

#[tokio::test]
async fn a_resource_that_is_gone_or_another_by_now_is_left_to_the_watch() {
    for code in [404, 409] {
        let script = Script::default();
        script.codes.lock().unwrap().push_back(code);
        let context = context(&script, NOBODY).await;
        reconcile(topic(), context).await.unwrap();
        assert_eq!(*script.writes.lock().unwrap(), 1);
    }
}

/// The watch tells of a status a little after it was written; a pass in between sees what was written.
#[tokio::test]
async fn what_was_written_is_not_written_again_while_the_watch_lags() {
    let script = Script::default();
    let context = context(&script, NOBODY).await;
    for _ in 0..3 {
        reconcile(topic(), context.clone()).await.unwrap();
    }
    assert_eq!(*script.writes.lock().unwrap(), 1);
}

/// Who lost the Lease, or was frozen longer than it lasts, changes nothing.
#[tokio::test(start_paused = true)]
async fn without_the_lease_nothing_may_be_changed() {
    let script = Script::default();
    let context = context(&script, NOBODY).await;
    assert!(context.may_change(), "without election nobody else acts");
    let (renewed, receiver) = tokio::sync::watch::channel(tokio::time::Instant::now());
    context.lease_renewed.set(receiver).unwrap();
    assert!(context.may_change());
    tokio::time::advance(crate::election::RENEW_DEADLINE).await;
    assert!(!context.may_change());
    renewed.send_replace(tokio::time::Instant::now());
    assert!(context.may_change());
}

/// What becomes of a topic that is created while the broker does this: what its resource says, and how often it was asked.
async fn created_with(faults: &[Fault]) -> (String, usize) {
    let broker = FakeBroker::start(faults).await;
    let script = Script::default();
    let context = context(&script, &broker.address()).await;
    context.cluster.refresh().await.unwrap();
    context.is_cluster_known.store(true, Ordering::Relaxed);
    let mut topic = Arc::unwrap_or_clone(topic());
    topic.metadata.annotations = None;
    topic.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
    topic.spec = TopicSpec {
        partitions: Some(1),
        replicas: Some(1),
        ..TopicSpec::default()
    };
    reconcile(Arc::new(topic), context).await.unwrap();
    let ready = lock(&script.ready).clone();
    (ready, broker.creations())
}

#[tokio::test]
async fn each_refusal_of_a_broker_is_told_and_asked_for_once() {
    for (code, reason) in [
        (17, "NameNotAllowed"),
        (29, "AuthorizationFailed"),
        (31, "AuthorizationFailed"),
        (37, "InvalidSpec"),
        (38, "ReplicasExceedBrokers"),
        (39, "WaitingForBrokers"),
        (40, "InvalidConfig"),
        (42, "InvalidConfig"),
        (44, "PolicyViolation"),
        (89, "KafkaError"),
        (-1, "KafkaError"),
        (56, "KafkaError"),
    ] {
        let found = created_with(&[Fault::Refuse(code)]).await;
        assert_eq!(found, (format!("False {reason}"), 1), "{code}");
    }
}

#[tokio::test]
async fn what_was_done_although_it_did_not_look_so_is_not_asked_for_twice() {
    let well = ("True AsSpecified".to_owned(), 1);
    assert_eq!(created_with(&[]).await, well);
    // The answer got lost; the time was over, and it was done.
    assert_eq!(created_with(&[Fault::LoseAnswer]).await, well);
    assert_eq!(created_with(&[Fault::DoneAnd(7)]).await, well);
    // Somebody else was faster.
    assert_eq!(created_with(&[Fault::DoneAnd(36)]).await, well);
}

#[tokio::test]
async fn another_controller_is_looked_for_and_a_name_that_is_still_taken_waited_for() {
    let (ready, asked) = created_with(&[Fault::Refuse(41), Fault::Refuse(41)]).await;
    assert_eq!((ready.as_str(), asked), ("True AsSpecified", 3));
    let (ready, asked) = created_with(&[Fault::Refuse(36), Fault::Refuse(36)]).await;
    let waits = "False WaitingForPreviousDeletion";
    assert_eq!((ready.as_str(), asked), (waits, 2));
}
