//! The ledger on the wire.

use super::names::{step_to_pb, way_to_pb};
use crate::v1;
use std::time::Duration;
use twinsite_model::Ledger;
use twinsite_model::ledger::Spread;

/// The ledger's rows on the wire.
pub fn ledger_to_pb(ledger: &Ledger) -> Vec<v1::LedgerRow> {
    let rows = ledger.rows().map(|(way, row)| v1::LedgerRow {
        way: way_to_pb(way).into(),
        steps: row
            .steps
            .iter()
            .map(|(step, spread)| v1::LedgerStep {
                step: step_to_pb(*step).into(),
                spread: Some(spread_to_pb(*spread)),
            })
            .collect(),
        handover: row.handover.map(spread_to_pb),
        whole: Some(spread_to_pb(row.whole)),
    });
    rows.collect()
}

fn spread_to_pb(spread: Spread) -> v1::Spread {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    v1::Spread {
        count: u32::try_from(spread.count).unwrap_or(u32::MAX),
        median_ms: ms(spread.median),
        p90_ms: ms(spread.p90),
        p99_ms: ms(spread.p99),
        max_ms: ms(spread.max),
    }
}
