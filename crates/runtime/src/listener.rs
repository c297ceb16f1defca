//! Connections: limited for each peer, and closed when they are silent. A peer that opens many only
//! delays itself.

use anyhow::Context as _;
use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Response, StatusCode, header},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use ipnet::IpNet;
use passavant_gateway::is_framed_plainly;
use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

/// How long requests in flight may take after shutdown was requested.
pub(crate) const DRAIN: Duration = Duration::from_secs(25);
/// Connections of one address that have not sent a request yet. One more closes the oldest of them.
const SILENT: usize = 256;
/// Time for a TLS handshake, and for the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// How often rejected peers are logged.
const TOLD: Duration = Duration::from_secs(10);
/// A response is given up if its reader accepts nothing for this long.
const STALLED: Duration = Duration::from_mins(1);

/// How many bytes of an unread request body are drained so that its connection can be reused, and
/// for how long.
const LITTLE: u64 = 64 * 1024;
const SOON: Duration = Duration::from_millis(100);

/// One connection.
#[derive(Debug, Default)]
struct Connection {
    number: u64,
    closed: CancellationToken,
    /// It has sent a request.
    spoke: AtomicBool,
    /// Requests in flight.
    busy: AtomicUsize,
    /// Those of them whose sender we wait for, because the rest of the body is still to come.
    awaited: AtomicUsize,
}

impl Connection {
    /// Whether no request of it is being worked on here.
    fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Acquire) <= self.awaited.load(Ordering::Acquire)
    }
}

#[derive(Debug, Default)]
struct Open {
    /// By address, oldest first.
    by_peer: HashMap<IpAddr, VecDeque<Arc<Connection>>>,
    count: usize,
    next: u64,
}

/// The connections of one listener.
#[derive(Clone, Debug)]
struct Connections {
    open: Arc<Mutex<Open>>,
    most: usize,
}

/// A connection that is counted until this is dropped.
struct Counted {
    connections: Connections,
    peer: IpAddr,
    connection: Arc<Connection>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        let Some(of_peer) = open.by_peer.get_mut(&self.peer) else { return };
        let before = of_peer.len();
        of_peer.retain(|held| held.number != self.connection.number);
        let gone = before - of_peer.len();
        if of_peer.is_empty() {
            open.by_peer.remove(&self.peer);
        }
        open.count -= gone;
    }
}

/// An IPv6 customer holds a whole /64.
fn peer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Connections {
    fn new(most: usize) -> Self {
        Self { open: Arc::default(), most }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection. If its address has too many silent ones, the oldest of them is closed. If
    /// the listener is full, an idle connection of the peer with the most is closed; `None` if that
    /// peer has no idle one.
    fn add(&self, address: IpAddr) -> Option<Counted> {
        let peer = peer_of(address);
        let mut open = self.open();
        let of_peer = open.by_peer.get(&peer).into_iter().flatten();
        let mut silent = of_peer.filter(|held| !held.spoke.load(Ordering::Acquire));
        let oldest = silent.next().cloned();
        if silent.count() + 1 >= SILENT
            && let Some(oldest) = oldest
        {
            open.close(peer, &oldest);
        } else if open.count >= self.most {
            let most = open.by_peer.iter().max_by_key(|(_, held)| held.len());
            let (most, held) = most.map(|(most, held)| (*most, held))?;
            let idle = held.iter().find(|held| held.is_idle()).cloned()?;
            open.close(most, &idle);
        }
        open.next += 1;
        open.count += 1;
        let connection = Arc::new(Connection { number: open.next, ..Connection::default() });
        open.by_peer.entry(peer).or_default().push_back(Arc::clone(&connection));
        Some(Counted { connections: self.clone(), peer, connection })
    }
}

impl Open {
    fn close(&mut self, peer: IpAddr, connection: &Connection) {
        connection.closed.cancel();
        if let Some(of_peer) = self.by_peer.get_mut(&peer) {
            let before = of_peer.len();
            of_peer.retain(|held| held.number != connection.number);
            self.count -= before - of_peer.len();
        }
    }
}

/// A stream whose writes have to progress: it fails if the reader accepts nothing for a while.
struct Paced<S> {
    inner: S,
    stalled: Option<Pin<Box<Sleep>>>,
    patience: Duration,
}

impl<S> Paced<S> {
    fn new(inner: S) -> Self {
        Self { inner, stalled: None, patience: STALLED }
    }

    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, pieces);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(context);
        self.judge(context, shut)
    }
}

