//! Request frames: a size, then that many bytes.
//!
//! A frame is read straight into the buffer from which its batches are sliced later. What a size claims is
//! believed only as its bytes arrive.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::sync::SemaphorePermit;

use super::buffers::{BUFFER_SIZE, LARGEST_KEPT};
use super::idle::IdleTimer;
use super::stream::Stream;
use super::{MEMORY_UNIT, Network};

/// The size in front of a frame.
const SIZE_BYTES: usize = 4;

/// A frame up to this size is copied out, so that its buffer is free while the request is handled: a fetch
/// may wait for long.
const COPIED_MAX: usize = 4096;

/// One request without its size.
pub(super) struct Frame<'a> {
    pub(super) bytes: Bytes,
    /// Its share of the request memory; large ones only.
    pub(super) memory: Option<SemaphorePermit<'a>>,
}

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the client closed the connection")]
    Closed,
    #[error("the client closed the connection in the middle of a request")]
    Truncated,
    #[error("the connection was idle for too long")]
    Idle,
    #[error("a request of {0} bytes is outside of 1 to socket.request.max.bytes")]
    Size(i32),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Cuts what a connection sends into frames.
#[derive(Default)]
pub(super) struct FrameReader {
    /// Has no memory of its own while the connection waits for a request.
    buffer: BytesMut,
}

impl FrameReader {
    /// Waits for the next frame.
    pub(super) async fn next<'a>(
        &mut self,
        stream: &mut Stream,
        network: &'a Network,
        idle: &mut IdleTimer,
    ) -> Result<Frame<'a>, FrameError> {
        let mut memory = None;
        loop {
            let needed = match self.announced_size(network.request_bytes_max)? {
                Some(size) if self.buffer.len() >= SIZE_BYTES + size => {
                    let bytes = self.take_frame(size, network);
                    return Ok(Frame { bytes, memory });
                }
                Some(size) => SIZE_BYTES + size,
                None => SIZE_BYTES,
            };
            if self.buffer.is_empty() {
                self.release(network);
                until(idle, |cx| stream.poll_read_ready(cx)).await??;
                self.buffer = network.buffers.take(BUFFER_SIZE);
            } else if needed > BUFFER_SIZE
                && memory.is_none()
                && self.buffer.len() >= self.buffer.capacity()
            {
                let permits = needed.div_ceil(MEMORY_UNIT).min(network.request_memory_max);
                let mut acquire = pin!(network.request_memory.acquire_many(permits as u32));
                memory = until(idle, |cx| acquire.as_mut().poll(cx)).await?.ok();
            }
            self.make_room(needed, network);
            // A large frame gets a buffer for itself; small ones are read as many as come.
            let limit = if needed > BUFFER_SIZE {
                needed - self.buffer.len()
            } else {
                self.spare()
            };
            let read = {
                let mut target = (&mut self.buffer).limit(limit);
                let mut read = pin!(stream.read(&mut target));
                until(idle, |cx| read.as_mut().poll(cx)).await??
            };
            if read == 0 {
                return Err(if self.buffer.is_empty() {
                    FrameError::Closed
                } else {
                    FrameError::Truncated
                });
            }
            idle.note_activity();
        }
    }

    /// Gives an empty buffer back.
    pub(super) fn release(&mut self, network: &Network) {
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            network.buffers.give_back(std::mem::take(&mut self.buffer));
        }
    }

    fn announced_size(&self, max: usize) -> Result<Option<usize>, FrameError> {
        let Some(size) = self.buffer.first_chunk::<SIZE_BYTES>() else {
            return Ok(None);
        };
        let size = i32::from_be_bytes(*size);
        match usize::try_from(size) {
            Ok(bytes) if bytes > 0 && bytes <= max => Ok(Some(bytes)),
            _ => Err(FrameError::Size(size)),
        }
    }

    fn take_frame(&mut self, size: usize, network: &Network) -> Bytes {
        self.buffer.advance(SIZE_BYTES);
        if size > COPIED_MAX {
            return self.buffer.split_to(size).freeze();
        }
        let frame = Bytes::copy_from_slice(&self.buffer[..size]);
        self.buffer.advance(size);
        self.release(network);
        frame
    }

    /// Bytes that can be read without another allocation.
    fn spare(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    /// Makes room for at least one more byte of `needed`, if they are not there yet.
    fn make_room(&mut self, needed: usize, network: &Network) {
        if self.spare() > 0 && (self.buffer.capacity() >= BUFFER_SIZE.min(needed)) {
            return;
        }
        // A client has to send a quarter of what is set aside for it.
        let length = self.buffer.len();
        let capacity = if length < BUFFER_SIZE {
            needed.min(BUFFER_SIZE)
        } else if length < LARGEST_KEPT {
            needed.min(LARGEST_KEPT)
        } else {
            needed.min(4 * length)
        };
        let mut larger = network.buffers.take(capacity);
        larger.extend_from_slice(&self.buffer);
        network
            .buffers
            .give_back(std::mem::replace(&mut self.buffer, larger));
    }
}

/// Polls `wait` until it is ready, or the connection has been idle for too long.
async fn until<T>(
    idle: &mut IdleTimer,
    mut wait: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, FrameError> {
    poll_fn(|cx| {
        if let Poll::Ready(value) = wait(cx) {
            return Poll::Ready(Ok(value));
        }
        idle.poll_expired(cx).map(|()| Err(FrameError::Idle))
    })
    .await
}
