//! Changes for watchers: a bounded memory of revisions, so that a watch resumes without a miss or a repetition.

use crate::error::{ApiError, Reason};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;
use twinsite_model::{Event, Revision, State, WallTime};

/// Changes that a watcher may be behind the newest before it is closed.
const BEHIND_MAX: usize = 1_024;

/// One revision.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchItem {
    /// The revision.
    pub revision: Revision,
    /// The leader's wall clock.
    pub at: WallTime,
    /// What changed.
    pub events: Vec<Event>,
}

/// The changes of one node's state. Clones share it.
#[derive(Clone)]
pub struct WatchHub {
    inner: Arc<Mutex<Inner>>,
    news: broadcast::Sender<News>,
}

#[derive(Debug, Clone)]
enum News {
    Item(Arc<WatchItem>),
    /// The state jumped: revisions between are not known here.
    Jump,
}

struct Inner {
    state: Arc<State>,
    /// Every change after this revision is in `items`.
    complete_after: Revision,
    items: VecDeque<Arc<WatchItem>>,
    capacity: usize,
}

impl WatchHub {
    /// Begins with a state, and remembers so many changes.
    pub fn new(state: Arc<State>, capacity: usize) -> Self {
        let complete_after = state.revision;
        let inner = Inner { state, complete_after, items: VecDeque::new(), capacity: capacity.max(1) };
        Self { inner: Arc::new(Mutex::new(inner)), news: broadcast::Sender::new(BEHIND_MAX) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A revision was applied. Revisions must come in order; one that is known already is ignored.
    pub fn publish(&self, revision: Revision, at: WallTime, events: Vec<Event>, state: Arc<State>) {
        let mut inner = self.inner();
        if revision <= inner.state.revision {
            return;
        }
        let item = Arc::new(WatchItem { revision, at, events });
        inner.items.push_back(Arc::clone(&item));
        inner.state = state;
        if inner.items.len() > inner.capacity
            && let Some(oldest) = inner.items.pop_front()
        {
            inner.complete_after = oldest.revision;
        }
        drop(self.news.send(News::Item(item))); // nobody may be watching
    }

    /// The state jumped to a later revision: what lies between is not known here.
    pub fn reset(&self, state: Arc<State>) {
        let mut inner = self.inner();
        if state.revision <= inner.state.revision {
            return;
        }
        inner.complete_after = state.revision;
        inner.items.clear();
        inner.state = state;
        drop(self.news.send(News::Jump));
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.inner().state.revision
    }

    /// Watches: from the present state on, which comes along, or every change after a revision. A revision that this
    /// node has not reached yet is waited for.
    pub fn subscribe(&self, from: Option<Revision>) -> Result<(Option<Arc<State>>, Subscription), ApiError> {
        let inner = self.inner();
        let news = self.news.subscribe();
        let Some(after) = from else {
            let state = Arc::clone(&inner.state);
            let subscription = Subscription { backlog: VecDeque::new(), news, after: state.revision };
            return Ok((Some(state), subscription));
        };
        if after < inner.complete_after {
            return Err(compacted(after, inner.complete_after));
        }
        let backlog = inner.items.iter().filter(|item| item.revision > after).cloned().collect();
        Ok((None, Subscription { backlog, news, after }))
    }
}

fn compacted(after: Revision, oldest: Revision) -> ApiError {
    let message = format!(
        "changes after revision {after} are not remembered here (only those after {oldest}); watch from 0"
    );
    ApiError::new(Reason::RevisionCompacted, message)
}

/// Every change after a revision, in order.
pub struct Subscription {
    backlog: VecDeque<Arc<WatchItem>>,
    news: broadcast::Receiver<News>,
    after: Revision,
}

impl Subscription {
    /// The next change. After an error the subscription is over. `None`: the node has ended.
    pub async fn next(&mut self) -> Option<Result<Arc<WatchItem>, ApiError>> {
        loop {
            let item = match self.backlog.pop_front() {
                Some(item) => item,
                None => match self.news.recv().await {
                    Ok(News::Item(item)) => item,
                    Ok(News::Jump) => {
                        return Some(Err(ApiError::new(
                            Reason::RevisionCompacted,
                            "this node skipped revisions; watch from 0, or from the same revision at another node",
                        )));
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        let message =
                            format!("{missed} changes were not read in time; resume from the last one seen");
                        return Some(Err(ApiError::new(Reason::SlowReader, message)));
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            };
            // Published between the subscription and the look at the memory, or before the revision to begin after.
            if item.revision > self.after {
                self.after = item.revision;
                return Some(Ok(item));
            }
        }
    }

    /// The last revision that was given out.
    pub fn after(&self) -> Revision {
        self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn state(revision: u64) -> Arc<State> {
        Arc::new(State { revision: Revision(revision), ..State::default() })
    }

    fn publish(hub: &WatchHub, revision: u64) {
        let events = vec![Event::RoomsExpired { count: revision as u32 }];
        hub.publish(Revision(revision), WallTime(revision), events, state(revision));
    }

    async fn take(subscription: &mut Subscription, count: usize) -> Vec<u64> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let next = tokio::time::timeout(Duration::from_secs(5), subscription.next()).await;
            seen.push(next.unwrap().unwrap().unwrap().revision.0);
        }
        seen
    }

    #[tokio::test]
    async fn resuming_anywhere_misses_and_repeats_nothing() {
        let hub = WatchHub::new(state(10), 100);
        for revision in [11, 12, 15, 16, 20] {
            publish(&hub, revision);
        }
        for after in 10..=20 {
            let (snapshot, mut watching) = hub.subscribe(Some(Revision(after))).unwrap();
            assert!(snapshot.is_none());
            let wanted: Vec<_> = [11, 12, 15, 16, 20].into_iter().filter(|r| *r > after).collect();
            assert_eq!(take(&mut watching, wanted.len()).await, wanted);
            assert_eq!(watching.after(), Revision(20));
        }
    }

    #[tokio::test]
    async fn a_node_that_is_behind_keeps_quiet_until_it_has_passed_the_revision() {
        let hub = WatchHub::new(state(10), 100);
        let (_, mut watching) = hub.subscribe(Some(Revision(12))).unwrap();
        for revision in 11..=14 {
            publish(&hub, revision);
        }
        assert_eq!(take(&mut watching, 2).await, [13, 14]);
    }

    #[tokio::test]
    async fn what_is_forgotten_is_said_to_be() {
        let hub = WatchHub::new(state(0), 3);
        for revision in 1..=10 {
            publish(&hub, revision);
        }
        let refused = hub.subscribe(Some(Revision(6))).err().unwrap();
        assert_eq!(refused.reason, Reason::RevisionCompacted);
        let (_, mut watching) = hub.subscribe(Some(Revision(7))).unwrap();
        assert_eq!(take(&mut watching, 3).await, [8, 9, 10]);
        hub.reset(state(50));
        assert_eq!(watching.next().await.unwrap().unwrap_err().reason, Reason::RevisionCompacted);
        assert!(hub.subscribe(Some(Revision(49))).is_err());
        assert!(hub.subscribe(Some(Revision(50))).is_ok());
        let (snapshot, _) = hub.subscribe(None).unwrap();
        assert_eq!(snapshot.unwrap().revision, Revision(50));
    }

    #[tokio::test]
    async fn a_slow_reader_is_closed_and_can_resume() {
        let hub = WatchHub::new(state(0), 10_000);
        let (_, mut slow) = hub.subscribe(None).unwrap();
        for revision in 1..=BEHIND_MAX as u64 + 10 {
            publish(&hub, revision);
        }
        assert_eq!(slow.next().await.unwrap().unwrap_err().reason, Reason::SlowReader);
        let (_, mut again) = hub.subscribe(Some(slow.after())).unwrap();
        assert_eq!(take(&mut again, 3).await, [1, 2, 3]);
    }

    #[test]
    fn an_old_revision_changes_nothing() {
        let hub = WatchHub::new(state(10), 10);
        publish(&hub, 10);
        publish(&hub, 9);
        hub.reset(state(8));
        assert_eq!(hub.revision(), Revision(10));
    }
}