/// How connections arrive.
#[derive(Clone, Default)]
pub struct Ingress {
    /// TLS is terminated here.
    pub tls: Option<TlsAcceptor>,
    /// TLS is terminated at a proxy: plain connections are accepted from these networks and from
    /// this machine only.
    pub only_from: Option<Arc<[IpNet]>>,
}

impl Ingress {
    fn lets_in(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let from_proxy =
            |proxies: &Arc<[IpNet]>| proxies.iter().any(|network| network.contains(&address));
        address.is_loopback() || self.only_from.as_ref().is_none_or(from_proxy)
    }
}

/// Serves a listener with limits on connections, headers and time, until `stop`; then requests in
/// flight may finish.
pub async fn accept<S>(
    listener: TcpListener,
    ingress: Ingress,
    service: S,
    connections: usize,
    stop: CancellationToken,
) where
    S: Service<hyper::Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(64)
        .max_buf_size(32 * 1024);
    let builder = Arc::new(builder);
    let graceful = GracefulShutdown::new();
    let connections = Connections::new(connections);
    let mut told = None;
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next(&listener) => accepted,
        };
        if !ingress.lets_in(peer.ip()) {
            let now = std::time::Instant::now();
            if told.is_none_or(|told: std::time::Instant| now - told > TOLD) {
                told = Some(now);
                tracing::warn!(
                    peer = %peer.ip(),
                    "a connection was closed, because it did not come from one of trusted_proxies: \
                     with tls = \"proxy\" no other peer may connect"
                );
            }
            continue;
        }
        // Closed at once if there is no room: the others continue.
        let Some(counted) = connections.add(peer.ip()) else { continue };
        // Small responses must not be delayed; if the socket refuses the option, they just arrive
        // later.
        let _ = stream.set_nodelay(true);
        // The same party has the same address on IPv4 and dual-stack listeners.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let (builder, tls, service) = (Arc::clone(&builder), ingress.tls.clone(), service.clone());
        let watcher = graceful.watcher();
        tokio::spawn(async move {
            let connection = Arc::clone(&counted.connection);
            let asked = Arc::clone(&connection);
            let service = tower::service_fn(move |request: hyper::Request<Incoming>| {
                let unread = Unread::default();
                let waits = request.headers().contains_key(header::EXPECT);
                let plain = is_framed_plainly(request.headers());
                let mut request = request.map(|body| unread.body(body, &asked));
                request.extensions_mut().insert(ConnectInfo(peer));
                asked.spoke.store(true, Ordering::Release);
                let busy = Busy::new(&asked);
                let answer = service.clone().oneshot(request);
                async move {
                    let mut response = if plain { answer.await? } else { badly_framed() };
                    if !plain || unread.is_left(waits).await {
                        let close = HeaderValue::from_static("close");
                        response.headers_mut().insert(header::CONNECTION, close);
                    }
                    Ok::<_, Infallible>(response.map(|body| busy.body(body)))
                }
            });
            let service = TowerToHyperService::new(service);
            let stream = Paced::new(stream);
            let served = async {
                match tls {
                    None => {
                        let connection = builder.serve_connection(TokioIo::new(stream), service);
                        watcher.watch(connection.into_owned()).await
                    }
                    Some(tls) => {
                        let handshake = timeout(HEAD, tls.accept(stream)).await;
                        let Ok(Ok(stream)) = handshake else { return Ok(()) };
                        let connection = builder.serve_connection(TokioIo::new(stream), service);
                        watcher.watch(connection.into_owned()).await
                    }
                }
            };
            let served = tokio::select! {
                served = served => served,
                () = connection.closed.cancelled() => Ok(()),
            };
            drop(counted);
            if let Err(error) = served {
                tracing::debug!(%peer, %error, "a connection ended");
            }
        });
    }
    drop(listener);
    if timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests were still in progress when the time for stopping was over");
    }
}

fn badly_framed() -> Response<Body> {
    let text = "Transfer-Encoding must be `chunked`, and sent once.\n";
    let mut refused = Response::new(Body::from(text));
    *refused.status_mut() = StatusCode::BAD_REQUEST;
    refused
}

/// The unread part of a request's body when its response is ready.
#[derive(Clone, Default)]
struct Unread(Arc<Mutex<Rest>>);

#[derive(Default)]
enum Rest {
    #[default]
    Nothing,
    /// Reading was given up before the end.
    Body(Incoming),
    /// It cannot be read: where it ends is unknown.
    Broken,
}

