//! Connections against a service that answers what it is told to.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use barnabas_core::quota::Window;

use super::*;
use crate::api::Section;
use crate::api::dispatch::{CloseReason, Mute, Response};
use crate::files::{Files as _, OpenMode, disk::Disk};
use crate::log::LogSlice;
use crate::metrics::Metrics;

/// Answers a frame with itself, but for those that begin with a word it knows.
struct Echo {
    metrics: Metrics,
    /// What `file` answers.
    directory: tempfile::TempDir,
    /// `wait` waits for it.
    released: Notify,
    /// Told when a request waits.
    waiting: Notify,
}

impl Service for Echo {
    async fn handle(self: &Arc<Self>, frame: Bytes, _: &Connection) -> Outcome {
        let sections = match &frame[..] {
            b"silent" => return Outcome::Silent(None),
            b"silent and muted" => {
                let until = tokio::time::Instant::now() + Duration::from_millis(300);
                return Outcome::Silent(Some(Mute(until)));
            }
            b"silent and muted for ever" => {
                let until = tokio::time::Instant::now() + Duration::from_secs(3600);
                return Outcome::Silent(Some(Mute(until)));
            }
            b"close" => return Outcome::Close(CloseReason::Header),
            b"wait" => {
                self.waiting.notify_one();
                self.released.notified().await;
                vec![Section::Bytes(frame)]
            }
            b"file" => {
                let slice = slice(&self.directory.path().join("file"), 10, 300_000);
                let before = Bytes::from_static(b"before");
                vec![
                    Section::Bytes(before),
                    Section::File(slice),
                    Section::Bytes(frame),
                ]
            }
            b"flood" => vec![Section::Bytes(vec![7; 64 << 20].into())],
            _ => vec![Section::Bytes(frame)],
        };
        Outcome::Respond(Response::new(1, 0, sections).unwrap())
    }

    fn listener_metrics(&self, listener: &str) -> Arc<ListenerMetrics> {
        self.metrics.listener(listener)
    }

    fn was_sent(&self, _: &Response, _: &Connection, _: Duration, _: Duration) {}
}

fn slice(path: &Path, position: u64, length: usize) -> LogSlice {
    LogSlice {
        file: Disk.open(path, OpenMode::Read).unwrap(),
        path: path.into(),
        position,
        length,
        segment_base_offset: 0,
        first_batch_incomplete: false,
    }
}

struct Server {
    network: Arc<Network>,
    echo: Arc<Echo>,
    address: std::net::SocketAddr,
}

async fn bind(name: &str) -> Listener {
    let options = ListenerOptions {
        name: name.to_owned(),
        host: "127.0.0.1".to_owned(),
        port: 0,
        backlog: 50,
        send_buffer_bytes: Some(100 << 10),
        receive_buffer_bytes: None,
    };
    Listener::bind(&options).await.unwrap()
}

