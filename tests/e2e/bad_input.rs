//! What clients should not send, and clients that do nothing at all: each costs at most its own connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use barnabas_tests::broker::{Broker, BrokerOptions};
use barnabas_tests::wait::until;
use barnabas_tests::wire::{Answer, WireClient, encode_request};
use barnabas_tests::zookeeper_server::ZooKeeperServer;
use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};

const PATIENCE: Duration = Duration::from_secs(60);

struct Setup {
    broker: Broker,
    _zookeeper: ZooKeeperServer,
    _directory: tempfile::TempDir,
}

fn start(settings: &[(&str, &str)]) -> Setup {
    let directory = tempfile::tempdir().unwrap();
    let zookeeper = ZooKeeperServer::start().unwrap();
    let mut options = BrokerOptions::new(directory.path(), &zookeeper.connect());
    for (key, value) in settings {
        options = options.with(key, value);
    }
    Setup {
        broker: options.start().unwrap(),
        _zookeeper: zookeeper,
        _directory: directory,
    }
}

impl Setup {
    fn client(&self) -> WireClient {
        WireClient::connect(&self.broker.address()).unwrap()
    }

    fn socket(&self) -> TcpStream {
        let address = SocketAddr::from(([127, 0, 0, 1], self.broker.options().port));
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    fn assert_serves(&self) {
        let response = self
            .client()
            .request(&ApiVersionsRequest::default(), 0)
            .unwrap();
        assert_eq!(response.error_code, 0);
    }

    /// Memory that the broker really uses, in bytes.
    fn resident(&mut self) -> usize {
        let id = self.broker.process().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let kibibytes: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kibibytes << 10
    }

    fn lines_about_closing(&self) -> usize {
        self.broker.log().matches("closing a connection").count()
    }
}

/// True if the broker hangs up without a byte.
fn is_closed(socket: &mut TcpStream) -> bool {
    !matches!(socket.read(&mut [0]), Ok(1..))
}

fn api_versions() -> Vec<u8> {
    encode_request(&ApiVersionsRequest::default(), 0, 1)
        .unwrap()
        .to_vec()
}

#[test]
fn garbage_costs_its_connection_and_one_line() {
    let setup = start(&[]);
    let metadata = encode_request(&MetadataRequest::default(), 1, 1).unwrap();
    let lying_array = [&metadata[..metadata.len() - 4], &[0x7f, 0xff, 0xff, 0xff]].concat();
    let mut unknown_key = api_versions();
    unknown_key[1] = 99;
    let mut unknown_version = metadata.to_vec();
    unknown_version[3] = 77;
    let frames: [&[u8]; 6] = [
        b"",
        b"\0",
        b"GET / HTTP/1.1",
        &unknown_key,
        &unknown_version,
        &lying_array,
    ];
    for frame in frames {
        let mut client = setup.client();
        client.send_frame(frame).unwrap();
        assert_eq!(client.receive().unwrap(), Answer::Closed, "{frame:x?}");
    }
    for size in [-1_i32, i32::MIN, i32::MAX, 104_857_601] {
        let mut socket = setup.socket();
        socket.write_all(&size.to_be_bytes()).unwrap();
        assert!(is_closed(&mut socket), "{size}");
    }
    // Cut off in the middle.
    let mut socket = setup.socket();
    socket.write_all(&[0, 0, 1, 0, 1, 2, 3]).unwrap();
    drop(socket);
    let expected = frames.len() + 4 + 1;
    until(PATIENCE, || {
        (setup.lines_about_closing() >= expected).then_some(())
    })
    .unwrap();
    assert_eq!(setup.lines_about_closing(), expected);
    setup.assert_serves();
}

#[test]
fn a_large_size_alone_takes_no_memory() {
    let mut setup = start(&[]);
    let before = setup.resident();
    let sockets: Vec<_> = (0..500)
        .map(|_| {
            let mut socket = setup.socket();
            socket.write_all(&104_857_600_i32.to_be_bytes()).unwrap();
            socket.write_all(&[0; 1000]).unwrap();
            socket
        })
        .collect();
    setup.assert_serves();
    let taken = setup.resident().saturating_sub(before);
    assert!(
        taken < 64 << 20,
        "{taken} bytes for {} announcements",
        sockets.len()
    );
}

#[test]
fn clients_that_never_read_take_bounded_memory() {
    let mut setup = start(&[("connections.max.idle.ms", "3000")]);
    let before = setup.resident();
    let request = api_versions();
    let frame = [&(request.len() as i32).to_be_bytes()[..], &request].concat();
    let many = frame.repeat(1000);
    let mut sockets: Vec<_> = (0..20).map(|_| setup.socket()).collect();
    for socket in &mut sockets {
        socket.set_nonblocking(true).unwrap();
        // Until the broker stops to read, because nobody takes its answers.
        let mut full = 0;
        until(PATIENCE, || {
            match socket.write(&many) {
                Ok(_) => full = 0,
                Err(_) => full += 1,
            }
            (full > 5).then_some(())
        })
        .unwrap();
    }
    let taken = setup.resident().saturating_sub(before);
    assert!(taken < 64 << 20, "{taken} bytes");
    setup.assert_serves();
    // The idle rule ends them.
    for socket in &mut sockets {
        until(PATIENCE, || {
            let written = socket.write(b"x");
            matches!(written, Err(error) if error.kind() != std::io::ErrorKind::WouldBlock)
                .then_some(())
        })
        .unwrap();
    }
}

#[test]
fn ten_thousand_idle_connections_are_cheap() {
    const COUNT: usize = 10_000;
    barnabas_tests::limits::raise_open_files(COUNT + 1000);
    let mut setup = start(&[]);
    let before = setup.resident();
    let request = api_versions();
    let frame = [&(request.len() as i32).to_be_bytes()[..], &request].concat();
    let mut sockets = Vec::with_capacity(COUNT);
    for _ in 0..COUNT {
        let mut socket = setup.socket();
        socket.write_all(&frame).unwrap();
        sockets.push(socket);
    }
    for socket in &mut sockets {
        let mut size = [0; 4];
        socket.read_exact(&mut size).unwrap();
        let mut body = vec![0; i32::from_be_bytes(size) as usize];
        socket.read_exact(&mut body).unwrap();
    }
    let taken = setup.resident().saturating_sub(before);
    println!("{} bytes per idle connection", taken / COUNT);
    assert!(taken < 100 << 20, "{taken} bytes");
    setup.assert_serves();
    // All of them are still served.
    for socket in &mut sockets {
        socket.write_all(&frame).unwrap();
        socket.read_exact(&mut [0; 4]).unwrap();
    }
}

#[test]
fn idle_connections_end() {
    let setup = start(&[("connections.max.idle.ms", "500")]);
    let mut sockets: Vec<_> = (0..20).map(|_| setup.socket()).collect();
    for socket in &mut sockets {
        assert!(is_closed(socket));
    }
    setup.assert_serves();
}

#[test]
fn connections_of_an_address_are_limited() {
    let setup = start(&[("max.connections.per.ip", "5")]);
    // The harness has just disconnected.
    let mut kept = Vec::new();
    until(PATIENCE, || {
        let mut client = setup.client();
        if client.request(&ApiVersionsRequest::default(), 0).is_ok() {
            kept.push(client);
        }
        (kept.len() == 5).then_some(())
    })
    .unwrap();
    assert!(is_closed(&mut setup.socket()));
    drop(kept.pop());
    until(PATIENCE, || {
        setup
            .client()
            .request(&ApiVersionsRequest::default(), 0)
            .is_ok()
            .then_some(())
    })
    .unwrap();
}
