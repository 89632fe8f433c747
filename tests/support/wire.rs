//! HTTP/1.1 read from a socket by the letter of RFC 9112, and hyper's server over a service. Written from the RFC and not
//! from hyper, so that the two can disagree.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tower::{BoxError, Service};

/// A server that neither sends nor closes for so long will not.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Absent,
    Length,
    Chunked,
    Close,
    /// By its protocol, which is HTTP/2.
    Frames,
}

pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// A response as it stood on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) version: String,
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
    /// Whether the body came to its end.
    pub(crate) is_whole: bool,
}

/// What can be wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The connection was closed before the head was whole; so many bytes of it had come.
    Closed(usize),
    /// What came is no HTTP/1.1 message, or has two meanings.
    Malformed(String),
}

/// One client's connection.
pub(crate) struct Connection {
    socket: TcpStream,
    unread: Vec<u8>,
    is_stalled: bool,
    pace: u64,
}

// ===== impl Message =====

impl Message {
    /// The values of the fields of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_slice()).collect()
    }

    /// `Content-Length`, if it is there once and in digits.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.all("content-length")[..] {
            [] => None,
            // Without a sign, which `parse` would take.
            [one] if one.iter().all(u8::is_ascii_digit) => {
                std::str::from_utf8(one).ok()?.parse().ok()
            }
            _ => None,
        }
    }

    /// Whether the sender has to close the connection behind it.
    pub(crate) fn closes(&self) -> bool {
        self.says("close") || self.framing == Framing::Close || !self.is_whole
    }

    /// Whether `Connection` has this token.
    pub(crate) fn says(&self, token: &str) -> bool {
        let lines = self.all("connection");
        let mut tokens = lines
            .iter()
            .flat_map(|line| line.split(|byte| *byte == b','));
        tokens.any(|known| known.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
    }
}

// ===== impl Connection =====

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        // Little room, so that a server notices who reads slowly.
        socket.set_recv_buffer_size(16 << 10).unwrap();
        let socket = socket.connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            unread: Vec::new(),
            is_stalled: false,
            pace: 0,
        }
    }

    /// From now on it waits so many turns of its task before it reads on.
    pub(crate) fn set_pace(&mut self, turns: u64) {
        self.pace = turns;
    }

    /// Sends bytes; a connection that is closed already takes them silently.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).await;
    }

    /// Reads the answer to a request that `is_head` or not.
    pub(crate) async fn receive(&mut self, is_head: bool) -> Result<Message, Broken> {
        let head = self.head().await?;
        let mut message = parse_head(&head)?;
        message.framing = framing(&message, is_head)?;
        message.is_whole = match message.framing {
            Framing::Absent => true,
            Framing::Frames => unreachable!("this is HTTP/1"),
            Framing::Length => {
                let length = message.length().ok_or_else(|| bad("length", &head))?;
                let length = usize::try_from(length).map_err(|_| bad("length", &head))?;
                self.exactly(length, &mut message.body).await
            }
            Framing::Chunked => self.chunks(&mut message).await?,
            Framing::Close => {
                while self.more().await {}
                message.body = std::mem::take(&mut self.unread);
                true
            }
        };
        Ok(message)
    }

    /// Waits until so many bytes have come, or the connection is closed.
    pub(crate) async fn peek(&mut self, bytes: usize) {
        while self.unread.len() < bytes && self.more().await {}
    }

    /// Waits for a head, and says whether the connection stays open behind its message, if that comes to its end.
    pub(crate) async fn peek_goes_on(&mut self, is_head: bool) -> bool {
        let Ok(head) = self.head().await else {
            return false;
        };
        let message = parse_head(&head);
        self.unread.splice(0..0, head);
        message.is_ok_and(|mut message| {
            message.is_whole = true;
            message.framing = framing(&message, is_head).unwrap_or(Framing::Close);
            !message.closes()
        })
    }

    /// Whether all that has come was read, and nothing was waited for in vain.
    pub(crate) fn is_in_step(&self) -> bool {
        self.unread.is_empty() && !self.is_stalled
    }

    async fn head(&mut self) -> Result<Vec<u8>, Broken> {
        loop {
            let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let rest = self.unread.split_off(end + 4);
                return Ok(std::mem::replace(&mut self.unread, rest));
            }
            if !self.more().await {
                return Err(Broken::Closed(self.unread.len()));
            }
        }
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let rest = self.unread.split_off(end + 2);
                let mut line = std::mem::replace(&mut self.unread, rest);
                line.truncate(end);
                return Some(line);
            }
            if !self.more().await {
                // It was cut within this line, which is no other message's.
                self.unread.clear();
                return None;
            }
        }
    }

    /// Whether so many came; what came goes to `body`.
    async fn exactly(&mut self, length: usize, body: &mut Vec<u8>) -> bool {
        while self.unread.len() < length && self.more().await {}
        let rest = self.unread.split_off(length.min(self.unread.len()));
        let came = std::mem::replace(&mut self.unread, rest);
        body.extend_from_slice(&came);
        came.len() == length
    }

    async fn chunks(&mut self, message: &mut Message) -> Result<bool, Broken> {
        loop {
            let Some(line) = self.line().await else {
                return Ok(false);
            };
            let digits = std::str::from_utf8(&line).map_err(|_| bad("chunk size", &line))?;
            let length = usize::from_str_radix(digits, 16).map_err(|_| bad("chunk size", &line))?;
            if length == 0 {
                break;
            }
            if !self.exactly(length, &mut message.body).await {
                return Ok(false);
            }
            let mut end = Vec::new();
            if !self.exactly(2, &mut end).await {
                return Ok(false);
            }
            if end != b"\r\n" {
                return Err(bad("end of a chunk", &end));
            }
        }
        loop {
            match self.line().await {
                None => return Ok(false),
                Some(line) if line.is_empty() => return Ok(true),
                Some(line) => message.trailers.push(parse_field(&line)?),
            }
        }
    }

    /// Whether more has come.
    async fn more(&mut self) -> bool {
        for _ in 0..self.pace {
            tokio::task::yield_now().await;
        }
        let mut buffer = [0; 16 << 10];
        let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut buffer)).await;
        self.is_stalled |= read.is_err();
        let read = read.map_or(0, |read| read.unwrap_or(0));
        self.unread.extend_from_slice(&buffer[..read]);
        read > 0
    }
}

