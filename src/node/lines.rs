//! One JSON object a line, over TCP on loopback: what the control sockets of all nodes have in common.
//!
//! Everything that comes from a socket is bounded: lines, connections, and the time a reader may take.

use std::future::Future;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The longest request, in bytes.
pub const LINE_BYTES_MAX: u64 = 64 << 10;
/// How many connections are served at once.
pub const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be silent, and how long its reader may leave an answer unread.
const IDLE_MAX: Duration = Duration::from_secs(600);
const WRITE_MAX: Duration = Duration::from_secs(10);

/// An answer, or the error in it.
pub(super) type Answer = Result<Map<String, Value>, String>;

/// Serves each connection with `converse`, until the future is dropped.
///
/// # Errors
///
/// If the listener cannot be used with tokio.
pub(super) async fn serve<F, C>(listener: StdListener, converse: F) -> io::Result<()>
where
    F: Fn(TcpStream) -> C,
    C: Future<Output = io::Result<()>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a connection that is gone already.
                tracing::warn!(%error, "a control connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tokio::spawn(turn_away(stream));
            continue;
        };
        let conversation = converse(stream);
        tokio::spawn(async move {
            // Whatever fails here, fails because the other side is gone.
            let _ = conversation.await;
            drop(place);
        });
    }
}

/// One connection, line by line.
pub(super) struct Lines {
    pub(super) reader: BufReader<OwnedReadHalf>,
    pub(super) writer: OwnedWriteHalf,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn of(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer, line: Vec::new() })
    }

    /// The next line that is not empty; none when the conversation has ended.
    pub(super) async fn next(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            self.line.clear();
            let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX + 1);
            let read = bounded.read_until(b'\n', &mut self.line);
            if timeout(IDLE_MAX, read).await.map_err(io::Error::from)?? == 0 {
                return Ok(None);
            }
            if self.line.len() as u64 > LINE_BYTES_MAX {
                let error = format!("a request has at most {LINE_BYTES_MAX} bytes: send less");
                self.say(Err(error)).await?;
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                // Borrowed afresh: the compiler does not see that the loop ends here.
                return Ok(Some(&self.line));
            }
        }
    }

    pub(super) async fn say(&mut self, answer: Answer) -> io::Result<()> {
        say(&mut self.writer, answer).await
    }
}

/// Writes an answer as one line.
pub(super) async fn say(writer: &mut OwnedWriteHalf, answer: Answer) -> io::Result<()> {
    let object = match answer {
        Ok(mut answer) => {
            answer.entry("ok").or_insert(true.into());
            answer
        }
        Err(error) => {
            Map::from_iter([("ok".to_owned(), false.into()), ("error".to_owned(), error.into())])
        }
    };
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    timeout(WRITE_MAX, writer.write_all(line.as_bytes())).await.map_err(io::Error::from)?
}

/// What is said to a line that is no request.
pub(super) fn no_request(error: &serde_json::Error) -> String {
    format!("not a request: {error}; send one JSON object a line")
}

async fn turn_away(stream: TcpStream) {
    let (_, mut writer) = stream.into_split();
    let error = format!("{CONNECTIONS_MAX} connections are open: close one, then try again");
    let _ = say(&mut writer, Err(error)).await;
}
