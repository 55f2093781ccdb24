//! Connections to a server, in the clear or by TLS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A byte stream to a server.
pub(in crate::zookeeper::client) trait Stream:
    AsyncRead + AsyncWrite + Send + Sync + Unpin
{
}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// Makes connections.
#[derive(Clone)]
pub(in crate::zookeeper::client) struct Transport {
    pub(in crate::zookeeper::client) tls: Option<Arc<rustls::ClientConfig>>,
}

impl Transport {
    /// Connects to the first address of a host that takes it, within `timeout` over all.
    pub(in crate::zookeeper::client) async fn connect(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> io::Result<Box<dyn Stream>> {
        let connecting = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let Some(tls) = &self.tls else {
                return Ok(Box::new(stream) as Box<dyn Stream>);
            };
            let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
            let stream = TlsConnector::from(tls.clone())
                .connect(name, stream)
                .await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        };
        match tokio::time::timeout(timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        }
    }
}
