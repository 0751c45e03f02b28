//! The front: listens, speaks HTTP/2 and gRPC framing, and hands each message to a method as bytes.
//!
//! It knows methods, metadata, messages, statuses and deadlines; nothing of policies, nothing of protobuf. One thread
//! runs all I/O and the answers that need no waiting; a bounded pool of threads runs those that may wait. Only
//! `python` knows that methods are written in Python.
#![forbid(unsafe_code)]

pub mod answer;
pub mod authority;
pub mod calls;
pub mod connection;
pub mod framing;
pub mod limits;
pub mod listeners;
pub mod metadata;
pub mod metrics;
pub mod packing;
pub mod pool;
pub mod request;
pub mod server;
pub mod tls;
pub mod wire;

#[cfg(feature = "python")]
mod python;
