//! Datasets in every layout: against what Python's libraries make of the same files, and with all that can be wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod arrays;
mod folders;
mod lists;
mod shards;
mod splits;
mod support;
mod survey;
mod tables;
