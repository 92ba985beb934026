//! Connections: taken up to a limit, and at the end let go without losing a request.

use super::super::Server;
use super::Peer;
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{debug, info, warn};

/// A request's head must be there by then, and the next one on a kept connection.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// How long kept connections may still send a request after the signal; its answer closes the connection.
const SETTLE: Duration = Duration::from_millis(500);

/// Limits of connections.
#[derive(Clone, Copy, Debug)]
pub(in crate::serve) struct Connections {
    /// Open at a time; more wait in the system's list.
    pub(in crate::serve) most: usize,
    /// After the signal, how long requests may take.
    pub(in crate::serve) drain: Duration,
}

/// Serves until `stop`, then answers what was accepted. False if some of it had to be broken off.
pub(in crate::serve) async fn serve(
    listener: TcpListener,
    router: Router,
    server: Arc<Server>,
    limits: Connections,
    stop: impl Future<Output = ()>,
) -> bool {
    let places = Arc::new(Semaphore::new(limits.most));
    let (close, closing) = watch::channel(false);
    // Nothing is sent: the channel closes when the last connection lets go of it.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let take = |stream: TcpStream, peer: SocketAddr, place| {
        let (router, closing, open) = (router.clone(), closing.clone(), open.clone());
        tokio::spawn(async move {
            connection(stream, peer, router, closing).await;
            drop((place, open));
        })
    };
    let mut stop = pin!(stop);
    loop {
        let place = tokio::select! {
            () = &mut stop => break,
            place = Arc::clone(&places).acquire_owned() => place.ok(),
        };
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => drop(take(stream, peer, place)),
            Err(error) => {
                // Too many open files, for one: connections that end make room.
                warn!("a connection cannot be taken: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    server.draining.store(true, Relaxed);
    info!("asked to end: {} connections are open", limits.most - places.available_permits());
    // Who is in the system's list has been accepted as far as it can tell.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, peer)) = listener.accept() {
            let place = Arc::clone(&places).try_acquire_owned().ok();
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            match stream {
                Ok(stream) => drop(take(stream, peer, place)),
                Err(error) => warn!("a connection cannot be taken: {error}"),
            }
        }
    }
    drop(open);
    if tokio::time::timeout(SETTLE, all_closed.recv()).await.is_ok() {
        return true;
    }
    // Whoever is silent now is let go; requests that run end first.
    let _ = close.send(true);
    tokio::time::timeout(limits.drain, all_closed.recv()).await.is_ok()
}

async fn connection(stream: TcpStream, peer: SocketAddr, router: Router, mut closing: watch::Receiver<bool>) {
    // Answers are small and leave in one piece; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = async { closing.wait_for(|closing| *closing).await.is_ok() } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        debug!("{peer}: {error}");
    }
}
