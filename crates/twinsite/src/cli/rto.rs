//! `rto`: how long moves took, phase by phase, and so how long the next one will take.

use super::arguments::QueryArguments;
use super::connect::connect;
use super::{CliError, Exit, output, words};
use serde_json::{Value, json};
use twinsite_api::v1;

/// `twinsite rto`.
pub async fn run(arguments: &QueryArguments) -> Result<Exit, CliError> {
    let client = connect(&arguments.client)?;
    let rows = client.ledger().await?;
    if arguments.client.json {
        output::json(&Value::Array(rows.iter().map(row_json).collect()))?;
    } else if rows.is_empty() {
        output::line("no address has moved from one owner to another yet; `twinsite drill` rehearses it")?;
    } else {
        output::line(&text(&rows))?;
    }
    Ok(Exit::Done)
}

fn row_json(row: &v1::LedgerRow) -> Value {
    let steps = row.steps.iter().map(|step| {
        let mut value = spread_json(step.spread.as_ref());
        value["step"] = json!(words::step(step.step()));
        value
    });
    json!({
        "way": words::way(row.way()),
        "steps": steps.collect::<Vec<_>>(),
        "handover": spread_json(row.handover.as_ref()),
        "whole": spread_json(row.whole.as_ref()),
    })
}

fn spread_json(spread: Option<&v1::Spread>) -> Value {
    spread.map_or(Value::Null, |spread| {
        json!({
            "count": spread.count,
            "median_ms": spread.median_ms,
            "p90_ms": spread.p90_ms,
            "p99_ms": spread.p99_ms,
            "max_ms": spread.max_ms,
        })
    })
}

/// A table for each way, and what its words mean.
fn text(rows: &[v1::LedgerRow]) -> String {
    let mut table = output::table(&["MOVES", "PHASE", "COUNT", "MEDIAN", "P90", "P99", "LONGEST"]);
    for row in rows {
        let way = words::way(row.way());
        let steps = row.steps.iter().map(|step| (words::step(step.step()), step.spread.as_ref()));
        let sums = [("= handover", row.handover.as_ref()), ("= whole", row.whole.as_ref())];
        for (phase, spread) in steps.chain(sums) {
            let Some(spread) = spread else { continue };
            let ms = |ms: u64| format!("{ms} ms");
            table.add_row([
                way.to_owned(),
                phase.to_owned(),
                spread.count.to_string(),
                ms(spread.median_ms),
                ms(spread.p90_ms),
                ms(spread.p99_ms),
                ms(spread.max_ms),
            ]);
        }
    }
    format!(
        "{table}\n\n\
         handover: from the fence until the new owner holds the address; whole: from the decision to the proof from outside.\n\
         planned: the owner let go; released: its process had ended; silent: its lease was waited out before; attested: by hand."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_its_phases_and_sums() {
        let spread = |ms| Some(v1::Spread { count: 3, median_ms: ms, p90_ms: ms, p99_ms: ms, max_ms: ms });
        let fence = v1::LedgerStep { step: v1::Step::Fence.into(), spread: spread(5) };
        let row = v1::LedgerRow {
            way: v1::MoveWay::Released.into(),
            steps: vec![fence],
            handover: spread(9),
            whole: spread(70),
        };
        let text = text(std::slice::from_ref(&row));
        let lines: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1][..4], ["released", "fence", "3", "5"]);
        assert_eq!(lines[2][..5], ["released", "=", "handover", "3", "9"]);
        let json = row_json(&row);
        assert_eq!((&json["way"], &json["steps"][0]["step"]), (&json!("released"), &json!("fence")));
        assert_eq!(json["whole"]["p99_ms"], 70);
    }
}
