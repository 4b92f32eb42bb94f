//! Two things that are looked at all the time: what the instances announce, and how late this process is.

use super::{Client, http};
use crate::layout::Layout;
use crate::measure::AnnouncedSample;
use bytes::Bytes;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::time::{MissedTickBehavior, interval, sleep};

const ANNOUNCED_EVERY: Duration = Duration::from_millis(50);
const ANNOUNCED_PATIENCE: Duration = Duration::from_millis(500);
const LAG_EVERY: Duration = Duration::from_millis(5);

pub(super) fn start(client: &Client, layout: &Layout) {
    let source = layout.client(15_998);
    for instance in layout.instances.clone() {
        let this = client.clone();
        client.spawn(async move {
            let mut ticks = interval(ANNOUNCED_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let at = Instant::now();
                let answer = http::ask_once(source, instance.address, "/announced", ANNOUNCED_PATIENCE).await;
                // An instance that is down announces nothing, rightly.
                if let Ok(answer) = answer {
                    let address = announced(&answer.body);
                    let sample = AnnouncedSample { at, instance: instance.name.clone(), address };
                    this.recorder.announced(sample);
                }
            }
        });
    }
    let recorder = client.recorder.clone();
    client.spawn(async move {
        loop {
            let start = Instant::now();
            sleep(LAG_EVERY).await;
            recorder.lag(start.elapsed().saturating_sub(LAG_EVERY));
        }
    });
}

fn announced(body: &Bytes) -> Option<IpAddr> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Announced {
        announced_ip: Option<IpAddr>,
    }
    serde_json::from_slice::<Announced>(body).ok()?.announced_ip
}
