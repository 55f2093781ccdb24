//! The task on a ZooKeeper in memory and a network where brokers listen, refuse or are silent.

use std::sync::Mutex;

use barnabas_core::config::BrokerConfig;
use barnabas_core::control::{Endpoint, SecurityProtocol};
use barnabas_core::znodes::ControllerSeat;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::*;
use crate::peer::PeerStream;
use crate::zookeeper::memory::{MemoryEnsemble, MemoryZooKeeper};
use crate::zookeeper::{CreateMode, FormerOwner, Stat};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Open,
    Refusing,
    Silent,
}

/// Every port is the same port.
struct FakeNetwork {
    port: watch::Sender<Port>,
    dialled: Mutex<usize>,
}

impl PeerNetwork for FakeNetwork {
    fn connect<'a>(
        &'a self,
        _address: &'a BrokerAddress,
    ) -> BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>> {
        async move {
            *self.dialled.lock().unwrap() += 1;
            let port = *self.port.borrow();
            match port {
                Port::Open => Ok(Box::new(FakeStream(self.port.subscribe())) as Box<_>),
                Port::Refusing => {
                    Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into())
                }
                Port::Silent => std::future::pending().await,
            }
        }
        .boxed()
    }
}

struct FakeStream(watch::Receiver<Port>);

impl PeerStream for FakeStream {
    fn exchange(
        &mut self,
        _request: Bytes,
        _timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        async move { Err(self.closed().await) }.boxed()
    }

    /// As when a process dies, or when a listener closes idle connections.
    fn closed(&mut self) -> BoxFuture<'_, PeerError> {
        async move {
            let _ = self.0.changed().await;
            std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()
        }
        .boxed()
    }
}

/// Broker 2 holds the seat; if broker 1 is this one, it watches.
struct Rig {
    other: Arc<MemoryZooKeeper>,
    network: Arc<FakeNetwork>,
    /// What fetchers and others have.
    reporting: Arc<dyn PeerNetwork>,
    _status: watch::Sender<ControllerStatus>,
    _task: Owned,
}

async fn register(zookeeper: &Arc<ZooKeeper>, id: i32, fast_failover: bool) {
    let registration = BrokerRegistration {
        id: BrokerId(id),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            security_protocol: SecurityProtocol::Plaintext,
            host: format!("h{id}"),
            port: 9092,
        }],
        rack: None,
        jmx_port: -1,
        timestamp_ms: 0,
        features: BTreeMap::new(),
        fast_failover,
    };
    let registered =
        zookeeper.register_broker(&registration, FormerOwner::MayBeAlive, Duration::ZERO);
    registered.await.unwrap();
}

async fn rig(fast_failover: bool) -> Rig {
    rig_of(1, &[2], fast_failover).await
}

/// Broker `own`, and others, which take part or not.
async fn rig_of(own_id: i32, others: &[i32], fast_failover: bool) -> Rig {
    let ensemble = MemoryEnsemble::new();
    let (own, other) = (ensemble.connect(), ensemble.connect());
    let zookeeper = ZooKeeper::over(own.clone());
    zookeeper.create_base_paths().await.unwrap();
    register(&zookeeper, own_id, true).await;
    for id in others {
        register(&ZooKeeper::over(other.clone()), *id, fast_failover).await;
    }
    let seat = ControllerSeat::new(BrokerId(2), 0).encode();
    let coordination: &dyn Coordination = &*other;
    coordination
        .create(ControllerSeat::PATH, Some(seat), CreateMode::Ephemeral)
        .await
        .unwrap();
    let given = [("zookeeper.connect".to_owned(), "localhost:2181".to_owned())];
    let config = BrokerConfig::parse(&given.into()).unwrap();
    let (status, controller) = watch::channel(ControllerStatus {
        active_controller: Some(BrokerId(2)),
        ..ControllerStatus::default()
    });
    let network = Arc::new(FakeNetwork {
        port: watch::Sender::new(Port::Open),
        dialled: Mutex::new(0),
    });
    let (reporting, suspected) = reporting(network.clone());
    let task = start(LivenessOptions {
        broker_id: BrokerId(own_id),
        zookeeper,
        config: Arc::new(LiveConfig::new(config, BrokerId(own_id)).unwrap()),
        controller,
        network: network.clone(),
        suspected,
    })
    .unwrap();
    Rig {
        other,
        network,
        reporting,
        _status: status,
        _task: Owned(task),
    }
}

impl Rig {
    async fn stats(&self) -> (Option<Stat>, Option<Stat>) {
        let coordination: &dyn Coordination = &*self.other;
        let path = BrokerRegistration::path(BrokerId(2));
        let registration = coordination.exists(&path, Watch::No).await.unwrap();
        let seat = coordination.exists(ControllerSeat::PATH, Watch::No).await;
        (registration, seat.unwrap())
    }

    async fn lost_both(&self) {
        let gone = async {
            while self.stats().await != (None, None) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
    }

    async fn dialled(&self, times: usize) {
        let dialled = async {
            while *self.network.dialled.lock().unwrap() < times {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, dialled).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_broker_loses_registration_and_seat_long_before_its_session() {
    let rig = rig(true).await;
    rig.dialled(1).await;
    rig.network.port.send_replace(Port::Refusing);
    let began = tokio::time::Instant::now();
    rig.lost_both().await;
    assert!(began.elapsed() < Duration::from_millis(400));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_closes_a_connection_or_falls_silent_keeps_both() {
    let rig = rig(true).await;
    rig.dialled(1).await;
    let before = rig.stats().await;
    // Closed, but it still listens: one probe, then the connection is made again.
    rig.network.port.send_replace(Port::Open);
    rig.dialled(3).await;
    // Closed, and then nothing: neither refused nor accepted.
    rig.network.port.send_replace(Port::Silent);
    rig.dialled(5).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.stats().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_take_part_is_not_even_dialled() {
    let rig = rig(false).await;
    let before = rig.stats().await;
    rig.network.port.send_replace(Port::Refusing);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.stats().await, before);
    assert_eq!(*rig.network.dialled.lock().unwrap(), 0);
}

/// With the controller the three that watch everybody died: whoever follows one of them tells.
#[tokio::test(start_paused = true)]
async fn who_watches_nobody_tells_when_its_leader_refuses() {
    let rig = rig_of(5, &[1, 2, 3], true).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(*rig.network.dialled.lock().unwrap(), 0);
    let address = BrokerAddress {
        id: BrokerId(2),
        host: "h2".to_owned(),
        port: 9092,
    };
    let mut stream = rig.reporting.connect(&address).await.unwrap();
    rig.network.port.send_replace(Port::Refusing);
    let answer = stream.exchange(Bytes::new(), PATIENCE).await;
    assert!(matches!(answer, Err(PeerError::Reset(_))), "{answer:?}");
    rig.lost_both().await;
}

#[tokio::test(start_paused = true)]
async fn what_followers_tell_of_a_broker_that_does_not_take_part_is_nothing() {
    let rig = rig_of(5, &[1, 2, 3], false).await;
    let before = rig.stats().await;
    rig.network.port.send_replace(Port::Refusing);
    let address = BrokerAddress {
        id: BrokerId(2),
        host: "h2".to_owned(),
        port: 9092,
    };
    for _ in 0..10 {
        assert!(rig.reporting.connect(&address).await.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.stats().await, before);
    assert_eq!(*rig.network.dialled.lock().unwrap(), 10);
}
