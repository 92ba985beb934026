//! Running a plan.

mod session;

pub use session::{Outputs, Session, StepTime};
