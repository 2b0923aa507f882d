//! Watches TCP from inside the kernel and says, connection by connection and request by request, what happened.
//!
//! The way of the data is the tree: [`kernel`] loads and attaches, [`source`] yields events, [`track`] correlates them,
//! [`http`] follows the messages, [`report`] turns them into records, [`emit`] writes the lines.

pub mod check;
pub mod cli;
pub mod emit;
pub mod filter;
#[cfg(test)]
mod fuzz;
pub mod http;
pub mod kernel;
mod netns;
pub mod read;
pub mod report;
pub mod selfcheck;
pub mod source;
pub mod start;
pub mod stats;
pub mod trace;
pub mod track;
