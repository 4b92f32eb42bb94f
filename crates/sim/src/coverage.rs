//! What the seeds went through, so that a reader sees that they went through anything.

use std::ops::AddAssign;

/// So many seeds go through everything that is counted; fewer may miss what is rare.
pub const SEEDS_FOR_EVERYTHING: u64 = 10_000;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of what happened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each name says what is counted, and is printed as it is")]
        pub struct Coverage {
            $(pub $name: u64,)*
        }

        impl Coverage {
            /// Every count with its name.
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// What never happened. Over [`SEEDS_FOR_EVERYTHING`] seeds or more, everything must: rules about what
            /// does not come up are not tested, however green they are.
            pub fn missing(&self) -> Vec<&'static str> {
                self.counts().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
            }
        }

        impl AddAssign for Coverage {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    events,
    commands_committed,
    elections,
    leaders_unaware_of_their_successor,
    handed_over,
    rounds_confirmed,
    rounds_failed,
    proposals_not_done,
    proposals_of_unknown_fate,
    grants,
    renewals_refused,
    moves_begun,
    placements,
    failovers,
    automatic_failovers,
    switchovers,
    failbacks,
    aborted,
    retargeted,
    verified,
    fenced_by_release,
    fenced_by_wait,
    released_by_guardian,
    released_by_holder,
    leases_expired,
    crashes,
    host_crashes,
    killed_by_guardian,
    freezes,
    freezes_while_answering,
    last_answers_after_a_freeze,
    suspensions,
    guest_pauses,
    guest_pauses_while_answering,
    partitions,
    one_way_cuts,
    sites_isolated,
    sites_lost,
    restarts_in_good_order,
    states_replayed,
    wall_clock_jumps,
    clock_rates_changed,
    upstreams_failed,
    messages_lost,
    messages_duplicated,
    operator_requests,
    operator_requests_carried_out,
    specifications_applied,
    nodes_retired,
    pauses,
    breaker_open_at_the_end,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_named() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.missing().len(), coverage.counts().len());
        coverage.crashes = 1;
        assert!(!coverage.missing().contains(&"crashes"));
        assert!(coverage.missing().contains(&"elections"));
    }
}
