//! Fuzz targets: hostile bytes into decoders, for `BARNABAS_FUZZ_SECONDS` (1 by default) each. A panic, an endless loop or a
//! large allocation fails. Every run prints its seed; `BARNABAS_FUZZ_SEED` repeats it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails where it stands"
)]

mod allocations;
mod log_directories;
mod mutation;
mod record_batches;
mod request_frames;