async fn start(options: NetworkOptions) -> Server {
    let listener = bind("PLAINTEXT").await;
    let address = listener.local_address();
    let echo = Arc::new(Echo {
        metrics: Metrics::default(),
        directory: tempfile::tempdir().unwrap(),
        released: Notify::new(),
        waiting: Notify::new(),
    });
    let network = Network::new(options, Arc::new(AddressRates::new(Window::new(11, 1))));
    network.serve(listener, echo.clone());
    Server {
        network,
        echo,
        address,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn send(client: &mut TcpStream, frame: &[u8]) {
    client.write_i32(frame.len() as i32).await.unwrap();
    client.write_all(frame).await.unwrap();
}

/// The body of the next response; `None` if the connection was closed.
async fn receive(client: &mut TcpStream) -> Option<Vec<u8>> {
    let size = client.read_i32().await.ok()?;
    assert_eq!(client.read_i32().await.unwrap(), 1, "correlation id");
    let mut body = vec![0; size as usize - 4];
    client.read_exact(&mut body).await.unwrap();
    Some(body)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn frames_of_all_sizes_come_back() {
    let server = start(NetworkOptions::default()).await;
    let mut client = server.connect().await;
    for size in [
        1,
        100,
        4096,
        4097,
        65_531,
        65_532,
        65_533,
        200_000,
        1 << 20,
        5 << 20,
    ] {
        let frame = pattern(size);
        send(&mut client, &frame).await;
        assert!(receive(&mut client).await.unwrap() == frame, "{size}");
    }
}

#[tokio::test]
async fn frames_in_a_row_are_answered_in_order() {
    let server = start(NetworkOptions::default()).await;
    let mut client = server.connect().await;
    let frames: Vec<_> = (1..60).map(|n| pattern(n * 997)).collect();
    let bytes: Vec<u8> = frames
        .iter()
        .flat_map(|frame| [&(frame.len() as i32).to_be_bytes()[..], frame].concat())
        .collect();
    let (mut read, mut write) = client.split();
    let writing = async { write.write_all(&bytes).await.unwrap() };
    let reading = async {
        for frame in &frames {
            let mut answer = vec![0; frame.len() + 8];
            read.read_exact(&mut answer).await.unwrap();
            assert!(answer[8..] == frame[..]);
        }
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte() {
    let server = start(NetworkOptions::default()).await;
    let mut client = server.connect().await;
    client.set_nodelay(true).unwrap();
    for byte in [0, 0, 0, 3, b'a', b'b', b'c', 0, 0, 0, 1, b'd'] {
        client.write_u8(byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(receive(&mut client).await.unwrap(), b"abc");
    assert_eq!(receive(&mut client).await.unwrap(), b"d");
}

#[tokio::test]
async fn files_are_sent_between_other_bytes() {
    let server = start(NetworkOptions::default()).await;
    let content = pattern(400_000);
    std::fs::write(server.echo.directory.path().join("file"), &content).unwrap();
    let mut client = server.connect().await;
    for _ in 0..3 {
        send(&mut client, b"file").await;
        let expected = [b"before", &content[10..300_010], b"file"].concat();
        assert!(receive(&mut client).await.unwrap() == expected);
    }
}

#[tokio::test]
async fn a_file_that_ends_too_early_ends_the_connection() {
    let server = start(NetworkOptions::default()).await;
    let path = server.echo.directory.path().join("file");
    std::fs::write(&path, pattern(1000)).unwrap();
    let mut client = server.connect().await;
    send(&mut client, b"file").await;
    let mut received = Vec::new();
    client.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), 8 + 6 + 990);
    let mut file = std::fs::File::options().append(true).open(path).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(&pattern(400_000)).unwrap();
    let mut client = server.connect().await;
    send(&mut client, b"file").await;
    assert_eq!(receive(&mut client).await.unwrap().len(), 300_010);
}

#[tokio::test]
async fn a_throttled_client_is_answered_later_and_others_at_once() {
    let server = start(NetworkOptions::default()).await;
    let mut throttled = server.connect().await;
    let began = std::time::Instant::now();
    send(&mut throttled, b"silent and muted").await;
    send(&mut throttled, b"after").await;
    let mut other = server.connect().await;
    send(&mut other, b"other").await;
    assert_eq!(receive(&mut other).await.unwrap(), b"other");
    assert_eq!(receive(&mut throttled).await.unwrap(), b"after");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_throttled_client_does_not_hold_up_the_end() {
    let server = start(NetworkOptions::default()).await;
    let mut throttled = server.connect().await;
    send(&mut throttled, b"silent and muted for ever").await;
    send(&mut throttled, b"never answered").await;
    let mut other = server.connect().await;
    send(&mut other, b"other").await;
    receive(&mut other).await.unwrap();
    server.network.shutdown(Duration::from_secs(60)).await;
    assert_eq!(receive(&mut throttled).await, None);
}

#[tokio::test]
async fn bad_sizes_and_hangups_end_the_connection_only() {
    let options = NetworkOptions {
        request_bytes_max: 1000,
        ..NetworkOptions::default()
    };
    let server = start(options).await;
    let mut other = server.connect().await;
    send(&mut other, b"silent").await;
    for size in [0, -1, i32::MIN, 1001, i32::MAX] {
        let mut client = server.connect().await;
        client.write_i32(size).await.unwrap();
        assert_eq!(receive(&mut client).await, None, "{size}");
    }
    let mut client = server.connect().await;
    send(&mut client, b"close").await;
    assert_eq!(receive(&mut client).await, None);
    send(&mut other, b"still here").await;
    assert_eq!(receive(&mut other).await.unwrap(), b"still here");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let idle_max = Some(Duration::from_millis(50));
    let server = start(NetworkOptions {
        idle_max,
        ..NetworkOptions::default()
    })
    .await;
    let mut busy = server.connect().await;
    send(&mut busy, b"wait").await;
    server.echo.waiting.notified().await;
    let mut idle = server.connect().await;
    assert_eq!(receive(&mut idle).await, None);
    let mut halfway = server.connect().await;
    halfway.write_all(&[0, 0]).await.unwrap();
    assert_eq!(receive(&mut halfway).await, None);
    server.echo.released.notify_one();
    assert_eq!(receive(&mut busy).await.unwrap(), b"wait");
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_in_the_end() {
    let idle_max = Some(Duration::from_millis(50));
    let server = start(NetworkOptions {
        idle_max,
        ..NetworkOptions::default()
    })
    .await;
    let mut client = server.connect().await;
    send(&mut client, b"flood").await;
    while server.network.connection_count() == 0 {
        tokio::task::yield_now().await;
    }
    let gone = async {
        while server.network.connection_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone)
        .await
        .unwrap();
}

#[tokio::test]
async fn connections_of_an_address_are_limited() {
    let limits = ConnectionLimits {
        per_address: Some(2),
        ..ConnectionLimits::default()
    };
    let server = start(NetworkOptions {
        limits,
        ..NetworkOptions::default()
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect().await;
        send(&mut client, b"hello").await;
        assert!(receive(&mut client).await.is_some());
        clients.push(client);
    }
    assert_eq!(server.network.connection_count_from(server.address.ip()), 2);
    assert_eq!(receive(&mut server.connect().await).await, None);
    server.network.set_limits(ConnectionLimits::default());
    let mut client = server.connect().await;
    send(&mut client, b"hello").await;
    assert!(receive(&mut client).await.is_some());
}

#[tokio::test]
async fn a_full_broker_lets_the_next_connection_wait() {
    let limits = ConnectionLimits {
        broker: Some(1),
        ..ConnectionLimits::default()
    };
    let server = start(NetworkOptions {
        limits,
        ..NetworkOptions::default()
    })
    .await;
    let mut first = server.connect().await;
    send(&mut first, b"hello").await;
    assert!(receive(&mut first).await.is_some());
    let mut second = server.connect().await;
    send(&mut second, b"hello").await;
    drop(first);
    assert!(receive(&mut second).await.is_some());
}

#[tokio::test]
async fn a_shutdown_closes_idle_connections_and_lets_requests_answer() {
    let server = start(NetworkOptions::default()).await;
    let mut idle = server.connect().await;
    send(&mut idle, b"hello").await;
    assert!(receive(&mut idle).await.is_some());
    let mut busy = server.connect().await;
    send(&mut busy, b"wait").await;
    server.echo.waiting.notified().await;
    let network = server.network.clone();
    let shutdown = tokio::spawn(async move { network.shutdown(Duration::from_secs(60)).await });
    assert_eq!(receive(&mut idle).await, None);
    server.echo.released.notify_one();
    assert_eq!(receive(&mut busy).await.unwrap(), b"wait");
    shutdown.await.unwrap();
    assert_eq!(server.network.connection_count(), 0);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_listener_that_is_closed_lets_its_requests_answer_and_the_others_alone() {
    let server = start(NetworkOptions::default()).await;
    let other = bind("OTHER").await;
    let other_address = other.local_address();
    server.network.serve(other, server.echo.clone());
    let mut staying = server.connect().await;
    let mut idle = TcpStream::connect(other_address).await.unwrap();
    let mut busy = TcpStream::connect(other_address).await.unwrap();
    for client in [&mut staying, &mut idle] {
        send(client, b"x").await;
        assert_eq!(receive(client).await.unwrap(), b"x");
    }
    send(&mut busy, b"wait").await;
    server.echo.waiting.notified().await;
    let closing = server
        .network
        .close_listener("OTHER", Duration::from_secs(60));
    let answering = async {
        assert_eq!(receive(&mut idle).await, None);
        assert!(TcpStream::connect(other_address).await.is_err());
        server.echo.released.notify_one();
        assert_eq!(receive(&mut busy).await.unwrap(), b"wait");
        assert_eq!(receive(&mut busy).await, None);
    };
    tokio::join!(closing, answering);
    send(&mut staying, b"x").await;
    assert_eq!(receive(&mut staying).await.unwrap(), b"x");
    assert_eq!(server.network.connection_count(), 1);
}

#[tokio::test]
async fn request_memory_is_bounded() {
    let options = NetworkOptions {
        request_bytes_max: 4 << 20,
        request_memory_bytes_max: Some(4 << 20),
        ..NetworkOptions::default()
    };
    let server = start(options).await;
    let frame = pattern(3 << 20);
    let mut first = server.connect().await;
    // All but the end: the first keeps its share.
    first.write_i32(frame.len() as i32).await.unwrap();
    first.write_all(&frame[..frame.len() - 1]).await.unwrap();
    while server.network.request_memory.available_permits() == server.network.request_memory_max {
        tokio::task::yield_now().await;
    }
    let mut second = server.connect().await;
    let mut small = server.connect().await;
    let (mut read, mut write) = second.split();
    let writing = async {
        write.write_i32(frame.len() as i32).await.unwrap();
        write.write_all(&frame).await.unwrap();
    };
    let reading = async {
        // Small requests are not held up.
        send(&mut small, b"small").await;
        assert_eq!(receive(&mut small).await.unwrap(), b"small");
        first.write_all(&frame[frame.len() - 1..]).await.unwrap();
        assert!(receive(&mut first).await.unwrap() == frame);
        let mut answer = vec![0; 8 + frame.len()];
        read.read_exact(&mut answer).await.unwrap();
        assert!(answer[8..] == frame[..]);
    };
    tokio::join!(writing, reading);
}
