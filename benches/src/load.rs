//! The load: keep-alive connections that send prepared requests and read the responses.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A request as it is sent; `{host}` is a placeholder for the address.
#[derive(Clone)]
pub(crate) struct Shot(pub(crate) String);

/// Requests to one address: one for all connections, or many that are each sent once.
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) shots: Vec<Shot>,
}

/// The results.
pub(crate) struct Measured {
    pub(crate) rate: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Sends requests over `connections` for `time`, after a warm-up of a tenth of it.
pub(crate) async fn measure(plan: &Plan, connections: usize, time: Duration) -> Measured {
    let host = plan.address.to_string();
    let shots: Arc<Vec<Vec<u8>>> =
        Arc::new(plan.shots.iter().map(|s| s.0.replace("{host}", &host).into_bytes()).collect());
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now() + time / 10;
    let end = begin + time;
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (shots, next, address) = (Arc::clone(&shots), Arc::clone(&next), plan.address);
        tasks.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut times = Vec::with_capacity(10_000);
            let mut buffer = Vec::with_capacity(16 * 1024);
            loop {
                let now = Instant::now();
                if now >= end {
                    return times;
                }
                let n = next.fetch_add(1, Ordering::Relaxed);
                let shot = if shots.len() == 1 {
                    &shots[0]
                } else {
                    shots.get(n).expect("more single-use requests are needed than were prepared")
                };
                stream.write_all(shot).await.unwrap();
                read_answer(&mut stream, &mut buffer).await;
                let done = Instant::now();
                if now >= begin && done <= end {
                    times.push(done - now);
                }
            }
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort_unstable();
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    Measured { rate: times.len() as f64 / time.as_secs_f64(), p50: at(0.5), p99: at(0.99) }
}

/// Reads one response. Any status but 200 and 201 ends the run, because errors would improve the figures.
pub(crate) async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> String {
    buffer.clear();
    let (head, length) = loop {
        assert!(stream.read_buf(buffer).await.unwrap() > 0, "the server closed the connection");
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = std::str::from_utf8(&buffer[..end]).unwrap();
            let length = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, length)| length.parse::<usize>().unwrap());
            break (end + 4, length);
        }
    };
    while buffer.len() < head + length {
        assert!(stream.read_buf(buffer).await.unwrap() > 0, "the answer broke off");
    }
    let text = String::from_utf8_lossy(buffer).into_owned();
    let success = ["HTTP/1.1 200", "HTTP/1.1 201"].iter().any(|line| text.starts_with(line));
    assert!(success, "not a success: {text}");
    text
}
