//! zstd frames, one after the other, with a decompression context that is used again.

use std::cell::Cell;

use bytes::{Buf, Bytes};
use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, ResetDirective};

use super::broken;
use crate::records::{Compression, RecordError};

/// A context larger than this (it has grown with the window of some frame) is not kept.
const KEPT_CONTEXT_SIZE: usize = 4 << 20;

thread_local! {
    /// Making a context costs more than decompressing an ordinary batch.
    static CONTEXT: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

fn error(reason: &'static str) -> RecordError {
    broken(Compression::Zstd, reason)
}

pub(super) struct Reader {
    /// Empty only while it is dropped.
    context: Option<DCtx<'static>>,
    input: Bytes,
    is_within_frame: bool,
}

impl Reader {
    pub(super) fn new(input: Bytes) -> Self {
        Self {
            context: Some(CONTEXT.take().unwrap_or_default()),
            input,
            is_within_frame: false,
        }
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, RecordError> {
        let Some(context) = &mut self.context else {
            return Ok(0);
        };
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if self.input.is_empty() && !self.is_within_frame {
                return Ok(0);
            }
            let mut input = InBuffer::around(&self.input);
            let mut output = OutBuffer::around(&mut *out);
            let hint = context
                .decompress_stream(&mut output, &mut input)
                .map_err(|_| error("a corrupt frame"))?;
            let (consumed, written) = (input.pos(), output.pos());
            self.input.advance(consumed);
            self.is_within_frame = hint != 0;
            if written > 0 {
                return Ok(written);
            }
            if consumed == 0 {
                return Err(error("the frame ends too early"));
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(mut context) = self.context.take()
            && context.sizeof() <= KEPT_CONTEXT_SIZE
            && context.reset(ResetDirective::SessionOnly).is_ok()
        {
            // A thread that is ending has no place left for it.
            let _ = CONTEXT.try_with(|kept| kept.set(Some(context)));
        }
    }
}
