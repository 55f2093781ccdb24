//! Listening sockets and the loop that accepts from them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};

use super::congestion::SystemsChoice;
use super::connection::{self, Accepted};
use super::limits::Refusal;
use super::{ListenerOptions, Network, Service, limits};

/// How long to wait before accepting again when the process is out of descriptors.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// Why a listener cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("listener {name}: cannot resolve `{host}`: {source}")]
    Resolve {
        name: String,
        host: String,
        source: io::Error,
    },
    #[error("listener {name}: cannot listen on {address}: {source}")]
    Bind {
        name: String,
        address: SocketAddr,
        source: io::Error,
    },
}

/// A bound socket that nobody accepts from yet: connections queue up in its backlog.
#[derive(Debug)]
pub struct Listener {
    name: Arc<str>,
    socket: TcpListener,
    local_address: SocketAddr,
    congestion: Option<SystemsChoice>,
    options: ListenerOptions,
}

impl Listener {
    /// Binds and listens. Must run within the runtime.
    pub async fn bind(options: &ListenerOptions) -> Result<Self, ListenError> {
        let address = resolve(options).await?;
        let bound = bind(address, options).or_else(|error| {
            // A host without IPv6 still has "every interface".
            let is_any = options.host.is_empty() && address.is_ipv6();
            if is_any {
                bind((Ipv4Addr::UNSPECIFIED, options.port).into(), options)
            } else {
                Err(error)
            }
        });
        let listening = bound.and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (local_address, socket) = listening.map_err(|source| ListenError::Bind {
            name: options.name.clone(),
            address,
            source,
        })?;
        Ok(Self {
            name: Arc::from(options.name.as_str()),
            congestion: SystemsChoice::put_off(&socket),
            socket,
            local_address,
            options: options.clone(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the socket listens; its port is never 0.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    fn configure(&self, stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if let Some(of_system) = &self.congestion {
            of_system.restore(stream, stream.local_addr()?, peer);
        }
        let socket = SockRef::from(stream);
        socket.set_tcp_keepalive(&TcpKeepalive::new())?;
        if let Some(bytes) = self.options.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        Ok(())
    }
}

async fn resolve(options: &ListenerOptions) -> Result<SocketAddr, ListenError> {
    let ListenerOptions {
        name, host, port, ..
    } = options;
    if host.is_empty() {
        return Ok((Ipv6Addr::UNSPECIFIED, *port).into());
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok((address, *port).into());
    }
    let failed = |source| ListenError::Resolve {
        name: name.clone(),
        host: host.clone(),
        source,
    };
    let found: Vec<_> = tokio::net::lookup_host((host.as_str(), *port))
        .await
        .map_err(failed)?
        .collect();
    // Java prefers IPv4 addresses of a name unless told otherwise.
    let preferred = found
        .iter()
        .find(|address| address.is_ipv4())
        .or(found.first());
    preferred
        .copied()
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn bind(address: SocketAddr, options: &ListenerOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `[::]` stands for IPv4 as well, as in Java.
        socket.set_only_v6(false)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        // Before listening: accepted sockets inherit it together with a window that fits.
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    TcpListener::from_std(socket.into())
}

/// Accepts for as long as it is allowed to run.
pub(super) async fn accept_loop<S: Service>(
    network: Arc<Network>,
    listener: Listener,
    service: Arc<S>,
) {
    let metrics = service.listener_metrics(&listener.name);
    loop {
        let (stream, peer_address) = match listener.socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::error!(listener = &*listener.name, %error, "cannot accept connections");
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        let peer_address = SocketAddr::new(peer_address.ip().to_canonical(), peer_address.port());
        let slot = match limits::take_slot(&network, &listener.name, peer_address.ip()).await {
            Ok(slot) => slot,
            Err(refusal) => {
                metrics.connections_rejected.increment();
                tracing::info!(listener = &*listener.name, reason = %refusal, "rejecting a connection");
                if let Refusal::TooFast { wait, .. } = refusal {
                    tokio::spawn(async move {
                        tokio::time::sleep(wait).await;
                        drop(stream);
                    });
                }
                continue;
            }
        };
        if let Err(error) = listener.configure(&stream, peer_address) {
            tracing::debug!(peer = %peer_address, %error, "the connection is gone already");
            continue;
        }
        let accepted = Accepted {
            stream,
            peer_address,
            listener: listener.name.clone(),
            metrics: metrics.clone(),
            slot,
        };
        connection::spawn(&network, &service, accepted);
    }
}

/// The connection ended before it was accepted: the next one may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(host: &str) -> ListenerOptions {
        ListenerOptions {
            name: "PLAINTEXT".to_owned(),
            host: host.to_owned(),
            port: 0,
            backlog: 50,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }

    #[tokio::test]
    async fn every_interface_takes_ipv4_and_a_free_port_is_told() {
        let listener = Listener::bind(&options("")).await.unwrap();
        let port = listener.local_address().port();
        assert_ne!(port, 0);
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = Listener::bind(&options("127.0.0.1")).await.unwrap();
        let mut taken = options("127.0.0.1");
        taken.port = first.local_address().port();
        let error = Listener::bind(&taken).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("127.0.0.1:{}", taken.port)),
            "{error}"
        );
    }
}
