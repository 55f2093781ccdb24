//! Read buffers that pass from connection to connection.

use std::sync::{Mutex, PoisonError};

use bytes::BytesMut;

/// Room for a typical produce request (`batch.size` 16 KiB) and then some.
pub(super) const BUFFER_SIZE: usize = 64 << 10;

/// Room for the largest request of a producer with its defaults (`max.request.size` 1 MiB). Such buffers are
/// kept too, because each fresh one would have to be faulted in page by page.
pub(super) const LARGEST_KEPT: usize = (1 << 20) + BUFFER_SIZE;

/// Bytes that the pool holds at most.
const POOL_BYTES_MAX: usize = 8 << 20;

/// Buffers that nobody uses now, the last returned first: its memory is still in the cache.
#[derive(Default)]
pub(super) struct BufferPool {
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    small: Vec<BytesMut>,
    large: Vec<BytesMut>,
    bytes: usize,
}

impl BufferPool {
    /// An empty buffer with room for at least `capacity` bytes.
    pub(super) fn take(&self, capacity: usize) -> BytesMut {
        if capacity > LARGEST_KEPT {
            return BytesMut::with_capacity(capacity);
        }
        let is_small = capacity <= BUFFER_SIZE;
        let kept = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = if is_small {
                free.small.pop()
            } else {
                free.large.pop()
            };
            free.bytes -= kept.as_ref().map_or(0, BytesMut::capacity);
            kept
        };
        kept.unwrap_or_else(|| {
            BytesMut::with_capacity(if is_small { BUFFER_SIZE } else { LARGEST_KEPT })
        })
    }

    /// Takes back a buffer. One that slices still refer to, or that is of another size, is dropped.
    pub(super) fn give_back(&self, mut buffer: BytesMut) {
        buffer.clear();
        // Reclaims what was split off, if nobody holds it any more. The larger size comes first: what is
        // left of a large buffer may well have room for a small one, and would keep all of it alive.
        let is_large = buffer.try_reclaim(LARGEST_KEPT);
        let is_small = !is_large && buffer.try_reclaim(BUFFER_SIZE);
        let capacity = buffer.capacity();
        let whole = if is_large { LARGEST_KEPT } else { BUFFER_SIZE };
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if !(is_large || is_small) || capacity != whole || free.bytes + capacity > POOL_BYTES_MAX {
            return;
        }
        free.bytes += capacity;
        if is_large {
            &mut free.large
        } else {
            &mut free.small
        }
        .push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_returns_once_its_slices_are_gone() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(10);
        buffer.extend_from_slice(b"frame rest");
        let address = buffer.as_ptr();
        let frame = buffer.split_to(5).freeze();
        drop(frame);
        pool.give_back(buffer);
        assert_eq!(pool.take(10).as_ptr(), address);
    }

    #[test]
    fn a_buffer_that_is_still_referred_to_is_not_shared() {
        let pool = BufferPool::default();
        let mut buffer = pool.take(10);
        buffer.extend_from_slice(b"frame rest");
        let frame = buffer.split_to(5).freeze();
        pool.give_back(buffer);
        let mut other = pool.take(10);
        other.extend_from_slice(b"xxxxxxxxxx");
        assert_eq!(&frame[..], b"frame");
    }

    #[test]
    fn the_rest_of_a_large_buffer_is_not_taken_for_a_small_one() {
        let pool = BufferPool::default();
        for _ in 0..1000 {
            let mut buffer = pool.take(LARGEST_KEPT);
            buffer.resize(LARGEST_KEPT - 2 * BUFFER_SIZE, 0);
            drop(buffer.split().freeze());
            pool.give_back(buffer);
        }
        let free = pool.free.lock().unwrap();
        assert_eq!((free.small.len(), free.large.len()), (0, 1));
    }

    #[test]
    fn the_pool_is_bounded() {
        let pool = BufferPool::default();
        for _ in 0..1000 {
            pool.give_back(BytesMut::with_capacity(BUFFER_SIZE));
        }
        pool.give_back(BytesMut::with_capacity(64 << 20));
        assert!(pool.free.lock().unwrap().bytes <= POOL_BYTES_MAX);
    }
}
