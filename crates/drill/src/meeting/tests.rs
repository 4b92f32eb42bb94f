use super::*;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

const PATIENCE: Duration = Duration::from_secs(10);

struct Server {
    address: SocketAddr,
    directory: tempfile::TempDir,
}

async fn server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let config = MeetingConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        name: UpstreamName::new("gra-meet-1").unwrap(),
        announced_file: directory.path().join("announced"),
        answers_file: Some(directory.path().join("answers")),
    };
    let meeting = Meeting::bind(config).await.unwrap();
    let address = meeting.address().unwrap();
    tokio::spawn(meeting.serve());
    Server { address, directory }
}

impl Server {
    async fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path, "").await;
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    }

    async fn join(&self, room: &str, peer: &str) -> (WebSocketStream<TcpStream>, Value) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let url = format!("ws://meeting/socket.io/?EIO=4&roomId={room}&peerId={peer}");
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let welcome = next(&mut socket).await;
        (socket, welcome)
    }

    fn announce(&self, text: &str) {
        std::fs::write(self.directory.path().join("announced"), text).unwrap();
    }
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        let message = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test]
async fn health_counts_rooms_and_participants() {
    let server = server().await;
    let health = server.json("/health").await;
    assert_eq!((&health["status"], &health["rooms"]), (&Value::from("ok"), &Value::from(0)));
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
    let _anna = server.join("a%20b", "anna").await;
    let _bert = server.join("a%20b", "bert").await;
    let health = server.json("/health").await;
    assert_eq!((&health["rooms"], &health["peers"]), (&Value::from(1), &Value::from(2)));
}

#[tokio::test]
async fn participants_of_a_room_hear_each_other_and_nobody_else_does() {
    let server = server().await;
    let (mut anna, welcome) = server.join("board", "anna").await;
    assert_eq!(welcome["instance"], "gra-meet-1");
    assert_eq!(welcome["room"], "board");
    assert_eq!(welcome["peers"], Value::Array(vec![]));
    let (mut bert, welcome) = server.join("board", "bert").await;
    assert_eq!(welcome["peers"], serde_json::json!(["anna"]));
    let (mut carl, _) = server.join("other", "carl").await;

    anna.send(Message::text("hello")).await.unwrap();
    for socket in [&mut anna, &mut bert] {
        let heard = next(socket).await;
        assert_eq!((&heard["from"], &heard["data"]), (&Value::from("anna"), &Value::from("hello")));
    }
    // Carl's first message is his own: had he heard the other room, that would have come before.
    carl.send(Message::text("alone")).await.unwrap();
    assert_eq!(next(&mut carl).await["data"], "alone");
}

#[tokio::test]
async fn the_announced_address_is_read_at_each_join() {
    let server = server().await;
    assert_eq!(server.join("board", "anna").await.1["announcedIp"], Value::Null);
    server.announce("203.0.113.10\n");
    assert_eq!(server.join("board", "bert").await.1["announcedIp"], "203.0.113.10");
    assert_eq!(server.json("/announced").await["announcedIp"], "203.0.113.10");
    server.announce("nonsense");
    assert_eq!(server.join("board", "carl").await.1["announcedIp"], Value::Null);
}

#[tokio::test]
async fn rooms_are_listed_without_their_names() {
    let server = server().await;
    let _anna = server.join("secret-room", "anna").await;
    let answer = server.get("/rooms", "").await;
    assert!(!answer.contains("secret-room"), "{answer}");
    let listed = server.json("/rooms").await;
    assert_eq!(listed["rooms"].as_object().unwrap().values().next(), Some(&Value::from(1)));
}

#[tokio::test]
async fn a_session_cookie_is_given_once_and_is_secure_behind_https() {
    let server = server().await;
    let plain = server.get("/", "").await;
    assert!(plain.contains("set-cookie: meeting.sid=") && !plain.contains("; Secure"), "{plain}");
    let secure = server.get("/", "X-Forwarded-Proto: https\r\n").await;
    assert!(secure.contains("; Secure"), "{secure}");
    let known = server.get("/", "Cookie: a=b; meeting.sid=0123\r\n").await;
    assert!(!known.contains("set-cookie"), "{known}");
}

#[tokio::test]
async fn what_is_malformed_is_refused_before_the_upgrade() {
    let server = server().await;
    let upgrade =
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n";
    let headers = |extra: &str| format!("Connection: Upgrade\r\n{upgrade}{extra}");
    for path in ["/ws", "/ws?roomId=a", "/ws?roomId=&peerId=b"] {
        let answer = server.get(path, &headers("")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
    }
    let long = format!("/ws?peerId=b&roomId={}", "x".repeat(257));
    assert!(server.get(&long, &headers("")).await.starts_with("HTTP/1.1 400"));
    assert!(server.get("/ws?roomId=a&peerId=b", "").await.starts_with("HTTP/1.1 426"));
}

#[tokio::test]
async fn a_message_that_is_too_long_ends_its_connection_only() {
    let server = server().await;
    let (mut anna, _) = server.join("board", "anna").await;
    let (mut bert, _) = server.join("board", "bert").await;
    anna.send(Message::text("x".repeat(17 * 1024))).await.unwrap();
    let ended = timeout(PATIENCE, async { while let Some(Ok(_)) = anna.next().await {} }).await;
    assert!(ended.is_ok(), "the connection stays open");
    bert.send(Message::text("still here")).await.unwrap();
    assert_eq!(next(&mut bert).await["data"], "still here");
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let server = server().await;
    let config = MeetingConfig {
        listen: server.address,
        name: UpstreamName::new("other").unwrap(),
        announced_file: PathBuf::new(),
        answers_file: None,
    };
    let error = Meeting::bind(config).await.unwrap_err().to_string();
    assert!(error.contains(&server.address.to_string()), "{error}");
}

#[tokio::test]
async fn it_answers_as_broken_servers_do_when_it_is_told_to() {
    let server = server().await;
    let tell = |word: &str| std::fs::write(server.directory.path().join("answers"), word).unwrap();
    server.announce("192.0.2.1");
    tell("errors\n");
    assert!(server.get("/", "").await.starts_with("HTTP/1.1 500 "));
    tell("wrong");
    let wrong = server.json("/health").await;
    assert_eq!(wrong["status"], "error", "{wrong}");
    tell("slow");
    let asked = tokio::time::Instant::now();
    assert_eq!(server.json("/health").await["status"], "ok");
    assert!(asked.elapsed() >= Duration::from_millis(1_500), "{:?}", asked.elapsed());
    for nonsense in ["nonsense", &"well".repeat(100)] {
        tell(nonsense);
        assert_eq!(server.json("/health").await["status"], "ok");
    }
    tell("errors");
    assert_eq!(
        server.json("/announced").await["announcedIp"],
        "192.0.2.1",
        "whoever measures sees what is so"
    );
}

/// What the meeting service does while its Redis hangs: the status, the length, and all but the last byte.
#[tokio::test]
async fn a_truncated_answer_lacks_its_last_byte_and_does_not_end() {
    let server = server().await;
    std::fs::write(server.directory.path().join("answers"), "truncated").unwrap();
    for path in ["/health", "/socket.io/?roomId=r&peerId=p"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(Duration::from_millis(500), stream.read_to_end(&mut answer)).await;
        assert!(read.is_err(), "the connection stays open: {read:?}");
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        assert_eq!(body.len() + 1, length.parse::<usize>().unwrap(), "{answer}");
    }
}
