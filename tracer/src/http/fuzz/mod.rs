//! The engine's fuzz targets; `crate::fuzz` runs them.

mod conversation;
mod flow;
mod parts;

pub(crate) use conversation::conversation;
pub(crate) use flow::flow;
pub(crate) use parts::{chunked, head, stream};
