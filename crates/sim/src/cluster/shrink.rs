//! From a life that breaks a rule to one with as few misfortunes as will do.

use super::run::Run;
use crate::violation::Rule;
use std::collections::BTreeSet;

/// Leaves out misfortunes and wishes, halves first and then ever smaller parts, as long as the same rule is broken
/// (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002). `None` if none is broken to begin
/// with. `tell` hears after each try how many are left.
pub fn shrink(run: &Run, mut tell: impl FnMut(usize)) -> Option<Run> {
    let whole = Run { timeline: false, ..run.clone() }.live();
    let rule = whole.violation?.rule;
    let mut left: Vec<u64> =
        run.only.clone().map_or_else(|| (1..=whole.events).collect(), |only| only.into_iter().collect());
    let mut part = left.len().div_ceil(2).max(1);
    loop {
        let mut smaller = false;
        let mut begin = 0;
        while begin < left.len() {
            let end = (begin + part).min(left.len());
            let without: Vec<_> = [&left[..begin], &left[end..]].concat();
            if breaks(run, &without, rule) {
                left = without;
                smaller = true;
            } else {
                begin = end;
            }
            tell(left.len());
        }
        if part == 1 && !smaller {
            return Some(Run { only: Some(left.into_iter().collect()), ..run.clone() });
        }
        part = (part / 2).max(1);
    }
}

fn breaks(run: &Run, only: &[u64], rule: Rule) -> bool {
    let only = Some(only.iter().copied().collect::<BTreeSet<_>>());
    let report = Run { timeline: false, only, ..run.clone() }.live();
    report.violation.is_some_and(|violation| violation.rule == rule)
}
