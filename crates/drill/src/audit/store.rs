//! Following the session store's own record of accepted writes.

use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{AsyncCommands, RedisError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use twinsite_model::{ClusterName, Token};

/// How often the record is read. What is flushed within this time is not seen.
const READ_EVERY: Duration = Duration::from_millis(50);
const READ_TIMEOUT: Duration = Duration::from_secs(1);
const ENTRIES_PER_READ: usize = 5_000;
/// Writes that are kept for one run.
const WRITES_MAX: usize = 1_000_000;

/// Reads every entry of the record from now on, in order, through restarts and flushes of Redis. The store writes
/// the record itself, in the script that accepts the write, so its order is that of the writes.
#[derive(Debug)]
pub struct StoreFollower {
    writes: Arc<Mutex<Vec<Token>>>,
    task: JoinHandle<()>,
}

impl Drop for StoreFollower {
    fn drop(&mut self) {
        self.close();
    }
}

/// The stream that holds the record.
fn stream_key(cluster: &ClusterName) -> String {
    format!("twinsite:{{{cluster}}}:audit")
}

impl StoreFollower {
    /// Begins at the present end of the record.
    pub async fn start(url: &str, cluster: &ClusterName) -> Result<Self, RedisError> {
        let client = redis::Client::open(url)?;
        let key = stream_key(cluster);
        let mut connection = client.get_multiplexed_async_connection().await?;
        let newest: redis::streams::StreamRangeReply = connection.xrevrange_count(&key, "+", "-", 1).await?;
        let mut last = newest.ids.first().map_or_else(|| "0-0".to_owned(), |entry| entry.id.clone());
        let writes = Arc::new(Mutex::new(Vec::new()));
        let found = Arc::clone(&writes);
        let task = tokio::spawn(async move {
            let mut connection = Some(connection);
            loop {
                match timeout(READ_TIMEOUT, read(&client, &mut connection, &key, &mut last)).await {
                    Ok(Ok(tokens)) => {
                        let mut writes = found.lock().unwrap_or_else(PoisonError::into_inner);
                        let room = WRITES_MAX.saturating_sub(writes.len());
                        writes.extend(tokens.into_iter().take(room));
                    }
                    // Redis is away, on purpose perhaps: connect anew and go on after the last entry read.
                    Ok(Err(_)) | Err(_) => connection = None,
                }
                sleep(READ_EVERY).await;
            }
        });
        Ok(Self { writes, task })
    }

    /// Reads nothing any more.
    pub fn close(&self) {
        self.task.abort();
    }

    /// The tokens of all writes so far, in their order.
    pub fn writes(&self) -> Vec<Token> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn read(
    client: &redis::Client,
    connection: &mut Option<redis::aio::MultiplexedConnection>,
    key: &str,
    last: &mut String,
) -> Result<Vec<Token>, RedisError> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(client.get_multiplexed_async_connection().await?),
    };
    let options = StreamReadOptions::default().count(ENTRIES_PER_READ);
    let reply: Option<StreamReadReply> = connection.xread_options(&[key], &[&*last], &options).await?;
    let entries = reply.into_iter().flat_map(|reply| reply.keys).flat_map(|stream| stream.ids);
    let mut tokens = Vec::new();
    for entry in entries {
        // A write under no readable token is one under the oldest: it must not be passed over.
        let token = entry.get::<String>("token").and_then(|token| token.parse().ok());
        tokens.push(token.unwrap_or_default());
        *last = entry.id;
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, Shape, Store};
    use crate::process::{Block, Launcher};
    use std::time::Instant;
    use twinsite_model::Profile;

    async fn redis_at(url: &str) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(url).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "redis does not answer: {error}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_writes(follower: &StoreFollower, expected: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let writes: Vec<_> = follower.writes().iter().map(Token::to_string).collect();
            if writes == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{writes:?} is not {expected:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn writes_are_followed_through_a_flush() {
        let launcher = Launcher::new("unused");
        if !launcher.has_redis() {
            crate::left_out("writes are followed through a flush of Redis: redis-server is not installed");
            return;
        }
        let block = Block::claim().unwrap();
        let layout = Layout::paired(block.number(), Profile::Lan, &Shape::default(), Store::OwnRedis);
        let folder = tempfile::tempdir().unwrap();
        let mut command = launcher.redis(layout.redis(), folder.path());
        command.stdout(std::process::Stdio::null()).kill_on_drop(true);
        let _redis = command.spawn().unwrap();
        let url = layout.redis_url().unwrap();
        let mut connection = redis_at(&url).await;
        let key = stream_key(&layout.cluster);
        let write = async |connection: &mut redis::aio::MultiplexedConnection, token: &str| {
            let _: String = connection.xadd(&key, "*", &[("op", "pin"), ("token", token)]).await.unwrap();
        };
        write(&mut connection, "1.1").await;
        let follower = StoreFollower::start(&url, &layout.cluster).await.unwrap();
        write(&mut connection, "1.2").await;
        // As the store writes them, so that they sort as text.
        write(&mut connection, "00000000000000000001.00000000000000000003").await;
        until_writes(&follower, &["1.2", "1.3"]).await;
        redis::cmd("FLUSHALL").exec_async(&mut connection).await.unwrap();
        write(&mut connection, "1.1").await;
        write(&mut connection, "unreadable").await;
        until_writes(&follower, &["1.2", "1.3", "1.1", "0.0"]).await;
    }
}
