//! What the seeds went through, so that a reader sees that they went through anything.

use std::ops::AddAssign;

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
