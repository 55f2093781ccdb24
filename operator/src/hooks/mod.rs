//! What the chart runs beside brokers and operator: before a broker starts, in `helm test`, before `helm upgrade`.

mod rack;
mod scale_in;
mod trial;

pub use rack::{RackArgs, rack};
pub use scale_in::{ScaleInArgs, ScaleInMode, scale_in};
pub use trial::{TrialArgs, trial};