impl Unread {
    fn slot(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn body(&self, body: Incoming, connection: &Arc<Connection>) -> Body {
        if http_body::Body::is_end_stream(&body) {
            return Body::new(body);
        }
        let connection = Arc::clone(connection);
        Body::new(Reading { body: Some(body), unread: self.clone(), connection, waits: false })
    }

    /// Whether part of the body is still on its way, so that the connection cannot be reused: the
    /// response has to say so, or the next request on it is lost (RFC 9112 9.6). A small part that
    /// has already arrived is read and discarded; nothing is read if the sender waits for
    /// `100 Continue`.
    async fn is_left(&self, waits: bool) -> bool {
        let mut body = match std::mem::take(&mut *self.slot()) {
            Rest::Nothing => return false,
            Rest::Broken => return true,
            Rest::Body(body) => body,
        };
        if waits || http_body::Body::size_hint(&body).lower() > LITTLE {
            return true;
        }
        let to_the_end = async {
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if read > LITTLE {
                    return false;
                }
            }
            true
        };
        !timeout(SOON, to_the_end).await.unwrap_or(false)
    }
}

/// A request's body, until its reader has enough. While we wait for its sender, its connection
/// counts as idle and may be closed to make room.
struct Reading {
    body: Option<Incoming>,
    unread: Unread,
    connection: Arc<Connection>,
    waits: bool,
}

impl Reading {
    fn waits(&mut self, waits: bool) {
        if waits && !self.waits {
            self.connection.awaited.fetch_add(1, Ordering::AcqRel);
        } else if !waits && self.waits {
            self.connection.awaited.fetch_sub(1, Ordering::AcqRel);
        }
        self.waits = waits;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.waits(false);
        if let Some(body) = self.body.take()
            && !http_body::Body::is_end_stream(&body)
        {
            *self.unread.slot() = Rest::Body(body);
        }
    }
}

impl http_body::Body for Reading {
    type Data = hyper::body::Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        self.waits(frame.is_pending());
        let frame = ready!(frame);
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        if matches!(frame, Some(Err(_))) {
            *self.unread.slot() = Rest::Broken;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| http_body::SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

/// A request in flight, to the end of its response.
struct Busy(Arc<Connection>);

impl Busy {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.busy.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(connection))
    }

    fn body(self, body: Body) -> Body {
        if http_body::Body::is_end_stream(&body) { body } else { Body::new(UnderWay(body, self)) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A response body, and the request it belongs to.
struct UnderWay(Body, #[allow(dead_code)] Busy);

impl http_body::Body for UnderWay {
    type Data = hyper::body::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                // Most likely out of file descriptors: they become free as connections end.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}\nhint: is another process using the port?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn serve(most: usize) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router =
            axum::Router::new().route("/", axum::routing::get(|| async { "here\n" })).route(
                "/slow",
                axum::routing::get(|| async {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    "late\n"
                }),
            );
        tokio::spawn(accept(listener, Ingress::default(), router, most, stop.clone()));
        (address, stop)
    }

    async fn connect(from: &str, to: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        socket.connect(to).await.unwrap()
    }

    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = [0; 512];
        let read = timeout(Duration::from_secs(1), stream.read(&mut bytes)).await;
        String::from_utf8_lossy(&bytes[..read.unwrap().unwrap()]).into_owned()
    }

    #[tokio::test]
    async fn silence_of_one_address_holds_nobody_else() {
        let (address, stop) = serve(200).await;
        let mut silent = Vec::new();
        for _ in 0..1000 {
            silent.push(connect("127.0.0.2", address).await);
        }
        let mut other = connect("127.0.0.3", address).await;
        assert!(ask(&mut other, "/").await.contains("here"));
        let mut same = connect("127.0.0.2", address).await;
        assert!(ask(&mut same, "/").await.contains("here"), "the newest is served as well");
        // The oldest ones were closed.
        let mut byte = [0];
        let closed = timeout(Duration::from_secs(1), silent[0].read(&mut byte)).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
        stop.cancel();
    }

    #[tokio::test]
    async fn a_full_listener_closes_what_is_idle_and_never_what_is_at_work() {
        let (address, stop) = serve(20).await;
        let mut idle = Vec::new();
        for _ in 0..18 {
            let mut stream = connect("127.0.0.2", address).await;
            assert!(ask(&mut stream, "/").await.contains("here"));
            idle.push(stream);
        }
        let mut slow = connect("127.0.0.2", address).await;
        slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut others = Vec::new();
        for _ in 0..10 {
            let mut other = connect("127.0.0.3", address).await;
            assert!(ask(&mut other, "/").await.contains("here"));
            others.push(other);
        }
        let mut byte = [0];
        let closed = timeout(Duration::from_secs(1), idle[0].read(&mut byte)).await;
        assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
        let mut bytes = vec![0; 512];
        let read = timeout(Duration::from_secs(8), slow.read(&mut bytes)).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&bytes[..read]).contains("late"));
        stop.cancel();
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let mut paced = Paced { patience: Duration::from_millis(50), ..Paced::new(near) };
        let error = paced.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // A slow reader is not given up.
        let (near, mut far) = tokio::io::duplex(16);
        let mut paced = Paced { patience: Duration::from_millis(200), ..Paced::new(near) };
        let reader = tokio::spawn(async move {
            let mut bytes = [0; 16];
            let mut read = 0;
            while read < 160 {
                tokio::time::sleep(Duration::from_millis(40)).await;
                read += far.read(&mut bytes).await.unwrap();
            }
        });
        paced.write_all(&[0; 160]).await.unwrap();
        reader.await.unwrap();
    }

