//! A TCP proxy between a client and a server that loses connections on demand.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Every connection is closed at once.
    Refuse,
    /// The next bytes from the server are thrown away together with the connection; then `Pass`.
    LoseNextReply,
}

/// Ends when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    mode: Arc<watch::Sender<Mode>>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server_port: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(watch::Sender::new(Mode::Pass));
        let modes = mode.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, server_port, modes.clone()));
            }
        });
        Proxy { port, mode, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Mode::Refuse);
        self.task.abort();
    }
}

async fn connection(mut client: TcpStream, server_port: u16, mode: Arc<watch::Sender<Mode>>) {
    let mut modes = mode.subscribe();
    if *modes.borrow() == Mode::Refuse {
        return;
    }
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await else {
        return;
    };
    let (mut from_client, mut from_server) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            biased;
            () = refused(&mut modes) => return,
            read = client.read(&mut from_client) => match read {
                Ok(length @ 1..) if server.write_all(&from_client[..length]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut from_server) => {
                if *mode.borrow() == Mode::LoseNextReply {
                    mode.send_replace(Mode::Pass);
                    return;
                }
                match read {
                    Ok(length @ 1..) if client.write_all(&from_server[..length]).await.is_ok() => {}
                    _ => return,
                }
            }
        }
    }
}

async fn refused(modes: &mut watch::Receiver<Mode>) {
    let _ = modes.wait_for(|mode| *mode == Mode::Refuse).await;
}
