//! A peer against a socket that answers well, badly or not at all.

use barnabas_core::ids::BrokerId;
use bytes::BufMut as _;
use kafka_protocol::messages::{ApiVersionsRequest, ControlledShutdownRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn peer(port: u16) -> Peer {
    let address = BrokerAddress {
        id: BrokerId(1),
        host: "127.0.0.1".to_owned(),
        port,
    };
    Peer::new(Arc::new(TcpNetwork), address, "7".to_owned())
}

async fn listen() -> (TcpListener, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, peer(port))
}

async fn read_frame(tcp: &mut TcpStream) -> Vec<u8> {
    let mut frame = vec![0; tcp.read_i32().await.unwrap() as usize];
    tcp.read_exact(&mut frame).await.unwrap();
    frame
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.put_i32(body.len() as i32);
    frame.extend_from_slice(body);
    frame
}

async fn ask(peer: &mut Peer, timeout: Duration) -> Result<i16, PeerError> {
    let request = ControlledShutdownRequest::default();
    let response = peer.call(3, &request, timeout).await;
    response.map(|response| response.error_code)
}

#[tokio::test]
async fn requests_have_headers_and_answers_are_matched() {
    let (listener, mut peer) = listen().await;
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        for correlation_id in 0..2_u8 {
            let expected = [0, 7, 0, 3, 0, 0, 0, correlation_id, 0, 1, b'7', 0];
            let request = read_frame(&mut tcp).await;
            assert_eq!(request[..12], expected);
            // Header with one tagged field, error 8, no partitions, no tagged fields.
            let answer = [0, 0, 0, correlation_id, 1, 5, 1, 9, 0, 8, 1, 0];
            tcp.write_all(&frame(&answer)).await.unwrap();
        }
    });
    for _ in 0..2 {
        assert_eq!(ask(&mut peer, LONG).await.unwrap(), 8);
    }
    server.await.unwrap();
}

#[tokio::test]
async fn who_does_not_listen_refuses() {
    let (listener, mut peer) = listen().await;
    drop(listener);
    let refused = ask(&mut peer, LONG).await;
    assert!(matches!(refused, Err(PeerError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn a_connection_that_ends_is_dialled_again() {
    let (listener, mut peer) = listen().await;
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        read_frame(&mut tcp).await;
        drop(tcp);
        let (mut tcp, _) = listener.accept().await.unwrap();
        read_frame(&mut tcp).await;
        let answer = [0, 0, 0, 1, 0, 0, 0, 1, 0];
        tcp.write_all(&frame(&answer)).await.unwrap();
    });
    let reset = ask(&mut peer, LONG).await;
    assert!(matches!(reset, Err(PeerError::Reset(_))), "{reset:?}");
    assert!(!peer.is_connected());
    assert_eq!(ask(&mut peer, LONG).await.unwrap(), 0);
    server.await.unwrap();
}

#[tokio::test]
async fn silence_and_nonsense_cost_the_connection() {
    let (listener, mut peer) = listen().await;
    let server = tokio::spawn(async move {
        let (_silent, _) = listener.accept().await.unwrap();
        let answers: [&[u8]; 4] = [
            &frame(&[0, 0, 0, 9, 0, 0, 0, 1, 0]),
            &frame(&[0, 0, 0, 2, 0, 0]),
            &frame(&[0, 0]),
            &[0xff, 0xff, 0xff, 0xff],
        ];
        for answer in answers {
            let (mut tcp, _) = listener.accept().await.unwrap();
            read_frame(&mut tcp).await;
            tcp.write_all(answer).await.unwrap();
        }
    });
    let silent = ask(&mut peer, Duration::from_millis(50)).await;
    assert!(matches!(silent, Err(PeerError::TimedOut)), "{silent:?}");
    for _ in 0..4 {
        let malformed = ask(&mut peer, LONG).await;
        assert!(
            matches!(malformed, Err(PeerError::Malformed(_))),
            "{malformed:?}"
        );
        assert!(!peer.is_connected());
    }
    server.await.unwrap();
}

#[tokio::test]
async fn a_request_that_cannot_be_encoded_is_not_sent() {
    let (_listener, mut peer) = listen().await;
    let request = ApiVersionsRequest::default();
    let malformed = peer.call(99, &request, LONG).await;
    assert!(matches!(malformed, Err(PeerError::Malformed(_))));
}

#[test]
fn versions_of_orders_follow_the_inter_broker_protocol() {
    let check = |protocol: &str, expected: [i16; 4]| {
        let found = ControlVersions::of(protocol);
        let found = [
            found.leader_and_isr,
            found.stop_replica,
            found.update_metadata,
            found.controlled_shutdown,
        ];
        assert_eq!(found, expected, "{protocol}");
    };
    check("3.9-IV0", [7, 4, 8, 3]);
    check("3.4", [7, 4, 8, 3]);
    check("3.3-IV3", [6, 3, 7, 3]);
    check("2.8-IV1", [5, 3, 7, 3]);
    check("2.4-IV1", [4, 2, 6, 3]);
    check("2.4-IV0", [3, 1, 5, 2]);
    check("2.2", [2, 1, 5, 2]);
    check("1.0", [1, 0, 4, 1]);
    check("0.10.2", [0, 0, 3, 1]);
    check("0.9.0", [0, 0, 1, 1]);
}
