//! The client when servers stop, hang, or are not there.

use std::time::{Duration, Instant};

use barnabas_broker::zookeeper::{
    ConnectError, Coordination, CoordinationError, CreateMode, Operation, SessionState, Watch,
    ZooKeeper, ZooKeeperClient, ZooKeeperOptions,
};
use barnabas_core::znodes::BASE_PATHS;
use barnabas_tests::ports::free_port;
use barnabas_tests::zookeeper_server::{ServerOptions, ZooKeeperServer};
use rustix::process::Signal;

use super::subject::in_time;

fn options(connect: &str) -> ZooKeeperOptions {
    let mut options = ZooKeeperOptions::new(connect).unwrap();
    options.session_timeout = Duration::from_secs(20);
    options
}

#[tokio::test]
async fn a_dead_ensemble_is_waited_for_and_then_named() {
    let mut options = options(&format!("127.0.0.1:{},[::1]:1/x", free_port()));
    options.connection_timeout = Duration::from_millis(700);
    let started = Instant::now();
    let error = ZooKeeper::connect(&options)
        .await
        .err()
        .expect("nobody is there");
    assert!(started.elapsed() >= options.connection_timeout);
    assert!(matches!(error, ConnectError::Unreachable { .. }));
    let text = error.to_string();
    for part in [
        &options.connect_text,
        "within 700 ms",
        "start the ensemble",
        "refused",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_stop_hang_and_come_back() {
    let mut server = ZooKeeperServer::start().unwrap();
    // The first is not there: the others are tried.
    let dead = free_port();
    let connect = format!("127.0.0.1:{dead},{}/a/b", server.connect());
    let zookeeper = in_time(ZooKeeper::connect(&options(&connect)))
        .await
        .unwrap();
    let zk = zookeeper.coordination();
    let session = zk.session_id();
    zk.create("/e", Some(b"x".to_vec()), CreateMode::Ephemeral)
        .await
        .unwrap();
    for path in BASE_PATHS {
        assert!(
            zk.exists(path, Watch::No).await.unwrap().is_some(),
            "{path}"
        );
    }

    // Stopped between requests, killed between requests: what was asked meanwhile is done after.
    for round in 0..2 {
        if round == 0 {
            server.stop().unwrap();
        } else {
            server.kill();
        }
        let mut states = zookeeper.session_state();
        in_time(states.wait_for(|state| *state == SessionState::Disconnected))
            .await
            .unwrap();
        let creations = (0..20).map(|i| Operation::create(format!("/{round}-{i}"), None));
        let waiting = zk.submit(creations.collect());
        server.restart().unwrap();
        assert!(in_time(waiting).await.iter().all(Result::is_ok));
    }

    // A server that hangs keeps the request.
    let process = server.process().unwrap();
    process.signal(Signal::STOP);
    let waiting = zk.submit(vec![Operation::create("/hang", None)]);
    let early = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(early.is_err());
    process.signal(Signal::CONT);
    assert!(
        in_time(zk.exists("/hang", Watch::No))
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(zk.session_id(), session, "all of it in one session");
    let (data, _) = zk.get("/e", Watch::No).await.unwrap().unwrap();
    assert_eq!(data, b"x");

    // The chroot is below the root of everything.
    let root = in_time(ZooKeeperClient::connect(&options(&server.connect())))
        .await
        .unwrap();
    let root: std::sync::Arc<dyn Coordination> = root;
    assert!(
        root.exists("/a/b/brokers/ids", Watch::No)
            .await
            .unwrap()
            .is_some()
    );
    // A start on what is there already has little to do.
    let started = Instant::now();
    let again = in_time(ZooKeeper::connect(&options(&connect)))
        .await
        .unwrap();
    eprintln!("connected again in {:?}", started.elapsed());
    again.close().await;
    zookeeper.close().await;
    assert!(root.exists("/a/b/e", Watch::No).await.unwrap().is_none());
}

#[tokio::test]
async fn an_ensemble_that_is_away_for_longer_than_the_session_timeout_does_not_end_the_session() {
    let mut server = ZooKeeperServer::start().unwrap();
    let mut options = options(&server.connect());
    // The servers count it anew when they are back: so long has a busy machine to find them.
    options.session_timeout = Duration::from_secs(8);
    let zookeeper = in_time(ZooKeeper::connect(&options)).await.unwrap();
    let zk = zookeeper.coordination();
    zk.create("/e", None, CreateMode::Ephemeral).await.unwrap();
    let session = zk.session_id();
    server.stop().unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    server.restart().unwrap();
    assert!(in_time(zk.exists("/e", Watch::No)).await.unwrap().is_some());
    assert_eq!(zk.session_id(), session);
}

#[tokio::test]
async fn a_request_too_large_for_the_servers_fails_alone() {
    let limit = ServerOptions {
        java: vec!["-Djute.maxbuffer=2000000".to_owned()],
        ..ServerOptions::default()
    };
    let server = ZooKeeperServer::start_with(&limit).unwrap();
    let zookeeper = in_time(ZooKeeper::connect(&options(&server.connect())))
        .await
        .unwrap();
    let zk = zookeeper.coordination();
    let results = zk.submit(vec![
        Operation::create("/fits", vec![b'x'; 1_900_000]),
        Operation::create("/small", None),
        Operation::create("/large", vec![b'x'; 2_100_000]),
        Operation::create("/after", None),
    ]);
    let results = in_time(results).await;
    assert!(
        matches!(results[2], Err(CoordinationError::Invalid(_))),
        "{:?}",
        results[2]
    );
    // A connection that breaks may hide what was done before.
    for path in ["/fits", "/small", "/after"] {
        assert!(
            zk.exists(path, Watch::No).await.unwrap().is_some(),
            "{path}"
        );
    }
}
