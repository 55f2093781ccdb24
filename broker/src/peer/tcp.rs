//! Connections over TCP.

use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PeerError, PeerNetwork, PeerStream};

/// How long dialling may take (`socket.connection.setup.timeout.ms`); fetchers of a dead host give up after it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response that is believed. Peers limit what they send far below it.
const RESPONSE_BYTES_MAX: usize = 1 << 30;

/// Memory set aside for what a size announces; more comes as bytes arrive.
const ANNOUNCED_BYTES_MAX: usize = 16 << 20;

/// The network of the kernel, without TLS and SASL.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpNetwork;

impl PeerNetwork for TcpNetwork {
    fn connect<'a>(
        &'a self,
        address: &'a BrokerAddress,
    ) -> BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>> {
        async move {
            let dialled = TcpStream::connect((address.host.as_str(), address.port));
            let tcp = timeout(CONNECT_TIMEOUT, dialled)
                .await
                .map_err(|_| PeerError::TimedOut)??;
            tcp.set_nodelay(true)?;
            Ok(Box::new(TcpPeer { tcp }) as Box<dyn PeerStream>)
        }
        .boxed()
    }
}

struct TcpPeer {
    tcp: TcpStream,
}

impl PeerStream for TcpPeer {
    fn exchange(
        &mut self,
        request: Bytes,
        limit: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>> {
        let exchanged = async move {
            self.send(&request).await?;
            // Its memory is not needed while the answer is waited for.
            drop(request);
            self.receive().await
        };
        async move {
            timeout(limit, exchanged)
                .await
                .map_err(|_| PeerError::TimedOut)?
        }
        .boxed()
    }

    fn closed(&mut self) -> BoxFuture<'_, PeerError> {
        async move {
            match self.tcp.read_u8().await {
                Ok(_) => PeerError::Malformed("an answer that nobody asked for".to_owned()),
                Err(error) => error.into(),
            }
        }
        .boxed()
    }
}

impl TcpPeer {
    async fn send(&mut self, request: &Bytes) -> Result<(), PeerError> {
        let size = i32::try_from(request.len())
            .map_err(|_| PeerError::Malformed(format!("a request of {} bytes", request.len())))?;
        let size = size.to_be_bytes();
        let mut frame = bytes::Buf::chain(&size[..], &request[..]);
        self.tcp.write_all_buf(&mut frame).await?;
        Ok(())
    }

    async fn receive(&mut self) -> Result<Bytes, PeerError> {
        let announced = self.tcp.read_i32().await?;
        let size = usize::try_from(announced)
            .ok()
            .filter(|size| *size <= RESPONSE_BYTES_MAX)
            .ok_or_else(|| PeerError::Malformed(format!("a response of {announced} bytes")))?;
        let mut response = BytesMut::with_capacity(size.min(ANNOUNCED_BYTES_MAX));
        let mut limited = (&mut self.tcp).take(size as u64);
        while response.len() < size {
            if limited.read_buf(&mut response).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
        Ok(response.freeze())
    }
}