    #[tokio::test]
    async fn bodies_that_never_come_keep_nobody_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let work = |body: String| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            body
        };
        let router = axum::Router::new()
            .route("/work", axum::routing::post(work))
            .route("/", axum::routing::post(|body: String| async { body }));
        tokio::spawn(accept(listener, Ingress::default(), router, 20, stop.clone()));
        let post = |path: &str, length: usize, body: &str| {
            format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")
        };
        // A request whose body has arrived is being worked on, whatever else its address does.
        let mut at_work = connect("127.0.0.2", address).await;
        at_work.write_all(post("/work", 4, "done").as_bytes()).await.unwrap();
        let mut halves = Vec::new();
        for _ in 0..19 {
            let mut half = connect("127.0.0.2", address).await;
            half.write_all(post("/", 50, "x=").as_bytes()).await.unwrap();
            halves.push(half);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..5 {
            let mut other = connect("127.0.0.3", address).await;
            other.write_all(post("/", 4, "here").as_bytes()).await.unwrap();
            let mut bytes = [0; 512];
            let read = timeout(Duration::from_secs(2), other.read(&mut bytes)).await;
            let read = read.unwrap().unwrap();
            assert!(String::from_utf8_lossy(&bytes[..read]).ends_with("here"));
        }
        let mut bytes = [0; 512];
        let read = timeout(Duration::from_secs(2), at_work.read(&mut bytes)).await;
        let read = read.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&bytes[..read]).ends_with("done"), "what is at work stays");
        stop.cancel();
    }

    #[tokio::test]
    async fn an_answer_before_the_end_of_a_body_says_whether_its_connection_goes_on() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        // A server that responds without reading the body.
        let router = axum::Router::new().fallback(|| async { "no\n" });
        tokio::spawn(accept(listener, Ingress::default(), router, 20, stop.clone()));
        let post = async |stream: &mut TcpStream, rest: &str| {
            let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{rest}");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut bytes = [0; 512];
            let read = timeout(Duration::from_secs(1), stream.read(&mut bytes)).await;
            String::from_utf8_lossy(&bytes[..read.unwrap().unwrap()]).into_owned()
        };
        let closes = |answer: &str| {
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            answer.contains("connection: close")
        };
        // What has arrived is drained, and the connection is reused.
        let mut stream = connect("127.0.0.1", address).await;
        for rest in [
            "content-length: 4\r\n\r\nabcd",
            "transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
            "content-length: 0\r\n\r\n",
        ] {
            assert!(!closes(&post(&mut stream, rest).await), "{rest}");
        }
        // Any transfer coding other than `chunked` is refused.
        for coding in ["gzip, chunked", "chunked, chunked", "chunked\r\ntransfer-encoding: chunked"]
        {
            let mut stream = connect("127.0.0.1", address).await;
            let rest = format!("transfer-encoding: {coding}\r\n\r\n0\r\n\r\n");
            let answer = post(&mut stream, &rest).await;
            let is_refused = answer.starts_with("HTTP/1.1 400");
            assert!(is_refused && answer.contains("connection: close"), "{coding}: {answer}");
        }
        // A large or slow body, or one that waits for `100 Continue`, closes the connection, and
        // the response says so.
        for rest in [
            "content-length: 1000000\r\n\r\nabcd",
            "content-length: 8\r\n\r\nabcd",
            "transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n",
            "content-length: 4\r\nexpect: 100-continue\r\n\r\n",
        ] {
            let mut stream = connect("127.0.0.1", address).await;
            assert!(closes(&post(&mut stream, rest).await), "{rest}");
        }
        stop.cancel();
    }

    #[test]
    fn a_customer_s_network_is_one_peer() {
        let of = |text: &str| peer_of(text.parse().unwrap());
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
    }
}
