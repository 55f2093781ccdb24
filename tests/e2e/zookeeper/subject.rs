//! Two ensembles with the same handles: what a story does to one it can do to the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use barnabas_broker::zookeeper::memory::{MemoryEnsemble, MemoryZooKeeper};
use barnabas_broker::zookeeper::{
    Coordination, CoordinationEvent, SessionState, ZooKeeperClient, ZooKeeperOptions,
};
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::proxy::{Mode, Proxy};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Fails the test rather than hang it.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// An ensemble, real or not.
pub(crate) trait Ensemble {
    /// An empty tree for one story.
    fn begin_story(&self);
    fn connect(&self) -> BoxFuture<'_, Client>;
    /// What is kept in a node, null told from empty.
    fn data_at(&self, path: &'static str) -> BoxFuture<'_, Option<Vec<u8>>>;
}

/// A client and the faults that can befall it.
pub(crate) struct Client {
    pub(crate) coordination: Arc<dyn Coordination>,
    faults: Faults,
}

enum Faults {
    Memory(Arc<MemoryZooKeeper>),
    Real(Box<Proxy>, Arc<ZooKeeperServer>),
}

impl Client {
    /// Lets the session expire; done when the next one has begun, so subscribers have to let go meanwhile.
    pub(crate) async fn expire(&self) {
        match &self.faults {
            Faults::Memory(client) => client.expire().await,
            Faults::Real(proxy, server) => {
                let id = self.coordination.session_id();
                let session = format!("0x{id:x}");
                let mut state = self.coordination.session_state();
                proxy.set(Mode::Refuse);
                while server.ask("dump").unwrap().contains(&session) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                proxy.set(Mode::Pass);
                let renewed = state.wait_for(|state| {
                    *state == SessionState::Connected && self.coordination.session_id() != id
                });
                in_time(renewed).await.unwrap();
            }
        }
    }

    pub(crate) async fn cut_off(&self) {
        match &self.faults {
            Faults::Memory(client) => client.cut_off(),
            Faults::Real(proxy, _) => proxy.set(Mode::Refuse),
        }
        self.until(SessionState::Disconnected).await;
    }

    pub(crate) async fn reconnect(&self) {
        match &self.faults {
            Faults::Memory(client) => client.reconnect(),
            Faults::Real(proxy, _) => proxy.set(Mode::Pass),
        }
        self.until(SessionState::Connected).await;
    }

    pub(crate) fn lose_next_reply(&self) {
        match &self.faults {
            Faults::Memory(client) => client.lose_next_reply(),
            Faults::Real(proxy, _) => proxy.set(Mode::LoseNextReply),
        }
    }

    async fn until(&self, wanted: SessionState) {
        let mut states = self.coordination.session_state();
        in_time(states.wait_for(|state| *state == wanted))
            .await
            .unwrap();
    }
}

/// The next event, which has to come.
pub(crate) async fn next(
    events: &mut mpsc::UnboundedReceiver<CoordinationEvent>,
) -> CoordinationEvent {
    in_time(events.recv()).await.expect("not closed")
}

#[derive(Default)]
pub(crate) struct Memory(std::sync::Mutex<MemoryEnsemble>);

impl Ensemble for Memory {
    fn begin_story(&self) {
        *self.0.lock().unwrap() = MemoryEnsemble::new();
    }

    fn connect(&self) -> BoxFuture<'_, Client> {
        let client = self.0.lock().unwrap().connect();
        let client = Client {
            coordination: client.clone(),
            faults: Faults::Memory(client),
        };
        std::future::ready(client).boxed()
    }

    fn data_at(&self, path: &'static str) -> BoxFuture<'_, Option<Vec<u8>>> {
        let data = self.0.lock().unwrap().dump()[path].0.clone();
        std::future::ready(data).boxed()
    }
}

pub(crate) struct Real {
    server: Arc<ZooKeeperServer>,
    story: AtomicU32,
}

impl Real {
    pub(crate) fn start() -> Real {
        Real {
            server: Arc::new(ZooKeeperServer::start().unwrap()),
            story: AtomicU32::new(0),
        }
    }
}

impl Ensemble for Real {
    fn begin_story(&self) {
        self.story.fetch_add(1, Ordering::Relaxed);
    }

    fn connect(&self) -> BoxFuture<'_, Client> {
        async {
            let proxy = Proxy::start(self.server.port()).await;
            let story = self.story.load(Ordering::Relaxed);
            let connect = format!("127.0.0.1:{}/stories/{story}", proxy.port());
            let mut options = ZooKeeperOptions::new(&connect).unwrap();
            options.session_timeout = Duration::from_secs(2);
            Client {
                coordination: ZooKeeperClient::connect(&options).await.unwrap(),
                faults: Faults::Real(Box::new(proxy), self.server.clone()),
            }
        }
        .boxed()
    }

    fn data_at(&self, path: &'static str) -> BoxFuture<'_, Option<Vec<u8>>> {
        let story = self.story.load(Ordering::Relaxed);
        raw_data(self.server.port(), format!("/stories/{story}{path}")).boxed()
    }
}

/// Reads a node by the bare protocol: libraries read null as empty.
async fn raw_data(port: u16, path: String) -> Option<Vec<u8>> {
    async fn exchange(stream: &mut TcpStream, message: &[u8]) -> Vec<u8> {
        stream
            .write_u32(u32::try_from(message.len()).unwrap())
            .await
            .unwrap();
        stream.write_all(message).await.unwrap();
        let length = stream.read_u32().await.unwrap();
        let mut answer = vec![0; length as usize];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // Protocol 0, nothing seen, 4 s, no session, a password of 16 bytes.
    let hello = [
        &[0; 12][..],
        &4000_u32.to_be_bytes(),
        &[0; 8],
        &16_u32.to_be_bytes(),
        &[0; 16],
    ];
    exchange(&mut stream, &hello.concat()).await;
    let length = u32::try_from(path.len()).unwrap();
    // Request 1, getData (4), the path, no watch.
    let get = [
        &[0, 0, 0, 1, 0, 0, 0, 4][..],
        &length.to_be_bytes(),
        path.as_bytes(),
        &[0],
    ];
    let answer = exchange(&mut stream, &get.concat()).await;
    let (header, rest) = answer.split_at(16);
    assert_eq!(header[12..], [0; 4], "{path} can be read");
    let (length, rest) = rest.split_first_chunk::<4>().unwrap();
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    Some(rest[..length].to_vec())
}
