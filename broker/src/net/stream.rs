//! The bytes of a connection, whatever protects them: responses go out here, files among them.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::TcpStream;

use super::idle::IdleTimer;
use crate::api::Section;
use crate::api::dispatch::Response;
use crate::log::LogSlice;

/// How much of a file is read at once where it cannot be sent from the page cache.
const COPY_BYTES: usize = 64 << 10;

/// The transport of a connection.
pub(super) enum Stream {
    Plain(TcpStream),
}

/// Whether more of the same response follows, so that the kernel may wait for it to fill a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Follows {
    More,
    Nothing,
}

impl Stream {
    /// Ready when a read would bring bytes, an end or an error. Needs no buffer.
    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => tcp.poll_read_ready(cx),
        }
    }

    /// Reads what is there, at most what `buffer` takes; 0 at the end.
    pub(super) async fn read(&mut self, buffer: &mut (impl BufMut + ?Sized)) -> io::Result<usize> {
        match self {
            // Not `try_read`: this one knows after a short read that the socket is empty.
            Self::Plain(tcp) => tcp.read_buf(&mut *buffer).await,
        }
    }

    /// Sends a whole response. Fails with `TimedOut` if the client takes nothing for too long.
    pub(super) async fn send(&self, response: &Response, idle: &mut IdleTimer) -> io::Result<()> {
        let head = response.head();
        let Some((last, sections)) = response.sections().split_last() else {
            return self
                .send_bytes(&mut [IoSlice::new(head)], Follows::Nothing, idle)
                .await;
        };
        let mut unsent_head = head;
        for section in sections {
            self.send_section(&mut unsent_head, section, Follows::More, idle)
                .await?;
        }
        self.send_section(&mut unsent_head, last, Follows::Nothing, idle)
            .await
    }

    async fn send_section(
        &self,
        head: &mut &[u8],
        section: &Section,
        follows: Follows,
        idle: &mut IdleTimer,
    ) -> io::Result<()> {
        let head = std::mem::take(head);
        match section {
            Section::Bytes(bytes) => {
                self.send_bytes(
                    &mut [IoSlice::new(head), IoSlice::new(bytes)],
                    follows,
                    idle,
                )
                .await
            }
            Section::File(slice) => {
                if !head.is_empty() {
                    self.send_bytes(&mut [IoSlice::new(head)], Follows::More, idle)
                        .await?;
                }
                self.send_file(slice, follows, idle).await
            }
        }
    }

    async fn send_bytes(
        &self,
        mut pieces: &mut [IoSlice<'_>],
        follows: Follows,
        idle: &mut IdleTimer,
    ) -> io::Result<()> {
        let Self::Plain(tcp) = self;
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, follows == Follows::More);
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            let sent = write_when_ready(tcp, idle, || {
                let mut control = SendAncillaryBuffer::default();
                rustix::net::sendmsg(tcp, pieces, &mut control, flags).map_err(io::Error::from)
            })
            .await?;
            IoSlice::advance_slices(&mut pieces, sent);
        }
        Ok(())
    }

    /// Sends a file's bytes from the page cache, without a detour through this process where possible.
    async fn send_file(
        &self,
        slice: &LogSlice,
        follows: Follows,
        idle: &mut IdleTimer,
    ) -> io::Result<()> {
        let Self::Plain(tcp) = self;
        let Some(file) = slice.file.as_fd() else {
            return self.send_copied(slice, follows, idle).await;
        };
        let mut position = slice.position;
        let end = slice.position + slice.length as u64;
        while position < end {
            let sent = write_when_ready(tcp, idle, || {
                let count = (end - position) as usize;
                rustix::fs::sendfile(tcp, file, Some(&mut position), count).map_err(io::Error::from)
            })
            .await?;
            if sent == 0 {
                return Err(shorter_than_promised());
            }
        }
        Ok(())
    }

    async fn send_copied(
        &self,
        slice: &LogSlice,
        follows: Follows,
        idle: &mut IdleTimer,
    ) -> io::Result<()> {
        let mut buffer = vec![0; slice.length.min(COPY_BYTES)];
        let mut done = 0;
        while done < slice.length {
            let wanted = (slice.length - done).min(COPY_BYTES);
            let read = slice.read_at(&mut buffer[..wanted], done as u64)?;
            if read == 0 {
                return Err(shorter_than_promised());
            }
            done += read;
            let follows = if done < slice.length {
                Follows::More
            } else {
                follows
            };
            self.send_bytes(&mut [IoSlice::new(&buffer[..read])], follows, idle)
                .await?;
        }
        Ok(())
    }
}

/// A segment was cut below what a response in progress has announced.
fn shorter_than_promised() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the file ends before the bytes that were announced",
    )
}

/// Runs a non-blocking write when the socket takes bytes; fails once that took longer than the idle limit.
async fn write_when_ready(
    tcp: &TcpStream,
    idle: &mut IdleTimer,
    mut write: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match tcp.try_io(Interest::WRITABLE, &mut write) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => {
                idle.note_activity();
                return outcome;
            }
        }
        poll_fn(|cx| {
            if let Poll::Ready(ready) = tcp.poll_write_ready(cx) {
                return Poll::Ready(ready);
            }
            ready!(idle.poll_expired(cx));
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        })
        .await?;
    }
}
