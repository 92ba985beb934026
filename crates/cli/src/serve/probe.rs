//! `cardinal serve --probe ADDRESS`: whether a server is ready, for container images without any other program.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// Asks `address` (`host:port`) for `/v2/health/ready`.
///
/// # Errors
///
/// It does not answer in time, or is not ready.
pub(super) fn probe(address: &str) -> anyhow::Result<()> {
    let resolved = address.to_socket_addrs().with_context(|| format!("'{address}' is no HOST:PORT"))?;
    let resolved = resolved.into_iter().next().context("the host has no address")?;
    let mut stream = TcpStream::connect_timeout(&resolved, PATIENCE).with_context(|| address.to_owned())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /v2/health/ready HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut head = [0; 16];
    stream.read_exact(&mut head).with_context(|| format!("{address} gives no answer"))?;
    let head = String::from_utf8_lossy(&head);
    match head.split(' ').nth(1) {
        Some("200") => Ok(()),
        status => bail!("{address} is not ready: status {}", status.unwrap_or("unknown")),
    }
}