// ===== the grammar =====

fn bad(what: &str, bytes: &[u8]) -> Broken {
    Broken::Malformed(format!("{what}: {}", bytes.escape_ascii()))
}

fn parse_head(head: &[u8]) -> Result<Message, Broken> {
    let text = &head[..head.len() - 4];
    let mut lines = text.split(|byte| *byte == b'\n');
    let status_line = lines.next().unwrap_or_default().trim_ascii_end();
    let line = String::from_utf8_lossy(status_line);
    let mut words = line.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().unwrap_or_default();
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) || status.len() != 3 {
        return Err(bad("status line", head));
    }
    let fields = lines.map(|line| parse_field(line.strip_suffix(b"\r").unwrap_or(line)));
    Ok(Message {
        version: version.to_owned(),
        status: status.parse().map_err(|_| bad("status", head))?,
        fields: fields.collect::<Result<_, _>>()?,
        framing: Framing::Absent,
        body: Vec::new(),
        trailers: Vec::new(),
        is_whole: false,
    })
}

fn parse_field(line: &[u8]) -> Result<(String, Vec<u8>), Broken> {
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = line.split_at(colon.ok_or_else(|| bad("field", line))?);
    let is_token = !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte));
    if !is_token {
        return Err(bad("field name", line));
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    Ok((name, value[1..].trim_ascii().to_vec()))
}

/// RFC 9112 section 6.3, without mercy: what could be read in two ways is an error.
fn framing(message: &Message, is_head: bool) -> Result<Framing, Broken> {
    let (codings, lengths) = (
        message.all("transfer-encoding"),
        message.all("content-length"),
    );
    let whole = format!("{message:?}");
    if !codings.is_empty() && !lengths.is_empty() {
        return Err(bad("both framings", whole.as_bytes()));
    }
    if lengths.len() > 1 || message.length().is_none() && !lengths.is_empty() {
        return Err(bad("content-length", whole.as_bytes()));
    }
    if is_head || matches!(message.status, 100..=199 | 204 | 304) {
        return Ok(Framing::Absent);
    }
    if let Some(last) = codings.last() {
        let last = last.rsplit(|byte| *byte == b',').next().unwrap_or_default();
        let is_chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        return Ok(match is_chunked {
            true => Framing::Chunked,
            false => Framing::Close,
        });
    }
    Ok(match message.length() {
        Some(_) => Framing::Length,
        None => Framing::Close,
    })
}

// ===== servers =====

/// hyper's server over `service`, for HTTP/1 and HTTP/2.
pub(crate) async fn serve<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(16 << 10).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(1024).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                return;
            };
            let _ = socket.set_nodelay(true);
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let mut server = auto::Builder::new(TokioExecutor::new());
                server.http1().max_buf_size(16 << 10);
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    address
}
