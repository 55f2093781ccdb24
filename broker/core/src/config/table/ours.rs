//! Settings that Kafka does not have.

use crate::config::setting::{Kind, Setting};

pub(super) const SETTINGS: &[Setting] = &[Setting::new(
    "barnabas.admin.listener",
    Kind::String,
    Some("127.0.0.1:9404"),
)
.doc(
    "Address of the HTTP port for metrics and health, host:port; an empty text switches it off. If \
     the default is taken by another process the broker starts without it.",
)];
