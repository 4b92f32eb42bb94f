//! Rise and fall: how many probes in a row change an opinion.

/// Judges one upstream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Judge {
    healthy: Option<bool>,
    streak: u32,
    streak_good: bool,
}

impl Judge {
    /// Takes the outcome of a probe; tells whether the opinion has changed. The streak begins anew with every outcome of
    /// the other kind, so that interleaved ones never add up.
    pub(crate) fn take(&mut self, good: bool, rise: u32, fall: u32) -> bool {
        if self.streak_good == good {
            self.streak = self.streak.saturating_add(1);
        } else {
            (self.streak_good, self.streak) = (good, 1);
        }
        let needed = if good { rise } else { fall };
        let changes = self.healthy != Some(good) && self.streak >= needed;
        if changes {
            self.healthy = Some(good);
        }
        changes
    }

    /// The opinion; none before the first one is reached.
    pub(crate) fn healthy(&self) -> Option<bool> {
        self.healthy
    }

    /// Whether an opinion is being formed or doubted: then probes follow each other faster.
    pub(crate) fn in_doubt(&self) -> bool {
        self.healthy != Some(self.streak_good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opinion_needs_a_row_and_interleaved_outcomes_never_add_up() {
        let mut judge = Judge::default();
        assert!(judge.in_doubt());
        assert!(!judge.take(true, 2, 3));
        assert_eq!(judge.healthy(), None);
        assert!(judge.take(true, 2, 3));
        assert_eq!(judge.healthy(), Some(true));
        for _ in 0..10 {
            assert!(!judge.take(false, 2, 3));
            assert!(!judge.take(false, 2, 3));
            assert!(judge.in_doubt());
            assert!(!judge.take(true, 2, 3));
            assert!(!judge.in_doubt());
        }
        assert!(!judge.take(false, 2, 3));
        assert!(!judge.take(false, 2, 3));
        assert!(judge.take(false, 2, 3));
        assert_eq!(judge.healthy(), Some(false));
        assert!(!judge.take(false, 2, 3), "told once");
    }

    #[test]
    fn the_first_opinion_can_be_a_bad_one() {
        let mut judge = Judge::default();
        assert!(!judge.take(false, 1, 2));
        assert!(judge.take(false, 1, 2));
        assert_eq!(judge.healthy(), Some(false));
    }
}
