//! The broker as a client of other brokers: connections, and one request at a time on each.
//!
//! Bytes, not types, cross [`PeerNetwork`], so that a simulation can put a network of its own there. Kafka's
//! `NetworkClient` keeps several requests in flight; brokers among themselves never use more than one.

mod control;
mod controller;
mod error;
mod frame;
pub mod leader;
pub mod markers;
#[cfg(test)]
mod recorded;
mod tcp;
#[cfg(test)]
mod tests;
mod verification;

use std::sync::Arc;
use std::time::Duration;

use barnabas_core::control::BrokerAddress;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request};

pub use control::{
    ControlVersions, MetadataEncoder, security_protocol_id, security_protocol_of, send_control,
};
pub use controller::ControllerPeer;
pub use error::PeerError;
pub use tcp::TcpNetwork;
pub use verification::VerificationPeer;

/// How connections to other brokers come into being.
pub trait PeerNetwork: Send + Sync {
    /// Dials; fails fast when refused. The address is the peer's endpoint on the listener that brokers use.
    fn connect<'a>(
        &'a self,
        address: &'a BrokerAddress,
    ) -> BoxFuture<'a, Result<Box<dyn PeerStream>, PeerError>>;
}

/// One connection with one request in flight. Of no use any more after an error, or when an exchange was given up.
pub trait PeerStream: Send {
    /// Sends one frame (without length prefix) and returns the response frame.
    fn exchange(
        &mut self,
        request: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, PeerError>>;

    /// Completes when the other side closes or resets the connection. Only while no exchange is under way.
    fn closed(&mut self) -> BoxFuture<'_, PeerError> {
        Box::pin(std::future::pending())
    }
}

/// The API and version of a request, and what the headers around it look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    pub key: i16,
    pub version: i16,
    pub request_header_version: i16,
    pub response_header_version: i16,
}

impl Call {
    pub fn of<R: Request>(version: i16) -> Self {
        Self {
            key: R::KEY,
            version,
            request_header_version: R::header_version(version),
            response_header_version: <R::Response as HeaderVersion>::header_version(version),
        }
    }
}

/// One connection to one broker, dialled on demand and dropped at any error.
pub struct Peer {
    network: Arc<dyn PeerNetwork>,
    address: BrokerAddress,
    client_id: String,
    stream: Option<Box<dyn PeerStream>>,
    last_correlation_id: i32,
}

impl Peer {
    pub fn new(network: Arc<dyn PeerNetwork>, address: BrokerAddress, client_id: String) -> Self {
        Self {
            network,
            address,
            client_id,
            stream: None,
            last_correlation_id: -1,
        }
    }

    pub fn address(&self) -> &BrokerAddress {
        &self.address
    }

    /// Whether there is a connection, as far as the last call could tell.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Closes the connection; the next call dials anew.
    pub fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Sends a request and waits for its response; `timeout` is for dialling and for the answer each. Giving the
    /// call up drops the connection.
    pub async fn call<R: Request + Encodable + HeaderVersion>(
        &mut self,
        version: i16,
        request: &R,
        timeout: Duration,
    ) -> Result<R::Response, PeerError> {
        let call = Call::of::<R>(version);
        let size = request.compute_size(version).unwrap_or(0);
        let mut frame = self.begin(call, size);
        request
            .encode(&mut frame, version)
            .map_err(|error| PeerError::Malformed(error.to_string()))?;
        let mut body = self.exchange(call, frame.freeze(), timeout).await?;
        let response = R::Response::decode(&mut body, version);
        response.map_err(|error| {
            self.stream = None;
            PeerError::Malformed(error.to_string())
        })
    }

    /// Like [`call`](Self::call) for a body that is encoded already, in parts; gives back the encoded response.
    pub async fn call_encoded(
        &mut self,
        call: Call,
        body: &[&[u8]],
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let mut frame = self.begin(call, body.iter().map(|part| part.len()).sum());
        for part in body {
            frame.extend_from_slice(part);
        }
        self.exchange(call, frame.freeze(), timeout).await
    }

    /// A frame with its header and room for a body.
    fn begin(&mut self, call: Call, body_size: usize) -> BytesMut {
        self.last_correlation_id = self.last_correlation_id.wrapping_add(1).max(0);
        let mut frame = BytesMut::with_capacity(frame::header_size(&self.client_id) + body_size);
        frame::put_header(&mut frame, call, self.last_correlation_id, &self.client_id);
        frame
    }

    async fn exchange(
        &mut self,
        call: Call,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        // Taken, so that it does not come back unless all went well.
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => tokio::time::timeout(timeout, self.network.connect(&self.address))
                .await
                .map_err(|_| PeerError::TimedOut)??,
        };
        let response = stream.exchange(request, timeout).await?;
        let header_version = call.response_header_version;
        let body = frame::response_body(response, header_version, self.last_correlation_id)?;
        self.stream = Some(stream);
        Ok(body)
    }
}
